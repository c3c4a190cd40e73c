"""Masks drawn on grey images: pure NumPy and Pillow, for checks, reports and web pages.

Pictures are uint8 (Y, X, 3). Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fewmask.core.errors import ShapeError
from fewmask.core.files import write_atomic
from fewmask.core.volume import IGNORE

Picture = NDArray[np.uint8]
"""uint8 (Y, X, 3)."""

COLOURS: tuple[tuple[int, int, int], ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 178, 125),  # bluish green
    (240, 228, 66),  # yellow
    (224, 133, 180),  # reddish purple
    (230, 90, 20),  # vermilion
    (40, 120, 210),  # blue
)
"""Colour of label 1, 2, ...; after the seventh they begin again. Two are lightened to show on black."""

UNJUDGED = (150, 150, 150)
PAPER = (18, 18, 18)
INK = (235, 235, 235)
_GAP = 6


def colour_of(label: int) -> tuple[int, int, int]:
    """RGB 0..255 of a label value from 1 on; grey for unjudged voxels."""
    return UNJUDGED if label == IGNORE else COLOURS[(label - 1) % len(COLOURS)]


def grey_picture(image: NDArray[np.generic], *, window: tuple[float, float] | None = None) -> Picture:
    """An image (Y, X) of any real type as a grey picture (Y, X, 3).

    `window` is (lowest, highest) in the image's units; by default its 1st and 99th percentile. Voxels that
    are no numbers become black.
    """
    if image.ndim != 2:
        raise ShapeError("a picture is drawn of (Y, X)", found=f"shape {image.shape}")
    values = np.asarray(image, dtype=np.float32)
    finite = np.isfinite(values)
    if window is None:
        inside = values[finite]
        low, high = np.percentile(inside, (1, 99)) if inside.size else (0.0, 1.0)
        if low >= high and inside.size:
            low, high = float(inside.min()), float(inside.max())
    else:
        low, high = window
    scaled = (np.where(finite, values, low) - low) / max(float(high) - float(low), 1e-12)
    grey = np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def enlarge(array: Picture, size: tuple[int, int], *, smooth: bool) -> Picture:
    """A picture (Y, X[, 3]) uint8 or labels (Y, X) uint8 resized to `size` (Y, X); labels never `smooth`."""
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(array).resize((size[1], size[0]), how), dtype=np.uint8)


def overlay(
    image: NDArray[np.generic],
    labels: NDArray[np.generic],
    *,
    window: tuple[float, float] | None = None,
    outline: bool = True,
    fill: float = 0.22,
    size: tuple[int, int] | None = None,
) -> Picture:
    """Labels (Y, X) drawn on an image (Y, X): light fill, and an outline on the inner border of each label.

    Args:
        image: (Y, X) of any real type.
        labels: (Y, X) unsigned; 0 is left free, 255 (unjudged) is shaded grey without outline.
        window: (lowest, highest) value shown; default: 1st and 99th percentile.
        outline: draw outlines.
        fill: how much of the colour covers the inside, 0..1.
        size: (Y, X) of the picture; default: as the image. Enlarged before drawing, so outlines stay thin.

    Returns:
        uint8 (Y, X, 3).

    Raises:
        ShapeError: image and labels differ in shape.
    """
    if image.shape != labels.shape:
        raise ShapeError(
            "image and labels must have one shape (Y, X)", found=f"{image.shape} and {labels.shape}"
        )
    picture = grey_picture(image, window=window)
    marks = labels.astype(np.uint8)
    if size is not None and size != labels.shape:
        picture, marks = enlarge(picture, size, smooth=True), enlarge(marks, size, smooth=False)
    drawn = picture.astype(np.float32)
    edge = _inner_border(marks)
    for label in np.unique(marks[marks > 0]):
        colour = np.array(colour_of(int(label)), dtype=np.float32)
        inside = marks == label
        drawn[inside] += (colour - drawn[inside]) * fill
        if outline and label != IGNORE:
            drawn[inside & edge] = colour
    return np.rint(drawn).astype(np.uint8)


def _inner_border(labels: Picture) -> NDArray[np.bool_]:
    """Pixels (Y, X) of a label that touch another label or the background at an edge, not the frame."""
    padded = np.pad(labels, 1, mode="edge")
    border: NDArray[np.bool_] = np.zeros(labels.shape, dtype=bool)
    for moved in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        border |= moved != labels
    inner: NDArray[np.bool_] = border & (labels > 0)
    return inner


def beside(
    image: NDArray[np.generic],
    truth: NDArray[np.generic],
    prediction: NDArray[np.generic],
    *,
    window: tuple[float, float] | None = None,
    size: tuple[int, int] | None = None,
    titles: Sequence[str] = ("image", "reader", "prediction"),
) -> Picture:
    """Image, truth and prediction (Y, X) side by side, under their titles; uint8 (Y, X, 3)."""
    nothing = np.zeros_like(truth)
    pictures = [overlay(image, one, window=window, size=size) for one in (nothing, truth, prediction)]
    return montage(pictures, columns=3, titles=titles)


def montage(
    pictures: Sequence[Picture], *, columns: int, titles: Sequence[str] | None = None, scale: float = 1.0
) -> Picture:
    """Pictures (Y, X, 3) in a grid with titles above; smaller ones stand at the left of their cell.

    Args:
        pictures: at least one, uint8 (Y, X, 3).
        columns: how many stand in a row.
        titles: one line per picture; too long ones are cut in the middle.
        scale: size of the letters, 1 = 13 pixels.
    """
    if not pictures or (titles is not None and len(titles) != len(pictures)):
        raise ShapeError("a montage needs pictures, and a title for each or for none")
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    head = round(13 * scale) + 6 if titles else 0
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, rows * (height + head + _GAP) + _GAP), PAPER)
    pen, font = ImageDraw.Draw(sheet), _font(scale)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        x, y = _GAP + column * (width + _GAP), _GAP + row * (height + head + _GAP)
        if titles:
            pen.text((x, y), _cut(titles[number], width, font), fill=INK, font=font)
        place = (x, y + head)
        sheet.paste(Image.fromarray(picture), place)
    return np.asarray(sheet)


def contact_sheet(images: NDArray[np.floating], *, columns: int = 8, zoom: int = 1) -> Picture:
    """Prepared slices (N, C, H, W) in [-1, 1] side by side, black where the last row ends early.

    Three channels are shown as red, green and blue, otherwise the first as grey. Every pixel is drawn as
    `zoom` x `zoom`.
    """
    if images.ndim != 4 or len(images) == 0:
        raise ShapeError("a sheet is drawn of slices (N, C, H, W)", found=f"shape {images.shape}")
    shown = images if images.shape[1] == 3 else np.repeat(images[:, :1], 3, axis=1)
    pixels = np.rint((np.nan_to_num(shown).clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    count, _, height, width = pixels.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, 3, height, width), dtype=np.uint8)
    sheet[:count] = pixels
    grid = sheet.reshape(rows, columns, 3, height, width).transpose(0, 3, 1, 4, 2)
    drawn = grid.reshape(rows * height, columns * width, 3)
    return np.ascontiguousarray(drawn.repeat(zoom, axis=0).repeat(zoom, axis=1))


def png_bytes(picture: Picture) -> bytes:
    """The bytes of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return stream.getvalue()


def with_legend(picture: Picture, classes: Mapping[str, int], *, scale: float = 1.0) -> Picture:
    """`picture` with a strip below that names the colours of `classes`; lines wrap where it is narrow."""
    font, line = _font(scale), round(18 * scale)
    spots: list[tuple[int, int, str, int]] = []
    x, y = _GAP, 0
    for name, label in classes.items():
        length = line + round(font.getlength(name)) + 2 * _GAP
        if x + length > picture.shape[1] and x > _GAP:
            x, y = _GAP, y + line
        spots.append((x, y, name, label))
        x += length
    strip = Image.new("RGB", (picture.shape[1], y + line + _GAP), PAPER)
    pen = ImageDraw.Draw(strip)
    for left, top, name, label in spots:
        pen.rectangle((left, top + 3, left + line - 8, top + line - 5), fill=colour_of(label))
        pen.text((left + line - 2, top), name, fill=INK, font=font)
    return np.concatenate([picture, np.asarray(strip)], axis=0)


def _font(scale: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=13 * scale)


def _cut(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """`text` shortened in the middle until it fits into `width` pixels."""
    shown, keep = text, len(text)
    while keep > 4 and font.getlength(shown) > width:
        keep -= 1
        shown = f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}"
    return shown


def save_png(path: Path, picture: Picture) -> Path:
    """Write a picture (Y, X, 3) uint8 as PNG, atomically; a full disk or a missing right is a `RunError`."""
    return write_atomic(path, lambda temporary: Image.fromarray(picture).save(temporary, format="PNG"))
