"""Arms that also learn from slices which nobody has labelled: mean teacher, auto-shot."""

import numpy as np
from numpy.typing import NDArray

from fewmask.core.seed import stream
from fewmask.data.batches import ArraySource
from fewmask.metrics.score import Row
from fewmask.objectives.teacher import TeacherSettings
from fewmask.recipes.arms import Mixed, class_numbers, plain_unet, stacked, unet_arm
from fewmask.recipes.fewshot_settings import FewshotSettings
from fewmask.recipes.head_settings import TeacherArmSettings
from fewmask.recipes.heads import Heads
from fewmask.recipes.reading import Reading
from fewmask.recipes.stage import Few, Labelled, Stage
from fewmask.segmenter.sources import with_unlabelled
from fewmask.synthesis.autoshot import (
    collect,
    mix_with_real,
    most_certain,
    sample_labelled,
    weighed_labels,
)

TEACHER, AUTOSHOT, LONGER = "mean teacher", "auto-shot", "unet longer"

Slices = NDArray[np.floating]


def pool_of(unlabelled: Slices, most: int, seed: int) -> NDArray[np.float32]:
    """At most `most` of the unlabelled slices (N, C, H, W), drawn once for all arms."""
    order = stream(seed, "fewshot", "pool").permutation(len(unlabelled))
    return np.asarray(unlabelled[np.sort(order[:most])], dtype=np.float32)


def longer_arm(stage: Stage, few: Few, items: Labelled) -> list[Row]:
    """The U-Net goes on for as many images again on the k masks: what propagation costs, without it."""
    return unet_arm(
        stage,
        items,
        arm=LONGER,
        shots=few.count,
        draw=few.draw,
        start=lambda: plain_unet(stage, few, items),
    )


def teacher_arm(
    stage: Stage,
    how: TeacherArmSettings,
    pool: NDArray[np.float32],
    slices_per_patient: int,
    few: Few,
    items: Labelled,
) -> list[Row]:
    """A U-Net on the k masks that learns to agree with its own average on the unlabelled slices.

    slices_per_patient: at most so many of a patient are in the pool.
    """

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
        made_from={
            "pool": len(pool),
            "slices_per_patient": slices_per_patient,
            "teacher": how.model_dump(mode="json"),
        },
    )


def autoshot_arm(heads: Heads, settings: FewshotSettings, few: Few, items: Labelled) -> list[Row]:
    """Generated slices with the soft labels of a head, the uncertain ones left out, and the k real ones."""
    stage = heads.stage
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
                class_weights=head.class_weights,
            )
        )
        samples = most_certain(samples, 1.0 - auto.drop)
        images, masks = class_numbers(stage, items)
        labels = weighed_labels(samples, auto.confidence)
        together, both, weights = mix_with_real(samples.images, labels, images, masks, real_share=auto.real)
        return ArraySource(together, both), weights.tolist()

    told = {**heads.made_from(reading, items), "autoshot": auto.model_dump(mode="json")}
    return unet_arm(stage, items, arm=AUTOSHOT, shots=few.count, draw=few.draw, mixed=mixed, made_from=told)
