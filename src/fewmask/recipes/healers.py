"""The methods that lazylabel compares: how each is trained, from settings to what makes an image healthy."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fewmask.core.run import Step
from fewmask.data.augment import StrongAugment
from fewmask.data.augment_intensity import IntensityRanges
from fewmask.data.augment_spatial import SpatialRanges
from fewmask.objectives.attentionmask import MaskWeights
from fewmask.objectives.wasserstein import CriticSteps
from fewmask.recipes.lazylabel_settings import LazylabelSettings
from fewmask.report.content import EMPTY_ARM, Arm
from fewmask.synthesis.activation import ActivationMap, ClassifierSettings, train_classifier
from fewmask.synthesis.autoencoder import DENOISER, AutoencoderSettings, train_autoencoder
from fewmask.synthesis.counterfactual import DiffusionSettings, Way, train_diffusion
from fewmask.synthesis.difference import body_mask
from fewmask.synthesis.healthy import Domains, ToHealthy
from fewmask.synthesis.ladder import (
    DisplacementSettings,
    FixedPointSettings,
    MaskHeadSettings,
    VaganSettings,
    train_displacement,
    train_fixed_point,
    train_mask_head,
    train_vagan,
)
from fewmask.synthesis.translator import TranslatorDesign, train_translator
from fewmask.synthesis.trivial import Brightness, EmptyMask, WholeBody
from fewmask.training.launch import Fabric

_STILL = IntensityRanges(
    gamma=(1.0, 0.0),
    contrast=(1.0, 0.0),
    brightness=(0.0, 0.0),
    bias=(0.0, 0.0),
    noise=(0.0, 0.0),
    blur=(0.0, 0.0),
    low_resolution=(1.0, 0.0),
)
"""No change of grey values: the disease may be one."""

TURNED = StrongAugment(
    spatial=SpatialRanges(rotate_deg=5.0, scale=1.05, stretch=1.0, shear=0.0, shift=0.03, elastic=0.0),
    intensity=_STILL,
)
"""How slices are varied for methods that translate: as in the document turned by up to 5 degrees, moved and
scaled a little, but not mirrored."""


@dataclass(frozen=True)
class Lesson:
    """What a method is trained with."""

    domains: Domains
    settings: LazylabelSettings
    step: Step
    seed: int
    fabric: Fabric
    label: str


@dataclass(frozen=True)
class Method:
    """A method and how it is trained. Several arms read the maps of one training in several ways."""

    arms: tuple[Arm, ...]
    train: Callable[[Lesson], ToHealthy]
    group: str = ""
    """The group of settings that it depends on; none: it has nothing to learn by steps."""


def methods(settings: LazylabelSettings) -> tuple[Method, ...]:
    """Those that the settings ask for, ours first, and those that always stand beside them."""
    asked = [_OURS[name] for name in _OURS if name in settings.arms]
    rivals = [_RIVALS[name] for name in _RIVALS if name in settings.arms]
    return (*asked, *rivals, *_TRIVIAL)


def learned(
    train: Callable[..., ToHealthy], design: Callable[[LazylabelSettings], Any]
) -> Callable[[Lesson], ToHealthy]:
    """A training by one of the functions of `synthesis`, with the settings that `design` makes of ours."""

    def of(lesson: Lesson) -> ToHealthy:
        return train(
            lesson.domains,
            design(lesson.settings),
            lesson.step,
            seed=lesson.seed,
            fabric=lesson.fabric,
            label=lesson.label,
            augment=TURNED,
        )

    return of


def translator(lesson: Lesson, design: TranslatorDesign, images: int) -> ToHealthy:
    """Both translators of a CycleGAN; their design says how slices are varied."""
    return train_translator(
        lesson.domains,
        design,
        lesson.step,
        images=images,
        seed=lesson.seed,
        fabric=lesson.fabric,
        label=lesson.label,
    )


def document(lesson: Lesson) -> ToHealthy:
    """The document's networks and rates."""
    how = lesson.settings.document
    design = replace(TranslatorDesign.document(), width=how.width, batch=how.batch, flip=how.flip)
    return translator(lesson, design, how.images)


def cyclegan(lesson: Lesson) -> ToHealthy:
    """The published CycleGAN."""
    how = lesson.settings.cyclegan
    design = TranslatorDesign(width=how.width, blocks=how.blocks, batch=how.batch, identity=how.identity)
    return translator(lesson, design, how.images)


def classifier(lesson: Lesson) -> ToHealthy:
    """The classifier, read by the plain activation map or by a finer one."""
    how = lesson.settings.classifier
    healer = train_classifier(
        lesson.domains,
        ClassifierSettings(images=how.images),
        lesson.step,
        seed=lesson.seed,
        fabric=lesson.fabric,
        label=lesson.label,
    )
    if how.gradient is None:
        return healer
    assert isinstance(healer.generator, ActivationMap)
    return replace(healer, generator=replace(healer.generator, kind="gradcam", stages=how.gradient))


def diffusion(lesson: Lesson) -> ToHealthy:
    """The diffusion model, and the way through noise towards healthy."""
    how = lesson.settings.diffusion
    train = partial(train_diffusion, way=Way(steps=how.steps, guidance=how.guidance))
    return learned(train, lambda settings: DiffusionSettings(images=settings.diffusion.images))(lesson)


def _mask_head(settings: LazylabelSettings) -> MaskHeadSettings:
    how = settings.mask_head
    widths = doubled(how.width, 3)
    weights = MaskWeights(area=how.area, variation=how.variation)
    return MaskHeadSettings(how.images, how.batch, widths, widths, weights=weights)


def _added_map(settings: LazylabelSettings) -> VaganSettings:
    how = settings.vagan
    return VaganSettings(
        how.images,
        how.batch,
        doubled(how.width, 4),
        doubled(how.width, 5),
        sparsity=how.sparsity,
        steps=CriticSteps(first=how.warm_up),
    )


def doubled(first: int, levels: int) -> tuple[int, ...]:
    """Channels of so many levels, each twice those of the one before."""
    return tuple(first * 2**level for level in range(levels))


def _autoencoder(settings: LazylabelSettings) -> AutoencoderSettings:
    how = settings.autoencoder
    return replace(DENOISER if how.denoising else AutoencoderSettings(), images=how.images)


def _fixed_point(settings: LazylabelSettings) -> FixedPointSettings:
    how = settings.fixed_point
    return FixedPointSettings(how.images, how.batch, doubled(how.width, 3), doubled(how.width, 4))


def _displacement(settings: LazylabelSettings) -> DisplacementSettings:
    return DisplacementSettings(images=settings.displacement.images)


RULE = "by the rule"
"""How arms end whose masks come from the document's rule."""

BODY = "body"

_OURS = {
    "document": Method(
        (
            Arm(
                f"document {RULE}",
                "document's CycleGAN and rule",
                "ours",
                "the document's networks and learning rates, 0.3 to 0.8 of each image's maximum",
            ),
            Arm(
                "document",
                "document's CycleGAN, calibrated",
                "ours",
                "the same networks, with a threshold that healthy slices set",
            ),
        ),
        document,
        "document",
    ),
    "cyclegan": Method(
        (
            Arm("cyclegan", "CycleGAN", "ours", "as published, with a threshold that healthy slices set"),
            Arm(
                f"cyclegan {RULE}",
                "CycleGAN, the document's rule",
                "ours",
                "the same networks, 0.3 to 0.8 of each image's maximum",
            ),
        ),
        cyclegan,
        "cyclegan",
    ),
    "mask head": Method(
        (Arm("mask head", "CycleGAN with a mask head", "ours", "the generator says where it paints"),),
        learned(train_mask_head, _mask_head),
        "mask_head",
    ),
    "vagan": Method(
        (
            Arm(
                "vagan",
                "VA-GAN",
                "ours",
                "a map is added that makes the slice healthy (Baumgartner et al. 2018)",
            ),
        ),
        learned(train_vagan, _added_map),
        "vagan",
    ),
    "fixed point": Method(
        (Arm("fixed point", "Fixed-Point GAN", "ours", "one conditional generator (Siddiquee et al. 2019)"),),
        learned(train_fixed_point, _fixed_point),
        "fixed_point",
    ),
    "displacement": Method(
        (
            Arm(
                "displacement",
                "displacement head",
                "ours",
                "the slice is warped towards healthy; an experiment",
            ),
        ),
        learned(train_displacement, _displacement),
        "displacement",
    ),
}

_RIVALS = {
    "cam": Method(
        (
            Arm(
                "cam",
                "class activation map",
                "baseline",
                "a classifier of the same image labels (Zhou et al. 2016)",
            ),
        ),
        classifier,
        "classifier",
    ),
    "autoencoder": Method(
        (Arm("autoencoder", "autoencoder of healthy slices", "baseline", "what it cannot draw is diseased"),),
        learned(train_autoencoder, _autoencoder),
        "autoencoder",
    ),
    "diffusion": Method(
        (
            Arm(
                "diffusion",
                "diffusion model",
                "baseline",
                "to noise and back towards healthy (Sanchez et al. 2022)",
            ),
        ),
        diffusion,
        "diffusion",
    ),
}

_TRIVIAL = (
    Method(
        (
            Arm(
                "intensity",
                "brightness",
                "baseline",
                "brighter than the mean of all pixels of healthy slices; no training",
            ),
        ),
        lambda lesson: Brightness.anywhere(lesson.domains.healthy),
    ),
    Method(
        (
            Arm(
                "intensity here",
                "brightness at its place",
                "baseline",
                "brighter than healthy slices are at that pixel; no training",
            ),
        ),
        lambda lesson: Brightness.of(lesson.domains.healthy),
    ),
    Method(
        (Arm(BODY, "all of the body", "trivial", "marks the whole body: what no skill gives"),),
        lambda lesson: WholeBody(body_mask),
    ),
    Method((EMPTY_ARM,), lambda lesson: EmptyMask()),
)
