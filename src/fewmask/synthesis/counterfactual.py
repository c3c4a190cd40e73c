"""The healthy image that a diffusion network makes of a diseased one: noise it half-way, come back healthy.

Sanchez, Kascenas, Liu, O'Neil & Tsaftaris 2022, "What is healthy? Generative counterfactual diffusion for
lesion localization": one network, told labels or not (Ho & Salimans 2022); the way to noise and back is
without chance (Song, Meng & Ermon 2021, "Denoising diffusion implicit models", DDIM).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from fewmask.core.errors import ConfigError
from fewmask.core.run import Step
from fewmask.data.augment import StrongAugment
from fewmask.networks.diffusion import Denoiser
from fewmask.objectives.diffusion import DiffusionObjective, Noising
from fewmask.synthesis.healer import Healer, Showing, claimed, train_healer
from fewmask.synthesis.healthy import Domains
from fewmask.synthesis.imagelabels import CLASSES, HEALTHY, labelled
from fewmask.training.launch import Fabric

Noise = Callable[[Tensor, int], Tensor]
"""(image (B, C, H, W), level from 1 to T) -> the noise in it, the same shape."""


@dataclass(frozen=True)
class DiffusionSettings:
    """Of `train_diffusion`."""

    images: int = 60_000
    """Images to see, as many of either kind on average."""
    batch: int = 16
    widths: tuple[int, ...] = (32, 48, 64, 96)
    """Channels per level, the finest first; each level after the first halves the image."""
    attention: bool = True
    """At the coarsest level."""
    noising: Noising = field(default_factory=Noising)
    """The way to noise."""
    unlabelled: float = 0.15
    """Share of images whose label is left out."""
    average: int = 2_000
    """Half-life in images of the averaged weights."""
    lr: float = 4e-4


@dataclass(frozen=True)
class Way:
    """How far an image goes towards noise, and how it comes back. Raises `ConfigError` out of range."""

    depth: float = 0.5
    """How far, as a share of the diffusion's steps; less keeps more of the image."""
    steps: int = 25
    """Steps in each direction."""
    guidance: float = 3.0
    """How much the label counts on the way back: 0 not at all, and the image comes back as it was, 1 as the
    network learned it; Ho & Salimans's w is this minus 1."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not (0 < self.depth <= 1 and self.steps >= 1 and self.guidance >= 0):
            raise ConfigError(
                "the way to noise and back is out of range",
                found=f"depth {self.depth}, {self.steps} steps, guidance {self.guidance}",
                expected="a depth above 0 up to 1, 1 step or more, guidance 0 or more",
            )

    def levels(self, total: int) -> list[int]:
        """The levels to visit, rising from 0, of a diffusion of so many steps."""
        last = max(round(self.depth * total), 1)
        return sorted({round(last * number / self.steps) for number in range(self.steps + 1)})


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """What makes images healthy in the `Healer` of `train_diffusion`.

    `dataclasses.replace(healer, generator=...)` takes another way with the same network.
    """

    network: Denoiser
    noising: Noising
    way: Way = field(default_factory=Way)

    def heal(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The images that came back, cut to [-1, 1], and the mean over channels of |x - x_h|, (B, H, W)."""
        made = self.there_and_back(image).clamp(-1, 1)
        return made, (image - made).abs().mean(dim=1)

    def there_and_back(self, image: Tensor) -> Tensor:
        """Images (B, C, H, W) to noise without a label, and back with the healthy one: not cut."""
        label = torch.zeros(len(image), CLASSES)
        label[:, HEALTHY] = 1
        none = torch.zeros_like(label)

        def without(noisy: Tensor, level: int) -> Tensor:
            return self._noise(noisy, level, none)

        def towards(noisy: Tensor, level: int) -> Tensor:
            if not self.way.guidance:
                return without(noisy, level)
            both = self._noise(torch.cat([noisy, noisy]), level, torch.cat([none, label]))
            unsure, sure = both.chunk(2)
            return guided(unsure, sure, self.way.guidance)

        kept, levels = self.noising.kept(), self.way.levels(self.noising.steps)
        return decode(encode(image, without, kept, levels), towards, kept, levels)

    def _noise(self, noisy: Tensor, level: int, label: Tensor) -> Tensor:
        noise: Tensor = self.network(noisy, torch.full((len(noisy),), level), label)
        return noise


def guided(without: Tensor, towards: Tensor, guidance: float) -> Tensor:
    """e(x) + g (e(x, c) - e(x)): Ho & Salimans 2022, equation 6, with g = 1 + w."""
    return without + guidance * (towards - without)


def ddim_step(x: Tensor, noise: Tensor, here: float, there: float) -> Tensor:
    """From level `here` to level `there`, up or down, without chance (DDIM, equation 12 with sigma 0).

    Args:
        x: (B, C, H, W) at level `here`.
        noise: epsilon(x), the same shape.
        here: alpha-bar of the level x is at.
        there: alpha-bar of the level to go to.
    """
    clean = (x - math.sqrt(1 - here) * noise) / math.sqrt(here)
    return math.sqrt(there) * clean + math.sqrt(1 - there) * noise


def encode(image: Tensor, noise: Noise, kept: Tensor, levels: list[int]) -> Tensor:
    """An image (B, C, H, W) at level 0 taken up through rising `levels`; kept: `Noising.kept`."""
    for here, there in pairwise(levels):
        found = noise(image, max(here, 1))
        image = ddim_step(image, found, float(kept[here]), float(kept[there]))
    return image


def decode(noisy: Tensor, noise: Noise, kept: Tensor, levels: list[int]) -> Tensor:
    """The way back from the last of rising `levels` to the first."""
    for here, there in pairwise(reversed(levels)):
        noisy = ddim_step(noisy, noise(noisy, here), float(kept[here]), float(kept[there]))
    return noisy


def train_diffusion(
    domains: Domains,
    settings: DiffusionSettings,
    step: Step,
    *,
    seed: int,
    fabric: Fabric,
    way: Way | None = None,
    label: str = "diffusion",
    augment: StrongAugment | None = None,
    parts: int = 1,
) -> Healer:
    """Teach a diffusion network on slices of either kind, with their labels; delta is |x - x_h|.

    The same call resumes, or loads what is finished.

    Args:
        domains: unpaired slices, (N, C, H, W) and (M, C, H, W) in [-1, 1].
        settings: sizes and rates.
        step: folder of the training.
        seed: fixes weights, order, noise and levels.
        fabric: where to compute.
        way: how images are made healthy afterwards; no part of the training.
        label: names the progress bar and the streams of chance.
        augment: changes every image whenever it is shown: the network learns to draw that, too.
        parts: micro-batches computed one after the other, to save memory.

    Raises:
        ShapeError, DataError: see `refuse_domains`.
        ConfigError: settings out of range.
        RunError: `step` holds another training.
        TrainingError, StoppedError: see `training.loop.fit`.
    """
    how = Showing(settings.batch, seed, label, augment)
    inputs, (images, labels) = claimed(domains, settings, step, how), labelled(domains)
    with how.weights():
        network = Denoiser(images.shape[1], CLASSES, widths=settings.widths, attention=settings.attention)
    # laid out for convolutions on a CPU: a third sooner
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = DiffusionObjective(
        network,
        images=settings.images,
        noising=settings.noising,
        unlabelled=settings.unlabelled,
        average=settings.average,
        lr=settings.lr,
    )
    return train_healer(
        objective,
        Counterfactual(objective.average, settings.noising, way or Way()),
        how.stream(images, "slices", labels),
        step,
        inputs,
        images=settings.images,
        fabric=fabric,
        parts=parts,
    )
