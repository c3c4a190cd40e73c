"""Controls: what a method must be above to have learnt anything, scored by the same code."""

from collections.abc import Mapping

import numpy as np

from fewmask.core.volume import Mask, Volume
from fewmask.data.case import Case
from fewmask.data.prepare import Trace, prepare
from fewmask.metrics.score import Row
from fewmask.recipes.arms import place, scored
from fewmask.recipes.stage import Stage
from fewmask.report.content import EMPTY_ARM
from fewmask.segmenter.evaluate import score_masks


def empty_arm(stage: Stage) -> list[Row]:
    """Score a mask that marks nothing on every test case: Dice 1 where a class is absent, 0 elsewhere.

    It needs no mask, so its rows have 0 shots and draw 0; list `EMPTY_ARM` among the recipe's arms.
    """

    def segment(case: Case, images: Mapping[str, Volume]) -> tuple[Mask, Trace]:
        first = next(iter(images.values()))
        blank = Mask(np.zeros(first.shape, np.uint8), first.affine)
        return blank, prepare(images, stage.preparation).trace

    def compute() -> list[Row]:
        return score_masks(
            segment,
            stage.test_cases,
            stage.cohort,
            arm=EMPTY_ARM.key,
            shots=0,
            draw=0,
            folder=stage.run.cases(place(EMPTY_ARM.key, 0, 0)),
            lesion_classes=stage.settings.cohort.lesions,
        )

    inputs = {"lesions": list(stage.settings.cohort.lesions)}
    return scored(stage, place(EMPTY_ARM.key, 0, 0), inputs, compute)
