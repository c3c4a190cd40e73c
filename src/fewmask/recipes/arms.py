"""Arms: one way of training each, all scored on the same test patients by the same code.

An arm's rows are kept in its step's folder, so that the same command again does only what is left.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmask.core.run import Step
from fewmask.data.augment import StrongAugment
from fewmask.data.augment_spatial import SpatialRanges
from fewmask.data.batches import Source
from fewmask.metrics.score import Row, read_rows, write_rows
from fewmask.objectives.teacher import TeacherSettings
from fewmask.recipes.settings import UNetSettings
from fewmask.recipes.stage import Few, Labelled, Stage
from fewmask.segmenter.evaluate import evaluate
from fewmask.segmenter.fit import FitSettings, fit_segmenter
from fewmask.segmenter.model import Segmenter
from fewmask.segmenter.sources import Labelled as Pairs
from fewmask.segmenter.sources import encode
from fewmask.synthesis.pixelhead import inverse_root_frequency
from fewmask.training.loop import precision_of

UNET = "unet"

Mixed = tuple[Source, Sequence[float]]
"""Images with masks from several origins, and how often each is drawn."""


def place(arm: str, shots: int | None, draw: int) -> str:
    """Name of an arm's step: "unet/k=3/draw=0" or "unet/all"."""
    name = arm.replace(" ", "-")
    return f"{name}/all" if shots is None else f"{name}/k={shots}/draw={draw}"


def train_unet(
    stage: Stage,
    items: Labelled,
    *,
    arm: str,
    shots: int | None,
    draw: int,
    mixed: Mixed | None = None,
    teacher: TeacherSettings | None = None,
    start: Segmenter | None = None,
    unet: UNetSettings | None = None,
    augment: bool = True,
) -> Segmenter:
    """The U-Net of every arm: one architecture, one budget of images, one augmentation.

    `mixed` replaces the items by a source with sampling weights (generated images beside real ones);
    `teacher` lets the U-Net learn from its unlabelled images as well; `start` has the first weights.
    `unet` replaces the settings of the run, where an arm divides its budget among several trainings.
    """
    unet, held_out = unet or stage.settings.unet, stage.validation
    source, weights = mixed if mixed is not None else (None, None)
    name = place(arm, shots, draw)
    return fit_segmenter(
        Pairs(items.images, items.masks) if source is None else source,
        stage.preparation,
        stage.cohort.classes,
        settings=fit_settings(unet, stage, items, augment=augment),
        step=stage.run.step(name),
        seed=stage.settings.seed,
        fabric=stage.fabric,
        validation=None if held_out is None else Pairs(held_out.images, held_out.masks),
        watch=_followed(stage) if unet.follow and draw == 0 else None,
        weights=weights,
        teacher=teacher,
        start=start,
        may_be_absent=stage.settings.cohort.lesions,
        picture_channels={
            modality: file.channel
            for modality, file in stage.training_cases[0].images.items()
            if file.channel is not None
        },
        about={"arm": arm, "shots": shots, "draw": draw, "cases": items.patients_text},
        label=name,
    )


def plain_unet(stage: Stage, few: Few, items: Labelled) -> Segmenter:
    """The plain U-Net of a draw's masks: trained, or read where it was trained before."""
    return train_unet(stage, items, arm=UNET, shots=few.count, draw=few.draw)


def unet_key(unet: UNetSettings) -> dict[str, Any]:
    """The settings on which a U-Net and its scores depend, as JSON values; following it changes nothing."""
    return unet.model_dump(mode="json", exclude={"follow"})


def _followed(stage: Stage) -> Pairs:
    """The test slices, whose mean IoU a training may tell while it goes on; it chooses nothing by them."""
    return Pairs(stage.test_items.images, stage.test_items.masks)


def fit_settings(unet: UNetSettings, stage: Stage, items: Labelled, *, augment: bool = True) -> FitSettings:
    """The segmenter's settings from the recipe's; rare classes are weighed by what the items show."""
    patch: tuple[int, ...] | None = unet.patch
    if stage.settings.prepare.dims == 2:
        patch = stage.settings.prepare.size
    return FitSettings(
        widths=unet.widths,
        patch=patch,
        images=unet.images,
        batch_size=unet.batch,
        lr=unet.learning_rate,
        augment=StrongAugment(spatial=SpatialRanges(flips=unet.flips)) if augment else None,
        class_weights=class_weights(stage, items) if unet.class_weights else (),
    )


def class_weights(stage: Stage, items: Labelled) -> tuple[float, ...]:
    """Weight of each class, the background first: 1 / sqrt of its share of the items' pixels, mean 1."""
    flat = np.concatenate([mask.ravel() for mask in items.masks])
    return inverse_root_frequency(encode(flat, stage.labels, "labelled items"), len(stage.labels))


def unet_arm(
    stage: Stage,
    items: Labelled,
    *,
    shots: int | None,
    draw: int,
    arm: str = UNET,
    mixed: Callable[[], Mixed] | None = None,
    teacher: TeacherSettings | None = None,
    start: Callable[[], Segmenter] | None = None,
    unet: UNetSettings | None = None,
    augment: bool = True,
    made_from: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Train the U-Net on `items` and score it on the test patients.

    `mixed` and `start` make what `train_unet` calls so, only when the arm is still to be trained.
    `made_from`: further settings (JSON values) on which the arm depends.
    """

    def compute() -> list[Row]:
        segmenter = train_unet(
            stage,
            items,
            arm=arm,
            shots=shots,
            draw=draw,
            mixed=None if mixed is None else mixed(),
            teacher=teacher,
            start=None if start is None else start(),
            unet=unet,
            augment=augment,
        )
        return evaluate(
            segmenter,
            stage.test_cases,
            stage.cohort,
            arm=arm,
            shots=shots,
            draw=draw,
            folder=stage.run.cases(place(arm, shots, draw)),
            tta=stage.settings.unet.tta,
            lesion_classes=stage.settings.cohort.lesions,
        )

    inputs = {
        "unet": unet_key(unet or stage.settings.unet),
        "items": [asdict(ref) for ref in items.refs],
        **(made_from or {}),
    }
    return scored(stage, place(arm, shots, draw), inputs, compute)


def scored(stage: Stage, name: str, inputs: dict[str, Any], compute: Callable[[], list[Row]]) -> list[Row]:
    """The rows of an arm: read when they were computed from the same inputs, else computed and kept."""
    step: Step = stage.run.step(f"{name}/scores")
    inputs = {"stage": stage.key, **precision_of(stage.fabric), **inputs}
    if step.result(inputs) is None:
        started = time.monotonic()
        write_rows(step.rows_csv, compute())
        step.finish({"seconds": round(time.monotonic() - started, 1)})
    return read_rows(step.rows_csv)


def stacked(items: Labelled) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """2-D items as arrays (N, C, H, W) float32 and (N, H, W)."""
    return np.stack(items.images).astype(np.float32), np.stack(items.masks)


def class_numbers(stage: Stage, items: Labelled) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Items as arrays, masks as the network's class numbers."""
    images, masks = stacked(items)
    return images, encode(masks, stage.labels, "labelled slices")
