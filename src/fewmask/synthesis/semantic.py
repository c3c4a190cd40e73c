"""A generator that draws masks beside its images, trained on unlabelled slices and a few labelled ones.

SemanticGAN (Li et al., CVPR 2021, "Semantic segmentation with generative models"): the training of
`synthesis.generator` with `objectives.semanticgan.MaskGame` beside it. Started from a trained StyleGAN2 only
the mask branch and the discriminator of pairs begin at chance, so that one costly training of images serves
every choice of labelled slices.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError
from fewmask.core.run import Step
from fewmask.core.seed import integer
from fewmask.data.augment import StrongAugment
from fewmask.data.batches import ArraySource, Stream
from fewmask.data.softmasks import refuse_classes, refuse_mask
from fewmask.networks.semanticgan import MaskDiscriminator, SemanticGenerator
from fewmask.networks.stylegan2 import Discriminator
from fewmask.objectives.alarms import Alarm
from fewmask.objectives.regularise import Regularisation
from fewmask.objectives.semanticgan import MaskGame
from fewmask.synthesis.design import GeneratorDesign, MaskDesign, build_mask_discriminator
from fewmask.synthesis.generator import Slices, build_networks, made_from, objective_for, train_gan
from fewmask.synthesis.slices import fingerprint, refuse_slices
from fewmask.synthesis.start import Start, copy_start
from fewmask.training.launch import Fabric
from fewmask.training.loop import Fitted


@dataclass(frozen=True, eq=False)
class TrainedSemantic:
    """The averaged generator and both discriminators at the end, frozen, in evaluation mode, on the CPU."""

    generator: SemanticGenerator
    discriminator: Discriminator
    mask_discriminator: MaskDiscriminator
    fitted: Fitted
    key: dict[str, Any]
    """What it was trained from (JSON values): what builds on it depends on this."""
    settings: dict[str, dict[str, Any]]
    """Settings of "generator", "discriminator" and "mask_discriminator", for `design.build_...`."""
    alarms: tuple[Alarm, ...]
    """What went wrong with the images during the training."""


def mask_channels(classes: int) -> int:
    """Channels of the masks for so many classes with the background: one each, and a single one for two."""
    return 1 if classes == 2 else classes


def train_semantic(
    slices: NDArray[np.floating] | Slices,
    images: NDArray[np.floating],
    masks: NDArray[np.uint8],
    design: GeneratorDesign,
    step: Step,
    *,
    total: int,
    seed: int,
    fabric: Fabric,
    classes: int,
    start: Start | None = None,
    augment: StrongAugment | None = None,
    game: MaskDesign | None = None,
    label: str = "semantic",
    pictures: int = 32,
    parts: int = 1,
    keep_every: int | None = None,
) -> TrainedSemantic:
    """Train until `total` unlabelled images were shown, and as many labelled; the same call resumes or loads.

    Args:
        slices: (N, C, R, R) in [-1, 1], or `Slices`: what the discriminator of images learns from.
        images: (k, C, R, R) in [-1, 1], the labelled slices; few of them fill a batch by repetition.
        masks: (k, R, R) uint8, class numbers from 0 to `classes` - 1, `IGNORE` where nobody judged.
        design: sizes and rates of images; of kind StyleGAN2.
        step: folder of the training.
        total: images to see.
        seed: fixes weights, order and noise.
        fabric: where to compute.
        classes: of the masks, with the background; two are drawn as one channel.
        start: a plain StyleGAN2, and its discriminator, to start from: then `design.transferred()` is meant.
        augment: changes labelled images and masks alike whenever they are shown.
        game: how masks are learned; None as published.
        label: names the progress bar and the streams of chance.
        pictures: samples in each picture grid.
        parts: micro-batches computed one after the other, to save memory.
        keep_every: images from one checkpoint to the next; None for a twentieth of `total`.

    Raises:
        ConfigError: as `train_generator`; fewer than two classes; labelled slices of another shape; a design
            that can have no mask branch.
        ShapeError: masks that do not fit their images.
        DataError: slices that nothing can be learned from, or class numbers out of range.
        TrainingError: a number that is not finite.
    """
    given, game = slices if isinstance(slices, Slices) else Slices(slices), game or MaskDesign()
    refuse_slices(given.images, given.scale)
    _refuse_labelled(given, images, masks, classes)
    settings = _settings(given, design, game, mask_channels(classes))
    generator, average, discriminator = build_networks(settings, seed, label)
    assert isinstance(generator, SemanticGenerator)
    judge = _mask_discriminator(settings["mask_discriminator"], seed, label)
    began = None if start is None else copy_start(start, generator, discriminator)
    told = {"seed": seed, "label": label, "images": total, "start": began, "masks": asdict(game)}
    told |= {"classes": classes, "augment": None if augment is None else asdict(augment)}
    told |= {"labelled": [fingerprint(images), fingerprint(masks)]}
    inputs = made_from(given, design, told)
    step.claim(inputs)
    pairs = ArraySource(np.asarray(images, np.float32), masks)
    labelled = Stream(pairs, design.batch, seed=seed, name=f"{label} pairs", augment=augment)
    beside = _game(game, generator, judge, labelled)
    objective = objective_for(
        design, given, generator, discriminator, average, pictures=pictures, beside=beside
    )
    stream = given.stream(design.batch, seed=seed, name=label)
    fitted, rung = train_gan(
        objective,
        stream,
        design,
        step,
        total=total,
        seed=seed,
        fabric=fabric,
        parts=parts,
        keep_every=keep_every,
    )
    last = objective.average
    assert isinstance(last, SemanticGenerator)
    for network in (last, discriminator, judge):
        network.cpu().requires_grad_(False).eval()
    return TrainedSemantic(last, discriminator, judge, fitted, inputs, settings, rung)


def _settings(
    slices: Slices, design: GeneratorDesign, game: MaskDesign, channels_of_masks: int
) -> dict[str, dict[str, Any]]:
    """Of the three networks."""
    channels, size = slices.images.shape[1:3]
    return {
        "generator": design.semantic(channels, size, channels_of_masks, slices.classes),
        "discriminator": design.discriminator(channels, size, slices.classes),
        "mask_discriminator": game.discriminator(channels, channels_of_masks),
    }


def _mask_discriminator(settings: Mapping[str, Any], seed: int, label: str) -> MaskDiscriminator:
    """With weights drawn from (seed, label)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer(seed, label, "mask weights"))
        return build_mask_discriminator(settings)


def _game(
    game: MaskDesign, generator: SemanticGenerator, judge: MaskDiscriminator, labelled: Stream
) -> MaskGame:
    return MaskGame(
        generator,
        judge,
        labelled,
        feature_weight=game.feature_weight,
        regularisation=Regularisation(r1_gamma=game.r1_gamma, r1_every=game.r1_every),
        lr=game.learning_rate,
    )


def _refuse_labelled(
    slices: Slices, images: NDArray[np.floating], masks: NDArray[np.uint8], classes: int
) -> None:
    if classes < 2:
        raise ConfigError(
            "masks have at least two classes",
            where="classes",
            found=str(classes),
            expected="2 or more, with the background",
        )
    refuse_slices(images, None, "labelled images", fewest=1)
    if images.shape[1:] != slices.images.shape[1:]:
        raise ConfigError(
            "the labelled slices are of another kind than the unlabelled ones",
            where="labelled images",
            found=f"{images.shape[1:]}",
            expected=f"{slices.images.shape[1:]}: channels, height, width",
            mend="Prepare both in the same way.",
        )
    refuse_mask(masks, (len(images), *images.shape[2:]))
    refuse_classes(masks, classes)
