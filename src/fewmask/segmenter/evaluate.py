"""Masks against the reference, on the scans' own grids: a segmenter's, or those of any other method."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fewmask.core.errors import DataError
from fewmask.core.run import MaskFolder
from fewmask.core.volume import Mask, Volume
from fewmask.data.case import Case, Cohort
from fewmask.data.case_voxels import is_picture, read_case_mask, read_images
from fewmask.data.io import write_mask
from fewmask.data.overlay import save_png
from fewmask.data.prepare import Trace, ceiling_mask
from fewmask.metrics.score import Row, ceiling_of, score_case
from fewmask.segmenter.model import Segmenter
from fewmask.segmenter.picture import picture_of
from fewmask.segmenter.predict import predict

Segment = Callable[[Case, Mapping[str, Volume]], tuple[Mask, Trace]]
"""Gives a case's mask on its native grid, and how the case was prepared (for the ceiling)."""


def evaluate(
    segmenter: Segmenter,
    cases: Sequence[Case],
    cohort: Cohort,
    *,
    arm: str,
    shots: int | None,
    draw: int,
    folder: Path | None = None,
    tta: bool = False,
    lesion_classes: Sequence[str] = (),
) -> list[Row]:
    """Segment and score every case; see `score_masks` for what the arguments mean and what comes back.

    `tta`: see `predict`.

    Raises:
        DataError: a case cannot be read, lacks a modality or a reference mask; or the model was trained on
            classes that the cohort does not have.
    """
    refuse_other_classes(segmenter, cohort)

    def segment(case: Case, images: Mapping[str, Volume]) -> tuple[Mask, Trace]:
        prediction = predict(segmenter, images, tta=tta)
        return prediction.mask, prediction.trace

    return score_masks(
        segment, cases, cohort, arm=arm, shots=shots, draw=draw, folder=folder, lesion_classes=lesion_classes
    )


def score_masks(
    segment: Segment,
    cases: Sequence[Case],
    cohort: Cohort,
    *,
    arm: str,
    shots: int | None,
    draw: int,
    folder: Path | None = None,
    lesion_classes: Sequence[str] = (),
) -> list[Row]:
    """Score anything that segments; one row per case and class, each with its ceiling.

    Args:
        segment: the method.
        cases: cases of the cohort that have a reference mask.
        cohort: what their label values mean.
        arm: name of the method in the rows.
        shots: how many labelled images or patients it saw; None: all.
        draw: which draw of them.
        folder: where to leave the masks (see `mask_suffix`) and overlays; None: nowhere.
        lesion_classes: classes to be scored by lesion as well.

    Raises:
        DataError: a case cannot be read, or has no reference mask.
    """
    rows = []
    for case in cases:
        images = read_images(case)
        reference = read_case_mask(case, cohort)
        mask, trace = segment(case, images)
        truth, returned = reference.voxels, ceiling_mask(reference, trace).voxels
        rows += score_case(
            mask.voxels,
            truth,
            reference.spacing_mm,
            cohort.classes,
            arm=arm,
            shots=shots,
            draw=draw,
            case=case.name,
            patient=case.patient,
            site=case.tags.get("site", ""),
            ceiling=ceiling_of(returned, truth, cohort.classes),
            lesion_classes=lesion_classes,
        )
        if folder is not None:
            _write(MaskFolder(folder), case, images, mask, trace, cohort.classes)
    return rows


def refuse_other_classes(segmenter: Segmenter, cohort: Cohort) -> None:
    """Raise `DataError` unless every class of the model has the same label value in the cohort."""
    classes = segmenter.design.classes
    other = {name: value for name, value in classes.items() if cohort.classes.get(name) != value}
    if other:
        raise DataError(
            "the model was trained on other classes than the cohort has",
            where=cohort.name,
            found=f"model {dict(classes)}",
            expected=f"cohort {dict(cohort.classes)}",
            mend="Give the cohort the model's classes and label values.",
        )


def mask_suffix(case: Case, shape: tuple[int, ...]) -> str:
    """The format in which a predicted mask of `case` is left: ".png" for one picture, else ".nii.gz".

    `shape`: of the mask or scan, (Z, Y, X); a TIFF stack of several pages does not fit into a PNG.
    """
    first = next(iter(case.images.values()))
    return ".png" if is_picture(first.path) and shape[0] == 1 else ".nii.gz"


def _write(
    files: MaskFolder,
    case: Case,
    images: Mapping[str, Volume],
    mask: Mask,
    trace: Trace,
    classes: Mapping[str, int],
) -> None:
    """Leave a case's mask and its picture."""
    modality = next(iter(case.images))
    write_mask(files.mask(case.name, mask_suffix(case, mask.shape)), mask)
    save_png(files.picture(case.name), picture_of(images[modality], mask, trace, classes))
