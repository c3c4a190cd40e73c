"""A network that draws an image again: through a narrow middle, or, to take noise away, with bridges."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.networks.residual import ResidualBlock
from fewmask.networks.trunk import reflected


class Autoencoder(nn.Module):
    """Image (B, C, H, W) -> the image as the network can draw it, the same shape.

    Residual blocks, n levels, each after the first halving the image, and the same way back. One of three
    middles:
    a spatial code: `code` channels of 1/2^(n-1) of the image's sides, for any height and width;
    a dense code: `code` numbers per image, of which `size` is the one height and width;
    none (`code` 0): every level has a bridge to its mirror image, the U-Net of a denoiser, which could copy
    its input and is only to be taught with noise (Kascenas et al. 2022).

    Args:
        channels: C.
        widths: channels per level, the finest first.
        code: channels of the spatial code, numbers of the dense one, or 0.
        size: height and width in pixels for a dense code; None otherwise.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        channels: int,
        *,
        widths: Sequence[int] = (16, 32, 64, 64),
        code: int = 4,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if channels < 1 or len(widths) < 2 or min(widths) < 1 or code < 0 or (size is not None and code < 1):
            raise ConfigError(
                "an autoencoder cannot be built",
                found=f"{channels} channels, widths {tuple(widths)}, code {code}, size {size}",
                expected="at least one channel and two levels; a code of 0 or more, for a dense one of 1",
            )
        self.channels, self.multiple, self.size = channels, 2 ** (len(widths) - 1), size
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(ResidualBlock(a, b, stride=2) for a, b in pairwise(widths))
        self.middle = self._middle(widths[-1], code)
        self.bridges = code == 0
        self.up = nn.ModuleList(
            ResidualBlock(b + a if self.bridges else b, a) for a, b in reversed(list(pairwise(widths)))
        )
        self.out = nn.Conv2d(widths[0], channels, 3, padding=1)

    def _middle(self, width: int, code: int) -> nn.Module:
        if code == 0:
            return ResidualBlock(width, width)
        if self.size is None:
            return nn.Sequential(nn.Conv2d(width, code, 1), nn.Conv2d(code, width, 1))
        height, width_of_it = (max(-(-side // self.multiple), 2) for side in self.size)
        numbers = width * height * width_of_it
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(numbers, code),
            nn.Linear(code, numbers),
            nn.Unflatten(1, (width, height, width_of_it)),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> the same shape, any value.

        Raises:
            ShapeError: a dense code is for images of another size.
        """
        height, width = image.shape[2:]
        if self.size is not None and self.size != (height, width):
            raise ShapeError(
                "the image is of another size than the autoencoder's",
                found=f"{height} x {width}",
                expected=f"{self.size[0]} x {self.size[1]}",
                mend="Prepare images of this size, or choose a spatial code.",
            )
        levels = [self.enter(reflected(image, self.multiple))]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = self.middle(levels.pop())
        for up in self.up:
            x = F.interpolate(x, scale_factor=2.0)
            beside = levels.pop()
            x = up(torch.cat([x, beside], dim=1) if self.bridges else x)
        drawn: Tensor = self.out(F.silu(x))
        return drawn[:, :, :height, :width].float()

    def heal(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The image drawn again, cut to [-1, 1], and the mean over channels of |x - x_h|, (B, H, W)."""
        drawn = self(image).clamp(-1, 1)
        return drawn, (image - drawn).abs().mean(dim=1)
