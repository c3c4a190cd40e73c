"""Adam for networks that take a second, regularising step once in a while, and weights that pause."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.optim import Adam


def lazy_adam(parameters: list[nn.Parameter], lr: float, betas: tuple[float, float], every: int) -> Adam:
    """Adam, slowed by c = k / (k + 1) when every k-th minibatch takes a second step (StyleGAN2, 3.1)."""
    c = every / (every + 1) if every else 1.0
    return Adam(parameters, lr=lr * c, betas=(betas[0] ** c, betas[1] ** c), eps=1e-8, fused=True)


@contextmanager
def asleep(parameters: list[nn.Parameter]) -> Iterator[None]:
    """No gradients for these parameters, for the time being."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
