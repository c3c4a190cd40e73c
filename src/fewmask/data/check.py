"""What is wrong with a cohort, all of it at once, each with what to do; and pictures to look at.

Faults would make a run wrong and stop it. Remarks are worth knowing and do not.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewmask.core.errors import DataError, Problem
from fewmask.data.case import PART, Case, Cohort
from fewmask.data.check_across import absent, duplicates, empty, few, grey, overlaps, parts, plural
from fewmask.data.check_case import CaseFindings, examine_case
from fewmask.data.check_geometry import Verdict
from fewmask.data.check_page import draw_pictures

SHOWN = 3
"""How many problems of one kind are told in full; of the rest only the cases are named."""


@dataclass(frozen=True)
class CheckRow:
    """One line of the pairing table.

    Attributes:
        case: name of the case.
        patient: whose scan it is.
        part: "train", "validation", "test" where the cohort comes in parts; else "".
        images: file per modality, below the cohort's folder.
        masks: mask files, below the cohort's folder; empty: unlabelled.
        shape: (Z, Y, X); None when the image cannot be read.
        spacing_mm: (Z, Y, X).
        verdict: the worst of mask and modality grids against the first image; None without mask.
        displacement_mm: largest corner displacement; inf when shapes differ.
        voxels: voxels per class in the mask of the cohort's reader; empty when not read.
    """

    case: str
    patient: str
    part: str
    images: Mapping[str, str]
    masks: tuple[str, ...]
    shape: tuple[int, int, int] | None
    spacing_mm: tuple[float, float, float] | None
    verdict: Verdict | None
    displacement_mm: float | None
    voxels: Mapping[str, int]


@dataclass(frozen=True)
class CheckReport:
    """What `check_cohort` found: the pairing table, faults, remarks, and where the pictures are."""

    name: str
    folder: Path
    classes: Mapping[str, int]
    modalities: tuple[str, ...]
    rows: tuple[CheckRow, ...]
    faults: tuple[Problem, ...]
    remarks: tuple[Problem, ...]
    pictures: tuple[Path, ...] = ()

    @property
    def patients(self) -> int:
        """How many patients."""
        return len({row.patient for row in self.rows})

    @property
    def labelled(self) -> int:
        """How many cases with a mask."""
        return sum(bool(row.masks) for row in self.rows)

    def raise_if_faulty(self) -> None:
        """Raise one `DataError` with every fault, if there is any."""
        if self.faults:
            lines = gathered(self.faults)
            title = f"cohort {self.name} has {plural(len(self.faults), 'fault')}:"
            raise DataError.of(lines, title=title)

    def to_text(self) -> str:
        """The check as plain lines for a console, without the pairing table."""
        classes = ", ".join(f"{value} {name}" for name, value in self.classes.items())
        lines = [
            f"{self.name}: {len(self.rows)} cases of {self.patients} patients, {self.labelled} with masks",
            f"modalities: {', '.join(self.modalities)}; classes: {classes}",
        ]
        for title, problems in (("fault", self.faults), ("remark", self.remarks)):
            lines.append(plural(len(problems), title))
            lines += [str(problem) for problem in gathered(problems)]
        return "\n".join(lines)


def check_cohort(
    cohort: Cohort,
    *,
    pictures: Path | None = None,
    limit: int | None = None,
    most_pictures: int = 24,
    on_progress: Callable[[int, int], object] | None = None,
) -> CheckReport:
    """Check every case of `cohort`: files, geometry, values, duplicates, patients in two parts.

    Each image and mask is read once. Read the cohort with `on_fault="report"` so that the faults of the
    folder stand in the same report.

    Args:
        cohort: from `read_cohort`.
        pictures: folder for overlay pictures; None draws none.
        limit: read the voxels of so many cases only, spread evenly; of the rest only the headers.
        most_pictures: how many cases are drawn at most, labelled ones first.
        on_progress: called with (cases done, cases in all).

    Raises:
        RunError: the pictures cannot be written.
    """
    thorough = _spread(len(cohort.cases), limit)
    findings: list[CaseFindings] = []
    for number, case in enumerate(cohort.cases):
        findings.append(examine_case(case, cohort, voxels=number in thorough))
        if on_progress:
            on_progress(number + 1, len(cohort.cases))
    faults = [*cohort.faults, *(fault for one in findings for fault in one.faults), *parts(cohort.cases)]
    remarks = [*cohort.remarks, *(remark for one in findings for remark in one.remarks)]
    for some in (duplicates(cohort.cases, findings), overlaps(cohort, findings)):
        faults += some[0]
        remarks += some[1]
    remarks += empty(cohort, findings) + grey(findings) + absent(findings)
    if len(thorough) < len(cohort.cases):
        what = f"voxels of {len(thorough)} of {len(cohort.cases)} cases were read; of the rest only headers"
        remarks.append(Problem(what))
    rows = tuple(_row(case, cohort, one) for case, one in zip(cohort.cases, findings, strict=True))
    drawn = (
        draw_pictures(cohort, pictures, _for_pictures(cohort, findings, most_pictures)) if pictures else ()
    )
    return CheckReport(
        cohort.name,
        cohort.folder,
        cohort.classes,
        cohort.modalities,
        rows,
        tuple(faults),
        tuple(remarks),
        drawn,
    )


def gathered(problems: Sequence[Problem], shown: int = SHOWN) -> list[Problem]:
    """`problems` with at most `shown` of one kind in full, then one line that names where the others are."""
    kinds: dict[str, list[Problem]] = defaultdict(list)
    for number, problem in enumerate(problems):
        kinds[_kind(problem) if problem.where else str(number)].append(problem)
    lines = []
    for same in kinds.values():
        lines += same[:shown]
        rest = list(dict.fromkeys(problem.where.split(",")[0] for problem in same[shown:]))
        if rest:
            lines.append(Problem(f"... the same in {len(same) - shown} more: {few(rest)}"))
    return lines


def _kind(problem: Problem) -> str:
    """Problems are of one kind when what they say differs in numbers only."""
    return re.sub(r"\d+", "0", problem.what.split(":")[0])


def _spread(count: int, limit: int | None) -> set[int]:
    if limit is None or limit >= count:
        return set(range(count))
    return {round(step * (count - 1) / max(1, limit - 1)) for step in range(limit)}


def _row(case: Case, cohort: Cohort, findings: CaseFindings) -> CheckRow:
    def below(path: Path) -> str:
        return path.relative_to(cohort.folder).as_posix() if path.is_relative_to(cohort.folder) else str(path)

    def image(modality: str) -> str:
        file = case.images[modality]
        return below(file.path) + (f" channel {file.channel}" if file.channel is not None else "")

    grid = findings.grid
    return CheckRow(
        case=case.name,
        patient=case.patient,
        part=case.tags.get(PART, ""),
        images={modality: image(modality) for modality in case.images},
        masks=tuple(below(mask.path) for mask in case.masks),
        shape=grid.shape if grid else None,
        spacing_mm=grid.spacing_mm if grid else None,
        verdict=findings.verdict,
        displacement_mm=findings.displacement_mm,
        voxels=findings.voxels.get(cohort.reader, {}),
    )


def _for_pictures(cohort: Cohort, findings: Sequence[CaseFindings], most: int) -> list[Case]:
    """The readable cases to draw: those with something in the mask first, spread evenly."""
    ranked: dict[int, list[Case]] = defaultdict(list)
    for case, one in zip(cohort.cases, findings, strict=True):
        if one.readable:
            voxels = sum(one.voxels.get(cohort.reader, {}).values())
            ranked[0 if voxels else 1 if case.masks else 2].append(case)
    chosen: list[Case] = []
    for rank in sorted(ranked):
        room = most - len(chosen)
        cases = ranked[rank]
        chosen += [cases[number] for number in sorted(_spread(len(cases), room))] if room > 0 else []
    return chosen
