"""MHD/RAW, MHA and NRRD through SimpleITK, and 3D Slicer's .seg.nrrd."""

import errno
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from fewmask.core.errors import DataError
from fewmask.core.files import write_atomic, write_text
from fewmask.core.volume import Grid, Mask, Volume
from fewmask.data.filetype import damaged, require_file, suffix_of
from fewmask.data.geometry import from_itk, to_itk, upright

_KINDS = {".mhd": "a MetaImage header (MHD or MHA)", ".mha": "a MetaImage header (MHD or MHA)"}
_META_TYPES = {
    "int8": "MET_CHAR",
    "uint8": "MET_UCHAR",
    "int16": "MET_SHORT",
    "uint16": "MET_USHORT",
    "int32": "MET_INT",
    "uint32": "MET_UINT",
    "float32": "MET_FLOAT",
    "float64": "MET_DOUBLE",
}
# Distinct colours (red, green, blue in 0..1) for the segments that 3D Slicer shows, by label value.
_COLOURS = (
    (0.50, 0.68, 0.50),
    (0.95, 0.84, 0.57),
    (0.69, 0.48, 0.40),
    (0.44, 0.72, 0.82),
    (0.85, 0.40, 0.31),
)


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep ITK's own warnings off the terminal: what matters is said in notes and errors."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def read_itk(path: Path, *, channel: int | None = None) -> Volume:
    """The volume in an MHD, MHA or NRRD file, voxels in their stored type.

    Raises:
        DataError: damaged or misnamed; RAW file missing; 4-D; several channels and no `channel`; sheared.
    """
    reader = _header(path)
    grid, notes = _grid(reader, path)
    try:
        with quiet_itk():
            voxels = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise damaged(path, _kind(path), _last_line(error)) from error
    if reader.GetNumberOfComponents() > 1:
        voxels = pick_channel(voxels, channel, str(path))
    return Volume(voxels.reshape(grid.shape), grid.affine, notes)


def read_itk_grid(path: Path) -> Grid:
    """The grid of an MHD, MHA or NRRD file, from its header alone."""
    return _grid(_header(path), path)[0]


def write_itk(path: Path, volume: Volume, *, classes: Mapping[str, int] | None = None) -> Path:
    """Write MHA, MHD (with its RAW beside it), NRRD or .seg.nrrd, by the suffix of `path`.

    `classes` names the label values of a mask in a .seg.nrrd; unnamed values are called "label N".
    """
    grid = upright(volume.grid, str(path))
    if suffix_of(path) == ".mhd":
        return _write_mhd(path, volume.voxels, grid.affine)
    voxels = volume.voxels.astype(np.uint8) if volume.voxels.dtype.kind == "b" else volume.voxels
    image = sitk.GetImageFromArray(np.asarray(voxels))
    origin, spacing, direction = to_itk(grid.affine)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    if suffix_of(path) == ".seg.nrrd":
        for key, value in _segments(volume, classes or {}).items():
            image.SetMetaData(key, value)
    return write_atomic(path, lambda temporary: _save(image, temporary))


def pick_channel(voxels: NDArray[Any], channel: int | None, where: str, names: str = "") -> NDArray[Any]:
    """One channel of `voxels` (..., channels); if all channels are equal, that one.

    Raises:
        DataError: the channels differ and none was chosen, or the chosen one does not exist.
    """
    count = voxels.shape[-1]
    if channel is not None and not 0 <= channel < count:
        raise DataError(f"has no channel {channel}", where=where, expected=f"a channel from 0 to {count - 1}")
    if channel is None and not all(np.array_equal(voxels[..., 0], voxels[..., i]) for i in range(1, count)):
        ranges = "; ".join(f"{i}: {voxels[..., i].min()} to {voxels[..., i].max()}" for i in range(count))
        raise DataError(
            f"has {count} channels{names} that differ, one number per voxel was expected",
            where=where,
            found=f"channels with values {ranges}",
            mend="Choose one with channel=0 (or 1, ...), or save the picture in grey.",
        )
    return np.ascontiguousarray(voxels[..., channel or 0])


def _kind(path: Path) -> str:
    return _KINDS.get(path.suffix.lower(), "a NRRD volume")


def _header(path: Path) -> Any:
    require_file(path)
    if path.suffix.lower() in _KINDS:
        _check_meta(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("MetaImageIO" if path.suffix.lower() in _KINDS else "NrrdImageIO")
    try:
        with quiet_itk():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise damaged(path, _kind(path), _last_line(error)) from error
    if reader.GetDimension() > 3 and any(n > 1 for n in reader.GetSize()[3:]):
        raise DataError(
            f"has {reader.GetDimension()} dimensions: several volumes in one file",
            where=str(path),
            found=f"size (x, y, z, ...) {tuple(reader.GetSize())}",
            expected="one volume (x, y, z)",
            mend="Split it into one file per time point or channel, and name each as a modality.",
        )
    return reader


def _grid(reader: Any, path: Path) -> tuple[Grid, tuple[str, ...]]:
    n = reader.GetDimension()
    x, y, z = (*reader.GetSize(), 1)[:3]
    keep = min(n, 3)
    direction = np.reshape(reader.GetDirection(), (n, n))[:keep, :keep]
    affine = from_itk(reader.GetOrigin()[:keep], reader.GetSpacing()[:keep], tuple(direction.ravel()))
    made = upright(Grid((int(z), int(y), int(x)), affine), str(path))
    return Grid((int(z), int(y), int(x)), made.affine), made.notes


def _check_meta(path: Path) -> None:
    """A MetaImage header tells where its voxels are and how many bytes they take; both must hold."""
    with path.open("rb") as stream:
        head = stream.read(65536)
    text, found, rest = head.partition(b"ElementDataFile")
    lines = text.decode("latin-1").splitlines()
    fields = dict([part.strip() for part in line.split("=", 1)] for line in lines if "=" in line)
    first_line = rest.partition(b"\n")[0]
    name = first_line.decode("latin-1").strip(" =\t\r")
    if not found or name == "LIST" or "%" in name:
        return
    local = name.upper() == "LOCAL"
    holder = path if local else path.parent / name
    if not holder.is_file():
        raise DataError(
            "the file with its voxels is missing",
            where=str(path),
            found=f"no {name} in {path.parent}",
            expected=f"{name}, named by ElementDataFile in the header",
            mend="Copy the .raw (or .zraw) file beside the .mhd; if it was renamed, correct ElementDataFile.",
        )
    there = holder.stat().st_size - (len(text) + len(found) + len(first_line) + 1 if local else 0)
    needed = _meta_bytes(fields)
    if there < needed:
        raise DataError(
            "is cut short: voxels are missing at its end",
            where=str(holder),
            found=f"{there} bytes of voxels",
            expected=f"{needed} bytes, from the header{'' if local else ' ' + path.name}",
            mend="Copy or export it again; the transfer was probably interrupted.",
        )


def _meta_bytes(fields: Mapping[str, str]) -> int:
    """How many bytes of voxels a MetaImage header announces; 0 if it does not say."""
    if fields.get("CompressedData", "False") == "True":
        size = fields.get("CompressedDataSize", "0")
        return int(size) if size.isdigit() else 0
    sizes = {word: np.dtype(name).itemsize for name, word in _META_TYPES.items()}
    counts = fields.get("DimSize", "0").split()
    if not all(count.isdigit() for count in counts):
        return 0
    channels = fields.get("ElementNumberOfChannels", "1")
    return (
        int(np.prod([int(n) for n in counts])) * sizes.get(fields.get("ElementType", ""), 0) * int(channels)
    )


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _save(image: Any, path: Path) -> None:
    try:
        with quiet_itk():
            sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        with path.open("ab"):  # raises what the system says, e.g. that there is no permission
            size = image.GetNumberOfPixels() * image.GetSizeOfPixelComponent()
        full = shutil.disk_usage(path.parent).free < size
        raise OSError(errno.ENOSPC if full else None, _last_line(error)) from error


def _write_mhd(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64]) -> Path:
    voxels = voxels.astype(np.uint8) if voxels.dtype.kind == "b" else voxels
    if voxels.dtype.name not in _META_TYPES:
        raise DataError("MHD cannot hold this type of voxel", where=str(path), found=f"{voxels.dtype}")
    origin, spacing, direction = to_itk(affine)
    raw = path.with_suffix(".raw")
    columns = np.reshape(direction, (3, 3)).T.ravel()  # MetaImage lists the axes one after the other
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": str(sys.byteorder == "big"),
        "CompressedData": "False",
        "TransformMatrix": _numbers(columns),
        "Offset": _numbers(origin),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": _numbers(spacing),
        "DimSize": " ".join(str(n) for n in voxels.shape[::-1]),
        "ElementType": _META_TYPES[voxels.dtype.name],
        "ElementDataFile": raw.name,
    }
    write_atomic(raw, lambda temporary: temporary.write_bytes(np.ascontiguousarray(voxels).tobytes()))
    return write_text(path, "".join(f"{key} = {value}\n" for key, value in header.items()))


def _numbers(values: Any) -> str:
    return " ".join(repr(float(value) + 0.0) for value in values)


def _segments(mask: Volume, classes: Mapping[str, int]) -> dict[str, str]:
    """The keys by which 3D Slicer shows a label map as named segments."""
    if not isinstance(mask, Mask):
        raise DataError("a .seg.nrrd holds masks, this is an image", mend="Write the image as .nrrd.")
    names = {value: name for name, value in classes.items()}
    values = sorted({*names, *(int(v) for v in np.unique(mask.voxels) if v)})
    z, y, x = mask.shape
    keys = {
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for i, value in enumerate(values):
        colour = _COLOURS[(value - 1) % len(_COLOURS)]
        keys |= {
            f"Segment{i}_ID": f"Segment_{value}",
            f"Segment{i}_Name": names.get(value, f"label {value}"),
            f"Segment{i}_NameAutoGenerated": "0",
            f"Segment{i}_LabelValue": str(value),
            f"Segment{i}_Layer": "0",
            f"Segment{i}_Color": " ".join(f"{c:g}" for c in colour),
            f"Segment{i}_ColorAutoGenerated": "0",
            f"Segment{i}_Extent": f"0 {x - 1} 0 {y - 1} 0 {z - 1}",
            f"Segment{i}_Tags": "Segmentation.Status:completed|",
        }
    return keys
