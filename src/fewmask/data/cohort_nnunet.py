"""nnU-Net's raw layout: imagesTr, labelsTr, imagesTs, labelsTs and dataset.json, channels as `_0000`."""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewmask.core.errors import DataError, Problem
from fewmask.core.files import read_json
from fewmask.data.case import PART, Case, Found, ImageFile, MaskFile
from fewmask.data.cohort_classes import HOW_TO_DECLARE, valid_classes
from fewmask.data.cohort_folder import scans_below
from fewmask.data.cohort_table import INDEX_CSV, Index, patient_remarks, read_index, stem

DATASET_JSON = "dataset.json"
IMAGES_TRAIN = "imagesTr"
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def read_nnunet(folder: Path) -> Found:
    """Cases of nnU-Net's raw layout. `imagesTr` are cases of the part "train", `imagesTs` of the part "test".

    Classes and channel names come from dataset.json (both generations of the format). Region-based labels
    are read by `regions_class_order`: each label value takes the name of the last region painted with it.
    An "ignore" label becomes unjudged voxels.

    Raises:
        DataError: no image in `imagesTr`, or a dataset.json that cannot be understood.
    """
    description = _description(folder / DATASET_JSON)
    channels = _channel_names(description)
    index = read_index(folder / INDEX_CSV)
    cases: list[Case] = []
    faults: list[Problem] = []
    for part, images, labels in (("train", "imagesTr", "labelsTr"), ("test", "imagesTs", "labelsTs")):
        found, wrong = _part(folder, part, images, labels, channels, index)
        cases += found
        faults += wrong
    if not cases:
        raise DataError(
            "a folder with no case",
            where=str(folder),
            expected="images in imagesTr/ named CASE_0000.nii.gz, CASE_0001.nii.gz, ...",
            mend="Put the images there, or point at another folder.",
        )
    classes, ignore, remarks = _classes(description, folder / DATASET_JSON)
    remarks += list(index.remarks) if index else list(patient_remarks(None, None))
    return Found(tuple(cases), classes, ignore, tuple(faults), tuple(remarks))


def _description(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError("is not nnU-Net's description of a data set", where=str(path))
    return value


def _channel_names(description: Mapping[str, Any]) -> dict[int, str]:
    names = description.get("channel_names") or description.get("modality") or {}
    return {int(number): str(name) for number, name in names.items() if str(number).isdigit()}


def _part(
    folder: Path, part: str, images: str, labels: str, channels: Mapping[int, str], index: Index | None
) -> tuple[list[Case], list[Problem]]:
    """The cases of one part, and a fault for every label without image."""
    if not (folder / images).is_dir():
        return [], []
    files: dict[str, dict[str, ImageFile]] = defaultdict(dict)
    for path in scans_below(folder / images):
        match = _CHANNEL.fullmatch(stem(path))
        name, number = (match["case"], int(match["channel"])) if match else (stem(path), 0)
        files[name][channels.get(number, f"channel{number}")] = ImageFile(path)
    drawn = {stem(path): path for path in scans_below(folder / labels)} if (folder / labels).is_dir() else {}
    cases = []
    for name in sorted(files):
        masks = (MaskFile(drawn[name]),) if name in drawn else ()
        first = next(iter(files[name].values())).path.relative_to(folder)
        patient, tags = (index.find(first, name) if index else None) or (None, {})
        order = {key: files[name][key] for key in [*channels.values(), *files[name]] if key in files[name]}
        cases.append(Case(name, patient or name, order, masks, {PART: part, **tags}))
    faults = [
        Problem(
            "mask without image",
            where=f"{labels}/{drawn[name].name}",
            expected=f"{images}/{name}_0000.*",
            mend="Add the image or delete the mask.",
        )
        for name in sorted(set(drawn) - set(files))
    ]
    return cases, faults


def _classes(description: Mapping[str, Any], path: Path) -> tuple[dict[str, int] | None, int, list[Problem]]:
    """Classes, the stored ignore value, and remarks, from the `labels` of either generation of the format."""
    labels = description.get("labels")
    if not isinstance(labels, dict) or not labels:
        return None, 255, []
    if all(str(key).isdigit() for key in labels):  # first generation: {"0": "background", "1": "liver"}
        labels = {str(name): int(value) for value, name in labels.items()}
    ignore = labels.get("ignore", 255)
    inside = {
        str(key): value for key, value in labels.items() if key != "ignore" and value not in (0, [0], [])
    }
    remarks: list[Problem] = []
    if any(isinstance(value, list) for value in inside.values()):
        order = description.get("regions_class_order")
        if not isinstance(order, list) or len(order) != len(inside):
            raise DataError(
                "has regions as labels but no regions_class_order for each",
                where=str(path),
                found=f"labels {labels}, regions_class_order {order}",
                mend=HOW_TO_DECLARE,
            )
        inside = dict(zip(inside, order, strict=True))
        text = ", ".join(f"{value} = {name} without the later regions" for name, value in inside.items())
        remarks.append(Problem(f"regions are read as separate classes: {text}", where=path.name))
    if not isinstance(ignore, int) or isinstance(ignore, bool):
        raise DataError("the ignore label must be a whole number", where=str(path), found=str(ignore))
    return valid_classes(inside, str(path)), ignore, remarks
