"""PNG, JPEG and TIFF pictures of 8, 16 or 32 bit as volumes with Z = 1; TIFF stacks as volumes.

A picture lies nowhere in the patient: its affine is the identity, or its pixel size in mm where the file
tells one. Resolutions that programs write by habit (72, 96, 300 dpi ...) are no pixel sizes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fewmask.core.errors import DataError
from fewmask.core.files import write_atomic
from fewmask.core.volume import Grid, Volume
from fewmask.data.filetype import damaged, require_file
from fewmask.data.itkfiles import pick_channel, quiet_itk

HABITUAL_DPI = (72, 90, 96, 100, 120, 144, 150, 180, 200, 240, 300, 350, 400, 600, 1200)
"""Resolutions that programs write without knowing; they are not taken for a pixel size."""

_KINDS = {".png": "a PNG picture", ".jpg": "a JPEG picture", ".jpeg": "a JPEG picture"}
_FAULTS = (OSError, ValueError, SyntaxError, UnidentifiedImageError, RuntimeError, KeyError, IndexError)
_MM_PER_UNIT = {
    "mm": 1.0,
    "millimeter": 1.0,
    "cm": 10.0,
    "um": 1e-3,
    "µm": 1e-3,
    "\\u00B5m": 1e-3,
    "micron": 1e-3,
}


def read_picture(path: Path, *, channel: int | None = None, indices: bool = False) -> Volume:
    """A picture as a volume (1, Y, X), or a TIFF stack as (Z, Y, X), in its stored type.

    `indices`: a picture with a palette gives its palette indices (masks), not its colours.

    Raises:
        DataError: damaged or misnamed; colours that differ and no `channel`; a TIFF of unlike pages.
    """
    require_file(path)
    if path.suffix.lower() in (".tif", ".tiff"):
        return _read_tiff(path, channel)
    try:
        with Image.open(path, formats=["PNG", "JPEG"]) as picture:
            affine, notes = _affine_from_dpi(picture.info.get("dpi"))
            voxels = _read_deep_png(path) if _is_deep_colour(path) else _pixels(picture, indices)
            alpha = picture.mode in ("RGBA", "LA")
            if picture.getexif().get(0x0112, 1) != 1:
                notes = (
                    *notes,
                    "the file asks viewers to turn it (EXIF); its stored pixels were read as they are",
                )
    except _FAULTS as error:
        raise damaged(path, _KINDS[path.suffix.lower()], error) from error
    if alpha:
        clear = voxels[..., -1].min() < voxels[..., -1].max()
        notes = (*notes, "its transparency was left out") if clear else notes
        voxels = voxels[..., :-1]
    if voxels.ndim == 3:
        voxels = pick_channel(voxels, channel, str(path), _colour_names(voxels.shape[-1]))
    return Volume(voxels[np.newaxis], affine, notes)


def read_picture_grid(path: Path) -> Grid:
    """The grid of a picture, from its header alone."""
    require_file(path)
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            with tifffile.TiffFile(path) as tiff:
                shape, _, affine, _ = _layout(tiff, path)
                return Grid(shape, affine)
        with Image.open(path, formats=["PNG", "JPEG"]) as picture:
            affine, _ = _affine_from_dpi(picture.info.get("dpi"))
            return Grid((1, picture.height, picture.width), affine)
    except _FAULTS as error:
        raise damaged(path, _KINDS.get(path.suffix.lower(), "a TIFF picture"), error) from error


def write_png(path: Path, volume: Volume) -> Path:
    """Write a volume with Z = 1 as a grey PNG of 8 or 16 bit, with its pixel size where it is not 1 mm.

    Raises:
        DataError: more than one slice, or voxels that no unsigned 16 bit can hold.
    """
    if volume.shape[0] != 1:
        raise DataError(
            "a PNG holds one slice",
            where=str(path),
            found=f"{volume.shape[0]} slices",
            mend="Write .nii.gz or .nrrd, or one PNG per slice.",
        )
    pixels = _unsigned(volume.voxels[0], str(path))
    _, dy, dx = volume.spacing_mm
    known = (dy, dx) != (1.0, 1.0)
    options: dict[str, Any] = {"dpi": (25.4 / dx, 25.4 / dy)} if known else {}
    picture = Image.fromarray(pixels)
    return write_atomic(path, lambda temporary: picture.save(temporary, format="PNG", **options))


def _unsigned(pixels: NDArray[Any], where: str) -> NDArray[Any]:
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (0.0, 0.0)
    if pixels.dtype.kind == "f" and not (np.isfinite(pixels).all() and (pixels == np.round(pixels)).all()):
        low = float("nan")
    if not (low >= 0 and high <= 65535):
        raise DataError(
            "a PNG holds whole numbers from 0 to 65535",
            where=where,
            found=f"{pixels.dtype} from {pixels.min():g} to {pixels.max():g}",
            mend="Window the image to 8 bit first, or write .nii.gz or .nrrd.",
        )
    wide = pixels.dtype.itemsize > 1 and (high > 255 or pixels.dtype == np.uint16)
    return np.ascontiguousarray(pixels.astype(np.uint16 if wide else np.uint8))


def _affine_from_dpi(dpi: Any) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    if not dpi or min(dpi) <= 0 or tuple(dpi) == (1, 1):
        return np.eye(4), ()
    x, y = (float(value) for value in dpi)
    if any(abs(x - habit) < 0.6 for habit in HABITUAL_DPI):
        return np.eye(4), (f"its {x:.0f} dpi is a habit of programs, no pixel size: left out",)
    return np.diag([25.4 / x, 25.4 / y, 1.0, 1.0]), ()


def _is_deep_colour(path: Path) -> bool:
    """Whether this is a PNG of 16 bit with more than one channel, which Pillow would cut to 8 bit."""
    with path.open("rb") as stream:
        head = stream.read(26)
    return head.startswith(b"\x89PNG") and head[24] == 16 and head[25] in (2, 4, 6)


def _read_deep_png(path: Path) -> NDArray[Any]:
    with quiet_itk():
        voxels: NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="PNGImageIO"))
    return voxels


def _pixels(picture: Image.Image, indices: bool) -> NDArray[Any]:
    if picture.mode == "P" and not indices:
        return np.asarray(picture.convert("RGB"))
    if picture.mode in ("CMYK", "YCbCr"):
        return np.asarray(picture.convert("RGB"))
    pixels = np.asarray(picture)
    if pixels.dtype == np.int32 and pixels.size and pixels.min() >= 0 and pixels.max() <= 65535:
        return pixels.astype(np.uint16)
    return pixels.astype(np.uint8) if pixels.dtype == bool else pixels


def _colour_names(count: int) -> str:
    return " (0 red, 1 green, 2 blue)" if count in (3, 4) else ""


def _read_tiff(path: Path, channel: int | None) -> Volume:
    try:
        with tifffile.TiffFile(path) as tiff:
            shape, samples, affine, notes = _layout(tiff, path)
            try:
                voxels = tiff.series[0].asarray()
            except ValueError as error:
                if "imagecodecs" not in str(error):
                    raise
                # A compression that tifffile leaves to an optional package; libtiff knows it.
                with quiet_itk():
                    voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="TIFFImageIO"))
    except DataError:
        raise
    except _FAULTS as error:
        raise damaged(path, "a TIFF picture", error) from error
    voxels = voxels.reshape(*shape, samples) if samples > 1 else voxels.reshape(shape)
    if samples > 1:
        voxels = pick_channel(voxels, channel, str(path), _colour_names(samples))
    return Volume(voxels.astype(np.uint8) if voxels.dtype == bool else voxels, affine, notes)


def _layout(tiff: Any, path: Path) -> tuple[tuple[int, int, int], int, NDArray[np.float64], tuple[str, ...]]:
    """Shape (Z, Y, X), samples per pixel, affine and notes of a TIFF file, without its pixels."""
    series = tiff.series[0]
    axes, sizes = str(series.axes), tuple(int(n) for n in series.shape)
    extent = {axis: size for axis, size in zip(axes, sizes, strict=True) if size > 1 or axis in "YX"}
    samples = extent.pop("S", 1)
    stack = [axis for axis in extent if axis not in "YX"]
    last = axes.replace("S", "").endswith("YX") and (samples == 1 or axes.endswith("S"))
    if len(tiff.series) > 1 or len(stack) > 1 or not last or stack == ["C"] or stack == ["T"]:
        raise DataError(
            "holds more than one volume",
            where=str(path),
            found=f"{len(tiff.series)} series of pages; the first has axes {axes} of sizes {sizes}",
            expected="one picture, or pages of one size that are the slices of one volume",
            mend="Save one channel, time point or resolution per file (e.g. Fiji: Image > Stacks > Tools).",
        )
    slices = extent[stack[0]] if stack else 1
    affine, notes = _tiff_affine(tiff)
    if slices > 1:
        notes = (*notes, f"{slices} pages were taken as slices, {affine[2, 2]:g} mm apart")
    return (slices, extent["Y"], extent["X"]), samples, affine, notes


def _tiff_affine(tiff: Any) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Pixel size in mm from ImageJ's unit or from the resolution tags."""
    tags = tiff.pages[0].tags
    ratios = [tags[name].value if name in tags else (0, 1) for name in ("XResolution", "YResolution")]
    x, y = (top / bottom if bottom else 0.0 for top, bottom in ratios)
    imagej = tiff.imagej_metadata or {}
    unit = _MM_PER_UNIT.get(str(imagej.get("unit", "")).strip())
    if x <= 0 or y <= 0:
        return np.eye(4), ()
    if unit is not None:
        return np.diag([unit / x, unit / y, unit * float(imagej.get("spacing", 1.0 / unit)), 1.0]), ()
    per_inch = {2: 1.0, 3: 2.54}.get(int(tags["ResolutionUnit"].value) if "ResolutionUnit" in tags else 1)
    return _affine_from_dpi((x * per_inch, y * per_inch)) if per_inch else (np.eye(4), ())
