"""Outlines of several readers on one slice, each in his colour, so that one sees where they disagree."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ShapeError
from fewmask.data.overlay import Picture, colour_of, enlarge, grey_picture

Window = tuple[slice, slice]


def panel(mask: NDArray[np.bool_], margin: int) -> Window:
    """The square part of a slice (Y, X) that shows a mask with a margin in pixels, cut at the slice's edge.

    The whole slice when the mask is empty.
    """
    places = np.argwhere(mask)
    if not places.size:
        return slice(None), slice(None)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    side = int((high - low).max()) + 2 * margin
    parts = []
    for start, stop, size in zip(low, high, mask.shape, strict=True):
        first = max(0, min((int(start) + int(stop) - side) // 2, size - side))
        parts.append(slice(first, min(size, first + side)))
    return parts[0], parts[1]


def drawn_by(
    image: NDArray[np.generic],
    masks: Mapping[str, NDArray[np.bool_]],
    colours: Sequence[str],
    window: Window,
    *,
    size: int,
) -> Picture:
    """A part of a slice, enlarged, with the outline of every mask; later ones are drawn over earlier ones.

    Args:
        image: (Y, X) of any real type.
        masks: boolean (Y, X) by name.
        colours: names in the order of their colours; the n-th has that of label n (see `with_legend`).
        window: which part is shown, e.g. by `panel`.
        size: longer side of the picture in pixels.

    Returns:
        uint8 (Y, X, 3).

    Raises:
        ShapeError: image and masks differ in shape.
    """
    if image.ndim != 2 or any(mask.shape != image.shape for mask in masks.values()):
        raise ShapeError(
            "outlines are drawn on a slice (Y, X) of the same shape",
            found=f"image {image.shape}, masks {sorted({mask.shape for mask in masks.values()})}",
        )
    part = grey_picture(image)[window]
    zoom = size / max(part.shape[:2])
    sizes = (max(1, round(part.shape[0] * zoom)), max(1, round(part.shape[1] * zoom)))
    picture = np.array(enlarge(part, sizes, smooth=True))
    for name, mask in masks.items():
        marks = enlarge(mask[window].astype(np.uint8), sizes, smooth=False).astype(bool)
        picture[_border(marks)] = colour_of(1 + colours.index(name))
    return picture


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The inner border of a mask (Y, X); where it meets the picture's edge there is none."""
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~inner)
