"""What is wrong with one case: its files, geometry and values."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import FewmaskError, Problem
from fewmask.core.volume import IGNORE, Grid, Volume
from fewmask.data.case import Case, Cohort
from fewmask.data.case_voxels import (
    CaseMask,
    is_picture,
    read_case_mask_in_detail,
    read_image,
    read_image_grid,
)
from fewmask.data.check_geometry import Fit, Verdict, judge
from fewmask.data.io import read_grid

_ORDER: tuple[Verdict, ...] = ("fine", "tolerable", "wrong")


@dataclass
class CaseFindings:
    """All that was seen of one case. Filled while it is examined, then only read."""

    case: str
    grid: Grid | None = None
    verdict: Verdict | None = None
    displacement_mm: float | None = None
    faults: list[Problem] = field(default_factory=list)
    remarks: list[Problem] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    voxels: dict[str, Mapping[str, int]] = field(default_factory=dict)
    drawn: dict[str, int] = field(default_factory=dict)
    painted_over: dict[tuple[str, str], int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    grey: int = 0
    readable: bool = False


def examine_case(case: Case, cohort: Cohort, *, voxels: bool = True) -> CaseFindings:
    """Look at every file of `case` (`voxels=False`: at headers). Faults of the data are noted, not raised."""
    findings = CaseFindings(case.name)
    constant = []
    for modality, file in case.images.items():
        try:
            grid = None
            if voxels:
                volume = read_image(case, file)
                grid = volume.grid
                if _examine_values(volume, modality, findings):
                    constant.append(modality)
            else:
                grid = read_image_grid(file)
        except FewmaskError as error:
            _take(findings, error, case, modality)
            continue
        if findings.grid is None:
            findings.grid = grid
        else:
            _fit(findings, judge(grid, findings.grid), file.path, "second modality")
    readable = len(findings.faults) == 0
    for reader in case.readers:
        readable &= _examine_mask(case, cohort, reader, voxels, findings)
    findings.readable = readable and findings.grid is not None and findings.verdict != "wrong"
    _constant(findings, cohort, constant)
    return findings


def _take(findings: CaseFindings, error: FewmaskError, case: Case, what: str) -> None:
    """Note an error of reading as faults of this case."""
    for problem in error.problems:
        where = (
            problem.where if f"case {case.name}" in problem.where else f"case {case.name}, {problem.where}"
        )
        where = where if problem.where else f"case {case.name}, {what}"
        findings.faults.append(Problem(problem.what, where, problem.found, problem.expected, problem.mend))


def _examine_values(volume: Volume, modality: str, findings: CaseFindings) -> bool:
    """Hash the voxels and look for NaN and infinity; True when the image is constant."""
    voxels = volume.voxels
    where = f"case {findings.case}, {modality}"
    findings.remarks += [Problem(note, where=where) for note in volume.notes]
    if voxels.dtype.kind == "f":
        bad = int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
        if bad:
            findings.faults.append(
                Problem(
                    "voxels that are no numbers (NaN or infinite)",
                    where=where,
                    found=f"{bad} of {voxels.size} voxels",
                    mend="Replace them (often the outside of the field of view: use the lowest value), "
                    "or leave the case out.",
                )
            )
            return False
    if (voxels == voxels.flat[0]).all():
        return True
    findings.hashes[modality] = _digest(voxels)
    return False


def _digest(voxels: NDArray[np.generic]) -> str:
    digest = hashlib.blake2b(f"{voxels.shape}{voxels.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(voxels).data)
    return digest.hexdigest()


def _constant(findings: CaseFindings, cohort: Cohort, modalities: list[str]) -> None:
    """An image of one value: a fault when a mask claims to see something in it, else a remark."""
    if not modalities:
        return
    where = f"case {findings.case}, {', '.join(modalities)}"
    seen = sum(findings.voxels.get(cohort.reader, {}).values())
    if seen and set(modalities) == set(cohort.modalities):
        mend = "Export the scan again, or leave the case out."
        findings.faults.append(
            Problem("a constant image with a mask that is not empty", where, f"{seen} voxels", mend=mend)
        )
    else:
        findings.remarks.append(Problem("a constant image", where, mend="Leave it out if it shows nothing."))


def _examine_mask(case: Case, cohort: Cohort, reader: str, voxels: bool, findings: CaseFindings) -> bool:
    """Read the mask of one reader, or the headers of its files; False when it cannot be used."""
    files = case.masks_of(reader)
    try:
        if voxels:
            detail = read_case_mask_in_detail(case, cohort, reader=reader)
            grids = dict(detail.grids)
            _note_mask(findings, cohort, reader, detail)
        else:
            grids = {file.path: read_grid(file.path) for file in files}
    except FewmaskError as error:
        _take(findings, error, case, "mask")
        if voxels:  # the geometry is often the cause, and its verdict helps more
            _headers_only(case, reader, findings)
        return False
    for path, grid in grids.items():
        if findings.grid is not None:
            _fit(findings, judge(grid, findings.grid, unplaced=is_picture(path)), path, "mask")
    return True


def _headers_only(case: Case, reader: str, findings: CaseFindings) -> None:
    """Judge the geometry of a mask whose values could not be used."""
    for file in case.masks_of(reader):
        try:
            grid = read_grid(file.path)
        except FewmaskError:
            continue  # told already
        if findings.grid is not None:
            _fit(findings, judge(grid, findings.grid, unplaced=is_picture(file.path)), file.path, "mask")


def _note_mask(findings: CaseFindings, cohort: Cohort, reader: str, detail: CaseMask) -> None:
    counts = np.bincount(np.asarray(detail.mask.voxels, dtype=np.uint8).ravel(), minlength=256)
    if counts[IGNORE] == counts.sum():
        _nothing_judged(findings, cohort, reader, int(counts.sum()))
        return
    findings.voxels[reader] = {name: int(counts[value]) for name, value in cohort.classes.items()}
    if reader == cohort.reader:
        findings.drawn = dict(detail.drawn)
        findings.painted_over = dict(detail.painted_over)
        findings.absent = detail.absent
        findings.grey = sum(detail.grey.values())


def _nothing_judged(findings: CaseFindings, cohort: Cohort, reader: str, count: int) -> None:
    """A mask that is unjudged everywhere can neither teach nor score: a fault of the cohort's reader."""
    problem = Problem(
        "a mask in which nobody judged anything",
        where=f"case {findings.case}, mask by {reader}",
        found=f"all {count} voxels have the value {cohort.stored_ignore}, which means unjudged",
        expected="at least one voxel of background (0) or of a class",
        mend=f"If {cohort.stored_ignore} was meant for an object, write the value of its class; if the "
        "structure is not there, write 0; if nobody looked, remove the mask: the case is then unlabelled.",
    )
    (findings.faults if reader == cohort.reader else findings.remarks).append(problem)


def _fit(findings: CaseFindings, fit: Fit, path: Path, kind: str) -> None:
    """Keep the worst verdict; a wrong one is a fault, a tolerable one a remark."""
    if findings.verdict is None or _ORDER.index(fit.verdict) > _ORDER.index(findings.verdict):
        findings.verdict = fit.verdict
    findings.displacement_mm = max(findings.displacement_mm or 0.0, fit.displacement_mm)
    where = f"case {findings.case}, {kind} {path.name}"
    if fit.verdict == "wrong":
        findings.faults.append(
            Problem(
                f"the {kind} does not lie on the image",
                where=where,
                found=fit.why,
                expected="the grid of the first image (shape, spacing, orientation, origin)",
                mend=f"Resample the {kind} onto the image, or correct the pairing; if only the header is "
                "wrong, copy the image's header.",
            )
        )
    elif fit.verdict == "tolerable":
        findings.remarks.append(
            Problem(f"the {kind} lies less than half a voxel off the image", where=where, found=fit.why)
        )
