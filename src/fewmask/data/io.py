"""One pair of functions for every file: `read_volume` and `write_volume`, and the same for masks.

The suffix names the format; what the file really is gets checked. Arrays are (Z, Y, X), affines go to
RAS+ mm; a writer and a reader of any format agree on every corner voxel.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import DataError
from fewmask.core.volume import Grid, Mask, Volume
from fewmask.data.dicom import OnFault, list_files, read_dicom_file, read_dicom_grid, read_series
from fewmask.data.dicomseg import is_dicom_seg, merge_segments, read_dicom_seg, read_dicom_seg_grid
from fewmask.data.filetype import (
    DICOM,
    ITK,
    NIFTI,
    PICTURES,
    READABLE,
    content_of,
    is_dicom,
    require_file,
    suffix_of,
    unknown_suffix,
)
from fewmask.data.itkfiles import read_itk, read_itk_grid, write_itk
from fewmask.data.nifti import read_nifti, read_nifti_grid, write_nifti
from fewmask.data.pictures import read_picture, read_picture_grid, write_png

WRITABLE = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha", ".mhd", ".png")


def read_volume(
    path: Path, *, series: str | None = None, channel: int | None = None, on_fault: OnFault = "refuse"
) -> Volume:
    """The volume in a file or in a folder with a DICOM series: voxels (Z, Y, X), affine, notes.

    Voxels keep their stored type; scaled CT comes as int16 HU. Pictures have Z = 1.

    Args:
        path: NIfTI, MHD, MHA, NRRD, DICOM file or folder, PNG, JPEG or TIFF.
        series: which DICOM series of a folder with several: its UID, or the end of it.
        channel: which channel of a file with several that differ.
        on_fault: "report" reads a DICOM series with gaps or tilt as it is and notes it (see `read_series`).

    Raises:
        DataError: missing, damaged, misnamed or ambiguous; the text says what to do.
    """
    path = Path(path)
    if path.is_dir():
        return read_series(path, series, channel=channel, on_fault=on_fault)
    kind = _format(path)
    if kind == "dicom":
        return read_dicom_file(path, channel=channel, on_fault=on_fault)
    if kind == "nifti":
        return read_nifti(path)
    if kind == "itk":
        return read_itk(path, channel=channel)
    return read_picture(path, channel=channel)


def read_mask(path: Path, *, threshold: float | None = None) -> Mask:
    """The label map in a file, as the smallest unsigned integers that hold its values.

    Args:
        path: as for `read_volume`, or a DICOM-SEG whose segments do not overlap (values 1, 2, ... in their
            order); a picture with a palette gives its palette indices.
        threshold: with it, voxels >= threshold become 1 and all others 0 (anti-aliased or 0/255 masks).

    Raises:
        DataError: as `read_volume`; without threshold also values that are no whole numbers from 0 to
            65535, and JPEG files, whose compression invents labels.
    """
    path = Path(path)
    volume = _read_labels(path, indices=threshold is None)
    if threshold is not None:
        voxels = np.greater_equal(volume.voxels, threshold).astype(np.uint8)
        return Mask(voxels, volume.affine, volume.notes)
    if path.is_file() and content_of(path) == "a JPEG picture":
        raise DataError(
            "a JPEG cannot hold labels: its compression changes them",
            where=str(path),
            mend="Save the mask as PNG or NIfTI, or give a threshold if it is one object (e.g. 128).",
        )
    voxels = _labels(volume.voxels, path)
    notes = volume.notes
    if voxels.max() == 255 and not ((voxels > 0) & (voxels < 255)).any():
        notes = (
            *notes,
            "its only value besides 0 is 255, which means 'unjudged'; for an object give a threshold",
        )
    return Mask(voxels, volume.affine, notes)


def read_grid(path: Path, *, series: str | None = None) -> Grid:
    """Shape and affine of what `read_volume` would read, from the header alone. Raises as `read_volume`."""
    path = Path(path)
    if path.is_dir():
        return read_dicom_grid(path, series)
    kind = _format(path)
    if kind == "dicom" and is_dicom_seg(path):
        return read_dicom_seg_grid(path)
    readers = {"dicom": read_dicom_grid, "nifti": read_nifti_grid, "itk": read_itk_grid}
    return readers.get(kind, read_picture_grid)(path)


def write_volume(path: Path, volume: Volume) -> Path:
    """Write an image; the suffix of `path` says how: .nii.gz, .nii, .nrrd, .mha, .mhd, .png (Z = 1).

    Raises:
        DataError: unknown suffix, sheared axes, or voxels that the format cannot hold.
        RunError: the file cannot be written.
    """
    return _write(Path(path), volume, None)


def write_mask(path: Path, mask: Mask, *, classes: Mapping[str, int] | None = None) -> Path:
    """Write a label map, as `write_volume`; `classes` names the labels in a .seg.nrrd for 3D Slicer."""
    return _write(Path(path), mask, classes)


def find_scans(folder: Path) -> list[Path]:
    """Every scan below `folder`, sorted: files, and folders that hold a DICOM series.

    A folder of DICOM files that are all single images (radiographs) gives the files. Damaged DICOM files
    are scans too, so that whoever reads them tells of them: one by one among radiographs and directly in
    `folder`, else as part of their own folder. Hidden files and segmentations (.seg.nrrd, DICOM-SEG) are
    left out. A file is a scan of its own.

    Raises:
        DataError: the path does not exist, or nothing readable is there.
    """
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise DataError("no such folder", where=str(folder), mend="Check the path.")
    inner = [entry for entry in sorted(folder.rglob("*")) if entry.is_dir() and not _hidden(entry, folder)]
    scans = [scan for one in (folder, *inner) for scan in _scans_in(one, one == folder)]
    if not scans:
        there = sorted(entry.name for entry in folder.iterdir())
        raise DataError(
            "no scan in this folder",
            where=str(folder),
            found=f"{len(there)} entries ({', '.join(there[:5])})" if there else "an empty folder",
            expected=f"files ending in {', '.join(READABLE)}, or DICOM files",
            mend="Give the folder that holds the scans.",
        )
    return scans


def _scans_in(folder: Path, top: bool) -> list[Path]:
    """The scans that lie directly in one folder; `top`: it is the one that was asked for."""
    files = [
        entry for entry in sorted(folder.iterdir()) if entry.is_file() and not entry.name.startswith(".")
    ]
    known = (*NIFTI, *ITK, *PICTURES)
    scans = [file for file in files if suffix_of(file) in known]
    rest = [file for file in files if suffix_of(file) not in (*known, ".seg.nrrd", ".raw", ".zraw")]
    if not any(suffix_of(file) in DICOM or is_dicom(file) for file in rest):
        return scans
    series, damaged = list_files(folder)
    single = [file for one in series for file in one.files]
    apart = all(one.pictures or len(one.files) == 1 for one in series)
    # One volume and damaged files are a series that is incomplete: its folder is refused as a whole.
    radiographs = len(single) > 1 or all(one.pictures for one in series)
    if apart and radiographs and len(single) + len(damaged) > 1 and (series or top):
        return sorted([*scans, *single, *damaged])
    return [*scans, folder] if series or damaged else scans


def _hidden(entry: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in entry.relative_to(folder).parts)


def _format(path: Path) -> str:
    """Which reader `path` needs, by its suffix or, without a known one, by DICOM's preamble."""
    suffix = suffix_of(path)
    if suffix in NIFTI:
        return "nifti"
    if suffix in (*ITK, ".seg.nrrd"):
        return "itk"
    if suffix in PICTURES:
        return "picture"
    if suffix in DICOM:
        return "dicom"
    require_file(path)
    if is_dicom(path):
        return "dicom"
    raise unknown_suffix(path, READABLE, "read")


def _write(path: Path, volume: Volume, classes: Mapping[str, int] | None) -> Path:
    suffix = suffix_of(path)
    if suffix not in WRITABLE:
        raise unknown_suffix(path, WRITABLE, "write")
    if suffix in NIFTI:
        return write_nifti(path, volume)
    if suffix == ".png":
        return write_png(path, volume)
    return write_itk(path, volume, classes=classes)


def _read_labels(path: Path, *, indices: bool) -> Volume:
    """What a mask file holds, before its values are judged."""
    if path.is_file() and is_dicom_seg(path):
        mask, classes = merge_segments(read_dicom_seg(path), str(path))
        named = ", ".join(f"{value} {name}" for name, value in classes.items())
        return Mask(mask.voxels, mask.affine, (f"its segments are {named}",))
    if suffix_of(path) in (".png", ".jpg", ".jpeg"):
        return read_picture(path, indices=indices)
    return read_volume(path)


def _labels(voxels: NDArray[Any], path: Path) -> NDArray[Any]:
    """`voxels` as the smallest unsigned integers, or a `DataError` that says which values are no labels."""
    if voxels.dtype.kind == "b":
        return voxels.astype(np.uint8)
    low, high = float(voxels.min()), float(voxels.max())
    whole = voxels.dtype.kind in "iu" or bool((voxels == np.round(voxels)).all())
    if not (whole and low >= 0 and high <= 65535):  # NaN fails here too
        odd = voxels[(voxels != np.round(voxels)) | (voxels < 0) | (voxels > 65535)]
        raise DataError(
            "is no label map: its values are not whole numbers from 0 to 65535",
            where=str(path),
            found=f"{voxels.dtype} from {low:g} to {high:g}, {odd.size} voxels such as {odd.flat[0]:g}",
            expected="0 for background and one whole number per class",
            mend="If this is a probability or anti-aliased map, give a threshold.",
        )
    return voxels.astype(np.uint8 if high <= 255 else np.uint16)
