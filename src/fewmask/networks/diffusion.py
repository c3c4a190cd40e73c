"""A small U-Net that says which noise is in an image, told how much there is and of what kind the image is.

Ho, Jain & Abbeel 2020, "Denoising diffusion probabilistic models", appendix B.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewmask.core.errors import ConfigError
from fewmask.networks.residual import ResidualBlock, group_norm
from fewmask.networks.trunk import reflected


class Denoiser(nn.Module):
    """Noisy image (B, C, H, W) -> its noise, the same shape, for any height and width.

    Residual blocks on the way down and up, bridges between them, self-attention at the coarsest level only;
    every block is told the level of noise and the label. It begins with an answer of 0.

    Args:
        channels: C.
        classes: kinds of images.
        widths: channels per level, the finest first; each level after the first halves the image.
        attention: whether positions of the coarsest level look at one another.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        channels: int,
        classes: int = 2,
        *,
        widths: Sequence[int] = (32, 48, 64, 96),
        attention: bool = True,
    ) -> None:
        super().__init__()
        if min(channels, classes) < 1 or len(widths) < 2 or min(widths) < 2 or widths[0] % 2:
            raise ConfigError(
                "a diffusion network cannot be built",
                found=f"{channels} channels, {classes} classes, widths {tuple(widths)}",
                expected="at least one channel and class, and two levels, the first of an even width",
            )
        self.channels, self.classes, self.width = channels, classes, widths[0]
        self.multiple = 2 ** (len(widths) - 1)
        told = 4 * widths[0]
        self.time = nn.Sequential(nn.Linear(widths[0], told), nn.SiLU(), nn.Linear(told, told))
        self.label = nn.Linear(classes, told, bias=False)
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.first = ResidualBlock(widths[0], widths[0], told=told)
        self.down = nn.ModuleList(ResidualBlock(a, b, stride=2, told=told) for a, b in pairwise(widths))
        self.middle = ResidualBlock(widths[-1], widths[-1], told=told)
        self.attention = Attention(widths[-1]) if attention else nn.Identity()
        self.up = nn.ModuleList(
            ResidualBlock(b + a, a, told=told) for a, b in reversed(list(pairwise(widths)))
        )
        self.out = nn.Sequential(
            group_norm(widths[0]), nn.SiLU(), nn.Conv2d(widths[0], channels, 3, padding=1)
        )
        last = self.out[-1]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, noisy: Tensor, level: Tensor, label: Tensor) -> Tensor:
        """The noise.

        Args:
            noisy: (B, C, H, W).
            level: (B,), step of the diffusion, from 1 on.
            label: (B, classes) one-hot; a row of zeros where none is told.
        """
        height, width = noisy.shape[2:]
        told = self.time(sinusoids(level, self.width)) + self.label(label.float())
        x = self.first(self.enter(reflected(noisy, self.multiple)), told)
        levels = [x]
        for down in self.down:
            levels.append(down(levels[-1], told))
        x = self.attention(self.middle(levels.pop(), told))
        for up in self.up:
            x = up(torch.cat([F.interpolate(x, scale_factor=2.0), levels.pop()], dim=1), told)
        noise: Tensor = self.out(x)
        return noise[:, :, :height, :width].float()


class Attention(nn.Module):
    """x + what each position of (B, C, h, w) reads at all positions of the same image; one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.ask = nn.Conv2d(channels, 3 * channels, 1)
        self.tell = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.tell.weight)
        nn.init.zeros_(self.tell.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        query, key, value = self.ask(self.norm(x)).flatten(2).chunk(3, dim=1)
        looks = (query.transpose(1, 2) @ key * x.shape[1] ** -0.5).softmax(dim=2)
        read = (value @ looks.transpose(1, 2)).unflatten(2, x.shape[2:])
        answer: Tensor = x + self.tell(read)
        return answer


def sinusoids(level: Tensor, width: int) -> Tensor:
    """Sines and cosines of (B,) at frequencies from 1 to 1/10 000: (B, width).

    Vaswani et al. 2017, "Attention is all you need", section 3.5.
    """
    half = width // 2
    steps = torch.arange(half, device=level.device, dtype=torch.float32) / max(half - 1, 1)
    angle = level.float()[:, None] * torch.exp(-math.log(10_000.0) * steps)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
