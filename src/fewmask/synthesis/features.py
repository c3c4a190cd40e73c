"""What a pixel head reads: activations of networks that have seen the unlabelled images.

A source turns a subject - an image, and its latents where there are any - into feature maps at their own
sizes. Its networks are looked at and never learn: they compute in evaluation mode and without gradient,
whatever mode they are in, and are left in that mode. A stack is several sources side by side. Nothing is
enlarged or concatenated here; see `networks.pixelhead.ProjectedSum`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.core.seed import integer
from fewmask.networks.embedding import ImageEncoder
from fewmask.networks.generator import Feature, ImageGenerator
from fewmask.networks.stylegan2 import Discriminator
from fewmask.networks.unet import UNet

Source = Literal["generator", "discriminator", "encoder", "unet", "image"]
"""Whose activations: of the generator at an image's latents, of its discriminator, of an encoder that learned
without labels, of a U-Net, or the image itself."""


class FeatureSource(Protocol):
    """One family of feature maps."""

    def maps(self, image: Tensor, ws: Tensor | None) -> list[Tensor]:
        """Feature maps (B, c_i, h_i, w_i) of images (B, C, H, W) in [-1, 1], latents (B, num_ws, w_dim)."""
        ...


@contextmanager
def looking(network: nn.Module) -> Iterator[None]:
    """While the block runs the network is in evaluation mode and no gradient is kept."""
    learning = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in learning:
            module.training = True


def without_margin(feature: Feature) -> Tensor:
    """The part of an activation (B, c, size, size) that covers the image."""
    inside = slice(feature.margin, feature.size - feature.margin)
    return feature.tensor[:, :, inside, inside]


@dataclass(frozen=True)
class GeneratorFeatures:
    """Every synthesis convolution of the generator of at least `smallest` pixels a side.

    8, without those at 4 x 4, is RepurposeGAN's stack; 4 is DatasetGAN's; 16 leaves out what is too coarse to
    tell a small organ from its neighbours.


    What lies outside of the image is cut off first (StyleGAN3's margins), so that every map covers the image
    and nothing else, and can be enlarged to it. The latents come with the image (from a projection), or from
    `encoder` when it is given: images (B, C, H, W) -> latents (B, num_ws, w_dim).
    """

    generator: ImageGenerator
    encoder: Callable[[Tensor], Tensor] | None = None
    smallest: int = 8

    def maps(self, image: Tensor, ws: Tensor | None) -> list[Tensor]:
        """See `FeatureSource.maps`."""
        if self.encoder is not None:
            with torch.no_grad():
                ws = self.encoder(image)
        if ws is None:
            raise ConfigError(
                "generator features need latents, and this image has none",
                mend="Project the images first, give an encoder, or leave the generator's features out.",
            )
        with looking(self.generator):
            features = self.generator.features(ws, noise="constant")
        return self.read(features)

    def of(self, generator: ImageGenerator) -> bool:
        """Whether the maps are activations of this generator at the very latents that are given."""
        return self.generator is generator and self.encoder is None

    def read(self, features: Sequence[Feature]) -> list[Tensor]:
        """The maps among all activations of the generator."""
        return [without_margin(feature) for feature in features if feature.size >= self.smallest]


@dataclass(frozen=True)
class DiscriminatorFeatures:
    """The blocks of the discriminator on the image itself: they hold what an inversion loses.

    Its last convolution is left out: it sees the other images of the batch.
    """

    discriminator: Discriminator

    def maps(self, image: Tensor, ws: Tensor | None) -> list[Tensor]:
        """See `FeatureSource.maps`; the finest first."""
        with looking(self.discriminator):
            features = self.discriminator.features(image)[:-1]
        return [feature.tensor for feature in features]


@dataclass(frozen=True)
class EncoderFeatures:
    """The blocks of an encoder that learned without labels (`quality.fit_embedding`), finest first.

    The finest is at half of the image's size; put `ImageFeatures` beside it for borders.
    """

    encoder: ImageEncoder

    def maps(self, image: Tensor, ws: Tensor | None) -> list[Tensor]:
        """See `FeatureSource.maps`; a `ShapeError` for images of another size than the encoder learned."""
        known = (self.encoder.channels, self.encoder.resolution, self.encoder.resolution)
        if tuple(image.shape[1:]) != known:
            raise ShapeError(
                "the encoder learned from images of another size",
                found=f"{tuple(image.shape[1:])}",
                expected=f"{known} (C, H, W)",
                mend="Use the preparation that the encoder was trained with.",
            )
        with looking(self.encoder):
            return [feature.tensor for feature in self.encoder.features(image)]


@dataclass(frozen=True)
class UNetFeatures:
    """The levels of a 2-D U-Net on its way down, finest first: a segmenter of whatever it was trained for."""

    unet: UNet

    def maps(self, image: Tensor, ws: Tensor | None) -> list[Tensor]:
        """See `FeatureSource.maps`; a `ShapeError` where the image cannot be halved for every level."""
        if image.ndim != 4 or any(side % self.unet.multiple for side in image.shape[2:]):
            raise ShapeError(
                "the U-Net cannot halve this image for every level",
                found=f"{tuple(image.shape)}",
                expected=f"(B, C, H, W) with H and W multiples of {self.unet.multiple}",
                mend="Prepare the slices at such a size (prepare.size).",
            )
        with looking(self.unet):
            return self.unet.levels(image)


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

    def drawn(self, generator: ImageGenerator, ws: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The images (B, C, H, W) in [-1, 1] of latents (B, num_ws, w_dim), and all their feature maps.

        The generator runs once, also where it is a source.
        """
        with looking(generator):
            features, image = generator.synthesis.trace(ws, noise="constant")
        image, maps = image.float().clamp(-1, 1), []
        with torch.no_grad():
            for source in self.sources:
                if isinstance(source, GeneratorFeatures) and source.of(generator):
                    maps += source.read(features)
                else:
                    maps += source.maps(image, ws)
        return image, maps

    def channels(self, image: Tensor, ws: Tensor | None = None) -> tuple[int, ...]:
        """The channels of each map, found by looking at one subject."""
        return tuple(int(one.shape[1]) for one in self.maps(image[:1], None if ws is None else ws[:1]))


_SOURCES: Mapping[Source, Callable[[Any], FeatureSource]] = {
    "discriminator": DiscriminatorFeatures,
    "encoder": EncoderFeatures,
    "unet": UNetFeatures,
}


def stack_of(
    names: Sequence[Source], networks: Mapping[Source, Callable[[], nn.Module]], *, smallest: int = 8
) -> FeatureStack:
    """The sources of these names, in their order.

    networks: gives the network of each name, but for the image, which has none; smallest: see
    `GeneratorFeatures`.
    """

    def one(name: Source) -> FeatureSource:
        if name == "image":
            return ImageFeatures()
        network: Any = networks[name]()
        return (
            GeneratorFeatures(network, smallest=smallest) if name == "generator" else _SOURCES[name](network)
        )

    return FeatureStack([one(name) for name in names])


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Mean and standard deviation (sum of channels,) of a stack's features, in the order of its maps."""

    mean: Tensor
    deviation: Tensor


def channel_statistics(
    stack: FeatureStack, image: Tensor, ws: Tensor | None, *, batch_size: int = 16
) -> ChannelStatistics:
    """Per-channel statistics over all pixels of N subjects, each map at its own size.

    Args:
        stack: any sources.
        image: (N, C, H, W) real or generated images in [-1, 1], at least one.
        ws: (N, num_ws, w_dim) their latents, or None when no source needs them.
        batch_size: subjects at once; changes memory, not results (up to rounding).
    """
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
    """Per-channel statistics over images sampled from the generator, all its classes in turn."""
    chance = torch.Generator().manual_seed(integer(seed, "features", "statistics"))
    z = torch.randn(samples, generator.z_dim, generator=chance)
    classes = generator.classes
    label = torch.eye(classes)[torch.arange(samples) % classes] if classes else None
    with torch.no_grad():
        ws = generator.mapping(z, label, truncation)
        image = torch.cat([generator.synthesis(some, noise="constant") for some in ws.split(16)])
    return channel_statistics(stack, image, ws)
