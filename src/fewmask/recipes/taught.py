"""The arms that learn from pairs: from pairs alone, from pairs and then the shots, and from both mixed.

Each sees as many images as the plain U-Net does, so that none is better by time alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewmask.data.batches import ArraySource
from fewmask.metrics.score import Row
from fewmask.recipes.arms import Mixed, class_numbers, stacked, train_unet, unet_arm
from fewmask.recipes.factory import PairSet
from fewmask.recipes.settings import UNetSettings
from fewmask.recipes.stage import Few, Labelled, Stage
from fewmask.segmenter.model import Segmenter
from fewmask.synthesis.autoshot import mix_with_real


@dataclass(frozen=True, eq=False)
class Lessons:
    """The pairs of one draw as an arm learns from them.

    name: of the factory ("pairs"), the beginning of the arms' keys; pairs: made when it is called;
    labels: "soft" or "vote"; told: what the pairs depend on (JSON values).
    """

    name: str
    pairs: Callable[[], PairSet]
    labels: str
    told: dict[str, Any]


def alone_key(name: str) -> str:
    """The arm of pairs alone, as rows name it."""
    return name


def then_key(name: str) -> str:
    """The arm of pairs and then the shots."""
    return f"{name} then real"


def mixed_key(name: str, share: float) -> str:
    """The arm of both mixed, `share` of it real."""
    return f"{name} mixed {share:g}"


def alone_arm(stage: Stage, lessons: Lessons, few: Few, items: Labelled) -> list[Row]:
    """A U-Net that sees no real slice."""
    return unet_arm(
        stage,
        items,
        arm=alone_key(lessons.name),
        shots=few.count,
        draw=few.draw,
        mixed=lambda: _mixed(stage, lessons, items, 0.0),
        made_from=lessons.told,
    )


def mixed_arm(stage: Stage, lessons: Lessons, few: Few, items: Labelled, share: float) -> list[Row]:
    """A U-Net that sees pairs, and the real slices in `share` of its batches."""
    return unet_arm(
        stage,
        items,
        arm=mixed_key(lessons.name, share),
        shots=few.count,
        draw=few.draw,
        mixed=lambda: _mixed(stage, lessons, items, share),
        made_from={**lessons.told, "real": share},
    )


def then_arm(stage: Stage, lessons: Lessons, few: Few, items: Labelled, first: float) -> list[Row]:
    """A U-Net that sees pairs for the share `first` of its images, and the shots alone for the rest."""
    unet = stage.settings.unet
    before, after = divided(unet, first)

    def start() -> Segmenter:
        return train_unet(
            stage,
            items,
            arm=f"{lessons.name} before real",
            shots=few.count,
            draw=few.draw,
            mixed=_mixed(stage, lessons, items, 0.0),
            unet=before,
        )

    return unet_arm(
        stage,
        items,
        arm=then_key(lessons.name),
        shots=few.count,
        draw=few.draw,
        start=start,
        unet=after,
        made_from={**lessons.told, "first": first},
    )


def divided(unet: UNetSettings, first: float) -> tuple[UNetSettings, UNetSettings]:
    """The budget of images in two: at least one batch each."""
    part = min(max(round(unet.images * first), unet.batch), unet.images - unet.batch)
    return tuple(unet.model_copy(update={"images": n}) for n in (part, unet.images - part))  # type: ignore[return-value]


def _mixed(stage: Stage, lessons: Lessons, items: Labelled, share: float) -> Mixed:
    """What a training sees: the chosen pairs, and the shots with their share."""
    drawn = lessons.pairs()
    images, labels = drawn.images(), drawn.labels(lessons.labels)
    if not share:
        return ArraySource(images, labels), [1.0] * len(images)
    # Soft masks hold shares of classes by number; hard ones label values, which the training encodes.
    real, masks = class_numbers(stage, items) if lessons.labels == "soft" else stacked(items)
    together, both, weights = mix_with_real(images, labels, real.astype(np.float16), masks, real_share=share)
    return ArraySource(together, both), weights.tolist()
