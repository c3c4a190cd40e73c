"""Masks of any program against a cohort's reference masks."""

from collections.abc import Sequence
from pathlib import Path

from fewmask.core.errors import DataError, Problem
from fewmask.core.volume import IGNORE, Mask, corner_displacement_mm
from fewmask.data.case import Case, Cohort
from fewmask.data.case_voxels import read_case_mask, read_label_map
from fewmask.metrics.score import Row, score_case
from fewmask.metrics.surface import Penalty

SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".mhd", ".png", ".tif", ".tiff")
"""Formats of predicted masks, in the order in which they are looked for."""


def score_folder(
    predictions: Path,
    cohort: Cohort,
    *,
    arm: str = "prediction",
    penalty: Penalty = "diag",
    lesion_classes: Sequence[str] = (),
) -> tuple[list[Row], list[str]]:
    """Score the masks in a folder, each named after its case.

    Args:
        predictions: folder with CASE.nii.gz, CASE.png, ...; label values as the cohort declares them;
            pictures of a single class are cut at half of their range, as its reference masks are.
        cohort: holds the reference masks.
        arm: name of the method in the rows.
        penalty: what a missed or invented structure costs in mm.
        lesion_classes: classes to be scored by lesion as well.

    Returns:
        Rows, and the names of labelled cases without a prediction.

    Raises:
        DataError: no such folder; or, all of them at once: masks that do not lie on their reference's grid,
            masks with label values nobody declared, references in which nothing is judged.
    """
    if not predictions.is_dir():
        raise DataError("there is no such folder of masks", where=str(predictions))
    rows: list[Row] = []
    missing: list[str] = []
    faults: list[Problem] = []
    for case in cohort.labelled:
        path = _mask_of(predictions, case)
        if path is None:
            missing.append(case.name)
            continue
        try:
            predicted, reference = read_label_map(path, case, cohort), read_case_mask(case, cohort)
        except DataError as error:
            faults += error.problems
            continue
        fault = _fault(path, case, predicted, reference, cohort.stored_ignore)
        if fault:
            faults.append(fault)
            continue
        rows += score_case(
            predicted.voxels,
            reference.voxels,
            reference.spacing_mm,
            cohort.classes,
            arm=arm,
            shots=None,
            draw=0,
            case=case.name,
            patient=case.patient,
            site=case.tags.get("site", ""),
            penalty=penalty,
            lesion_classes=lesion_classes,
        )
    if faults:
        raise DataError.of(faults, title=f"{len(faults)} masks cannot be scored:")
    return rows, missing


def _fault(path: Path, case: Case, predicted: Mask, reference: Mask, ignore: int) -> Problem | None:
    """Why a prediction cannot be scored against its reference, if so."""
    shift = corner_displacement_mm(predicted.grid, reference.grid)
    if shift > 0.5 * min(reference.spacing_mm):
        return Problem(
            "does not lie on the grid of the reference",
            where=str(path),
            found=f"shape {predicted.shape}, corners up to {shift:.3g} mm away",
            expected=f"shape {reference.shape}",
            mend="Write the mask on the scan's own grid (`fewmask segment` does).",
        )
    judged = reference.voxels != IGNORE
    if not judged.any():
        return Problem(
            "nobody judged anything in the reference mask",
            where=f"case {case.name}",
            mend="Remove or correct it (`fewmask check` says how).",
        )
    strange = int((judged & (predicted.voxels == IGNORE)).sum())
    if strange:
        return Problem(
            f"a prediction with the value {ignore}, which means unjudged",
            where=str(path),
            found=f"{strange} voxels that the reference judges",
            expected="0 or the value of a class",
            mend="Write 0 for background and the value of the class for objects.",
        )
    return None


def _mask_of(folder: Path, case: Case) -> Path | None:
    for suffix in SUFFIXES:
        path = folder / f"{case.name}{suffix}"
        if path.is_file():
            return path
    return None
