"""StyleGAN3 the plain way, to measure ours against: what the paper says, without our shortcuts.

Written from Karras et al. 2021 ("Alias-Free Generative Adversarial Networks") in the way that code without
compiled operations does it: every image has its own modulated weights and a grouped convolution; upsampling
inserts zeros and filters at the high rate, one axis after the other; downsampling filters at the high rate
and then drops samples; bias, leaky ReLU, gain and clamp are one operation each, and autograd keeps whatever
it likes. Parameters and buffers are named as in fewmask.networks.stylegan3, so that a state dict of ours
loads; only configuration T is built.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from plain_stylegan2 import Linear, Mapping
from torch import Tensor, nn

from fewmask.networks import stylegan3
from fewmask.networks.aliasfree import lowpass

CLAMP, SLOPE = 256.0, 0.2


def fir(x: Tensor, taps: Tensor, *, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Insert zeros, pad or crop, filter along each axis with gain `up`, and keep every `down`-th pixel."""
    count, channels, height, width = x.shape
    x = F.pad(x.reshape(count, channels, height, 1, width, 1), [0, up - 1, 0, 0, 0, up - 1])
    x = x.reshape(count, channels, height * up, width * up)
    x = F.pad(x, [max(pad[0], 0), max(pad[1], 0), max(pad[0], 0), max(pad[1], 0)])
    first, last = max(-pad[0], 0), max(-pad[1], 0)
    x = x[:, :, first : x.shape[2] - last, first : x.shape[3] - last]
    kernel = (taps.flip(0) * up).expand(channels, 1, 1, -1)
    x = F.conv2d(F.conv2d(x, kernel, groups=channels), kernel.mT, groups=channels)
    return x[:, :, ::down, ::down]


def modulated(x: Tensor, weight: Tensor, styles: Tensor, gain: Tensor, *, demodulate: bool) -> Tensor:
    """Every image with its own weights, as one grouped convolution that grows the image by kernel - 1."""
    count, channels, height, width = x.shape
    if demodulate:
        weight = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
        styles = styles * styles.square().mean().rsqrt()
    w = weight[None] * styles[:, None, :, None, None]
    if demodulate:
        w = w * (w.square().sum(dim=(2, 3, 4)) + 1e-8).rsqrt()[:, :, None, None, None]
    w = w * gain
    x = x.reshape(1, count * channels, height, width)
    x = F.conv2d(x, w.flatten(0, 1), padding=weight.shape[-1] - 1, groups=count)
    return x.reshape(count, -1, *x.shape[2:])


class Input(nn.Module):
    """Fourier features."""

    def __init__(self, w_dim: int, band: stylegan3.Band) -> None:
        super().__init__()
        self.band = band
        self.weight = nn.Parameter(torch.randn(band.channels, band.channels))
        self.affine = Linear(w_dim, 4)
        self.register_buffer("freqs", torch.zeros(band.channels, 2))
        self.register_buffer("phases", torch.zeros(band.channels))
        self.register_buffer("transform", torch.eye(3))

    def forward(self, w: Tensor) -> Tensor:
        """(B, w_dim) -> (B, channels, size, size)."""
        band, size = self.band, self.band.size
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        rotation = torch.eye(3).to(w).repeat(len(w), 1, 1)
        rotation[:, 0, 0], rotation[:, 0, 1], rotation[:, 1, 0], rotation[:, 1, 1] = (
            t[:, 0],
            -t[:, 1],
            t[:, 1],
            t[:, 0],
        )
        translation = torch.eye(3).to(w).repeat(len(w), 1, 1)
        translation[:, 0, 2], translation[:, 1, 2] = -t[:, 2], -t[:, 3]
        move = rotation @ translation @ self.transform
        phases = self.phases + (self.freqs @ move[:, :2, 2:]).squeeze(2)
        freqs = self.freqs @ move[:, :2, :2]
        amplitude = (1 - (freqs.norm(dim=2) - band.cutoff) / (band.rate / 2 - band.cutoff)).clamp(0, 1)
        theta = torch.eye(2, 3).to(w)[None] * (0.5 * size / band.rate)
        grid = F.affine_grid(theta, [1, 1, size, size], align_corners=False)
        x = (grid.unsqueeze(3) @ freqs.mT[:, None, None]).squeeze(3) + phases[:, None, None]
        x = torch.sin(x * (math.pi * 2)) * amplitude[:, None, None]
        return (x @ (self.weight / math.sqrt(band.channels)).t()).permute(0, 3, 1, 2)


class Layer(nn.Module):
    """Modulated convolution and filtered leaky ReLU; the last one makes the image."""

    def __init__(self, w_dim: int, before: stylegan3.Band, after: stylegan3.Band, *, last: bool) -> None:
        super().__init__()
        self.last = last
        self.kernel = 1 if last else 3
        self.affine = Linear(w_dim, before.channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, self.kernel, self.kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        self.register_buffer("magnitude_ema", torch.ones(()))
        rate = max(before.rate, after.rate) * (1 if last else 2)
        self.up, self.down = rate // before.rate, rate // after.rate
        if last:
            return
        up = lowpass(6 * self.up, before.cutoff, before.half_width * 2, rate)
        down = lowpass(6 * self.down, after.cutoff, after.half_width * 2, rate)
        self.register_buffer("up_filter", up, persistent=False)
        self.register_buffer("down_filter", down, persistent=False)
        total = (after.size - 1) * self.down + 1 - (before.size + 2) * self.up + len(up) + len(down) - 2
        low = (total + self.up) // 2
        self.pad = (low, total - low)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(B, in, size, size), (B, w_dim) -> (B, out, size', size')."""
        styles = self.affine(w)
        if self.last:
            styles = styles / math.sqrt(styles.shape[1])
        x = modulated(x, self.weight, styles, self.magnitude_ema.rsqrt(), demodulate=not self.last)
        x = x + self.bias[:, None, None]
        if self.last:
            return x.clamp(-CLAMP, CLAMP)
        x = fir(x, self.up_filter, up=self.up, pad=self.pad)
        x = (F.leaky_relu(x, SLOPE) * math.sqrt(2.0)).clamp(-CLAMP, CLAMP)
        return fir(x, self.down_filter, down=self.down)


class Synthesis(nn.Module):
    """Styles -> image."""

    def __init__(self, w_dim: int, plan: list[stylegan3.Band]) -> None:
        super().__init__()
        self.input = Input(w_dim, plan[0])
        self.layers = nn.ModuleList(
            Layer(w_dim, plan[max(n - 1, 0)], plan[n], last=n == len(plan) - 1) for n in range(len(plan))
        )

    def forward(self, ws: Tensor, *_: Any) -> Tensor:
        """(B, num_ws, w_dim) -> (B, C, resolution, resolution)."""
        x = self.input(ws[:, 0])
        for n, layer in enumerate(self.layers):
            x = layer(x, ws[:, n + 1])
        return x * 0.25


class Generator(nn.Module):
    """Latent -> image."""

    def __init__(
        self,
        z_dim: int,
        w_dim: int,
        resolution: int,
        channels: int,
        *,
        channel_base: int,
        channel_max: int,
        mapping_layers: int = 2,
    ) -> None:
        super().__init__()
        ours = stylegan3.Generator(
            z_dim, w_dim, resolution, channels, channel_base=channel_base, channel_max=channel_max
        )
        plan = ours.synthesis.plan
        self.mapping = Mapping(z_dim, w_dim, mapping_layers, ours.num_ws)
        self.synthesis = Synthesis(w_dim, plan)
        self.load_state_dict(ours.state_dict(), strict=mapping_layers == 2)

    def forward(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, C, resolution, resolution)."""
        image: Tensor = self.synthesis(self.mapping(z))
        return image
