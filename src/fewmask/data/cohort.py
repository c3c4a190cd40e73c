"""From a table or a folder to a cohort: which scan belongs to whom, with which masks. Reads no voxel.

The layouts are in `cohort_table`, `cohort_folder` and `cohort_nnunet`; the records are in `case`; the
voxels of a case are read by `case_voxels`. All that other rooms need can be had from here.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from fewmask.core.errors import ConfigError, DataError, Problem
from fewmask.data.case import FOREGROUND, REFERENCE, Case, Cohort, Found, ImageFile, MaskFile
from fewmask.data.case_voxels import read_case_mask, read_images
from fewmask.data.cohort_classes import classes_from_names, declared_classes, valid_classes
from fewmask.data.cohort_folder import read_folder
from fewmask.data.cohort_nnunet import IMAGES_TRAIN, read_nnunet
from fewmask.data.cohort_table import CASES_CSV, read_cases_csv

__all__ = [
    "Case",
    "Cohort",
    "ImageFile",
    "MaskFile",
    "read_case_mask",
    "read_cohort",
    "read_images",
]


def read_cohort(
    path: Path,
    *,
    classes: Mapping[str, int] | None = None,
    channels: Mapping[str, int] | None = None,
    reader: str | None = None,
    on_fault: Literal["refuse", "report"] = "refuse",
) -> Cohort:
    """Read a cohort from a `cases.csv`, or from a folder in one of the known layouts. Reads no voxel.

    Args:
        path: a CSV file; or a folder with a `cases.csv`, with nnU-Net's `imagesTr`, with `images/` and
            `masks/` or `labels/`, or with scans only (an unlabelled cohort).
        classes: class names with their label values 1..n; wins over dataset.json and classes.json. Masks of
            other classes are left out. Its order is the order of painting where masks overlap.
        channels: names of the modalities in coloured pictures with their channel numbers; else those of a
            channels.json; else red, green, blue where the channels differ.
        reader: whose masks are read by default; else "reference", else the first by name.
        on_fault: "refuse" raises one error with all faults; "report" keeps them in `Cohort.faults`.

    Raises:
        DataError: no case at all, or (on_fault="refuse") any fault: a case name twice, a mask without image,
            a missing file, a missing modality.
        ConfigError: `classes`, `channels` or `reader` do not fit the cohort.
    """
    folder, found = _find(Path(path), channels)
    settled, remarks = _settle_classes(folder, found, classes)
    known = {mask.class_name for case in found.cases for mask in case.masks}
    cases = tuple(_only(case, settled) for case in found.cases) if known - {None} else found.cases
    chosen, reader_remarks = _settle_reader(cases, reader)
    faults = [*found.faults, *_faults(cases)]
    if faults and on_fault == "refuse":
        raise DataError.of(faults, title=f"{path} has {len(faults)} faults:" if len(faults) > 1 else "")
    return Cohort(
        name=folder.name if Path(path).is_dir() or Path(path).name == CASES_CSV else Path(path).stem,
        folder=folder,
        cases=cases,
        classes=settled,
        modalities=_modalities(cases),
        reader=chosen,
        stored_ignore=found.stored_ignore,
        faults=tuple(faults),
        remarks=(*found.remarks, *remarks, *reader_remarks),
    )


def _find(path: Path, channels: Mapping[str, int] | None) -> tuple[Path, Found]:
    """The cohort's folder and what its layout's reader found."""
    if path.is_file() and path.suffix.lower() == ".csv":
        return path.resolve().parent, read_cases_csv(path.resolve())
    if not path.is_dir():
        raise DataError(
            "there is no such cohort",
            where=str(path),
            found="a file of another kind" if path.exists() else "nothing",
            expected="a cases.csv or a folder",
            mend="Check the path.",
        )
    folder = path.resolve()
    if (folder / CASES_CSV).is_file():
        return folder, read_cases_csv(folder / CASES_CSV)
    if (folder / IMAGES_TRAIN).is_dir():
        return folder, read_nnunet(folder)
    return folder, read_folder(folder, channels=channels)


def _settle_classes(
    folder: Path, found: Found, classes: Mapping[str, int] | None
) -> tuple[dict[str, int], list[Problem]]:
    """The classes by argument, dataset.json, classes.json or mask names, with remarks."""
    names = {mask.class_name for case in found.cases for mask in case.masks if mask.class_name}
    declared = valid_classes(classes, "classes") if classes is not None else None
    declared = declared or (dict(found.classes) if found.classes else None) or declared_classes(folder)
    if declared is None:
        return classes_from_names(names), []
    if names and not names & set(declared):
        raise ConfigError(
            "no declared class has a mask",
            where="classes",
            found=f"declared {', '.join(declared)}",
            expected=f"some of {', '.join(sorted(names))}",
            mend="Use the names of the mask folders or files.",
        )
    remarks = []
    left_out = sorted(names - set(declared))
    if left_out:
        remarks.append(Problem(f"masks of undeclared classes are left out: {', '.join(left_out)}"))
    absent = sorted(set(declared) - names) if names else []
    if absent and all(mask.class_name for case in found.cases for mask in case.masks):
        remarks.append(Problem(f"declared classes without any mask: {', '.join(absent)}"))
    return declared, remarks


def _only(case: Case, classes: Mapping[str, int]) -> Case:
    """`case` with the masks of declared classes, in the order of the classes."""
    order = {name: place for place, name in enumerate(classes)}
    kept = [mask for mask in case.masks if mask.class_name is None or mask.class_name in order]
    kept.sort(key=lambda mask: (mask.reader, order.get(mask.class_name or "", -1)))
    return Case(case.name, case.patient, case.images, tuple(kept), case.tags)


def _settle_reader(cases: Sequence[Case], reader: str | None) -> tuple[str, list[Problem]]:
    """Whose masks are read by default, and a remark when that was a choice."""
    readers = sorted({mask.reader for case in cases for mask in case.masks})
    if reader is not None:
        if reader not in readers:
            raise ConfigError(
                f"there is no reader {reader!r}", where="reader", expected=f"one of {', '.join(readers)}"
            )
        return reader, []
    if not readers or REFERENCE in readers:
        return REFERENCE, []
    if len(readers) == 1:
        return readers[0], []
    remark = Problem(
        f"{len(readers)} readers drew masks ({', '.join(readers)}); those of {readers[0]} are read",
        mend="Choose another with reader=, or make a consensus first.",
    )
    return readers[0], [remark]


def _modalities(cases: Sequence[Case]) -> tuple[str, ...]:
    """All modalities, in the order of their first appearance."""
    return tuple(dict.fromkeys(modality for case in cases for modality in case.images))


def _faults(cases: Sequence[Case]) -> list[Problem]:
    """Case names twice, two masks for one thing, modalities that some cases lack."""
    faults = [
        Problem(
            f"the name stands for {count} cases",
            where=f"case {name}",
            mend="Give every case its own name; `patient` may repeat.",
        )
        for name, count in Counter(case.name for case in cases).items()
        if count > 1
    ]
    modalities = _modalities(cases)
    for case in cases:
        lacking = [modality for modality in modalities if modality not in case.images]
        if lacking:
            faults.append(
                Problem(
                    f"has no image of {', '.join(lacking)}",
                    where=f"case {case.name}",
                    found=", ".join(case.images),
                    expected=", ".join(modalities),
                    mend="Add the file, or leave the case out.",
                )
            )
        meanings = Counter((mask.reader, mask.class_name) for mask in case.masks)
        for (drawn_by, class_name), count in meanings.items():
            if count > 1:
                paths = [
                    m.path.name for m in case.masks if (m.reader, m.class_name) == (drawn_by, class_name)
                ]
                faults.append(
                    Problem(
                        f"{count} masks of {class_name or FOREGROUND} by {drawn_by}",
                        where=f"case {case.name}",
                        found=", ".join(paths),
                        mend="Keep one of them.",
                    )
                )
    return faults
