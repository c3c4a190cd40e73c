"""A StyleGAN2 trained from scratch on unlabelled slices, and kept for the steps that build on it."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError
from fewmask.core.run import Step
from fewmask.core.seed import integer
from fewmask.data.batches import ArraySource, Stream
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.objectives.ada import ANATOMY, AdaptiveAugmentation, Operation
from fewmask.objectives.stylegan2 import Average, Regularisation, StyleGAN2Objective
from fewmask.training.launch import Fabric
from fewmask.training.loop import Fitted, fit

SMALLEST = 16
"""Fewer slices than this teach a generator nothing but themselves."""


@dataclass(frozen=True)
class GeneratorDesign:
    """Size of the two networks and how they are trained: channels at size s are min(base / s, max)."""

    channel_base: int = 4096
    channel_max: int = 64
    latent: int = 128
    mapping_layers: int = 4
    batch: int = 16
    learning_rate: float = 2.5e-3
    r1_gamma: float = 0.2
    r1_every: int = 16
    mixing: float = 0.9
    average_half_life: int = 5_000
    """Half-life in images of the averaged generator."""
    ada_target: float = 0.6
    ada_images: int = 50_000
    ada_operations: tuple[Operation, ...] = ANATOMY


@dataclass(frozen=True, eq=False)
class TrainedGenerator:
    """The averaged generator and its discriminator, frozen, in evaluation mode, on the CPU."""

    generator: Generator
    discriminator: Discriminator
    fitted: Fitted
    key: dict[str, Any]
    """What it was trained from (JSON values): what builds on it depends on this."""


def train_generator(
    images: NDArray[np.floating],
    design: GeneratorDesign,
    step: Step,
    *,
    total: int,
    seed: int,
    fabric: Fabric,
    label: str = "gan",
    pictures: int = 32,
) -> TrainedGenerator:
    """Train until `total` images were shown to the discriminator; the same call resumes or loads.

    Args:
        images: (N, C, R, R) in [-1, 1], R a power of two.
        design: sizes and rates.
        step: folder of the training.
        total: images to see.
        seed: fixes weights, order and noise.
        fabric: where to compute.
        label: names the progress bar and the streams of chance.
        pictures: samples in each picture grid.

    Raises:
        ConfigError: fewer than 16 images, or images that are not square with a power of two for a side.
    """
    _refuse_few(images)
    inputs = {"design": asdict(design), "seed": seed, "label": label, "images": total}
    inputs["slices"] = _fingerprint(images)
    step.claim(inputs)
    generator, average, discriminator = _networks(images.shape[1:], design, seed, label)
    objective = StyleGAN2Objective(
        generator,
        discriminator,
        average,
        batch=design.batch,
        augment=AdaptiveAugmentation(
            operations=design.ada_operations, target=design.ada_target, images=design.ada_images
        ),
        regularisation=Regularisation(r1_gamma=design.r1_gamma, r1_every=design.r1_every),
        averaging=Average(half_life=design.average_half_life),
        mixing=design.mixing,
        lr=design.learning_rate,
        pictures=pictures,
    )
    fitted = fit(
        objective,
        Stream(ArraySource(images), design.batch, seed=seed, name=label),
        step,
        images=total,
        seed=seed,
        fabric=fabric,
        checkpoint_every=max(total // 20, 500),
        report_every=max(total // 100, 100),
        sample_every=max(total // 10, 500),
        label=label,
    )
    discriminator.cpu().requires_grad_(False).eval()
    return TrainedGenerator(average.cpu().requires_grad_(False).eval(), discriminator, fitted, inputs)


def _networks(
    shape: Sequence[int], design: GeneratorDesign, seed: int, label: str
) -> tuple[Generator, Generator, Discriminator]:
    """Generator, its average, discriminator; weights drawn from (seed, label)."""
    channels, size = shape[0], shape[1]
    widths = {"channel_base": design.channel_base, "channel_max": design.channel_max}

    def generator() -> Generator:
        layers = design.mapping_layers
        return Generator(design.latent, design.latent, size, channels, mapping_layers=layers, **widths)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer(seed, label, "weights"))
        return generator(), generator(), Discriminator(size, channels, **widths)


def _fingerprint(images: NDArray[np.floating]) -> str:
    """A short hash of the training slices."""
    digest = hashlib.sha256(f"{images.shape} {images.dtype}".encode())
    for image in images:
        digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()[:16]


def _refuse_few(images: NDArray[np.floating]) -> None:
    if len(images) < SMALLEST:
        raise ConfigError(
            "too few slices to train a generator",
            found=f"{len(images)}",
            expected=f"at least {SMALLEST}, better some hundreds",
            mend="Add unlabelled scans of the same kind, or use `fewmask run supervised`.",
        )
    if images.shape[2] != images.shape[3]:
        raise ConfigError(
            "the generator draws square slices",
            where="prepare.size",
            found=f"{images.shape[2]} x {images.shape[3]}",
            mend="Set prepare.size to two equal powers of two, e.g. [64, 64].",
        )
