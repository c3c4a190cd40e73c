"""What a run will do, and how long it will take on this machine: measured on a few updates, not guessed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fewmask.core.seed import stream
from fewmask.data.batches import ArraySource, Stream
from fewmask.networks.generator import ImageGenerator
from fewmask.networks.stylegan2 import Discriminator
from fewmask.networks.unet import build_unet
from fewmask.objectives.ada import SEQUENCES, AdaptiveAugmentation
from fewmask.objectives.minimise import Alone
from fewmask.objectives.perceptual import DiscriminatorDistance
from fewmask.objectives.segmentation import Schedule, SegmentationObjective
from fewmask.objectives.stylegan import StyleGANObjective
from fewmask.recipes.generator import design_of
from fewmask.recipes.settings import CommonSettings, FewshotSettings, GANSettings
from fewmask.synthesis.design import build_discriminator, build_generator
from fewmask.training.loop import Objective
from fewmask.training.memory import memory_mb

CLASSES = 4  # of the trial networks: their cost hardly depends on it


@dataclass(frozen=True)
class Work:
    """One kind of step of a run: how often, how many images each, and how to measure its speed."""

    what: str
    times: int
    images: int
    rate: Callable[[], float]
    """Images per second on this machine, measured by a few updates."""


@dataclass(frozen=True)
class Estimate:
    """A work with its measured cost."""

    work: Work
    seconds: float
    """For all its times together."""
    memory_mb: float
    """Highest of this process so far; the prepared slices of a large cohort come on top."""


def estimates(works: Sequence[Work]) -> list[Estimate]:
    """Measure every work; takes some seconds."""
    result = []
    for work in works:
        seconds = work.times * work.images / work.rate()
        memory = memory_mb(torch.device("cpu"))["peak_memory_mb"]
        result.append(Estimate(work, seconds, memory))
    return result


def unet_work(settings: CommonSettings, what: str, times: int) -> Work:
    """Trainings of the U-Net."""
    unet, size = settings.unet, settings.prepare.size
    shape = size if settings.prepare.dims == 2 else unet.patch or (32, 32, 32)

    def rate() -> float:
        network = build_unet(len(shape), 1, CLASSES, unet.widths)
        objective = SegmentationObjective(network, Schedule(1e-3, unet.images), classes=CLASSES)
        images = _noise((unet.batch, 1, *shape))
        masks = np.zeros((unet.batch, *shape), np.uint8)
        return _images_per_second(objective, ArraySource(images, masks), unet.batch)

    return Work(what, times, unet.images, rate)


def gan_work(gan: GANSettings, size: int) -> Work:
    """The training of the generator on slices of one channel."""

    def rate() -> float:
        generator, average, discriminator = _networks(gan, size)
        objective = StyleGANObjective(
            generator,
            discriminator,
            average,
            batch=gan.batch,
            augment=AdaptiveAugmentation(operations=SEQUENCES),
            reuse_fakes=gan.reuse_fakes,
        )
        source = ArraySource(_noise((gan.batch, 1, size, size)))
        return _images_per_second(objective, source, gan.batch, updates=4)

    return Work("GAN", 1, gan.images, rate)


def inversion_work(settings: FewshotSettings) -> Work:
    """Inversion of the labelled slices with their copies; test slices come on top, one each."""
    per_shot = settings.inversion.copies + 1
    images = sum(settings.shots.counts) * settings.shots.draws * per_shot
    size, steps = settings.prepare.size[0], settings.inversion.steps

    def rate() -> float:
        generator, _, discriminator = _networks(settings.gan, size)
        distance = DiscriminatorDistance(discriminator).towards(torch.from_numpy(_noise((16, 1, size, size))))
        ws = generator.mapping(torch.from_numpy(_noise((16, generator.z_dim)))).detach()
        started = time.perf_counter()
        for _ in range(2):
            image = generator.synthesis(ws.requires_grad_(), "constant")
            torch.autograd.backward(distance(image).sum())
        return 16 * 2 / (time.perf_counter() - started) / steps

    return Work("inversion of labelled slices", 1, images, rate)


def _networks(gan: GANSettings, size: int) -> tuple[ImageGenerator, ImageGenerator, Discriminator]:
    design = design_of(gan)
    generators = (build_generator(design.generator(1, size)) for _ in range(2))
    first, second = generators
    return first, second, build_discriminator(design.discriminator(1, size))


def _images_per_second(objective: Objective, source: ArraySource, batch: int, *, updates: int = 3) -> float:
    """Speed of a few updates after one that warms up."""
    images, minimise = Stream(source, batch, seed=0, name="plan"), Alone()
    objective.update(images.at(0), 0, minimise)
    started = time.perf_counter()
    for number in range(1, updates + 1):
        objective.update(images.at(number * batch), number * batch, minimise)
    return updates * batch / (time.perf_counter() - started)


def _noise(shape: Sequence[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return stream(0, "plan").uniform(-1, 1, tuple(shape)).astype(np.float32)
