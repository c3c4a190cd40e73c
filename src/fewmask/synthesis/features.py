"""What a pixel head reads: activations of networks that have seen the unlabelled images.

A source turns a subject - an image, and its latents where there are any - into feature maps at their own
sizes. A stack is several sources side by side. Nothing is enlarged or concatenated here; see
`networks.pixelhead.ProjectedSum`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fewmask.core.errors import ConfigError
from fewmask.core.seed import integer
from fewmask.networks.generator import Feature, ImageGenerator
from fewmask.networks.stylegan2 import Discriminator


class FeatureSource(Protocol):
    """One family of feature maps."""

    def maps(self, image: Tensor, ws: Tensor | None) -> list[Tensor]:
        """Feature maps (B, c_i, h_i, w_i) of images (B, C, H, W) in [-1, 1], latents (B, num_ws, w_dim)."""
        ...


def without_margin(feature: Feature) -> Tensor:
    """The part of an activation (B, c, size, size) that covers the image."""
    inside = slice(feature.margin, feature.size - feature.margin)
    return feature.tensor[:, :, inside, inside]


@dataclass(frozen=True)
class GeneratorFeatures:
    """Every synthesis convolution of the generator except those at 4 x 4 (RepurposeGAN's stack).

    What lies outside of the image is cut off first (StyleGAN3's margins), so that every map covers the image
    and nothing else, and can be enlarged to it. The latents come with the image (from a projection), or from
    `encoder` when it is given.
    """

    generator: ImageGenerator
    encoder: Callable[[Tensor], Tensor] | None = None

    def maps(self, image: Tensor, ws: Tensor | None) -> list[Tensor]:
        """See `FeatureSource.maps`."""
        if self.encoder is not None:
            ws = self.encoder(image)
        if ws is None:
            raise ConfigError(
                "generator features need latents, and this image has none",
                mend="Project the images first, give an encoder, or leave the generator's features out.",
            )
        features = self.generator.features(ws, noise="constant")
        return [without_margin(feature) for feature in features if feature.size > 4]


@dataclass(frozen=True)
class DiscriminatorFeatures:
    """The blocks of the discriminator on the image itself: they hold what an inversion loses.

    Its last convolution is left out: it sees the other images of the batch.
    """

    discriminator: Discriminator
    layers: int | None = None

    def maps(self, image: Tensor, ws: Tensor | None) -> list[Tensor]:
        """See `FeatureSource.maps`; the first `layers` blocks, finest first (all when None)."""
        features = self.discriminator.features(image)[:-1]
        return [feature.tensor for feature in features[: self.layers]]


@dataclass(frozen=True)
class ImageFeatures:
    """The image itself."""

    def maps(self, image: Tensor, ws: Tensor | None) -> list[Tensor]:
        """See `FeatureSource.maps`."""
        return [image]


@dataclass(frozen=True)
class FeatureStack:
    """Sources side by side, in a fixed order. Frozen: features carry no gradient."""

    sources: Sequence[FeatureSource]

    def maps(self, image: Tensor, ws: Tensor | None = None) -> list[Tensor]:
        """All feature maps (B, c_i, h_i, w_i)."""
        with torch.no_grad():
            return [one for source in self.sources for one in source.maps(image, ws)]

    def channels(self, image: Tensor, ws: Tensor | None = None) -> tuple[int, ...]:
        """The channels of each map, found by looking at one subject."""
        return tuple(int(one.shape[1]) for one in self.maps(image[:1], None if ws is None else ws[:1]))


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Mean and standard deviation (sum of channels,) of a stack's features, in the order of its maps."""

    mean: Tensor
    deviation: Tensor


def channel_statistics(
    stack: FeatureStack, image: Tensor, ws: Tensor | None, *, batch_size: int = 16
) -> ChannelStatistics:
    """Per-channel statistics over all pixels of N subjects, each map at its own size."""
    count, total, squares = 0, torch.zeros(0), torch.zeros(0)
    for first in range(0, len(image), batch_size):
        part = slice(first, first + batch_size)
        maps = stack.maps(image[part], None if ws is None else ws[part])
        mean = torch.cat([one.double().mean(dim=(0, 2, 3)) for one in maps])
        square = torch.cat([one.double().square().mean(dim=(0, 2, 3)) for one in maps])
        size = len(image[part])
        total = mean * size if count == 0 else total + mean * size
        squares = square * size if count == 0 else squares + square * size
        count += size
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
    return ChannelStatistics(mean.float(), deviation.float())


def sampled_statistics(
    stack: FeatureStack, generator: ImageGenerator, *, samples: int = 256, seed: int, truncation: float = 1.0
) -> ChannelStatistics:
    """Per-channel statistics over images sampled from the generator."""
    chance = torch.Generator().manual_seed(integer(seed, "features", "statistics"))
    z = torch.randn(samples, generator.z_dim, generator=chance)
    with torch.no_grad():
        ws = generator.mapping(z, truncation=truncation)
        image = torch.cat([generator.synthesis(some, noise="constant") for some in ws.split(16)])
    return channel_statistics(stack, image, ws)
