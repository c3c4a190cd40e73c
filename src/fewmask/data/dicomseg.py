"""DICOM Segmentation objects: masks out that point at their source images, masks in by their positions."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from fewmask.core.errors import DataError
from fewmask.core.files import write_atomic
from fewmask.core.volume import IGNORE, LPS_TO_RAS, Grid, Mask, corner_displacement_mm
from fewmask.data.dicomlayout import lay_out
from fewmask.data.dicomslices import Slice, find_slices, functional_group, quiet_pydicom, read_header, vector
from fewmask.data.filetype import damaged, is_dicom, require_file
from fewmask.data.geometry import orthonormalise, tolerated_shift_mm

_ORGANS = {
    "aorta": codes.SCT.Aorta,
    "brain": codes.SCT.Brain,
    "esophagus": codes.SCT.Esophagus,
    "gallbladder": codes.SCT.Gallbladder,
    "heart": codes.SCT.Heart,
    "hippocampus": codes.SCT.Hippocampus,
    "kidney": codes.SCT.Kidney,
    "liver": codes.SCT.Liver,
    "lung": codes.SCT.Lung,
    "pancreas": codes.SCT.Pancreas,
    "prostate": codes.SCT.Prostate,
    "spleen": codes.SCT.Spleen,
    "stomach": codes.SCT.Stomach,
    "trachea": codes.SCT.Trachea,
}
_FINDINGS = {
    "edema": codes.SCT.Edema,
    "lesion": codes.SCT.Lesion,
    "mass": codes.SCT.Mass,
    "nodule": codes.SCT.Nodule,
    "tumor": codes.SCT.Neoplasm,
    "tumour": codes.SCT.Neoplasm,
}
_FAULTS = (OSError, EOFError, ValueError, AttributeError, KeyError, TypeError, IndexError, RuntimeError)


def write_dicom_seg(
    path: Path,
    mask: Mask,
    source_files: Sequence[Path],
    classes: Mapping[str, int],
    *,
    model: str = "fewmask",
    series_number: int = 900,
) -> Path:
    """Write a mask as a binary DICOM-SEG with one automatic segment per class, on its source images' grid.

    All slices are stored, empty ones too, so the object's geometry is that of the series. `IGNORE` voxels
    belong to no segment. UIDs follow from the content: the same mask gives the same UIDs.

    Args:
        path: the .dcm file to write.
        mask: label map (Z, Y, X) on the grid that `read_series` gives for the source.
        source_files: the files of the series that was segmented, in any order.
        classes: label value of each class name; every value in the mask must be named.
        model: name of what made the mask, kept as algorithm name and in the series description.
        series_number: series number of the new object.

    Raises:
        DataError: the source is no single series, lies on another grid, lacks required attributes, or the
            mask holds values that `classes` does not name.
    """
    slices = _source(source_files, mask)
    names = _named(mask, classes, path)
    frames = _numbered(mask, names)
    if slices[0].frame is not None:
        frames = frames[np.argsort([one.frame or 0 for one in slices])]
    try:
        with quiet_pydicom():
            segmentation = _build(frames, slices, mask, list(names), model, series_number)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            "no DICOM-SEG can point at these source images",
            where=str(slices[0].path),
            found=" ".join(str(error).split())[:200],
            mend="Use the original DICOM export; or write the mask as .nii.gz or .seg.nrrd.",
        ) from error
    return write_atomic(path, lambda temporary: segmentation.save_as(temporary))


def read_dicom_seg(path: Path, *, onto: Grid | None = None) -> dict[str, Mask]:
    """Every segment of a DICOM-SEG by its label, each a mask 0/1 (Z, Y, X) on one common grid.

    Segments may overlap, so they stay apart; `merge_segments` makes one label map of those that do not.
    Without `onto` the grid spans the stored slices; slices that were left out as empty are filled with 0.

    Args:
        path: the DICOM-SEG file.
        onto: the grid of the segmented volume; the masks then come on it, slice by slice, without resampling.

    Raises:
        DataError: no DICOM-SEG, damaged, slices at uneven distances, or not on the grid `onto`.
    """
    dataset, pixels = _open(path)
    frames = _frames(dataset, path)
    grid, rows = _place(frames, dataset, path, onto)
    masks: dict[str, Mask] = {}
    fractional = str(dataset.get("SegmentationType", "")) == "FRACTIONAL"
    threshold = int(dataset.get("MaximumFractionalValue", 1)) / 2 if fractional else 0.5
    for segment in dataset.SegmentSequence:
        number = int(segment.SegmentNumber)
        voxels = np.zeros(grid.shape, dtype=np.uint8)
        for frame, row, image in zip(frames, rows, pixels, strict=True):
            if frame.segment is None:
                voxels[row] |= image == number
            elif frame.segment == number:
                voxels[row] |= image >= threshold
        name = str(segment.get("SegmentLabel", "") or f"segment {number}")
        masks[name if name not in masks else f"{name} ({number})"] = Mask(voxels, grid.affine)
    return masks


def is_dicom_seg(path: Path) -> bool:
    """Whether a file is a DICOM-SEG, by its header."""
    try:
        return is_dicom(path) and str(read_header(path).get("Modality", "")) == "SEG"
    except _FAULTS:
        return False


def read_dicom_seg_grid(path: Path) -> Grid:
    """The grid that `read_dicom_seg` gives its masks, from the header alone."""
    header = _header(path)
    return _place(_frames(header, path), header, path, None)[0]


def merge_segments(masks: Mapping[str, Mask], where: str = "") -> tuple[Mask, dict[str, int]]:
    """One label map (values 1, 2, ... in order) from masks 0/1 on one grid, and the value of each name.

    Raises:
        DataError: two segments overlap, so no label map can hold both.
    """
    first = next(iter(masks.values()))
    merged = np.zeros(first.shape, dtype=np.uint8 if len(masks) < IGNORE else np.uint16)
    classes: dict[str, int] = {}
    for value, (name, mask) in enumerate(masks.items(), start=1):
        inside = mask.voxels.astype(bool)
        taken = merged[inside]
        if taken.any():
            other = list(classes)[int(taken[taken > 0][0]) - 1]
            raise DataError(
                "its segments overlap: one label map cannot hold them",
                where=where,
                found=f"'{name}' and '{other}' share {np.count_nonzero(taken == classes[other])} voxels",
                mend="Use one mask per class: read_dicom_seg gives each segment by itself.",
            )
        merged[inside] = value
        classes[name] = value
    return Mask(merged, first.affine), classes


@dataclass(frozen=True, eq=False)
class _Frame:
    """Which segment a frame belongs to (None: its pixels are label values) and where it lies, in LPS+ mm."""

    segment: int | None
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]


def _source(files: Sequence[Path], mask: Mask) -> tuple[Slice, ...]:
    """The slices of the source series in the order of the mask, checked to lie on the mask's grid."""
    found = find_slices(files)
    uids = sorted({one.uid for one in found.slices})
    if len(uids) != 1:
        raise DataError(
            "the source images of a DICOM-SEG must be one series",
            found=f"{len(uids)} series in {len(files)} files; {len(found.unreadable)} unreadable",
            mend="Give the files of one series, as list_series names them.",
        )
    layout = lay_out(found.slices)
    where = str(found.slices[0].path.parent)
    grid = Grid((len(layout.slices), *layout.slices[0].size), layout.affine)
    away = corner_displacement_mm(mask.grid, grid)
    if any(fault.fatal for fault in layout.faults) or away > min(grid.spacing_mm) / 2:
        faults = "; ".join(fault.what for fault in layout.faults)
        raise DataError(
            "the mask does not lie on the grid of its source images",
            where=where,
            found=f"mask {mask.shape}, corners up to {away:.2f} mm away{'; ' + faults if faults else ''}",
            expected=f"the grid of the series: {grid.shape}",
            mend="Segment what read_volume gives for this series; the mask belongs on its native grid.",
        )
    return layout.slices


def _named(mask: Mask, classes: Mapping[str, int], path: Path) -> dict[str, int]:
    present = {int(value) for value in np.unique(mask.voxels)} - {0, IGNORE}
    unnamed = sorted(present - set(classes.values()))
    if unnamed or not classes:
        raise DataError(
            "the mask holds values that no class names" if unnamed else "no class was named",
            where=str(path),
            found=f"values {unnamed}",
            expected=f"only {dict(classes)}",
            mend="Give the name of every label value.",
        )
    return dict(sorted(classes.items(), key=lambda item: item[1]))


def _numbered(mask: Mask, names: Mapping[str, int]) -> NDArray[np.uint8]:
    """Segment numbers 1, 2, ... in the order of `names` instead of label values; 0 where there is none."""
    numbers = np.zeros(max(int(mask.voxels.max()), *names.values()) + 1, dtype=np.uint8)
    numbers[list(names.values())] = np.arange(1, len(names) + 1)
    return np.asarray(numbers[mask.voxels], dtype=np.uint8)


def _build(
    frames: NDArray[np.uint8],
    slices: tuple[Slice, ...],
    mask: Mask,
    names: list[str],
    model: str,
    number: int,
) -> Any:
    paths = list(dict.fromkeys(one.path for one in slices))
    sources = [pydicom.dcmread(path, stop_before_pixels=True, force=not is_dicom(path)) for path in paths]
    print_of_content = hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()
    entropy = [slices[0].uid, model, *names, print_of_content]
    spacing_z, *in_plane = mask.spacing_mm
    built = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=frames,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(i, name, model) for i, name in enumerate(names, start=1)],
        series_instance_uid=generate_uid(entropy_srcs=[*entropy, "series"]),
        series_number=number,
        sop_instance_uid=generate_uid(entropy_srcs=[*entropy, "object"]),
        instance_number=1,
        manufacturer="fewmask",
        manufacturer_model_name=model[:64],
        software_versions=version("fewmask"),
        device_serial_number="0",
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=in_plane,
            slice_thickness=slices[0].thickness_mm or spacing_z,
            spacing_between_slices=spacing_z,
        ),
        omit_empty_frames=False,
        content_label="SEGMENTATION",
        series_description=f"Segmentation by {model}"[:64],
    )
    for item in (*built.DimensionOrganizationSequence, *built.DimensionIndexSequence):
        item.DimensionOrganizationUID = generate_uid(entropy_srcs=[*entropy, "dimensions"])
    if any(str(source.get("SyntheticData", "")) == "YES" for source in sources):
        built.SyntheticData = "YES"  # what is outlined on an invented image is invented
    return built


def _describe(number: int, name: str, model: str) -> Any:
    """The description of one automatic segment, with a SNOMED CT code where the name tells one."""
    words = name.lower().replace("_", " ").split()
    category, kind = codes.SCT.BodyStructure, codes.SCT.AnatomicalStructure
    for word in words:
        if word in _FINDINGS:
            category, kind = codes.SCT.MorphologicallyAbnormalStructure, _FINDINGS[word]
            break
        kind = _ORGANS.get(word.removesuffix("s"), kind)
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=model[:64], version=version("fewmask"), family=codes.DCM.ArtificialIntelligence
        ),
    )


def _open(path: Path) -> tuple[Any, NDArray[Any]]:
    _header(path)
    try:
        with quiet_pydicom():
            dataset = pydicom.dcmread(path, force=not is_dicom(path))
            pixels = dataset.pixel_array
    except _FAULTS as error:
        raise damaged(path, "a DICOM file", error) from error
    return dataset, pixels if pixels.ndim == 3 else pixels[np.newaxis]


def _header(path: Path) -> Any:
    require_file(path)
    try:
        header = read_header(path)
    except _FAULTS as error:
        raise damaged(path, "a DICOM file", error) from error
    modality = str(header.get("Modality", "") or "none")
    if modality == "SEG":
        return header
    raise DataError(
        "is no DICOM segmentation",
        where=str(path),
        found=f"modality {modality}",
        expected="modality SEG",
        mend="Read an image with read_volume.",
    )


def _frames(dataset: Any, path: Path) -> list[_Frame]:
    labelled = str(dataset.get("SegmentationType", "")) == "LABELMAP"
    frames = []
    for i in range(int(dataset.NumberOfFrames)):
        place = functional_group(dataset, i, "PlanePositionSequence") or {}
        plane = functional_group(dataset, i, "PlaneOrientationSequence") or {}
        position = vector(place.get("ImagePositionPatient"), 3)
        orientation = vector(plane.get("ImageOrientationPatient"), 6)
        if position is None or orientation is None:
            raise DataError(
                "its frames have no position in the patient",
                where=str(path),
                mend="Only segmentations of CT, MR or PET can be read, not of radiographs or slides.",
            )
        which = functional_group(dataset, i, "SegmentIdentificationSequence")
        frames.append(_Frame(None if labelled else int(which.ReferencedSegmentNumber), position, orientation))
    return frames


def _place(frames: list[_Frame], dataset: Any, path: Path, onto: Grid | None) -> tuple[Grid, list[int]]:
    """The common grid of all frames, and the slice index of each."""
    grid = onto or _own_grid(frames, dataset, path)
    to_index = np.linalg.inv(LPS_TO_RAS @ grid.affine)
    at = np.array([to_index[:3, :3] @ frame.position + to_index[:3, 3] for frame in frames])
    rows = np.round(at[:, 2]).astype(int)
    off = np.abs(at - np.column_stack([np.zeros((len(rows), 2)), rows]))
    measures = functional_group(dataset, 0, "PixelMeasuresSequence")
    dy, dx = (float(value) for value in measures.PixelSpacing)
    first = frames[0].orientation
    x_axis, y_axis = LPS_TO_RAS[:3, :3] @ first[:3] * dx, LPS_TO_RAS[:3, :3] @ first[3:] * dy
    far_x = np.linalg.norm(x_axis - grid.affine[:3, 0]) * grid.shape[2]
    far_y = np.linalg.norm(y_axis - grid.affine[:3, 1]) * grid.shape[1]
    same = (int(dataset.Rows), int(dataset.Columns)) == grid.shape[1:]
    inside = rows.min() >= 0 and rows.max() < grid.shape[0]
    if not (same and inside) or off.max() > 0.1 or max(far_x, far_y) > min(grid.spacing_mm):
        raise DataError(
            "its frames do not lie on the slices of the volume"
            if onto is not None
            else "its slices lie at uneven distances",
            where=str(path),
            found=f"frames {dataset.Rows} x {dataset.Columns}, slices {rows.min()} to {rows.max()}, up to "
            f"{off.max():.2f} voxels off",
            expected=f"a grid of (Z, Y, X) {grid.shape}",
            mend="Give the volume that was segmented, or resample the masks onto it (e.g. in 3D Slicer).",
        )
    return grid, [int(row) for row in rows]


def _own_grid(frames: list[_Frame], dataset: Any, path: Path) -> Grid:
    """The grid from the first to the last stored slice, at the stated or the smallest distance."""
    orientation = frames[0].orientation
    normal = np.cross(orientation[:3], orientation[3:])
    along = np.array([frame.position @ normal for frame in frames])
    measures = functional_group(dataset, 0, "PixelMeasuresSequence")
    dy, dx = (float(value) for value in measures.PixelSpacing)
    between = float(measures.get("SpacingBetweenSlices") or 0)
    first, last = frames[int(along.argmin())].position, frames[int(along.argmax())].position
    levels = np.unique(np.round(along, 3))
    extent = float(along.max() - along.min())
    nearest = float(np.diff(levels).min()) if len(levels) > 1 else 0.0
    stated = between or float(measures.get("SliceThickness") or 1)
    # Empty slices may have been left out: the stated distance counts if it divides the smallest one seen.
    divides = between and nearest and abs(nearest / between - max(round(nearest / between), 1)) < 0.05
    distance = between if divides else nearest or stated
    count = max(round(extent / distance), 0) + 1
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = orientation[:3] * dx, orientation[3:] * dy
    lps[:3, 2] = (last - first) / (count - 1) if count > 1 else normal * stated
    lps[:3, 3] = first
    grid = Grid((count, int(dataset.Rows), int(dataset.Columns)), LPS_TO_RAS @ lps)
    made = orthonormalise(grid)
    return Grid(grid.shape, made.affine) if made.shift_mm <= tolerated_shift_mm(grid) else grid
