"""Arms that also learn from slices which nobody has labelled: mean teacher, auto-shot, self-training."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewmask.core.seed import stream
from fewmask.data.batches import ArraySource
from fewmask.metrics.score import Row
from fewmask.objectives.teacher import TeacherSettings
from fewmask.recipes.arms import UNET, Mixed, class_numbers, class_weights, stacked, train_unet, unet_arm
from fewmask.recipes.fewshot_settings import FewshotSettings
from fewmask.recipes.heads import Heads
from fewmask.recipes.reading import Reading
from fewmask.recipes.stage import Few, Labelled, Stage
from fewmask.segmenter.sources import with_unlabelled
from fewmask.segmenter.windows import slide
from fewmask.synthesis.autoshot import (
    collect,
    mix_with_real,
    most_certain,
    sample_labelled,
    weighed_labels,
)
from fewmask.synthesis.pixelhead import Labeller, without_class_weights

TEACHER, AUTOSHOT, SELF, LONGER = "mean teacher", "auto-shot", "self-training", "unet longer"

Slices = NDArray[np.floating]


def pool_of(unlabelled: Slices, most: int, seed: int) -> NDArray[np.float32]:
    """At most `most` of the unlabelled slices (N, C, H, W), drawn once for all arms."""
    order = stream(seed, "fewshot", "pool").permutation(len(unlabelled))
    return np.asarray(unlabelled[np.sort(order[:most])], dtype=np.float32)


def longer_arm(stage: Stage, few: Few, items: Labelled) -> list[Row]:
    """The U-Net goes on for as many images again on the k masks: the cost of self-training, without it."""
    return unet_arm(
        stage,
        items,
        arm=LONGER,
        shots=few.count,
        draw=few.draw,
        start=lambda: train_unet(stage, items, arm=UNET, shots=few.count, draw=few.draw),
    )


def teacher_arm(
    stage: Stage, settings: FewshotSettings, pool: NDArray[np.float32], few: Few, items: Labelled
) -> list[Row]:
    """A U-Net on the k masks that learns to agree with its own average on the unlabelled slices."""
    how = settings.teacher

    def mixed() -> Mixed:
        images, masks = stacked(items)
        return with_unlabelled(images, masks, pool, labelled_share=how.labelled)

    return unet_arm(
        stage,
        items,
        arm=TEACHER,
        shots=few.count,
        draw=few.draw,
        mixed=mixed,
        teacher=TeacherSettings(average=how.average, weight=how.weight, confidence=how.confidence),
        made_from=_told(settings, pool, "teacher"),
    )


def autoshot_arm(heads: Heads, few: Few, items: Labelled) -> list[Row]:
    """Generated slices with the soft labels of a head, the uncertain ones left out, and the k real ones."""
    stage, settings = heads.stage, heads.settings
    auto, reading = settings.autoshot, Reading.parse(settings.autoshot.reads)

    def mixed() -> Mixed:
        assert reading.way is not None
        head = heads.train(reading, few, items)
        samples = collect(
            sample_labelled(
                heads.latents.generator(reading.way),
                [head.head],
                head.stack,
                auto.samples,
                seed=settings.seed,
                truncation=auto.truncation,
                others=[voter(stage, few, items)] if auto.vote else [],
                class_weights=head.class_weights,
            )
        )
        samples = most_certain(samples, 1.0 - auto.drop)
        images, masks = class_numbers(stage, items)
        labels = weighed_labels(samples, auto.confidence)
        together, both, weights = mix_with_real(samples, labels, images, masks, real_share=auto.real)
        return ArraySource(together, both), weights.tolist()

    told = {**heads.made_from(reading, items), "autoshot": auto.model_dump(mode="json")}
    return unet_arm(stage, items, arm=AUTOSHOT, shots=few.count, draw=few.draw, mixed=mixed, made_from=told)


def voter(stage: Stage, few: Few, items: Labelled) -> Labeller:
    """The plain U-Net of the same masks, as it votes on generated slices."""
    unet = train_unet(stage, items, arm=UNET, shots=few.count, draw=few.draw).to("cpu")
    weights = class_weights(stage, items) if stage.settings.unet.class_weights else ()

    def label(image: Tensor, ws: Tensor | None) -> Tensor:
        soft = slide(unet.network, image, unet.design.patch, classes=len(unet.design.labels))
        return without_class_weights(soft, weights)

    return label


def self_training_arm(
    heads: Heads,
    pool: NDArray[np.float32],
    generated: Callable[[], NDArray[np.float32]],
    few: Few,
    items: Labelled,
) -> list[Row]:
    """The U-Net of the k masks goes on as its own mean teacher, on unlabelled and on generated slices.

    What it has learned from the masks is the first teacher: pseudo-labels (Lee 2013) that improve while it
    learns from them, each slice as the teacher sees it against the same slice under strong augmentation.
    `generated` draws further slices, when the settings ask for any: they widen a pool of few patients.
    """
    stage, how = heads.stage, heads.settings.self_training
    made_from = _told(heads.settings, pool, "self_training")
    if how.generated:
        made_from["generator"] = heads.generator_key()

    def mixed() -> Mixed:
        images, masks = stacked(items)
        pools = [pool, generated()] if how.generated else [pool]
        return with_unlabelled(images, masks, *pools, labelled_share=how.real)

    return unet_arm(
        stage,
        items,
        arm=SELF,
        shots=few.count,
        draw=few.draw,
        mixed=mixed,
        teacher=TeacherSettings(average=how.average, ramp=0.0),
        start=lambda: train_unet(stage, items, arm=UNET, shots=few.count, draw=few.draw),
        made_from=made_from,
    )


def _told(settings: FewshotSettings, pool: NDArray[np.float32], *groups: str) -> dict[str, Any]:
    """The settings on which an arm depends, as JSON values."""
    return {"pool": len(pool), **settings.model_dump(mode="json", include=set(groups))}
