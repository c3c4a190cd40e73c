"""How different two images look, without downloaded weights (LPIPS if a user brings them).

A projection compares one fixed target with hundreds of candidates, so a distance first looks at the target
(`towards`) and gives back a function of the candidates. Distances are per image and never couple the images
of a batch. Images are (B, C, H, W) in [-1, 1].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fewmask.core.errors import ShapeError
from fewmask.networks.generator import Feature
from fewmask.networks.lpips import SMALLEST, LpipsNetwork
from fewmask.networks.stylegan2 import Discriminator

ToTarget = Callable[[Tensor], Tensor]
"""Distances (B,) of images (B, C, H, W) to targets that were given before; 0 for equal images."""


class Distance(Protocol):
    """A perceptual distance P(x, y), differentiable in x."""

    def towards(self, target: Tensor) -> ToTarget:
        """The distance to `target` (B, C, H, W) as a function of other images of the same shape."""
        ...


class HasFeatures(Protocol):
    """A network with activations, such as `networks.embedding.ImageEncoder`."""

    def features(self, image: Tensor) -> Sequence[Feature]:
        """From images (B, C, H, W), the activations, fine to coarse; no image feels another."""
        ...


@dataclass(frozen=True)
class DiscriminatorDistance:
    """Distance of the activations of a GAN's own discriminator, which knows the domain already.

    As in LPIPS (Zhang et al. 2018, equation 1) every pixel's activations are scaled to unit length over
    the channels, then |a - b|^power is summed over channels, averaged over pixels and summed over the first
    `layers` blocks of `Discriminator.features`, finest first. The last entry of those features is never used:
    it sees the other images of the batch.
    """

    discriminator: Discriminator
    layers: int = 4
    power: Literal[1, 2] = 2

    def towards(self, target: Tensor) -> ToTarget:
        """See `Distance.towards`."""
        return _between(self._embed, target, self.power)

    def _embed(self, image: Tensor) -> list[Tensor]:
        return [feature.tensor for feature in self.discriminator.features(image)[:-1][: self.layers]]


@dataclass(frozen=True)
class EncoderDistance:
    """The same distance by a self-supervised encoder, summed over the first `layers` of its activations."""

    encoder: HasFeatures
    layers: int = 4
    power: Literal[1, 2] = 2

    def towards(self, target: Tensor) -> ToTarget:
        """See `Distance.towards`."""
        return _between(self._embed, target, self.power)

    def _embed(self, image: Tensor) -> list[Tensor]:
        return [feature.tensor for feature in self.encoder.features(image)[: self.layers]]


@dataclass(frozen=True)
class LpipsDistance:
    """LPIPS (Zhang et al. 2018, equation 1) with the published weights; images of 1 or 3 channels.

    Raises (by `towards`):
        ShapeError: images below 32 px, or of another number of channels.
    """

    network: LpipsNetwork

    def towards(self, target: Tensor) -> ToTarget:
        """See `Distance.towards`."""
        if target.shape[1] not in (1, 3) or min(target.shape[2:]) < SMALLEST:
            raise ShapeError(
                "LPIPS cannot look at these images",
                found=f"shape {tuple(target.shape)}",
                expected=f"1 or 3 channels and at least {SMALLEST} px",
                mend="Choose the discriminator's distance, which knows these images.",
            )
        return _between(self.network, target, 2, [weight[:, None, None] for weight in self.network.weights])


@dataclass(frozen=True)
class StructureDistance:
    """1 - MS-SSIM plus `gradient` times the mean absolute difference of the image gradients.

    MS-SSIM is Wang, Simoncelli & Bovik 2003, equation 7, with equal exponents, a Gaussian window of 7 pixels
    (sigma 1.5) and as many halvings as leave at least 8 pixels. It needs no network.
    """

    gradient: float = 1.0

    def towards(self, target: Tensor) -> ToTarget:
        """See `Distance.towards`."""
        target = target.detach()
        wanted = _slopes(target)

        def distance(image: Tensor) -> Tensor:
            slopes = [(a - b).abs().mean(dim=(1, 2, 3)) for a, b in zip(_slopes(image), wanted, strict=True)]
            return 1.0 - multiscale_similarity(image, target) + self.gradient * (slopes[0] + slopes[1]) / 2

        return distance


@dataclass(frozen=True)
class SumOfDistances:
    """A weighted sum of distances."""

    parts: Sequence[tuple[float, Distance]]

    def towards(self, target: Tensor) -> ToTarget:
        """See `Distance.towards`."""
        ready = [(weight, part.towards(target)) for weight, part in self.parts]
        return lambda image: torch.stack([weight * part(image) for weight, part in ready]).sum(dim=0)


def _between(
    embed: Callable[[Tensor], Sequence[Tensor]],
    target: Tensor,
    power: Literal[1, 2],
    weights: Sequence[Tensor] | None = None,
) -> ToTarget:
    """Distance of unit-length activations: mean over pixels, sum over (weighted) channels and layers."""
    with torch.no_grad():
        wanted = [unit_length(activation) for activation in embed(target)]

    def distance(image: Tensor) -> Tensor:
        terms = []
        for n, (activation, other) in enumerate(zip(embed(image), wanted, strict=True)):
            difference = unit_length(activation) - other
            difference = difference.square() if power == 2 else difference.abs()
            if weights is not None:
                difference = difference * weights[n]
            terms.append(difference.sum(dim=1).mean(dim=(1, 2)))
        return torch.stack(terms).sum(dim=0)

    return distance


def unit_length(activation: Tensor, tiny: float = 1e-8) -> Tensor:
    """Activations (B, C, H, W) scaled to unit length over the channels of every pixel."""
    return activation * (activation.square().sum(dim=1, keepdim=True) + tiny).rsqrt()


def multiscale_similarity(a: Tensor, b: Tensor) -> Tensor:
    """MS-SSIM (B,) of images (B, C, H, W) in [-1, 1]; 1 for equal images. See `StructureDistance`."""
    terms = []
    while True:
        luminance, contrast = _similarity(a, b)
        if min(a.shape[2:]) < 16:
            terms.append(luminance * contrast)
            break
        terms.append(contrast)
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return torch.stack(terms).clamp_min(1e-4).log().mean(dim=0).exp()


def _similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure terms (B,) of SSIM at one scale; the data range is 2."""
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a = _blur(a * a) - mean_a.square()
    variance_b = _blur(b * b) - mean_b.square()
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    contrast = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return luminance.mean(dim=(1, 2, 3)), contrast.mean(dim=(1, 2, 3))


def _blur(image: Tensor) -> Tensor:
    """Gaussian mean over 7 x 7 pixels (fewer for smaller images), without padding."""
    taps = min(7, *image.shape[2:])
    taps -= 1 - taps % 2
    offsets = torch.arange(taps, device=image.device, dtype=image.dtype) - taps // 2
    kernel = torch.exp(-offsets.square() / (2 * 1.5**2))
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, taps)
    rows = F.conv2d(image, kernel.unsqueeze(3), groups=image.shape[1])
    return F.conv2d(rows, kernel.unsqueeze(2), groups=image.shape[1])


def _slopes(image: Tensor) -> tuple[Tensor, Tensor]:
    return image.diff(dim=2), image.diff(dim=3)
