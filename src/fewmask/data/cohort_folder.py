"""Cohorts laid out as folders: `images/` with `masks/` or `labels/`, or scans without any mask.

How a mask finds its image and its meaning, by the path below the masks folder:

```
masks/CASE.ext              label map                masks/CASE_CLASS.ext      one class
masks/CLASS/CASE.ext        one class                masks/CASE/CLASS.ext      one class
masks/READER/...            a reader, then any of the above (READER: reader1, rater0, annotator_2, ...)
```
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fewmask.core.errors import DataError, Problem
from fewmask.data.case import IMAGE, REFERENCE, Case, Found, ImageFile, MaskFile
from fewmask.data.cohort_classes import declared_channels, valid_channels
from fewmask.data.cohort_table import INDEX_CSV, Index, patient_remarks, read_index, stem
from fewmask.data.filetype import PICTURES
from fewmask.data.io import find_scans

IMAGE_FOLDERS = ("images", "imgs", "image")
MASK_FOLDERS = ("masks", "labels", "mask", "label", "segmentations")

_READER = re.compile(
    r"(reader|rater|annotator|observer|expert|radiologist|doctor)[ _-]?[0-9a-z]*", re.IGNORECASE
)
_PLAIN = {"mask", "masks", "seg", "segmentation", "label", "labels", "gt"}
_SAMPLES = 5


def read_folder(folder: Path, *, channels: Mapping[str, int] | None = None) -> Found:
    """Cases of a folder with `images/` and, with masks, `masks/` or `labels/`; else of all scans in it.

    Args:
        folder: the cohort.
        channels: modality names and their channel in multi-channel pictures, e.g. {"t1": 0, "flair": 1}.

    Raises:
        DataError: no scan in the folder.
    """
    images_root = _first_folder(folder, IMAGE_FOLDERS)
    masks_root = _first_folder(folder, MASK_FOLDERS)
    if images_root is None and masks_root is not None:
        raise _no_case(folder, f"a folder {masks_root.name}/ but no folder images/")
    scans = scans_below(images_root or folder)
    if not scans:
        raise _no_case(folder, _contents(images_root or folder))
    root = images_root or folder
    named = _names(scans, root)
    index = read_index(folder / INDEX_CSV)
    named_channels = declared_channels(folder) if channels is None else valid_channels(channels, "channels")
    modalities, remarks = _modalities(scans, named_channels)
    masks = _match_masks(masks_root, named, root.name) if masks_root else _Masks({}, ())
    cases, lost = [], []
    for name, scan in named.items():
        row = index.find(scan.path.relative_to(folder), name) if index else None
        patient, tags = row or (None, {})
        if index and patient is None:
            lost.append(name)
        images = {modality: ImageFile(scan.path, channel) for modality, channel in modalities.items()}
        cases.append(Case(name, patient or name, images, tuple(masks.by_case.get(name, ())), tags))
    remarks += _index_remarks(index, lost, len(cases))
    if masks_root and not masks.by_case and not masks.faults:
        remarks.append(Problem(f"no mask in {masks_root.name}/: the cohort counts as unlabelled"))
    return Found(tuple(cases), faults=masks.faults, remarks=tuple(remarks))


def scans_below(folder: Path, *, segmentations: bool = False) -> list[Path]:
    """Every scan below `folder`, and segmentations (.seg.nrrd) if asked for; none when there is none."""
    try:
        scans = find_scans(folder)
    except DataError:  # an empty folder: whoever asks says what that means
        scans = []
    if segmentations:
        scans += [path for path in folder.rglob("*.seg.nrrd") if not path.name.startswith(".")]
    return sorted(scans)


def _index_remarks(index: Index | None, lost: Sequence[str], total: int) -> list[Problem]:
    if index is None:
        return list(patient_remarks(None, None))
    remarks = list(index.remarks)
    if lost and len(lost) < total:
        shown = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        remarks.append(
            Problem(
                f"scans without a patient ({len(lost)} of {total}): each counts as its own patient ({shown})",
                where=INDEX_CSV,
                mend="Add a row with file and patient for each.",
            )
        )
    elif lost and not any("no patient information" in remark.what for remark in remarks):
        remarks += [
            Problem("no row names a scan of this folder", where=INDEX_CSV, expected="the column `file`"),
            *patient_remarks(None, None),
        ]
    return remarks


def _first_folder(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _contents(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return f"{folder.name}/ holds {shown}" if names else f"{folder.name}/ is empty"


def _no_case(folder: Path, found: str) -> DataError:
    return DataError(
        "a folder with no case",
        where=str(folder),
        found=found,
        expected="a cases.csv; or images/ with masks/ or labels/; or nnU-Net's imagesTr/ with dataset.json; "
        "or scans (NIfTI, NRRD, MHA, DICOM folders, PNG, JPEG, TIFF)",
        mend="Point at the folder that holds the scans, or write a cases.csv with the columns case, patient, "
        "image, mask.",
    )


@dataclass(frozen=True)
class _Scan:
    """A scan and the place below the images folder that names it: its own, or that of a folder around it."""

    path: Path
    place: Path


def _names(scans: Sequence[Path], root: Path) -> dict[str, _Scan]:
    """A name per scan: its file name without suffix; with its folders in front where that is not unique.

    A folder that holds one scan only gives its name where the scan has none of its own: to a DICOM series
    (`P1/SERIES/` is P1), and to files that all have the same name (`P1/image.nii.gz` is P1).
    """
    below = Counter(parent for path in scans for parent in path.relative_to(root).parents)
    stems = Counter(stem(path) for path in scans)
    names: dict[str, _Scan] = {}
    places = []
    for path in scans:
        place = path.relative_to(root)
        if path.is_dir() or stems[stem(path)] > 1:
            while place.parent != Path() and below[place.parent] == 1:
                place = place.parent
        places.append(place)
    short = Counter(stem(place) for place in places)
    for path, place in zip(scans, places, strict=True):
        name = stem(place)
        if short[name] > 1:
            name = "__".join([*place.parts[:-1], name])
        if name in names:  # a.png beside a.nii.gz
            name = place.as_posix().replace("/", "__")
        names[name] = _Scan(path, place)
    return names


def _modalities(
    scans: Sequence[Path], channels: Mapping[str, int] | None
) -> tuple[dict[str, int | None], list[Problem]]:
    """Modality names with their channel: as declared; red, green, blue for coloured pictures; else one."""
    if channels is not None:
        return dict(channels), []
    if not _coloured(scans):
        return {IMAGE: None}, []
    remark = Problem(
        "the pictures have three different channels, read as the modalities red, green, blue",
        mend='If they are sequences, name them: a channels.json beside, {"t1": 0, "flair": 1, "t1c": 2}.',
    )
    return {"red": 0, "green": 1, "blue": 2}, [remark]


def _coloured(scans: Sequence[Path]) -> bool:
    """Whether any of a few sampled pictures has channels that differ."""
    step = max(1, len(scans) // _SAMPLES)
    for path in scans[::step][:_SAMPLES]:
        if path.suffix.lower() not in PICTURES or not path.is_file():
            continue
        try:
            with Image.open(path) as picture:
                if picture.mode in ("RGB", "RGBA"):
                    pixels = np.asarray(picture)[..., :3]
                    if (pixels != pixels[..., :1]).any():
                        return True
        except (OSError, ValueError, SyntaxError):
            continue  # the check tells what is wrong with this file
    return False


@dataclass(frozen=True)
class _Masks:
    by_case: Mapping[str, Sequence[MaskFile]]
    faults: tuple[Problem, ...]


def _match_masks(root: Path, named: Mapping[str, _Scan], images: str) -> _Masks:
    """Every mask below `root` with its case; a mask that fits no image is a fault."""
    keys = _Keys(named)
    by_case: dict[str, list[MaskFile]] = defaultdict(list)
    faults = []
    for path in scans_below(root, segmentations=True):
        match = keys.match(path.relative_to(root))
        if match is None:
            faults.append(
                Problem(
                    "mask without image",
                    where=path.relative_to(root.parent).as_posix(),
                    expected=f"an image {images}/{stem(path)}.*",
                    mend="Add the image, rename the mask to its image's name, or delete it.",
                )
            )
        else:
            case, class_name, reader = match
            by_case[case].append(MaskFile(path, class_name, reader))
    return _Masks(by_case, tuple(faults))


class _Keys:
    """Finds the case of a mask by its relative path."""

    def __init__(self, named: Mapping[str, _Scan]) -> None:
        self.by_name = named
        self.by_path = {(*scan.place.parts[:-1], stem(scan.place)): name for name, scan in named.items()}

    def match(self, relative: Path) -> tuple[str, str | None, str] | None:
        """(case, class or None, reader) of a mask; None when no image fits."""
        folders = [part for part in relative.parts[:-1] if not _READER.fullmatch(part)]
        readers = [part for part in relative.parts[:-1] if _READER.fullmatch(part)]
        reader = "_".join(readers) or REFERENCE
        name = stem(relative)
        for skip in range(len(folders) + 1):  # masks/CLASS/PATIENT/x.png beside images/PATIENT/x.png
            case = self.by_path.get((*folders[skip:], name))
            if case is not None:
                return case, "_".join(folders[:skip]) or None, reader
        if name in self.by_name:
            return name, "_".join(folders) or None, reader
        if folders and folders[-1] in self.by_name:  # masks/P1/liver.nii.gz, masks/P1/mask.nii.gz
            same = name.lower() in _PLAIN or name == stem(self.by_name[folders[-1]].path)
            return folders[-1], None if same else name, reader
        return self._by_suffix(folders, name, reader)

    def _by_suffix(
        self, folders: Sequence[str], name: str, reader: str
    ) -> tuple[str, str | None, str] | None:
        """`CASE_CLASS`, `CASE_READER` or `CASE_mask`: the longest case name that fits."""
        for end in sorted(_breaks(name), reverse=True):
            case = self.by_path.get((*folders, name[:end])) or (
                name[:end] if name[:end] in self.by_name else None
            )
            suffix = name[end + 1 :]
            if case is None or not suffix:
                continue
            above = "_".join(folders) if (*folders, name[:end]) not in self.by_path else ""
            if suffix.lower() in _PLAIN:
                return case, above or None, reader
            if _READER.fullmatch(suffix) and reader == REFERENCE:
                return case, above or None, suffix
            return case, suffix, reader
        return None


def _breaks(name: str) -> Iterable[int]:
    return (match.start() for match in re.finditer(r"[_-]", name))
