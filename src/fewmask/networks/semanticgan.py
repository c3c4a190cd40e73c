"""SemanticGAN's networks: a generator of images with masks, and the discriminator of such pairs.

Li et al., CVPR 2021, "Semantic segmentation with generative models". The generator is StyleGAN2's with a
second output; the discriminator of pairs is the multi-scale PatchGAN of Wang et al. 2018,
"High-resolution image synthesis and semantic manipulation with conditional GANs", section 3.2, with the
spectral normalisation of Miyato et al. 2018. Written from the papers.

Images are (B, C, H, W) in about [-1, 1]. Masks are raw numbers (B, K, H, W) that imitate one-hot masks of -1
and +1: K classes with the background first, or one channel for one foreground class; above 0 means inside.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewmask.networks.equalised import SLOPE
from fewmask.networks.generator import Feature, ImageGenerator, Noise
from fewmask.networks.precise import in_float32
from fewmask.networks.resample import Binomial
from fewmask.networks.stylegan2 import Generator, ToImage, channel_plan


class MaskBranch(nn.Module):
    """The mask that belongs to an image: a modulated 1 x 1 convolution per size ("ToSEG"), summed.

    It reads what the size's ToRGB reads, with the same style, and adds to the upsampled mask of the last one.
    """

    def __init__(self, plan: dict[int, int], channels: int, w_dim: int, clamp: float | None) -> None:
        super().__init__()
        self.sizes = tuple(sorted(plan))
        self.to_mask = nn.ModuleList(ToImage(plan[size], channels, w_dim, clamp=clamp) for size in self.sizes)
        self.filter = Binomial()

    def forward(self, features: Sequence[Feature], ws: Tensor) -> Tensor:
        """Activations as `SynthesisNetwork.trace` gives them, and their ws -> (B, K, H, W), unbounded."""
        last = {feature.size: feature.tensor for feature in features}
        mask: Tensor | None = None
        for number, (size, to_mask) in enumerate(zip(self.sizes, self.to_mask, strict=True)):
            added: Tensor = to_mask(last[size], ws[:, 2 * number + 1])
            mask = added if mask is None else added + self.filter.up(mask)
        assert mask is not None
        return mask


class SemanticGenerator(ImageGenerator):
    """StyleGAN2 with a mask branch.

    Its images, mapping and synthesis are those of `networks.stylegan2.Generator`, names of weights included:
    what inverts or reads such a generator does the same with this one, and a trained one's weights fit.

    Args:
        z_dim: length of the latent z.
        w_dim: length of the style w.
        resolution: height and width of the images in pixels: a power of two, 16-1024.
        channels: channels of the images.
        mask_channels: channels of the masks: classes with the background, or 1 for one foreground class.
        channel_base: channels at size s are min(channel_base / s, channel_max).
        channel_max: see `channel_base`.
        mapping_layers: layers of the mapping network.
        classes: length of the label vector of whole images, 0 for none.
        conv_clamp: limit of the absolute activations; None for no limit.

    Raises:
        ConfigError: the resolution cannot be generated.
    """

    def __init__(
        self,
        z_dim: int,
        w_dim: int,
        resolution: int,
        channels: int,
        mask_channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        mapping_layers: int = 8,
        classes: int = 0,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        trunk = Generator(
            z_dim,
            w_dim,
            resolution,
            channels,
            channel_base=channel_base,
            channel_max=channel_max,
            mapping_layers=mapping_layers,
            classes=classes,
            conv_clamp=conv_clamp,
        )
        self.z_dim, self.w_dim, self.num_ws = z_dim, w_dim, trunk.num_ws
        self.resolution, self.channels, self.classes = resolution, channels, classes
        self.mask_channels = mask_channels
        self.synthesis, self.mapping = trunk.synthesis, trunk.mapping
        plan = channel_plan(resolution, channel_base, channel_max)
        self.mask_branch = MaskBranch(plan, mask_channels, w_dim, conv_clamp)

    def pair(self, ws: Tensor, noise: Noise = "random") -> tuple[Tensor, Tensor]:
        """From ws (B, num_ws, w_dim), an image (B, C, H, W) and its mask (B, K, H, W), both unbounded."""
        features, image = self.synthesis.trace(ws, noise)
        return image, self.mask_branch(features, ws)


@dataclass(frozen=True)
class Judged:
    """What a `MaskDiscriminator` says of a batch of pairs, fine to coarse.

    logits: per scale (B, 1, h, w), one number per patch, positive means real; features: per scale what every
    layer before the logits gives, each (B, c, h, w).
    """

    logits: list[Tensor]
    features: list[list[Tensor]]

    @property
    def score(self) -> Tensor:
        """One number per pair (B,): the mean over patches, then over scales, as the hinge loss takes it."""
        return torch.stack([one.float().mean(dim=(1, 2, 3)) for one in self.logits]).mean(dim=0)


class SpectralConv2d(nn.Module):
    """A 4 x 4 convolution whose weight is divided by its largest singular value (Miyato et al. 2018).

    The singular vectors u, v are moved by `settle`, once per step of the optimiser, and not by `forward`:
    what is computed does not depend on how often a batch is divided.
    """

    u: Tensor
    v: Tensor

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        bound = 1 / math.sqrt(channels_in * 16)
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in, 4, 4).uniform_(-bound, bound))
        self.register_buffer("u", F.normalize(torch.randn(channels_out), dim=0))
        self.register_buffer("v", torch.zeros(channels_in * 16))
        self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """One power iteration (algorithm 1)."""
        matrix = self.weight.flatten(1)
        self.v.copy_(F.normalize(matrix.t() @ self.u, dim=0))
        self.u.copy_(F.normalize(matrix @ self.v, dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H', W'); H' = floor(H / stride) + 1."""
        return F.conv2d(x, _normalised(self.weight, self.u, self.v), stride=self.stride, padding=2)


@in_float32
def _normalised(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    # Copies, for `settle` changes the vectors in place while a graph may still need them.
    return weight / torch.dot(u.clone(), weight.flatten(1) @ v.clone())


class PatchDiscriminator(nn.Module):
    """4 x 4 convolutions down to one logit per patch; each but the first and last with instance norm."""

    def __init__(self, channels: int, width: int, layers: int) -> None:
        super().__init__()
        widths = [width * 2**n for n in range(layers + 1)]
        self.first = nn.Conv2d(channels, width, 4, stride=2, padding=2)
        self.inner = nn.ModuleList(
            SpectralConv2d(widths[n], widths[n + 1], 2 if n + 1 < layers else 1) for n in range(layers)
        )
        self.last = nn.Conv2d(widths[-1], 1, 4, padding=2)

    def forward(self, pair: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, channels, H, W) -> logits (B, 1, h, w), and what every layer before them gives."""
        x = F.leaky_relu(self.first(pair), SLOPE)
        features = [x]
        for layer in self.inner:
            x = F.leaky_relu(_instance_norm(layer(x)), SLOPE)
            features.append(x)
        return _plain_convolution(x, self.last.weight, self.last.bias), features


@in_float32
def _instance_norm(x: Tensor) -> Tensor:
    return F.instance_norm(x)


@in_float32  # sums that become a logit
def _plain_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, weight, bias, padding=2)


class MaskDiscriminator(nn.Module):
    """Whether a mask belongs to its image: `PatchDiscriminator`s at several scales, each half the last one's.

    Args:
        image_channels: channels of the images.
        mask_channels: channels of the masks.
        width: channels of the first convolution, doubled by every inner one (published: 64).
        layers: inner convolutions; all but the last of them halve the size.
        scales: how many discriminators.
    """

    def __init__(
        self, image_channels: int, mask_channels: int, *, width: int = 64, layers: int = 3, scales: int = 3
    ) -> None:
        super().__init__()
        self.image_channels, self.mask_channels = image_channels, mask_channels
        channels = image_channels + mask_channels
        self.scales = nn.ModuleList(PatchDiscriminator(channels, width, layers) for _ in range(scales))

    def forward(self, pair: Tensor) -> Judged:
        """Images and masks side by side, (B, image_channels + mask_channels, H, W), 16 px or more."""
        judged = Judged([], [])
        for number, scale in enumerate(self.scales):
            if number:
                pair = F.avg_pool2d(pair, 3, stride=2, padding=1, count_include_pad=False)
            logits, features = scale(pair)
            judged.logits.append(logits)
            judged.features.append(features)
        return judged

    def settle(self) -> None:
        """Move the singular vectors of the spectral normalisation; after every step of the optimiser."""
        for module in self.modules():
            if isinstance(module, SpectralConv2d):
                module.settle()
