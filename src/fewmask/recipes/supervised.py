"""U-Net on k labelled slices (or patients), against the U-Net on all of them.

The reference of every other recipe: the same network, the same budget of images seen, the same strong
augmentation, whatever the number of masks. Ronneberger et al. 2015 (U-Net); Isensee et al. 2021 (nnU-Net's
losses and augmentation).

    fewmask run supervised --preset chest-xray-64 --cohort MY_FILMS --out runs/films

Times and scores on real scans: docs/results/.
"""

from collections.abc import Sequence

from fewmask.metrics.score import Row
from fewmask.recipes.arms import UNET, unet_arm
from fewmask.recipes.outcome import Outcome
from fewmask.recipes.plan import Work, unet_work
from fewmask.recipes.settings import SupervisedSettings
from fewmask.recipes.stage import Stage, every_draw
from fewmask.report.content import Arm

_UNET = Arm(UNET, "plain U-Net", "baseline", "U-Net with strong augmentation on the labelled scans alone")

QUESTION = "How well does a U-Net segment from few masks, compared with all masks?"


def arms(settings: SupervisedSettings) -> tuple[Arm, ...]:
    """What the table compares: one network, by the number of masks."""
    return (_UNET,)


def run(stage: Stage, settings: SupervisedSettings) -> Outcome:
    """Train and score every arm."""
    rows: list[Row] = []
    for few, items in every_draw(stage):
        rows += unet_arm(stage, items, shots=few.count, draw=few.draw)
    if settings.shots.full:
        rows += unet_arm(stage, stage.labelled, shots=None, draw=0)
    return Outcome(rows)


def plan(settings: SupervisedSettings) -> Sequence[Work]:
    """What `run` will do, to be timed."""
    trainings = len(settings.shots.counts) * settings.shots.draws + int(settings.shots.full)
    return [unet_work(settings, "U-Net", trainings)]
