"""Training of a segmenter on prepared images with masks."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from fewmask.core.errors import ConfigError
from fewmask.core.run import Step
from fewmask.core.seed import integer
from fewmask.core.volume import IGNORE
from fewmask.data.augment import StrongAugment
from fewmask.data.batches import PatchSource, Source, Stream
from fewmask.data.prepare import Preparation
from fewmask.networks.unet import WIDTHS
from fewmask.objectives.segmentation import Schedule, SegmentationObjective
from fewmask.objectives.teacher import MeanTeacherObjective, TeacherSettings
from fewmask.segmenter.heldout import Learner, mean_iou, pooled_dice
from fewmask.segmenter.model import Design, Segmenter
from fewmask.segmenter.sources import Labelled, encoded_masks, fingerprint, source_of, told
from fewmask.training.checkpoint import load_best
from fewmask.training.launch import Fabric
from fewmask.training.loop import fit, precision_of


@dataclass(frozen=True)
class FitSettings:
    """How a segmenter is trained. Every field is JSON-able through `dataclasses.asdict`."""

    widths: tuple[int, ...] = WIDTHS
    """Channels per level of the U-Net, the finest first."""
    patch: tuple[int, ...] | None = None
    """What the network sees at once, in prepared voxels; None: whole images, as large as the largest."""
    images: int = 3200
    """Images to see."""
    batch_size: int = 8
    """Images per update."""
    lr: float = 2e-3
    """Highest learning rate; it falls to 0 along a cosine."""
    weight_decay: float = 1e-2
    """AdamW's weight decay."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or nnU-Net's SGD (then use lr 0.01)."""
    average: int = 0
    """Half-life in images of the moving average of weights that is kept instead of the last ones; 0: none."""
    augment: StrongAugment | None = field(default_factory=StrongAugment)
    """How images are varied; None: not at all."""
    foreground: float = 0.33
    """Share of patches that are centred on a structure, where patches are smaller than images."""
    class_weights: tuple[float, ...] = ()
    """Weights of the cross-entropy, the background first; empty: all 1. Soft masks are not weighed."""
    validate_every: int | None = None
    """Images between validations; None: a twentieth of the training."""
    checkpoint_every: int | None = None
    """Images between checkpoints; None: a tenth of the training."""


def fit_segmenter(
    data: Labelled | Source,
    preparation: Preparation,
    classes: Mapping[str, int],
    *,
    settings: FitSettings,
    step: Step,
    seed: int,
    fabric: Fabric,
    validation: Labelled | None = None,
    watch: Labelled | None = None,
    weights: Sequence[float] | None = None,
    teacher: TeacherSettings | None = None,
    start: Segmenter | None = None,
    may_be_absent: Sequence[str] = (),
    picture_channels: Mapping[str, int] | None = None,
    about: Mapping[str, Any] | None = None,
    label: str = "unet",
) -> Segmenter:
    """Train a U-Net and write it to `step.model`; the same call again resumes, or loads what is finished.

    Args:
        data: prepared images with masks; or a `Source` of both (then `settings.patch` must say their size),
            whose masks may be soft: shares of the network's classes, the background first.
        preparation: how the images were prepared; kept in the model.
        classes: class name -> label value in the masks, without the background.
        settings: how to train.
        step: the folder of this training.
        seed: fixes weights, order and augmentation.
        fabric: where to compute (`training.launch`).
        validation: prepared images of patients that are not trained on; the weights with the best smoothed
            Dice are kept. None: the schedule's last weights are.
        watch: prepared images whose mean IoU is logged as "watched_iou" at the validations' intervals, and
            changes nothing.
        weights: how often each image is drawn, relative to the others; None: all equally.
        teacher: how images without any judged voxel are learned from (`with_unlabelled`); the teacher is
            then the network that is kept, and `settings.average` is not used.
        start: a segmenter of the same classes, widths and channels whose weights are the first ones.
        may_be_absent: classes that many scans do not have.
        picture_channels: which channel of a colour picture each modality is.
        about: what to tell about the training data in the model (JSON values).
        label: name of the training in logs.

    Raises:
        DataError: a mask holds a label value that nobody declared, or no class at all.
        ShapeError: images and masks do not fit.
        ConfigError: a setting is out of range, or `start` is of another design.
    """
    design = Design(
        classes,
        preparation,
        _patch(data, settings),
        settings.widths,
        settings.augment.spatial.flips if settings.augment else (),
        tuple(may_be_absent),
        dict(about or {}),
        picture_channels=dict(picture_channels or {}),
    )
    inputs = _inputs(data, validation, weights, design, settings, seed, label)
    inputs |= _inputs_asked_for(design, teacher, start) | precision_of(fabric)
    if step.result(inputs) is not None:
        return Segmenter.load(step.model, device=fabric.device)
    source = source_of(data, design, foreground=settings.foreground)
    augment = _augment(source, settings)
    learner = _learner(design, settings, augment, teacher, start, seed, label)
    augment = augment if teacher is None else None  # a teacher looks at the images as they are
    stream = Stream(source, settings.batch_size, seed=seed, name=label, augment=augment, weights=weights)
    held_out = None if validation is None else encoded_masks(validation, design.labels, "validation")
    fitted = fit(
        learner,
        stream,
        step,
        images=settings.images,
        seed=seed,
        fabric=fabric,
        validate=None if held_out is None else lambda: pooled_dice(learner.result, held_out, design),
        observe=_watched(learner, watch, design),
        label=label,
        **_intervals(settings),
    )
    best = load_best(step, learner.modules()) if held_out is not None else {}
    segmenter = Segmenter(learner.result.eval().requires_grad_(False), design)
    if fabric.global_rank == 0:
        segmenter.save(step.model)
        step.finish({"images_seen": fitted.images_seen, "best": best})
    fabric.barrier()
    return segmenter


def _intervals(settings: FitSettings) -> dict[str, Any]:
    """Images between checkpoints, reports, validations and looks."""
    validations = settings.validate_every or max(settings.images // 20, 1)
    return {
        "checkpoint_every": settings.checkpoint_every or max(settings.images // 10, 1),
        "report_every": max(settings.images // 40, 1),
        "validate_every": validations,
        "observe_every": validations,
    }


def _learner(
    design: Design,
    settings: FitSettings,
    augment: StrongAugment | None,
    teacher: TeacherSettings | None,
    start: Segmenter | None,
    seed: int,
    label: str,
) -> Learner:
    """A fresh network, or that of `start`, with what it minimises; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer(seed, label, "weights"))
        network = design.build()
    if start is not None:
        network.load_state_dict(start.network.state_dict())
    student = SegmentationObjective(
        network,
        Schedule(settings.lr, settings.images, warm_up=0.05),
        classes=len(design.labels),
        optimizer=settings.optimizer,
        weight_decay=settings.weight_decay,
        class_weights=settings.class_weights,
        average=0 if teacher is not None else settings.average,
    )
    return student if teacher is None else MeanTeacherObjective(student, augment, teacher)


def _watched(
    learner: Learner, watch: Labelled | None, design: Design
) -> Callable[[], Mapping[str, float]] | None:
    """What tells the mean IoU on `watch` while the training goes on."""
    if watch is None:
        return None
    data = encoded_masks(watch, design.labels, "watched")
    return lambda: {"watched_iou": mean_iou(learner.result, data, design)}


def _refuse_other_design(found: Design, wanted: Design) -> None:
    """Weights fit a network of the same classes, channels, widths and axes only."""

    def parts(design: Design) -> str:
        channels = design.preparation.channel_count
        return f"{dict(design.classes)}, {channels} channels, widths {design.widths}, {design.dims}-D"

    if parts(found) != parts(wanted):
        raise ConfigError(
            "a training cannot start from a segmenter of another design",
            found=parts(found),
            expected=parts(wanted),
            mend="Start from a segmenter of the same classes, channels and widths.",
        )


def _patch(data: Labelled | Source, settings: FitSettings) -> tuple[int, ...]:
    """The patch asked for, or the largest image; either rounded up to what the network can halve."""
    wanted = settings.patch
    if wanted is None:
        if not isinstance(data, Labelled):
            raise ConfigError(
                "a source of images needs a patch size",
                where="patch",
                mend="Set patch to the (H, W) or (D, H, W) of its images.",
            )
        wanted = tuple(max(sizes) for sizes in zip(*(image.shape[1:] for image in data.images), strict=True))
    multiple = 2 ** (len(settings.widths) - 1)
    return tuple(-(-n // multiple) * multiple for n in wanted)


def _augment(source: Source, settings: FitSettings) -> StrongAugment | None:
    """The augmentation; what it brings in from beyond a patch is unjudged, for the scan goes on there."""
    if settings.augment is None or not isinstance(source, PatchSource):
        return settings.augment
    return replace(settings.augment, outside=IGNORE)


def _inputs(
    data: Labelled | Source,
    validation: Labelled | None,
    weights: Sequence[float] | None,
    design: Design,
    settings: FitSettings,
    seed: int,
    label: str,
) -> dict[str, Any]:
    """What a training is made from, as JSON values: done twice from the same, it is not done again."""
    plain = {
        "label": label,
        "seed": seed,
        "settings": asdict(settings),
        "design": {name: value for name, value in design.to_json().items() if name != "about"},
        "data": told(data),
        "weights": "equal" if weights is None else hashlib.sha256(repr(list(weights)).encode()).hexdigest(),
        "validation": "none" if validation is None else fingerprint(validation.images, validation.masks),
    }
    as_json: dict[str, Any] = json.loads(json.dumps(plain))
    return as_json


def _inputs_asked_for(
    design: Design, teacher: TeacherSettings | None, start: Segmenter | None
) -> dict[str, Any]:
    """Further inputs, named only where they are given, so that steps without them stay what they were."""
    inputs: dict[str, Any] = {} if teacher is None else {"teacher": asdict(teacher)}
    if start is not None:
        _refuse_other_design(start.design, design)
        inputs["start"] = weights_sha256(start.network)
    return inputs


def weights_sha256(network: nn.Module) -> str:
    """SHA-256 over names, sizes and values of all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return digest.hexdigest()
