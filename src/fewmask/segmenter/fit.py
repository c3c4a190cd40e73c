"""Training of a segmenter on prepared images with masks."""

import hashlib
import json
from collections.abc import Mapping, Sequence
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
from fewmask.segmenter.model import Design, Segmenter
from fewmask.segmenter.sources import Labelled as Labelled
from fewmask.segmenter.sources import encode as encode
from fewmask.segmenter.sources import encoded_masks, fingerprint, source_of, told
from fewmask.segmenter.sources import with_unlabelled as with_unlabelled
from fewmask.segmenter.windows import slide
from fewmask.training.checkpoint import load_best
from fewmask.training.launch import Fabric
from fewmask.training.loop import fit


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
    """Weights of the cross-entropy, the background first; empty: all 1."""
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
    weights: Sequence[float] | None = None,
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
        weights: how often each image is drawn, relative to the others; None: all equally.
        may_be_absent: classes that many scans do not have.
        picture_channels: which channel of a colour picture each modality is.
        about: what to tell about the training data in the model (JSON values).
        label: name of the training in logs.

    Raises:
        DataError: a mask holds a label value that nobody declared, or no class at all.
        ShapeError: images and masks do not fit.
        ConfigError: a setting is out of range.
    """
    patch, widths = _patch(data, settings), settings.widths
    flips = settings.augment.spatial.flips if settings.augment else ()
    design = Design(
        classes,
        preparation,
        patch,
        widths,
        flips,
        tuple(may_be_absent),
        dict(about or {}),
        picture_channels=dict(picture_channels or {}),
    )
    inputs = _inputs(data, validation, weights, design, settings, seed, label)
    if step.result(inputs) is not None:
        return Segmenter.load(step.model, device=fabric.device)
    objective = _objective(design, settings, seed, label)
    held_out = None if validation is None else encoded_masks(validation, design.labels, "validation")
    source = source_of(data, design, foreground=settings.foreground)
    augment = _augment(source, settings)
    stream = Stream(source, settings.batch_size, seed=seed, name=label, augment=augment, weights=weights)
    fitted = fit(
        objective,
        stream,
        step,
        images=settings.images,
        seed=seed,
        fabric=fabric,
        validate=None if held_out is None else lambda: pooled_dice(objective.result, held_out, design),
        label=label,
        **_intervals(settings),
    )
    best = load_best(step, objective.modules()) if held_out is not None else {}
    segmenter = Segmenter(objective.result.eval().requires_grad_(False), design)
    if fabric.global_rank == 0:
        segmenter.save(step.model)
        step.finish({"images_seen": fitted.images_seen, "best": best})
    fabric.barrier()
    return segmenter


def _intervals(settings: FitSettings) -> dict[str, Any]:
    """Images between checkpoints, reports and validations."""
    return {
        "checkpoint_every": settings.checkpoint_every or max(settings.images // 10, 1),
        "report_every": max(settings.images // 40, 1),
        "validate_every": settings.validate_every or max(settings.images // 20, 1),
    }


def _objective(design: Design, settings: FitSettings, seed: int, label: str) -> SegmentationObjective:
    """A fresh network with what it minimises; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer(seed, label, "weights"))
        network = design.build()
    return SegmentationObjective(
        network,
        Schedule(settings.lr, settings.images, warm_up=0.05),
        classes=len(design.labels),
        optimizer=settings.optimizer,
        weight_decay=settings.weight_decay,
        class_weights=settings.class_weights,
        average=settings.average,
    )


@torch.no_grad()
def pooled_dice(network: nn.Module, data: Labelled, design: Design) -> float:
    """Mean over classes of the Dice over all voxels of all images together, 0..1; unjudged voxels left out.

    `data` holds the network's class numbers. A class that is neither there nor found counts as 1.
    """
    network.eval()
    device = next(network.parameters()).device
    count = len(design.labels)
    table = np.zeros((count, count), dtype=np.int64)
    for image, mask in zip(data.images, data.masks, strict=True):
        pixels = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None].to(device)
        answer = slide(network, pixels, design.patch, classes=count)[0].argmax(dim=0).cpu().numpy()
        judged = mask != IGNORE
        pairs = answer[judged] * count + mask[judged]
        table += np.bincount(pairs.ravel(), minlength=count**2).reshape(count, count)
    both = np.diagonal(table)[1:]
    either = (table.sum(axis=0) + table.sum(axis=1))[1:]
    return float(np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0).mean())


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
