"""Maps and masks against boxes that a reader drew: the pointing game, and overlap with the boxes' union.

A box is (x, y, w, h) in pixels of the map; x and y are of its upper left corner, measured from the upper
left edge of the first pixel, so that pixel (row, column) covers row..row+1 and column..column+1.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ShapeError
from fewmask.metrics.maps import Values
from fewmask.metrics.overlap import overlap

Boxes = NDArray[np.floating]
"""(K, 4): x, y, w, h."""

TOLERANCE = 15.0
"""Pixels that a maximum may lie beside a box and still hit it (Zhang et al. 2016)."""


def pointing(maps: NDArray[np.floating], boxes: Sequence[Boxes], *, tolerance: float = TOLERANCE) -> Values:
    """Whether the maximum of each map lies in a box or at most `tolerance` pixels from one.

    The pointing game of Zhang et al. 2016, "Top-down neural attention by excitation backprop", section 4.1,
    which has 15 pixels of tolerance in pictures of about 500; scale it with the pictures, and tell 0 too.

    Args:
        maps: (N, H, W), smoothed. Of several equal maxima the hit is their share that hits: a constant map
            scores as a blind guess does.
        boxes: of each image (K, 4); none: the image has no say.
        tolerance: in pixels of the map, 0 or more, measured from the pixel's centre.

    Returns:
        (N,), 0..1; NaN for images without boxes.

    Raises:
        ShapeError: other numbers of maps and boxes, or boxes that are not (K, 4).
    """
    _check(maps, boxes)
    hits = np.full(len(maps), np.nan)
    for row, (one, those) in enumerate(zip(maps, boxes, strict=True)):
        if len(those):
            y, x = np.nonzero(one == one.max())
            hits[row] = float(np.mean(_distance(x + 0.5, y + 0.5, those) <= tolerance))
    return hits


def box_masks(boxes: Sequence[Boxes], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels (N, H, W) whose centre lies in any of the image's boxes."""
    y, x = (axis.ravel() + 0.5 for axis in np.indices(shape))
    masks = np.zeros((len(boxes), *shape), dtype=np.bool_)
    for mask, those in zip(masks, boxes, strict=True):
        if len(those):
            mask[:] = (_distance(x, y, those) == 0).reshape(shape)
    return masks


def box_iou(masks: NDArray[np.generic], boxes: Sequence[Boxes]) -> Values:
    """Intersection over union of each mask (N, H, W) with the union of its image's boxes, (N,), 0..1.

    NaN for images without boxes. A perfect outline of a round lesion reaches pi/4 only.

    Raises:
        ShapeError: other numbers of masks and boxes, or boxes that are not (K, 4).
    """
    _check(masks, boxes)
    inside = box_masks(boxes, (masks.shape[1], masks.shape[2]))
    return np.array(
        [
            overlap(mask != 0, box).iou if len(those) else np.nan
            for mask, box, those in zip(masks, inside, boxes, strict=True)
        ]
    )


def _distance(x: NDArray[np.floating], y: NDArray[np.floating], boxes: Boxes) -> Values:
    """Distance (P,) of points to the nearest of the boxes; 0 inside."""
    left, top, width, height = (boxes[:, number, None].astype(np.float64) for number in range(4))
    beside = np.maximum(np.maximum(left - x, x - left - width), 0.0)
    above = np.maximum(np.maximum(top - y, y - top - height), 0.0)
    return np.asarray(np.hypot(beside, above).min(axis=0))


def _check(maps: NDArray[np.generic], boxes: Sequence[Boxes]) -> None:
    wrong = [those.shape for those in boxes if those.ndim != 2 or those.shape[1] != 4]
    if maps.ndim != 3 or len(maps) != len(boxes) or wrong:
        raise ShapeError(
            "maps and boxes do not fit",
            found=f"maps {maps.shape}, boxes of {len(boxes)} images"
            + (f", one of shape {wrong[0]}" if wrong else ""),
            expected="maps (N, H, W) and N arrays (K, 4)",
        )
