"""Readers' masks of a cohort to one reference each: a new cohort, tables of agreement, pictures.

```
out/cases.csv, classes.json, masks/   the new cohort; the scans stay where they are
out/agreement.csv                     how far the readers agree, by case and class
out/structures.csv                    what became of each structure, by case and class
out/pictures/                         the readers' outlines beside the consensus
```
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from fewmask.consensus.growing import Growth, growth_for
from fewmask.consensus.settle import Consensus, Of, Rule, settle
from fewmask.consensus.voting import vote
from fewmask.core.errors import ConfigError, DataError, Problem
from fewmask.core.files import held, make_folder
from fewmask.core.run import ConsensusFolder
from fewmask.core.volume import IGNORE, Mask, Volume
from fewmask.data.case import REFERENCE, Case, Cohort
from fewmask.data.case_voxels import is_picture, read_case_mask, read_image, read_image_grid
from fewmask.data.check_geometry import judge
from fewmask.data.cohort import read_cohort
from fewmask.data.cohort_classes import classes_from_text
from fewmask.data.cohort_table import CASES_CSV
from fewmask.data.io import read_grid, write_mask
from fewmask.data.lidc_cohort import lidc_files, write_lidc_cohort
from fewmask.data.overlay import save_png
from fewmask.metrics.agreement import agreement
from fewmask.recipes.consensus_pages import (
    OneCase,
    OneClass,
    picture,
    remarks_on,
    write_agreement,
    write_cohort,
    write_structures,
)

Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Settings:
    """How one reference is made."""

    rule: Rule = "majority"
    of: Of = "marking"
    at_least: int = 1
    """Structures marked by fewer readers are dropped."""


def consensus_verb(
    path: Path,
    *,
    out: Path,
    rule: Rule,
    of: Of,
    at_least: int,
    readers: Sequence[str],
    classes: str | None,
) -> int:
    """Make one reference per case of a cohort that several readers drew on; tells what it dropped."""
    console = Console()
    files = ConsensusFolder(make_folder(out))
    declared = None if classes is None else classes_from_text(classes, "--classes")
    with held(out / ".lock"):
        source, told = _source(path, files)
        cohort = read_cohort(source, classes=declared)
        _refuse_own_folder(cohort, out, files)
        voters = _voters(cohort, readers)
        settings = Settings(rule, of, at_least)
        done = reach_consensus(cohort, voters, files, settings)
        write_cohort(files, cohort, done)
        write_agreement(files.agreement_csv, done)
        write_structures(files.structures_csv, done)
    told += [str(remark) for remark in cohort.remarks if "readers drew masks" not in remark.what]
    for line in [*told, *remarks_on(cohort, voters, done, rule)]:
        console.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)
    labelled = sum(one.mask is not None for one in done)
    words = f"{labelled} cases with one reference out of {len(voters)} readers ({', '.join(voters)}): {out}"
    console.print(words, markup=False, highlight=False, soft_wrap=True)
    return 0


def reach_consensus(
    cohort: Cohort, voters: Sequence[str], files: ConsensusFolder, settings: Settings
) -> list[OneCase]:
    """Write the reference and the picture of every case; what became of them, in the cohort's order.

    Raises:
        DataError: masks that do not lie on their scan or on each other, or cannot be read, of all cases at
            once; or nobody marked anything at all.
    """
    _refuse_grids(cohort, voters)
    done: list[OneCase] = []
    faults: list[Problem] = []
    for case in cohort.cases:
        try:
            done.append(_case(case, cohort, voters, files, settings))
        except DataError as error:
            faults.extend(error.problems)
    if faults:
        raise DataError.of(faults, title=f"{len(faults)} faults:" if len(faults) > 1 else "")
    if not any(one.of_marking for each in done for one in each.classes.values()):
        raise DataError(
            "nobody marked anything: every mask is empty",
            where=str(cohort.folder),
            mend="Look at the masks with `fewmask check COHORT --out pictures`.",
        )
    return done


def _source(path: Path, files: ConsensusFolder) -> tuple[Path, list[str]]:
    """The cohort itself; or, for a folder with LIDC's annotation files, the masks they are drawn as."""
    if (path / CASES_CSV).is_file() or not lidc_files(path):
        return path, []
    return write_lidc_cohort(path, make_folder(files.readers))


def _refuse_own_folder(cohort: Cohort, out: Path, files: ConsensusFolder) -> None:
    """Raise a `ConfigError` before a cohort is written over."""
    own = out.resolve() == cohort.folder.resolve()
    if own or ((out / CASES_CSV).exists() and not files.structures_csv.exists()):
        raise ConfigError(
            "the consensus would be written into the cohort that it is made from"
            if own
            else "the consensus would be written over another cohort",
            where="--out",
            found=str(out),
            mend="Choose another folder.",
        )


def _voters(cohort: Cohort, wanted: Sequence[str]) -> tuple[str, ...]:
    """Who takes part."""
    unknown = sorted(set(wanted) - set(cohort.readers))
    if unknown:
        raise ConfigError(
            f"nobody called {', '.join(unknown)} drew a mask",
            where="--readers",
            expected=f"some of {', '.join(cohort.readers)}",
        )
    voters = tuple(dict.fromkeys(wanted)) or cohort.readers
    if len(voters) < 2:
        raise DataError(
            "a consensus needs the masks of at least two readers",
            where=str(cohort.folder),
            found=f"masks by {', '.join(voters)}" if voters else "no mask at all",
            expected="masks/READER/CASE.ext (READER: reader1, rater0, ...), or columns mask@READER",
            mend="Put each reader's masks into a folder of their own below masks/."
            if voters in ((), (REFERENCE,))
            else "Add the masks of the other readers.",
        )
    return voters


def _refuse_grids(cohort: Cohort, voters: Sequence[str]) -> None:
    """One error with every mask that does not lie on its scan; reads headers only."""
    faults = []
    for case in cohort.cases:
        first = next(iter(case.images.values()))
        masks = [mask for reader in voters for mask in case.masks_of(reader)]
        if not masks:
            continue
        try:
            image = read_image_grid(first)
            for mask in masks:
                fit = judge(read_grid(mask.path), image, unplaced=is_picture(mask.path))
                if fit.verdict == "wrong":
                    where = f"case {case.name}, mask {mask.path.name} by {mask.reader}"
                    mend = "Resample it onto the scan, or correct its header."
                    faults.append(Problem("does not lie on its scan", where, fit.why, "", mend))
        except DataError as error:
            faults.extend(error.problems)
    if faults:
        raise DataError.of(faults, title=f"{len(faults)} masks or scans have faults:" if faults[1:] else "")


def _case(
    case: Case, cohort: Cohort, voters: Sequence[str], files: ConsensusFolder, settings: Settings
) -> OneCase:
    """Read, settle and write one case."""
    drew = [reader for reader in voters if case.masks_of(reader)]
    if not drew:
        return OneCase(case, None, {})
    maps = {reader: read_case_mask(case, cohort, reader=reader) for reader in drew}
    image = read_image(case, next(iter(case.images.values())))
    growth = growth_for(image.voxels) if settings.rule == "grow" else None
    labels = {reader: np.asarray(one.voxels) for reader, one in maps.items()}
    unjudged = np.logical_and.reduce([one == IGNORE for one in labels.values()])
    result = np.where(unjudged, np.uint8(IGNORE), np.uint8(0))
    classes, drawn, reference = {}, {}, {}
    for name, value in cohort.classes.items():
        who = _who_read(case, drew, name)
        if who:
            drawn[name] = {reader: labels[reader] == value for reader in who}
            found = _settle(drawn[name], labels, value, image, cohort, settings, growth)
            classes[name] = _told(drawn[name], image.spacing_mm, found)
            reference[name] = found.mask
            result[found.mask] = value
    flat = is_picture(next(iter(case.images.values())).path) and image.shape[0] == 1
    path = files.mask(case.name, ".png" if flat else ".nii.gz")
    write_mask(path, Mask(result, maps[drew[0]].affine))
    save_png(files.picture(case.name), picture(image, drawn, reference, voters))
    return OneCase(case, path, classes, in_hu=growth is None or growth.floor is not None)


def _who_read(case: Case, drew: Sequence[str], name: str) -> list[str]:
    """Who has a file in which this class could be; an empty mask is an answer, a missing file is none."""
    return [r for r in drew if any(mask.class_name in (None, name) for mask in case.masks_of(r))]


def _settle(
    masks: Mapping[str, Bool],
    labels: Mapping[str, NDArray[np.unsignedinteger[Any]]],
    value: int,
    image: Volume,
    cohort: Cohort,
    settings: Settings,
    growth: Growth | None,
) -> Consensus:
    """The reference of one class of one case; `growth` is there when regions are to grow."""
    judged = {reader: labels[reader] != IGNORE for reader in masks}
    return settle(
        masks,
        image.spacing_mm,
        rule=settings.rule,
        of=settings.of,
        at_least=settings.at_least,
        judged=None if all(one.all() for one in judged.values()) else judged,
        image=image.voxels if growth else None,
        lung=_lung(labels, cohort, value) if growth else None,
        growth=growth,
    )


def _told(masks: Mapping[str, Bool], spacing_mm: Sequence[float], found: Consensus) -> OneClass:
    """What the tables say of one class of one case."""
    marking = {reader: mask for reader, mask in masks.items() if mask.any()}
    return OneClass(
        tuple(masks),
        agreement(masks, spacing_mm),
        agreement(marking, spacing_mm) if marking else None,
        found.structures,
    )


def _lung(labels: Mapping[str, NDArray[np.unsignedinteger[Any]]], cohort: Cohort, value: int) -> Bool | None:
    """Where at least half of the readers saw lung, if the cohort has a class called so and it is another."""
    values = [number for name, number in cohort.classes.items() if "lung" in name.lower()]
    if not values or value in values:
        return None
    seen = [np.isin(one, values) for one in labels.values()]
    return vote(seen, strict=False) if any(one.any() for one in seen) else None
