"""StyleGAN2 the plain way, to measure ours against: what the papers say, without our shortcuts.

Written from Karras et al. 2020 ("Analyzing and improving the image quality of StyleGAN") in the way that code
without compiled operations does it: every image has its own modulated weights and a grouped convolution;
resampling inserts zeros and filters with the full 4 x 4 kernel; bias, leaky ReLU, gain and clamp are one
operation each. Parameters and buffers are named as in fewmask.networks.stylegan2, so that a state dict of
ours loads; fewer options are built than there.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewmask.networks.stylegan2 import channel_plan, resolutions

CLAMP = 256.0


def act(x: Tensor, bias: Tensor, gain: float = 1.0, clamp: float = CLAMP) -> Tensor:
    """clamp(gain * sqrt(2) * leaky_relu(x + bias))."""
    x = x + bias.reshape([-1 if axis == 1 else 1 for axis in range(x.ndim)])
    x = F.leaky_relu(x, 0.2)
    x = x * (gain * math.sqrt(2.0))
    return x.clamp(-clamp * gain, clamp * gain)


def fir(x: Tensor, *, up: int = 1, down: int = 1, pad: tuple[int, int], gain: float = 1.0) -> Tensor:
    """Insert zeros, pad, filter with the outer product of [1, 3, 3, 1] / 8, keep every `down`-th pixel."""
    count, channels, height, width = x.shape
    x = F.pad(x.reshape(count, channels, height, 1, width, 1), [0, up - 1, 0, 0, 0, up - 1])
    x = F.pad(x.reshape(count, channels, height * up, width * up), [pad[0], pad[1], pad[0], pad[1]])
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = (torch.outer(taps, taps) * (gain / 64)).expand(channels, 1, 4, 4)
    return F.conv2d(x, kernel, groups=channels)[:, :, ::down, ::down]


class Linear(nn.Module):
    """A fully connected layer with equalised learning rate."""

    def __init__(
        self,
        features_in: int,
        features_out: int,
        *,
        activate: bool = False,
        rate: float = 1.0,
        bias: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features_out, features_in) / rate)
        self.bias = nn.Parameter(torch.full((features_out,), bias / rate))
        self.activate, self.rate = activate, rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, in) -> (B, out)."""
        weight = self.weight * (self.rate / math.sqrt(self.weight.shape[1]))
        bias = self.bias * self.rate
        if not self.activate:
            return torch.addmm(bias, x, weight.t())
        return act(x.matmul(weight.t()), bias, clamp=math.inf)


class Mapping(nn.Module):
    """z -> ws, without truncation."""

    def __init__(self, z_dim: int, w_dim: int, layers: int, num_ws: int) -> None:
        super().__init__()
        self.num_ws = num_ws
        self.layers = nn.ModuleList(
            Linear(w_dim if n else z_dim, w_dim, activate=True, rate=0.01) for n in range(layers)
        )
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, num_ws, w_dim)."""
        x = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            x = layer(x)
        return x[:, None].repeat(1, self.num_ws, 1)


def modulated(
    x: Tensor, weight: Tensor, styles: Tensor, *, demodulate: bool = True, up: bool = False
) -> Tensor:
    """One weight per image (equations 1 and 3), all images in one grouped convolution."""
    count, channels = x.shape[:2]
    weights = weight[None] * styles[:, None, :, None, None]
    if demodulate:
        weights = weights * (weights.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    x = x.reshape(1, count * channels, *x.shape[2:])
    if up:
        weights = weights.transpose(1, 2).reshape(-1, weight.shape[0], *weight.shape[2:])
        x = F.conv_transpose2d(x, weights, stride=2, groups=count)
        x = fir(x, pad=(1, 1), gain=4.0)
    else:
        x = F.conv2d(x, weights.flatten(0, 1), padding=weight.shape[-1] // 2, groups=count)
    return x.reshape(count, -1, *x.shape[2:])


class _Layer(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, size: int, w_dim: int, *, up: bool) -> None:
        super().__init__()
        self.affine = Linear(w_dim, channels_in, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(size, size))
        self.size, self.up = size, up

    def forward(self, x: Tensor, w: Tensor, noise: str) -> Tensor:
        x = modulated(x, self.weight, self.affine(w), up=self.up)
        picture = self.noise_const if noise == "constant" else torch.randn(len(x), 1, self.size, self.size)
        return act(x + picture * self.noise_strength, self.bias)


class _ToImage(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, w_dim: int) -> None:
        super().__init__()
        self.affine = Linear(w_dim, channels_in, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) * (1 / math.sqrt(x.shape[1]))
        x = modulated(x, self.weight, styles, demodulate=False) + self.bias[:, None, None]
        return x.clamp(-CLAMP, CLAMP)


class _Block(nn.Module):
    def __init__(self, size: int, channels_in: int, channels: int, colours: int, w_dim: int) -> None:
        super().__init__()
        self.conv0 = None if size == 4 else _Layer(channels_in, channels, size, w_dim, up=True)
        self.conv1 = _Layer(channels, channels, size, w_dim, up=False)
        self.to_image = _ToImage(channels, colours, w_dim)


class _Synthesis(nn.Module):
    def __init__(self, w_dim: int, resolution: int, colours: int, plan: dict[int, int]) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.randn(plan[4], 4, 4))
        self.blocks = nn.ModuleList(
            _Block(size, plan[max(4, size // 2)], plan[size], colours, w_dim)
            for size in resolutions(resolution)
        )

    def forward(self, ws: Tensor, noise: str = "random") -> Tensor:
        x = self.const[None].repeat(len(ws), 1, 1, 1)
        styles = iter(ws.unbind(dim=1))
        image = None
        w = next(styles)
        for block in self.blocks:
            if block.conv0 is not None:
                x = block.conv0(x, w, noise)
                w = next(styles)
            x = block.conv1(x, w, noise)
            w = next(styles)
            added = block.to_image(x, w)
            image = added if image is None else fir(image, up=2, pad=(2, 1), gain=4.0) + added
        assert image is not None
        return image


class Generator(nn.Module):
    """As fewmask.networks.stylegan2.Generator, without classes; `conv_clamp` is 256."""

    def __init__(
        self,
        z_dim: int,
        w_dim: int,
        resolution: int,
        channels: int,
        *,
        channel_base: int,
        channel_max: int,
        mapping_layers: int,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        plan = channel_plan(resolution, channel_base, channel_max)
        self.synthesis = _Synthesis(w_dim, resolution, channels, plan)
        self.mapping = Mapping(z_dim, w_dim, mapping_layers, 2 * len(plan))


class _Conv(nn.Module):
    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        down: bool = False,
        bias: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels_out)) if bias else None
        self.down, self.gain = down, gain

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.shape[-1]
        weight = self.weight * (1 / math.sqrt(self.weight[0].numel()))
        if not self.down:
            x = F.conv2d(x, weight, padding=kernel // 2)
        elif kernel == 1:
            x = F.conv2d(fir(x, down=2, pad=(1, 1)), weight)
        else:
            x = F.conv2d(fir(x, pad=(2, 2)), weight, stride=2)
        return x * self.gain if self.bias is None else act(x, self.bias, self.gain)


class _Residual(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        half = math.sqrt(0.5)
        self.conv0 = _Conv(channels_in, channels_in, 3)
        self.conv1 = _Conv(channels_in, channels_out, 3, down=True, gain=half)
        self.skip = _Conv(channels_in, channels_out, 1, down=True, bias=False, gain=half)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.conv1(self.conv0(x))


class Discriminator(nn.Module):
    """As fewmask.networks.stylegan2.Discriminator, without classes; groups of 4, `conv_clamp` is 256."""

    def __init__(self, resolution: int, channels: int, *, channel_base: int, channel_max: int) -> None:
        super().__init__()
        plan = channel_plan(resolution, channel_base, channel_max)
        sizes = [size for size in reversed(resolutions(resolution)) if size > 4]
        self.from_image = _Conv(channels, plan[resolution], 1)
        self.blocks = nn.ModuleList(_Residual(plan[size], plan[size // 2]) for size in sizes)
        self.conv = _Conv(plan[4] + 1, plan[4], 3)
        self.hidden = Linear(plan[4] * 16, plan[4], activate=True)
        self.out = Linear(plan[4], 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, resolution, resolution) -> logits (B, 1)."""
        x = self.from_image(image)
        for block in self.blocks:
            x = block(x)
        count, channels, height, width = x.shape
        group = min(4, count)
        y = x.reshape(group, -1, 1, channels, height, width)
        y = y - y.mean(dim=0)
        y = (y.square().mean(dim=0) + 1e-8).sqrt().mean(dim=(2, 3, 4))
        y = y.reshape(-1, 1, 1, 1).repeat(group, 1, height, width)
        x = self.conv(torch.cat([x, y], dim=1))
        logits: Tensor = self.out(self.hidden(x.flatten(1)))
        return logits
