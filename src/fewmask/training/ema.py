"""The running average of a network's weights, with a half-life counted in images."""

import torch
from torch import nn


@torch.no_grad()
def average_weights(
    average: nn.Module,
    network: nn.Module,
    *,
    batch: int,
    images_seen: int,
    half_life: float,
    ramp: float | None,
) -> None:
    """Move `average` towards `network` after an update on `batch` images.

    beta = 0.5 ** (batch / half_life); with a `ramp` the half-life is at most `images_seen * ramp`, so that
    the random start is forgotten early (StyleGAN2-ADA: 0.05). Parameters are averaged, buffers copied.
    `half_life` is in images.
    """
    if ramp is not None:
        half_life = min(half_life, images_seen * ramp)
    beta = 0.5 ** (batch / max(half_life, 1e-8))
    for old, new in zip(average.parameters(), network.parameters(), strict=True):
        old.lerp_(new.to(old), 1 - beta)
    for old_buffer, new_buffer in zip(average.buffers(), network.buffers(), strict=True):
        old_buffer.copy_(new_buffer)
