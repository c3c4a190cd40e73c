"""Masks of any program against a cohort's reference masks."""

from collections.abc import Sequence
from pathlib import Path

from fewmask.core.errors import DataError, Problem
from fewmask.core.volume import corner_displacement_mm
from fewmask.data.case import Case, Cohort
from fewmask.data.cohort import read_case_mask
from fewmask.data.io import read_mask
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
        predictions: folder with CASE.nii.gz, CASE.png, ...; label values as the cohort declares them.
        cohort: holds the reference masks.
        arm: name of the method in the rows.
        penalty: what a missed or invented structure costs in mm.
        lesion_classes: classes to be scored by lesion as well.

    Returns:
        Rows, and the names of labelled cases without a prediction.

    Raises:
        DataError: no such folder; masks that do not lie on their reference's grid, all of them at once.
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
        predicted, reference = read_mask(path), read_case_mask(case, cohort)
        shift = corner_displacement_mm(predicted.grid, reference.grid)
        if shift > 0.5 * min(reference.spacing_mm):
            faults.append(
                Problem(
                    "does not lie on the grid of the reference",
                    where=str(path),
                    found=f"shape {predicted.shape}, corners up to {shift:.3g} mm away",
                    expected=f"shape {reference.shape}",
                    mend="Write the mask on the scan's own grid (`fewmask segment` does).",
                )
            )
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


def _mask_of(folder: Path, case: Case) -> Path | None:
    for suffix in SUFFIXES:
        path = folder / f"{case.name}{suffix}"
        if path.is_file():
            return path
    return None
