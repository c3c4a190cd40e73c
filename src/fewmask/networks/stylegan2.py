"""StyleGAN2: generator and discriminator.

Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", configuration F; conditioning on
a class as in Karras et al. 2020, "Training generative adversarial networks with limited data". Written from
the papers.

Images are (B, C, H, W) in [-1, 1], square, any number of channels, 16-1024 px. A latent z is N(0, I); its
style w is one vector per synthesis layer: ws (B, num_ws, w_dim).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewmask.core.errors import ConfigError
from fewmask.networks.equalised import ACTIVATION_GAIN, SLOPE, EqualConv2d, EqualLinear
from fewmask.networks.generator import Feature, ImageGenerator, Noise, Synthesis
from fewmask.networks.mapping import MappingNetwork
from fewmask.networks.precise import in_float32
from fewmask.networks.resample import Binomial
from fewmask.networks.winograd import convolve


def resolutions(resolution: int) -> list[int]:
    """[4, 8, ..., resolution].

    Raises:
        ConfigError: `resolution` is not a power of two from 16 to 1024.
    """
    if resolution not in (16, 32, 64, 128, 256, 512, 1024):
        raise ConfigError(
            "this resolution cannot be generated",
            where="resolution",
            found=str(resolution),
            expected="a power of two from 16 to 1024",
            mend="Resize or pad the images to the nearest power of two.",
        )
    return [2**n for n in range(2, resolution.bit_length())]


def channel_plan(resolution: int, channel_base: int, channel_max: int) -> dict[int, int]:
    """Channels at each size: min(channel_base / size, channel_max); the published one is (32768, 512)."""
    return {size: max(1, min(channel_base // size, channel_max)) for size in resolutions(resolution)}


@in_float32
def demodulation(styles: Tensor, squares: Tensor) -> Tensor:
    """1 / |w'| of each output channel: styles (B, in), squared weights (out, in) -> (B, out)."""
    return torch.addmm(styles.new_full((), 1e-8), styles.square(), squares.t()).rsqrt()


class SynthesisLayer(nn.Module):
    """Modulated 3 x 3 convolution, demodulated, with noise, bias and leaky ReLU (equations 1-3).

    The weight is shared by the batch: styles scale the input, demodulation scales the output. This equals the
    paper's per-sample weights w'_ijk / sqrt(sum w'_ijk^2 + eps) and spares a grouped convolution.
    """

    noise_const: Tensor

    def __init__(
        self, channels_in: int, channels_out: int, size: int, w_dim: int, *, up: bool, clamp: float | None
    ) -> None:
        super().__init__()
        self.size = size
        self.clamp = clamp
        self.affine = EqualLinear(w_dim, channels_in, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(size, size))
        self.filter = Binomial() if up else None

    def forward(self, x: Tensor, w: Tensor, noise: str | Tensor) -> Tensor:
        """(B, in, h, h), (B, w_dim) -> (B, out, size, size); a given noise is (B or 1, 1, size, size)."""
        styles = self.affine(w)
        x = x * styles[:, :, None, None]
        if self.filter is None:
            x = convolve(x, self.weight)
        else:
            x = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
            x = self.filter.smooth(x, padding=1, gain=4.0)
        squares = self.weight.square().sum(dim=(2, 3))
        scale = demodulation(styles, squares)
        scale, bias = scale * ACTIVATION_GAIN, self.bias * ACTIVATION_GAIN
        x = torch.addcmul(bias[:, None, None], x, scale[:, :, None, None])
        if not isinstance(noise, str) or noise != "none":
            x = x.add_(self._noise(x, noise))
        x = F.leaky_relu_(x, SLOPE)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)

    def _noise(self, x: Tensor, noise: str | Tensor) -> Tensor:
        if isinstance(noise, Tensor):
            picture = noise
        elif noise == "constant":
            picture = self.noise_const
        else:
            picture = torch.randn(x.shape[0], 1, self.size, self.size, device=x.device, dtype=x.dtype)
        return picture * (self.noise_strength * ACTIVATION_GAIN)


class ToImage(nn.Module):
    """Modulated 1 x 1 convolution to the image's channels, without demodulation ("ToRGB")."""

    def __init__(self, channels_in: int, channels_out: int, w_dim: int, *, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = EqualLinear(w_dim, channels_in, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.weight_gain = 1 / math.sqrt(channels_in)

    @in_float32
    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, in, h, h), (B, w_dim) -> (B, C, h, h)."""
        styles = self.affine(w) * self.weight_gain
        weight = styles[:, :, None] * self.weight.flatten(1).t()
        # Few channels come out: one matrix product per image spares scaling the input.
        image: Tensor = torch.matmul(x.permute(0, 2, 3, 1).flatten(1, 2), weight) + self.bias
        image = image.mT.reshape(x.shape[0], -1, *x.shape[2:])
        return image if self.clamp is None else image.clamp(-self.clamp, self.clamp)


class SynthesisBlock(nn.Module):
    """The layers of one size: (upsampling conv0,) conv1, and the addition to the image."""

    def __init__(
        self, size: int, channels_in: int, channels: int, image_channels: int, w_dim: int, clamp: float | None
    ) -> None:
        super().__init__()
        self.size = size
        first = size == 4
        self.conv0 = (
            None if first else SynthesisLayer(channels_in, channels, size, w_dim, up=True, clamp=clamp)
        )
        self.conv1 = SynthesisLayer(channels, channels, size, w_dim, up=False, clamp=clamp)
        self.to_image = ToImage(channels, image_channels, w_dim, clamp=clamp)
        self.filter = None if first else Binomial()

    def forward(
        self, x: Tensor, image: Tensor | None, ws: list[Tensor], noise: list[str | Tensor]
    ) -> tuple[list[Feature], Tensor]:
        """A w and a noise per convolution, a w for the image; gives the activations and the image so far."""
        features = []
        if self.conv0 is not None:
            x = self.conv0(x, ws[0], noise[0])
            features.append(Feature(f"{self.size}px.conv0", self.size, x))
        x = self.conv1(x, ws[-2], noise[-1])
        features.append(Feature(f"{self.size}px.conv1", self.size, x))
        added = self.to_image(x, ws[-1])
        if image is not None and self.filter is not None:
            added = added + self.filter.up(image)
        return features, added


class SynthesisNetwork(Synthesis):
    """ws -> image, growing from a learned 4 x 4 constant; every size adds to a skip image (figure 7b)."""

    def __init__(
        self, w_dim: int, resolution: int, channels: int, plan: dict[int, int], clamp: float | None
    ) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.randn(plan[4], 4, 4))
        sizes = resolutions(resolution)
        self.blocks = nn.ModuleList(
            SynthesisBlock(size, plan[max(4, size // 2)], plan[size], channels, w_dim, clamp)
            for size in sizes
        )
        self.num_ws = 2 * len(sizes)
        self.noise_sizes = (4, *(size for size in sizes[1:] for _ in range(2)))

    def trace(self, ws: Tensor, noise: Noise) -> tuple[list[Feature], Tensor]:
        """The activations of every 3 x 3 convolution, coarse to fine, and the image."""
        x = self.const.expand(ws.shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
        styles = list(ws.unbind(dim=1))
        noises = [noise] * (self.num_ws - 1) if isinstance(noise, str) else list(noise)
        features: list[Feature] = []
        image = None
        start = 0
        for block in self.blocks:
            convolutions = 1 if block.size == 4 else 2
            # The w of a size's image layer is also the w of the next size's first convolution.
            end = start + convolutions
            found, image = block(x, image, styles[start : end + 1], noises[start:end])
            start = end
            features += found
            x = found[-1].tensor
        assert image is not None
        return features, image


class Generator(ImageGenerator):
    """Mapping and synthesis.

    Args:
        z_dim: length of the latent z.
        w_dim: length of the style w.
        resolution: height and width of the images in pixels: a power of two, 16-1024.
        channels: channels of the images.
        channel_base: channels at size s are min(channel_base / s, channel_max).
        channel_max: see `channel_base`.
        mapping_layers: layers of the mapping network (8; small data sets often use 2).
        classes: length of the label vector, 0 for none.
        conv_clamp: limit of the absolute activations (256 guards half precision); None for no limit.
    """

    def __init__(
        self,
        z_dim: int,
        w_dim: int,
        resolution: int,
        channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        mapping_layers: int = 8,
        classes: int = 0,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.z_dim, self.w_dim = z_dim, w_dim
        self.resolution, self.channels, self.classes = resolution, channels, classes
        plan = channel_plan(resolution, channel_base, channel_max)
        self.synthesis = SynthesisNetwork(w_dim, resolution, channels, plan, conv_clamp)
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(
            z_dim, w_dim, layers=mapping_layers, classes=classes, num_ws=self.num_ws
        )


class ResidualBlock(nn.Module):
    """Two convolutions and a skip, halving the size (figure 7c)."""

    def __init__(self, channels_in: int, channels_out: int, clamp: float | None) -> None:
        super().__init__()
        half = math.sqrt(0.5)
        self.conv0 = EqualConv2d(channels_in, channels_in, 3, clamp=clamp)
        self.conv1 = EqualConv2d(channels_in, channels_out, 3, down=True, gain=half, clamp=clamp)
        self.skip = EqualConv2d(
            channels_in, channels_out, 1, down=True, bias=False, activate=False, gain=half
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, h) -> (B, out, h / 2, h / 2)."""
        skip: Tensor = self.skip(x)
        deep: Tensor = self.conv1(self.conv0(x))
        return skip + deep


@in_float32
def append_group_deviation(x: Tensor, group: int) -> Tensor:
    """Append one channel: the standard deviation over a group of images, averaged over channels and pixels.

    Image n of N is grouped with n + N/G, n + 2N/G, ... where G is the largest divisor of N up to `group`
    (Karras et al. 2018, section 3). (B, C, H, W) -> (B, C + 1, H, W).
    """
    count, _, height, width = x.shape
    size = next(g for g in range(min(group, count), 0, -1) if count % g == 0)
    grouped = x.reshape(size, count // size, -1)
    variance = (grouped - grouped.mean(dim=0)).square().mean(dim=0)
    deviation = (variance + 1e-8).sqrt().mean(dim=1)
    channel = deviation.repeat(size)[:, None, None, None].expand(count, 1, height, width)
    return torch.cat([x, channel], dim=1)


class Discriminator(nn.Module):
    """Residual discriminator; with classes, a projection onto the mapped label (Miyato and Koyama 2018).

    Args:
        resolution: height and width of the images in pixels: a power of two, 16-1024.
        channels: channels of the images.
        channel_base: channels at size s are min(channel_base / s, channel_max).
        channel_max: see `channel_base`.
        classes: length of the label vector, 0 for none.
        group: images that share one minibatch standard deviation; 0 for none.
        conv_clamp: limit of the absolute activations; None for no limit.
    """

    def __init__(
        self,
        resolution: int,
        channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        classes: int = 0,
        group: int = 4,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        plan = channel_plan(resolution, channel_base, channel_max)
        sizes = [size for size in reversed(resolutions(resolution)) if size > 4]
        self.resolution, self.channels, self.classes, self.group = resolution, channels, classes, group
        self.from_image = EqualConv2d(channels, plan[resolution], 1, clamp=conv_clamp)
        self.blocks = nn.ModuleList(ResidualBlock(plan[size], plan[size // 2], conv_clamp) for size in sizes)
        last = plan[4]
        self.conv = EqualConv2d(last + (1 if group else 0), last, 3, clamp=conv_clamp)
        self.hidden = EqualLinear(last * 16, last, activate=True)
        self.out = EqualLinear(last, last if classes else 1)
        self.mapping = MappingNetwork(0, last, classes=classes) if classes else None

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, C, resolution, resolution) -> logits (B, 1); positive means real."""
        x = self.features(image)[-1].tensor
        y: Tensor = self.out(self.hidden(x.flatten(1)))
        if self.mapping is None:
            return y
        w: Tensor = self.mapping(None, label)[:, 0]
        return (y * w).sum(dim=1, keepdim=True) / math.sqrt(w.shape[1])

    def features(self, image: Tensor) -> list[Feature]:
        """The output of every block, fine to coarse, and of the last convolution at 4 x 4."""
        x = self.from_image(image)
        found = []
        for block in self.blocks:
            x = block(x)
            found.append(Feature(f"{x.shape[-1]}px.block", x.shape[-1], x))
        x = self.conv(append_group_deviation(x, self.group) if self.group else x)
        found.append(Feature("4px.conv", 4, x))
        return found
