"""The running average of a network's weights, with a half-life counted in images."""

import torch
from torch import nn


def share_kept(batch: int, half_life: float) -> float:
    """The old average's share after an update on `batch` images, when half is forgotten in `half_life`."""
    return float(0.5 ** (batch / max(half_life, 1e-8)))


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    """Move the average's parameters towards the network's, keeping the share `keep`; buffers are copied."""
    ours, theirs = [p.data for p in average.parameters()], [p.data for p in network.parameters()]
    torch._foreach_lerp_(ours, theirs, 1 - keep)
    for mine, current in zip(average.buffers(), network.buffers(), strict=True):
        mine.copy_(current)
