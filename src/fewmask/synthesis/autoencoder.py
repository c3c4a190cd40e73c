"""What an autoencoder of healthy slices cannot draw: the residual, from healthy slices alone."""

from dataclasses import dataclass
from typing import Literal

import torch

from fewmask.core.run import Step
from fewmask.data.augment import StrongAugment
from fewmask.networks.autoencoder import Autoencoder
from fewmask.objectives.autoencoder import AutoencoderObjective, CoarseNoise
from fewmask.synthesis.healer import Healer, Showing, claimed, train_healer
from fewmask.synthesis.healthy import Domains
from fewmask.training.launch import Fabric


@dataclass(frozen=True)
class AutoencoderSettings:
    """Of `train_autoencoder`."""

    images: int = 20_000
    """Images to see."""
    batch: int = 16
    widths: tuple[int, ...] = (16, 32, 64, 64)
    """Channels per level, the finest first; each level after the first halves the image."""
    code: int = 4
    """Channels of the spatial code or numbers of the dense one; 0 for none, a denoiser with bridges."""
    dense: bool = False
    """The code has no places."""
    error: Literal["l1", "l2"] = "l2"
    """Absolute or square error."""
    noise: CoarseNoise | None = None
    """Added to the input; a denoiser needs it."""
    lr: float = 1e-3


DENOISER = AutoencoderSettings(widths=(16, 32, 64), code=0, noise=CoarseNoise())
"""The denoising autoencoder of Kascenas et al. 2022, smaller: a U-Net, coarse noise, the square error."""


def train_autoencoder(
    domains: Domains,
    settings: AutoencoderSettings,
    step: Step,
    *,
    seed: int,
    fabric: Fabric,
    label: str = "autoencoder",
    augment: StrongAugment | None = None,
    parts: int = 1,
) -> Healer:
    """Teach an autoencoder on the healthy slices alone; delta is the mean over channels of |x - x_h|.

    The same call resumes, or loads what is finished.

    Args:
        domains: slices (N, C, H, W) and (M, C, H, W) in [-1, 1]; the diseased ones are not looked at.
        settings: sizes, noise and rates.
        step: folder of the training.
        seed: fixes weights, order and noise.
        fabric: where to compute.
        label: names the progress bar and the streams of chance.
        augment: changes every image whenever it is shown.
        parts: micro-batches computed one after the other, to save memory.

    Raises:
        ShapeError, DataError: see `refuse_domains`, of the healthy slices.
        ConfigError: settings out of range.
        RunError: `step` holds another training.
        TrainingError, StoppedError: see `training.loop.fit`.
    """
    how, healthy = Showing(settings.batch, seed, label, augment), domains.healthy
    inputs = claimed(Domains(healthy, healthy), settings, step, how)
    size = (healthy.shape[2], healthy.shape[3]) if settings.dense else None
    with how.weights():
        network = Autoencoder(healthy.shape[1], widths=settings.widths, code=settings.code, size=size)
    # laid out for convolutions on a CPU: a third sooner
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    objective = AutoencoderObjective(
        network, images=settings.images, error=settings.error, noise=settings.noise, lr=settings.lr
    )
    return train_healer(
        objective,
        network,
        how.stream(healthy, "healthy"),
        step,
        inputs,
        images=settings.images,
        fabric=fabric,
        parts=parts,
    )
