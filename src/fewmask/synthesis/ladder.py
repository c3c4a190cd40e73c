"""Ways to make a diseased image healthy that go beyond a plain CycleGAN, one function each.

All learn from unpaired slices and take the same arguments, so that one split compares them; each returns a
`Healer`, whose delta says where the disease was: the mask of attention (`train_mask_head`), the size of an
added map (`train_vagan`), how far a conditional generator moved the image (`train_fixed_point`), or a
displacement (`train_displacement`).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError
from fewmask.core.run import Step
from fewmask.data.augment import StrongAugment
from fewmask.networks.attentionmask import MaskedTranslator
from fewmask.networks.critic import Critic
from fewmask.networks.displacement import Displacer
from fewmask.networks.fixedpoint import HEALTHY, ResidualTranslator
from fewmask.networks.vagan import AdditiveMap
from fewmask.objectives.attentionmask import MaskHeadObjective, MaskWeights
from fewmask.objectives.cyclegan import Rate
from fewmask.objectives.displacement import DisplacementObjective, DisplacementWeights
from fewmask.objectives.fixedpoint import FixedPointObjective, FixedPointWeights
from fewmask.objectives.vagan import AdditiveMapObjective
from fewmask.objectives.wasserstein import CriticSteps, HealthyCritic
from fewmask.synthesis.healer import Healer, Showing, claimed, train_healer
from fewmask.synthesis.healthy import Domains
from fewmask.synthesis.slices import fingerprint
from fewmask.training.launch import Fabric


@dataclass(frozen=True)
class MaskHeadSettings:
    """Of `train_mask_head`; rates and weights as published for CycleGAN, masks as in the methods' page."""

    images: int = 40_000
    """Diseased images to see, and as many healthy ones."""
    batch: int = 8
    widths: tuple[int, ...] = (32, 64, 128)
    """Channels per level of both generators, the finest first."""
    judge_widths: tuple[int, ...] = (32, 64, 128)
    """Channels of both discriminators after each halving."""
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    falls_from: float = 0.5
    """Share of the training after which the learning rate falls to 0; 1 to stay."""
    history: int = 50
    """Older generated images of each domain that the discriminators are shown again."""
    weights: MaskWeights = field(default_factory=MaskWeights)


@dataclass(frozen=True)
class VaganSettings:
    """Of `train_vagan`; as released, with the learning rate of the paper."""

    images: int = 10_000
    """Diseased images for the generator's steps; the critic sees more, see `steps`."""
    batch: int = 8
    widths: tuple[int, ...] = (16, 32, 64, 128)
    critic_widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    lr: float = 1e-3
    """1e-3 in the paper, 1e-4 in the released experiment on synthetic images."""
    betas: tuple[float, float] = (0.0, 0.9)
    falls_from: float = 1.0
    sparsity: float = 100.0
    """Weight of the mean |M|."""
    penalty: float = 10.0
    steps: CriticSteps = field(default_factory=CriticSteps)


@dataclass(frozen=True)
class FixedPointSettings:
    """Of `train_fixed_point`; as released."""

    images: int = 40_000
    """Images of all domains for the generator's steps; the critic sees `critic_steps` times as many."""
    batch: int = 8
    widths: tuple[int, ...] = (32, 64, 128)
    critic_widths: tuple[int, ...] = (32, 64, 128, 256)
    lr: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)
    falls_from: float = 0.5
    critic_steps: int = 5
    weights: FixedPointWeights = field(default_factory=FixedPointWeights)


@dataclass(frozen=True)
class DisplacementSettings:
    """Of `train_displacement`, an experiment: VA-GAN's game, with a field."""

    images: int = 10_000
    batch: int = 8
    widths: tuple[int, ...] = (16, 32, 64, 128)
    critic_widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    reach: float = 8.0
    """Longest displacement along an axis, in pixels."""
    grey_in_pixels: float = 4.0
    """How many pixels a change of half the grey range counts as in delta."""
    lr: float = 1e-3
    betas: tuple[float, float] = (0.0, 0.9)
    falls_from: float = 1.0
    penalty: float = 10.0
    steps: CriticSteps = field(default_factory=CriticSteps)
    weights: DisplacementWeights = field(default_factory=DisplacementWeights)


def train_mask_head(
    domains: Domains,
    settings: MaskHeadSettings,
    step: Step,
    *,
    seed: int,
    fabric: Fabric,
    label: str = "mask head",
    augment: StrongAugment | None = None,
    parts: int = 1,
) -> Healer:
    """Train two translators with masks, x_h = a c + (1 - a) x; delta is the mask a, in 0..1.

    CycleGAN (Zhu et al. 2017) with the masks of GANimation (Pumarola et al. 2018, equations 1 and 2). The
    same call resumes, or loads what is finished.

    Args:
        domains: unpaired slices, (N, C, H, W) and (M, C, H, W) in [-1, 1].
        settings: sizes, rates and weights.
        step: folder of the training.
        seed: fixes weights and order.
        fabric: where to compute.
        label: names the progress bar and the streams of chance.
        augment: changes every image whenever it is shown.
        parts: micro-batches computed one after the other, to save memory.

    Raises:
        ShapeError, DataError: see `refuse_domains`.
        ConfigError: settings out of range.
        RunError: `step` holds another training.
        TrainingError, StoppedError: see `training.loop.fit`.
    """
    how = Showing(settings.batch, seed, label, augment)
    inputs, channels = claimed(domains, settings, step, how), domains.diseased.shape[1]
    with how.weights():
        heal, harm = (MaskedTranslator(channels, widths=settings.widths) for _ in range(2))
        of_healthy, of_diseased = (Critic(channels, widths=settings.judge_widths) for _ in range(2))
    objective = MaskHeadObjective(
        heal,
        harm,
        of_healthy,
        of_diseased,
        how.stream(domains.healthy, "healthy"),
        size=(domains.diseased.shape[2], domains.diseased.shape[3]),
        history=settings.history,
        rate=Rate(settings.lr, settings.images, settings.falls_from),
        weights=settings.weights,
        betas=settings.betas,
    )
    return train_healer(
        objective,
        heal,
        how.stream(domains.diseased, "diseased"),
        step,
        inputs,
        images=settings.images,
        fabric=fabric,
        parts=parts,
    )


def train_vagan(
    domains: Domains,
    settings: VaganSettings,
    step: Step,
    *,
    seed: int,
    fabric: Fabric,
    label: str = "va-gan",
    augment: StrongAugment | None = None,
    parts: int = 1,
) -> Healer:
    """Train an additive map, x_h = x + M(x); delta is the mean over channels of |M|, in grey levels.

    VA-GAN (Baumgartner et al. 2018, section 3). Arguments and errors as `train_mask_head`.
    """
    how = Showing(settings.batch, seed, label, augment)
    inputs, channels = claimed(domains, settings, step, how), domains.diseased.shape[1]
    with how.weights():
        generator = AdditiveMap(channels, widths=settings.widths)
        critic = Critic(channels, widths=settings.critic_widths)
    objective = AdditiveMapObjective(
        generator,
        _game(critic, domains, settings, how),
        rate=Rate(settings.lr, settings.images, settings.falls_from),
        sparsity=settings.sparsity,
        betas=settings.betas,
    )
    return train_healer(
        objective,
        generator,
        how.stream(domains.diseased, "diseased"),
        step,
        inputs,
        images=settings.images,
        fabric=fabric,
        parts=parts,
    )


def train_displacement(
    domains: Domains,
    settings: DisplacementSettings,
    step: Step,
    *,
    seed: int,
    fabric: Fabric,
    label: str = "displacement",
    augment: StrongAugment | None = None,
    parts: int = 1,
) -> Healer:
    """Train a field and a map, x_h = warp(x, u) + m; delta is |u| + `grey_in_pixels` mean |m|, in pixels.

    An experiment for disease that moves organs; the reports tell the share of pixels that fold (`folded`).
    Arguments and errors as `train_mask_head`.
    """
    how = Showing(settings.batch, seed, label, augment)
    inputs, channels = claimed(domains, settings, step, how), domains.diseased.shape[1]
    with how.weights():
        generator = Displacer(
            channels,
            widths=settings.widths,
            reach=settings.reach,
            grey_in_pixels=settings.grey_in_pixels,
        )
        critic = Critic(channels, widths=settings.critic_widths)
    objective = DisplacementObjective(
        generator,
        _game(critic, domains, settings, how),
        rate=Rate(settings.lr, settings.images, settings.falls_from),
        weights=settings.weights,
        betas=settings.betas,
    )
    return train_healer(
        objective,
        generator,
        how.stream(domains.diseased, "diseased"),
        step,
        inputs,
        images=settings.images,
        fabric=fabric,
        parts=parts,
    )


def train_fixed_point(
    domains: Domains,
    settings: FixedPointSettings,
    step: Step,
    *,
    seed: int,
    fabric: Fabric,
    diseases: NDArray[np.integer] | None = None,
    label: str = "fixed point",
    augment: StrongAugment | None = None,
    parts: int = 1,
) -> Healer:
    """Train one generator for all domains, x_h = tanh(x + Delta(x, healthy)); delta is the mean |x_h - x|.

    Fixed-Point GAN (Rahman Siddiquee et al. 2019, section 3). Every domain is shown equally often. Other
    arguments and errors as `train_mask_head`.

    Args:
        domains: unpaired slices.
        settings: sizes, rates and weights.
        step: folder of the training.
        seed: fixes weights, order and targets.
        fabric: where to compute.
        diseases: (N,), which disease each diseased slice has, from 1 to K without a gap; None for one.
        label: names the progress bar and the streams of chance.
        augment: changes every image whenever it is shown.
        parts: micro-batches computed one after the other, to save memory.

    Raises:
        ConfigError: `diseases` that do not fit.
    """
    how = Showing(settings.batch, seed, label, augment)
    domain = _domains_of(domains, diseases)
    inputs = claimed(domains, settings, step, how, diseases=fingerprint(domain))
    images, labels = np.concatenate([domains.healthy, domains.diseased]), np.eye(domain.max() + 1)[domain]
    channels, count = images.shape[1], labels.shape[1]
    with how.weights():
        generator = ResidualTranslator(channels, count, widths=settings.widths)
        critic = Critic(channels, widths=settings.critic_widths, classes=count)
    objective = FixedPointObjective(
        generator,
        critic,
        how.stream(images, "critic", labels),
        rate=Rate(settings.lr, settings.images, settings.falls_from),
        critic_steps=settings.critic_steps,
        weights=settings.weights,
        betas=settings.betas,
    )
    return train_healer(
        objective,
        generator,
        how.stream(images, "images", labels),
        step,
        inputs,
        images=settings.images,
        fabric=fabric,
        parts=parts,
    )


def _game(
    critic: Critic, domains: Domains, settings: VaganSettings | DisplacementSettings, how: Showing
) -> HealthyCritic:
    """The critic's side; it sees other batches of diseased images than the generator."""
    return HealthyCritic(
        critic,
        how.stream(domains.diseased, "critic diseased"),
        how.stream(domains.healthy, "critic healthy"),
        steps=settings.steps,
        penalty=settings.penalty,
        lr=settings.lr,
        betas=settings.betas,
    )


def _domains_of(domains: Domains, diseases: NDArray[np.integer] | None) -> NDArray[np.int64]:
    """Domain of every healthy image, then of every diseased one, (M + N,)."""
    count = len(domains.diseased)
    which = np.ones(count, np.int64) if diseases is None else np.asarray(diseases, np.int64)
    if which.shape != (count,) or set(np.unique(which)) != set(range(1, which.max(initial=0) + 1)):
        raise ConfigError(
            "the diseases do not fit the diseased slices",
            where="diseases",
            found=f"shape {which.shape}, values {sorted(set(which.ravel().tolist()))[:9]}",
            expected=f"({count},), every number from 1 to K at least once",
        )
    return np.concatenate([np.full(len(domains.healthy), HEALTHY), which])
