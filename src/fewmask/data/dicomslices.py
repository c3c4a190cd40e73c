"""DICOM headers as plain records: one `Slice` per file, or per frame of a multi-frame file."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut

from fewmask.core.errors import DataError
from fewmask.data.filetype import DICOM, content_of, damaged, is_dicom
from fewmask.data.itkfiles import pick_channel
from fewmask.data.scaling import rescale

NO_IMAGES = {
    "SEG",
    "RTSTRUCT",
    "RTPLAN",
    "RTDOSE",
    "RTRECORD",
    "PR",
    "KO",
    "SR",
    "REG",
    "DOC",
    "AU",
    "ECG",
    "PLAN",
}
"""Modalities of DICOM objects that are no images."""

PHASES = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "EchoTime",
    "EchoNumbers",
    "DiffusionBValue",
    "TriggerTime",
    "InversionTime",
    "ConvolutionKernel",
    "ImageType",
    "AcquisitionTime",
)
"""Tags by which images at the same position differ, the telling ones first."""

_FAULTS = (OSError, EOFError, ValueError, AttributeError, KeyError, TypeError, IndexError, InvalidDicomError)


@dataclass(frozen=True, eq=False)
class Slice:
    """What the header says of one image. Positions and directions are in DICOM's LPS+ mm."""

    path: Path
    frame: int | None
    instance: str
    uid: str
    description: str
    modality: str
    number: int
    size: tuple[int, int]
    spacing_mm: tuple[float, float] | None
    thickness_mm: float | None
    position: NDArray[np.float64] | None
    orientation: NDArray[np.float64] | None
    phases: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """All slices of a folder or file; what else lay there, by kind; and files that could not be read.

    `unreadable` tells of each such file in words, `unreadable_paths` where it is.
    """

    slices: tuple[Slice, ...]
    ignored: tuple[str, ...]
    unreadable: tuple[str, ...]
    unreadable_paths: tuple[Path, ...] = ()


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom's remarks on odd but readable values off the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def find_slices(paths: Sequence[Path]) -> Found:
    """Read the headers of all DICOM files among `paths`."""
    slices: list[Slice] = []
    ignored: list[str] = []
    unreadable: list[str] = []
    unreadable_paths: list[Path] = []
    for path in paths:
        named = path.suffix.lower() in DICOM
        if not path.is_file() or not (named or is_dicom(path)):
            continue
        try:
            header = read_header(path)
            kind = _kind_of_other(header)
            if kind:
                ignored.append(kind)
            else:
                slices.extend(_slices(header, path))
        except _FAULTS:
            size = path.stat().st_size
            unreadable_paths.append(path)
            unreadable.append(f"{path.name} ({size} bytes{', ' + content_of(path) if size else ''})")
    return Found(tuple(slices), tuple(ignored), tuple(unreadable), tuple(unreadable_paths))


def read_header(path: Path) -> Any:
    """The header of a DICOM file, also of old files without preamble; raises what pydicom raises."""
    with quiet_pydicom():
        header = pydicom.dcmread(path, stop_before_pixels=True, force=not is_dicom(path))
    if "SOPClassUID" not in header and "MediaStorageSOPClassUID" not in header.file_meta:
        raise ValueError("no SOP class")
    return header


def read_frames(slices: Sequence[Slice], channel: int | None) -> tuple[list[NDArray[Any]], tuple[str, ...]]:
    """The pixels (Y, X) of every slice in its real values (HU for CT), and notes on what was done to them.

    Raises:
        DataError: cut short, a compression without decoder, or colours that differ and no `channel`.
    """
    frames: list[NDArray[Any]] = []
    notes: set[str] = set()
    opened: tuple[Path, Any, NDArray[Any]] | None = None
    for one in slices:
        if opened is None or opened[0] != one.path:
            opened = (one.path, *_decode(one.path))
        _, dataset, pixels = opened
        raw = pixels if one.frame is None else pixels[one.frame]
        if raw.ndim == 3:
            raw = pick_channel(raw, channel, str(one.path), " (0 red, 1 green, 2 blue)")
        if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
            raw = _inverted(raw, dataset)
            notes.add("MONOCHROME1: grey values were inverted, so that bright stays bright")
        frames.append(_real_values(raw, dataset, one.frame))
    return frames, tuple(sorted(notes))


def _decode(path: Path) -> tuple[Any, NDArray[Any]]:
    try:
        with quiet_pydicom():
            dataset = pydicom.dcmread(path, force=not is_dicom(path))
            if "TransferSyntaxUID" not in dataset.file_meta:
                dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            return dataset, dataset.pixel_array
    except (RuntimeError, NotImplementedError) as error:
        raise DataError(
            "its pixels cannot be decompressed",
            where=str(path),
            found=f"{dataset.file_meta.TransferSyntaxUID.name}: {' '.join(str(error).split())[:160]}",
            mend="It may be damaged. Otherwise decompress the series first (e.g. gdcmconv --raw IN OUT).",
        ) from error
    except _FAULTS as error:
        raise damaged(path, "a DICOM file", error) from error


def _inverted(raw: NDArray[Any], dataset: Any) -> NDArray[Any]:
    top = (1 << int(dataset.BitsStored)) - 1 if raw.dtype.kind == "u" else -1
    return np.asarray(top - raw.astype(np.int64)).astype(raw.dtype)


def _real_values(raw: NDArray[Any], dataset: Any, frame: int | None) -> NDArray[Any]:
    if "ModalityLUTSequence" in dataset:
        return np.asarray(apply_modality_lut(raw, dataset))
    transform = functional_group(dataset, frame or 0, "PixelValueTransformationSequence") or dataset
    slope, intercept = transform.get("RescaleSlope"), transform.get("RescaleIntercept")
    return rescale(raw, float(slope) if slope is not None else 1.0, float(intercept or 0.0))


def _kind_of_other(header: Any) -> str:
    """In a word, what a DICOM object is that is no image; "" for an image.

    Raises `ValueError` for an image whose header ends before its size: the file is cut short.
    """
    meta = str(getattr(header.file_meta, "MediaStorageSOPClassUID", ""))
    if meta == pydicom.uid.MediaStorageDirectoryStorage:
        return "DICOMDIR"
    modality = str(header.get("Modality", "") or "")
    if modality in NO_IMAGES:
        return modality
    if header.get("Rows") and header.get("Columns"):
        return ""
    if "Image Storage" in pydicom.uid.UID(str(header.get("SOPClassUID", meta))).name:
        raise ValueError("an image without rows and columns")
    return modality or "object without image"


def _slices(header: Any, path: Path) -> list[Slice]:
    if int(header.get("NumberOfFrames") or 1) == 1 and "PerFrameFunctionalGroupsSequence" not in header:
        return [_slice(header, path, None)]
    return [_slice(header, path, frame) for frame in range(int(header.get("NumberOfFrames") or 1))]


def _slice(header: Any, path: Path, frame: int | None) -> Slice:
    place, plane, sizes = header, header, header
    if frame is not None:
        place = functional_group(header, frame, "PlanePositionSequence") or {}
        plane = functional_group(header, frame, "PlaneOrientationSequence") or {}
        sizes = functional_group(header, frame, "PixelMeasuresSequence") or header
    spacing = sizes.get("PixelSpacing") or header.get("ImagerPixelSpacing")
    thickness = sizes.get("SpacingBetweenSlices") or sizes.get("SliceThickness")
    return Slice(
        path=path,
        frame=frame,
        instance=str(header.get("SOPInstanceUID", "") or path),
        uid=str(header.get("SeriesInstanceUID", "") or "no series UID"),
        description=str(header.get("SeriesDescription", "") or ""),
        modality=str(header.get("Modality", "") or ""),
        number=int(header.get("InstanceNumber") or 0) if frame is None else frame,
        size=(int(header.Rows), int(header.Columns)),
        spacing_mm=(float(spacing[0]), float(spacing[1])) if spacing else None,
        thickness_mm=abs(float(thickness)) if thickness else None,
        position=vector(place.get("ImagePositionPatient"), 3),
        orientation=vector(plane.get("ImageOrientationPatient"), 6),
        phases=tuple(str(header.get(name, "")) for name in PHASES),
    )


def functional_group(header: Any, frame: int, name: str) -> Any:
    """The functional group `name` of one frame of a multi-frame image: its own or the shared one."""
    for groups, index in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        sequence = header.get(groups)
        if sequence is not None and index < len(sequence) and name in sequence[index]:
            return sequence[index][name].value[0]
    return None


def vector(values: Any, length: int) -> NDArray[np.float64] | None:
    """`length` numbers of a DICOM value; None if it is absent or of another length."""
    if values is None or len(values) != length:
        return None
    return np.array([float(value) for value in values])
