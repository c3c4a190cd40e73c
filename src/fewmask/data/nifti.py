"""NIfTI through nibabel: which of its two geometries was used, scaling that keeps integers, honest refusals.

nibabel and not SimpleITK, because ITK drops a sheared sform without a word when a qform is there, and
because scaled integers (CT in HU) would come back as floats.
"""

import gzip
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from fewmask.core.errors import DataError
from fewmask.core.files import write_atomic
from fewmask.core.volume import LPS_TO_RAS, Grid, Volume, corner_displacement_mm
from fewmask.data.filetype import content_of, damaged, require_file, suffix_of
from fewmask.data.geometry import upright
from fewmask.data.scaling import rescale

DISAGREEMENT_MM = 0.01
"""qform and sform that put a corner further apart than this disagree."""

_UNITS_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_FAULTS = (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError)


def read_nifti(path: Path) -> Volume:
    """The volume in a NIfTI file (.nii, .nii.gz); scaled voxels stay integers where the scaling is whole.

    Raises:
        DataError: damaged, cut short or misnamed; four or more dimensions; colour; sheared axes.
    """
    image = _open(path)
    grid, notes = _grid(image, path)
    stored = image.dataobj
    voxels = _stored_voxels(path, stored.dtype, int(stored.offset), grid.shape)
    return Volume(rescale(voxels, float(stored.slope), float(stored.inter)), grid.affine, notes)


def read_nifti_grid(path: Path) -> Grid:
    """The grid of a NIfTI file, from its header alone."""
    return _grid(_open(path), path)[0]


def write_nifti(path: Path, volume: Volume) -> Path:
    """Write a volume with sform and qform alike, so that every reader puts it at the same place."""
    affine = upright(volume.grid, str(path)).affine
    image = nib.Nifti1Image(_storable(volume.voxels).T, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    return write_atomic(path, lambda temporary: nib.save(image, temporary))


def _stored_voxels(
    path: Path, dtype: np.dtype[Any], offset: int, shape: tuple[int, int, int]
) -> NDArray[Any]:
    """The voxels (Z, Y, X) as stored, read to the end of the file.

    So gzip's checksum is checked: nibabel's own reading stops before it, and a damaged voxel passes unseen.
    """
    count = int(np.prod(shape))
    try:
        content = path.read_bytes()
        if suffix_of(path) == ".nii.gz":
            content = gzip.decompress(content)
        if len(content) < offset + count * dtype.itemsize:
            raise EOFError(f"{len(content) - offset} of {count * dtype.itemsize} bytes of voxels are there")
        voxels = np.frombuffer(content, dtype, count, offset).reshape(shape)
    except _FAULTS as error:
        raise damaged(path, _kind(path), error) from error
    return voxels.astype(dtype.newbyteorder("="), copy=False)


def _kind(path: Path) -> str:
    return (
        "a gzip-compressed NIfTI file" if suffix_of(path) == ".nii.gz" else "a NIfTI file without compression"
    )


def _open(path: Path) -> Any:
    require_file(path)
    kind = _kind(path)
    try:
        image = nib.load(path)
    except _FAULTS as error:
        raise damaged(path, kind, error) from error
    if not isinstance(image, nib.Nifti1Image | nib.Nifti1Pair):
        raise damaged(path, kind, content_of(path))
    _check_voxels(image, path)
    return image


def _check_voxels(image: Any, path: Path) -> None:
    shape = tuple(int(n) for n in image.shape)
    if len(shape) < 2 or min(shape) < 1:
        raise DataError("holds no image", where=str(path), found=f"shape (x, y, z) {shape}")
    if any(n > 1 for n in shape[3:]):
        raise DataError(
            f"has {len(shape)} dimensions: several volumes in one file",
            where=str(path),
            found=f"shape (x, y, z, ...) {shape}",
            expected="one volume (x, y, z)",
            mend="Split it into one file per time point, echo or channel (e.g. with fslsplit or "
            "nibabel.funcs.four_to_three) and name each as a modality.",
        )
    if image.get_data_dtype().kind not in "iufb":
        raise DataError(
            "holds colours or complex numbers",
            where=str(path),
            found=f"voxel type {image.get_data_dtype()}",
            expected="one real number per voxel",
            mend="Export magnitude images, or one channel per file.",
        )


def _grid(image: Any, path: Path) -> tuple[Grid, tuple[str, ...]]:
    x, y, z = (*image.shape, 1, 1)[:3] if len(image.shape) < 3 else image.shape[:3]
    shape = (int(z), int(y), int(x))
    header = image.header
    notes: list[str] = []
    unit = str(header.get_xyzt_units()[0])
    if unit in ("meter", "micron"):
        notes.append(f"lengths were in {unit}s, now in mm")
    to_mm = np.diag([_UNITS_MM[unit]] * 3 + [1.0])
    sform, qform = header.get_sform(coded=True)[0], _qform(header, path)
    affine = sform if sform is not None else qform
    if affine is None:
        affine = LPS_TO_RAS @ np.diag([*(*header.get_zooms(), 1.0)[:3], 1.0])
        notes.append(
            "the header gives no orientation (qform and sform codes are 0): left and right are unsure"
        )
    if not np.isfinite(affine).all():
        raise DataError("the affine in the header is not finite", where=str(path), found=f"{affine.tolist()}")
    if sform is not None and qform is not None:
        apart = corner_displacement_mm(Grid(shape, to_mm @ sform), Grid(shape, to_mm @ qform))
        if apart > DISAGREEMENT_MM:
            notes.append(
                f"qform and sform disagree by up to {apart:.2f} mm: the sform was used; "
                "viewers built on ITK may use the qform"
            )
    made = upright(Grid(shape, to_mm @ affine), str(path))
    return Grid(shape, made.affine), (*notes, *made.notes)


def _qform(header: Any, path: Path) -> NDArray[np.float64] | None:
    try:
        qform: NDArray[np.float64] | None = header.get_qform(coded=True)[0]
    except HeaderDataError as error:
        if header.get_sform(coded=True)[0] is not None:
            return None
        raise damaged(path, _kind(path), f"broken qform: {error}") from error
    return qform


def _storable(voxels: NDArray[Any]) -> NDArray[Any]:
    """Voxels in a type that NIfTI readers share: no booleans, half floats or 64-bit integers."""
    if voxels.dtype.kind == "b":
        return voxels.astype(np.uint8)
    if voxels.dtype == np.float16:
        return voxels.astype(np.float32)
    if voxels.dtype.itemsize == 8 and voxels.dtype.kind in "iu":
        low, high = int(voxels.min()), int(voxels.max())
        for kind in (np.int32, np.uint32):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return voxels.astype(kind)
    return voxels
