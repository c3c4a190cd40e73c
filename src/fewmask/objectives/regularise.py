"""What holds a GAN's two networks back, each once in a while, and how long its weights are averaged."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewmask.networks.precise import exact_slopes
from fewmask.objectives.average import share_kept


@dataclass(frozen=True)
class Regularisation:
    """R1 on the discriminator, path length on the generator, "lazy" (StyleGAN2, section 3.1)."""

    r1_gamma: float = 1.0
    """Weight of R1 (Mescheder et al. 2018, equation 9); about 0.0002 resolution^2 / batch, more is safer."""
    r1_every: int = 16
    """Minibatches from one R1 step to the next."""
    path_length_weight: float = 0.0
    """Weight of the path length penalty (equation 4): 0 to leave it out, 2 as published for StyleGAN2."""
    path_length_every: int = 4
    """Minibatches from one path length step to the next."""
    path_length_decay: float = 0.01
    """Share of the newest lengths in their running mean."""


@dataclass(frozen=True)
class Average:
    """The exponential average of the generator's weights, from which images are drawn afterwards."""

    half_life: float = 10_000.0
    """Images after which a weight's share has halved."""
    ramp: float | None = 0.05
    """The half-life is at most this share of the images seen, so that early weights are soon forgotten;
    None for no ramp, as when a trained generator is trained further."""

    def decay(self, images_seen: int, batch: int) -> float:
        """The old average's share in the new one."""
        most = float("inf") if self.ramp is None else images_seen * self.ramp
        return share_kept(batch, min(self.half_life, most))


@dataclass(frozen=True)
class FadingBlur:
    """A blur of what the discriminator sees that fades away (StyleGAN3-R, appendix F)."""

    sigma: float
    """In pixels, at the beginning; 10 as published."""
    images: float
    """Images after which it is gone; batch * 200 / 32 thousand as published."""

    def at(self, images_seen: int) -> float:
        """Its sigma after `images_seen` images, in pixels."""
        return self.sigma * max(1 - images_seen / self.images, 0.0)


def r1_penalty(judge: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """Mean over images of |grad D(x)|^2 (Mescheder et al. 2018, equation 9, without gamma / 2).

    `judge` is the discriminator with all that stands before it: the gradient is that of the image itself,
    through its augmentation.
    """
    real = real.detach().requires_grad_(True)
    with exact_slopes(real.device.type):
        (gradient,) = torch.autograd.grad(judge(real).sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_lengths(image: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
    """|J^T y| per image, root mean square over layers (StyleGAN2, equation 4).

    Args:
        image: (B, C, H, W), drawn from `ws`.
        ws: (B, num_ws, w_dim).
        noise: N(0, 1) in the shape of `image`; y is this divided by sqrt(H W).

    Returns:
        (B,), differentiable.
    """
    y = noise / (image.shape[2] * image.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad((image * y).sum(), ws, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()
