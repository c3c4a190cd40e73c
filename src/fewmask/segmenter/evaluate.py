"""A segmenter's masks against the reference, on the scans' own grids."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import DataError
from fewmask.core.run import MaskFolder
from fewmask.core.volume import Mask
from fewmask.data.case import Case, Cohort
from fewmask.data.case_voxels import is_picture, read_case_mask, read_images
from fewmask.data.io import write_mask
from fewmask.data.overlay import save_png
from fewmask.data.prepare import ceiling_mask
from fewmask.metrics.score import Row, ceiling_of, score_case
from fewmask.segmenter.model import Segmenter
from fewmask.segmenter.picture import picture_of
from fewmask.segmenter.predict import predict


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
    """Segment and score every case; one row per case and class, each with its ceiling.

    Args:
        segmenter: the model.
        cases: cases of the cohort that have a reference mask.
        cohort: what their label values mean.
        arm: name of the method in the rows.
        shots: how many labelled images or patients it saw; None: all.
        draw: which draw of them.
        folder: where to leave the masks (.nii.gz, .png for pictures) and overlays; None: nowhere.
        tta: see `predict`.
        lesion_classes: classes to be scored by lesion as well.

    Raises:
        DataError: a case cannot be read, or has no reference mask, or the model was trained on other labels.
    """
    refuse_other_classes(segmenter, cohort)
    rows = []
    for case in cases:
        images = read_images(case)
        reference = read_case_mask(case, cohort)
        prediction = predict(segmenter, images, tta=tta)
        truth = _labels(reference)
        returned = _labels(ceiling_mask(reference, prediction.trace))
        rows += score_case(
            _labels(prediction.mask),
            truth,
            reference.spacing_mm,
            segmenter.design.classes,
            arm=arm,
            shots=shots,
            draw=draw,
            case=case.name,
            patient=case.patient,
            site=case.tags.get("site", ""),
            ceiling=ceiling_of(returned, truth, segmenter.design.classes),
            lesion_classes=lesion_classes,
        )
        if folder is not None:
            files = MaskFolder(folder)
            _write(files, case, prediction.mask)
            first = images[segmenter.design.modalities[0]]
            picture = picture_of(first, prediction.mask, prediction.trace, segmenter.design.classes)
            save_png(files.picture(case.name), picture)
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


def _labels(mask: Mask) -> NDArray[np.unsignedinteger[Any]]:
    return cast(NDArray[np.unsignedinteger[Any]], mask.voxels)


def _write(files: MaskFolder, case: Case, mask: Mask) -> None:
    first = next(iter(case.images.values())).path
    write_mask(files.mask(case.name, ".png" if is_picture(first) else ".nii.gz"), mask)
