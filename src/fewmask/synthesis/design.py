"""What a generator and its discriminator are made of and how they are trained, as plain numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, Literal, TypeVar, get_args

from torch import nn

from fewmask.core.errors import ConfigError
from fewmask.networks import semanticgan, stylegan2, stylegan3
from fewmask.networks.generator import ImageGenerator
from fewmask.networks.semanticgan import MaskDiscriminator
from fewmask.networks.stylegan2 import Discriminator
from fewmask.objectives.ada import ANATOMY, Operation
from fewmask.objectives.regularise import FadingBlur

T = TypeVar("T", bound=nn.Module)

Kind = Literal["stylegan2", "stylegan3-t", "stylegan3-r"]

GENERATORS: Mapping[str, type[ImageGenerator]] = {
    "stylegan2": stylegan2.Generator,
    "stylegan3": stylegan3.Generator,
    "semanticgan": semanticgan.SemanticGenerator,
}
"""The networks, by the kind that stands in a generator's settings."""

ADA_NEEDLESS = 100_000
"""From so many different training images on, the discriminator hardly learns them by heart."""


@dataclass(frozen=True)
class GeneratorDesign:
    """Size of the two networks and how they are trained; all fields are JSON values.

    Channels at size s are min(channel_base / s, channel_max) for StyleGAN2 and all discriminators,
    min(channel_base / 2 / cutoff, channel_max) for StyleGAN3, twice as many for its configuration R.
    """

    kind: Kind = "stylegan2"
    channel_base: int = 4096
    channel_max: int = 64
    latent: int = 128
    mapping_layers: int = 4
    conv_clamp: float | None = None
    """Limit of the absolute activations; 256 guards half precision."""
    group: int = 4
    """Images that share one minibatch standard deviation; must divide what one process computes at once."""
    batch: int = 16
    learning_rate: float = 2.5e-3
    discriminator_rate: float | None = None
    """The discriminator's learning rate, if it is another."""
    r1_gamma: float | None = 0.2
    """Weight of R1; None for the published rule, see `gamma`."""
    r1_every: int = 16
    path_length_weight: float = 0.0
    """2 as published for StyleGAN2; an expensive step, which smooths the latents that inversion looks in."""
    path_length_every: int = 4
    mixing: float = 0.9
    average_half_life: float = 5_000
    """Half-life in images of the averaged generator."""
    average_ramp: float | None = 0.05
    """The half-life is at most this share of the images seen; None for no ramp."""
    ada_target: float = 0.6
    ada_images: int = 50_000
    ada_operations: tuple[Operation, ...] = ANATOMY
    freeze: int = 0
    """Blocks of the discriminator, from the image on, that do not learn: for a start from a trained one."""
    reuse_fakes: bool = False
    """The generator learns from the images that the discriminator was just shown: cheaper than published."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(
                "unknown kind of generator",
                where="kind",
                found=str(self.kind),
                expected=", ".join(get_args(Kind)),
                mend="Correct the name.",
            )

    def gamma(self, resolution: int) -> float:
        """The weight of R1 for images of this side; published: grows with the pixels, shrinks with the batch.

        StyleGAN2: 0.0002 resolution^2 / batch; StyleGAN3: 0.5 at 128 px and batch 32, times 4 for each
        doubling of the resolution, and by batch as StyleGAN2's.
        """
        if self.r1_gamma is not None:
            return self.r1_gamma
        if self.kind == "stylegan2":
            return 0.0002 * resolution**2 / self.batch
        return 0.5 * (resolution / 128) ** 2 * 32 / self.batch

    @property
    def fading(self) -> FadingBlur | None:
        """The blur of what the discriminator sees: for configuration R, gone after 200 kimg at batch 32."""
        return FadingBlur(10.0, self.batch * 200_000 / 32) if self.kind == "stylegan3-r" else None

    def transferred(self, *, freeze: int = 0) -> "GeneratorDesign":
        """The same for a start from trained weights: a faster augmentation, no ramp of the average.

        freeze: blocks of the discriminator, from the image on, that do not learn (Mo et al. 2020).
        """
        return replace(self, ada_images=min(self.ada_images, 100_000), average_ramp=None, freeze=freeze)

    def generator(self, channels: int, resolution: int, classes: int = 0) -> dict[str, Any]:
        """The settings of the generator, for `build_generator`."""
        wide = 2 if self.kind == "stylegan3-r" else 1
        settings: dict[str, Any] = {
            "kind": "stylegan2" if self.kind == "stylegan2" else "stylegan3",
            "z_dim": self.latent,
            "w_dim": self.latent,
            "resolution": resolution,
            "channels": channels,
            "channel_base": self.channel_base * wide,
            "channel_max": self.channel_max * wide,
            "mapping_layers": self.mapping_layers,
            "classes": classes,
            "conv_clamp": self.conv_clamp,
        }
        if self.kind != "stylegan2":
            settings["magnitude_ema_beta"] = 0.5 ** (self.batch / 20e3)
        if self.kind == "stylegan3-r":
            settings |= {"conv_kernel": 1, "use_radial_filters": True}
        return settings

    def semantic(
        self, channels: int, resolution: int, mask_channels: int, classes: int = 0
    ) -> dict[str, Any]:
        """The settings of the same generator with a mask branch, for `build_generator`.

        Raises:
            ConfigError: a StyleGAN3, which has none.
        """
        if self.kind != "stylegan2":
            raise ConfigError(
                "only StyleGAN2 can have a mask branch",
                where="kind",
                found=self.kind,
                expected="stylegan2",
                mend="Choose stylegan2, or label what the generator draws by a head on its features.",
            )
        settings = self.generator(channels, resolution, classes)
        return {**settings, "kind": "semanticgan", "mask_channels": mask_channels}

    def discriminator(self, channels: int, resolution: int, classes: int = 0) -> dict[str, Any]:
        """The settings of the discriminator, for `build_discriminator`."""
        return {
            "resolution": resolution,
            "channels": channels,
            "channel_base": self.channel_base,
            "channel_max": self.channel_max,
            "classes": classes,
            "group": self.group,
            "conv_clamp": self.conv_clamp,
        }


@dataclass(frozen=True)
class MaskDesign:
    """How a generator learns the masks of its images (SemanticGAN), as published; all fields are JSON values.

    The rest, such as the batch, is the `GeneratorDesign`'s.
    """

    width: int = 64
    """Channels of the mask discriminator's first convolution."""
    layers: int = 3
    """Its inner convolutions."""
    scales: int = 3
    """How many discriminators, each at half the size of the one before."""
    feature_weight: float = 2.0
    """Weight of the generator's feature matching."""
    r1_gamma: float = 10.0
    """Weight of R1 on the mask discriminator, as `objectives.semanticgan.MaskGame` counts it."""
    r1_every: int = 16
    learning_rate: float = 2e-3
    """Of the mask discriminator."""

    def discriminator(self, channels: int, mask_channels: int) -> dict[str, Any]:
        """The settings of the mask discriminator, for `build_mask_discriminator`."""
        sizes = {"width": self.width, "layers": self.layers, "scales": self.scales}
        return {"image_channels": channels, "mask_channels": mask_channels, **sizes}


def build_generator(settings: Mapping[str, Any]) -> ImageGenerator:
    """A generator with fresh weights.

    Args:
        settings: "kind" ("stylegan2", "stylegan3" or "semanticgan") and the arguments of that network.

    Raises:
        ConfigError: an unknown kind, an unknown or missing argument, or a size that cannot be.
    """
    arguments = dict(settings)
    kind = arguments.pop("kind", None)
    if kind not in GENERATORS:
        raise ConfigError(
            "unknown kind of generator",
            where="kind",
            found=str(kind),
            expected=", ".join(GENERATORS),
            mend="It may come from a newer fewmask.",
        )
    return _build(GENERATORS[kind], arguments)


def build_discriminator(settings: Mapping[str, Any]) -> Discriminator:
    """A discriminator with fresh weights; `settings` are its arguments. Raises `ConfigError` as above."""
    return _build(Discriminator, dict(settings))


def build_mask_discriminator(settings: Mapping[str, Any]) -> MaskDiscriminator:
    """The same of a discriminator of images with masks."""
    return _build(MaskDiscriminator, dict(settings))


def design_for(
    resolution: int,
    images: int,
    batch: int | None = None,
    *,
    kind: Kind = "stylegan2",
    mirror: bool = False,
    total: int | None = None,
    operations: tuple[Operation, ...] = ANATOMY,
) -> GeneratorDesign:
    """The published rules for a resolution.

    Both: gamma as `GeneratorDesign.gamma` tells, half-life of the average batch * 10 / 32 thousand images,
    mapping of 2 layers. StyleGAN2: half the channels below 512 px, learning rate 0.0025 below 1024 px.
    StyleGAN3: half the channels below 256 px, no mixing, no path lengths, learning rates 0.0025 and 0.002.
    All channels are the published ones: lower `channel_base` and `channel_max` (`dataclasses.replace`) to
    train on a CPU.

    Args:
        resolution: side of the images in pixels.
        images: how many different training images there are; from 100 000 on without augmentation.
        batch: images in a minibatch; None for the published rule, 4096 / resolution and at most 32.
        kind: which generator.
        mirror: may left and right be exchanged? Only where the anatomy allows it.
        total: how many images the training will see; p of the augmentation needs at most a quarter of them,
            and at most 500 000, to rise from 0 to 1. None for 500 000.
        operations: what the augmentation may do, without mirroring.
    """
    batch = batch or max(4, min(4096 // resolution, 32))
    stylegan2_ = kind == "stylegan2"
    augmented = images < ADA_NEEDLESS
    mirrored: tuple[Operation, ...] = ("xflip",) if mirror else ()
    return GeneratorDesign(
        kind=kind,
        channel_base=32768 if resolution >= (512 if stylegan2_ else 256) else 16384,
        channel_max=512,
        latent=512,
        mapping_layers=2,
        group=min(batch, 4),
        batch=batch,
        learning_rate=2e-3 if stylegan2_ and resolution >= 1024 else 2.5e-3,
        discriminator_rate=None if stylegan2_ else 2e-3,
        r1_gamma=None,
        path_length_weight=2.0 if stylegan2_ else 0.0,
        mixing=0.9 if stylegan2_ else 0.0,
        conv_clamp=None if stylegan2_ else 256.0,
        average_half_life=batch * 10_000 / 32,
        ada_images=500_000 if total is None else max(1000, min(500_000, total // 4)),
        ada_operations=(*mirrored, *operations) if augmented else (),
    )


def _build(network: Callable[..., T], arguments: Mapping[str, Any]) -> T:
    wanted = signature(network).parameters
    unknown = sorted(set(arguments) - set(wanted))
    missing = [name for name, one in wanted.items() if one.default is one.empty and name not in arguments]
    if unknown or missing:
        raise ConfigError(
            "the settings do not describe this network",
            found="; ".join(
                [*(f"unknown {name}" for name in unknown), *(f"no {name}" for name in missing)],
            ),
            expected=", ".join(wanted),
            mend="They may come from a newer fewmask.",
        )
    return network(**arguments)
