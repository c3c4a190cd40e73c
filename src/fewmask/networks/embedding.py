"""A small encoder of whole images: one vector per image, and the activations on the way to it."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewmask.core.errors import ConfigError
from fewmask.networks.generator import Feature

_CELLS = 4
"""The last activation is averaged to 4 x 4 cells, so that the vector knows what lies where."""

_GROUPS = 8
"""Channels are normalised in so many groups per image: no image of a batch sees another."""


class ImageEncoder(nn.Module):
    """Images (B, C, R, R) in [-1, 1] -> embeddings (B, dim).

    Strided convolutions from R / 2 down to 4 pixels, then one linear map. Images of another size than R are
    taken as they are; only for R the embedding means what was learned.

    Args:
        channels: of the images.
        resolution: R in pixels, at least 8.
        dim: length of the embedding.
        channel_base: channels at size s are min(base / s, max), at least 8.
        channel_max: see `channel_base`.

    Raises:
        ConfigError: a resolution below 8, or sizes that are not positive.
    """

    def __init__(
        self,
        channels: int,
        resolution: int,
        *,
        dim: int = 64,
        channel_base: int = 512,
        channel_max: int = 128,
    ) -> None:
        super().__init__()
        if resolution < 2 * _CELLS or min(channels, dim, channel_base) < 1 or channel_max < _GROUPS:
            raise ConfigError(
                "the image encoder cannot be built",
                found=f"{channels} channels, {resolution} px, dim {dim}, {channel_base} / {channel_max}",
                expected=f"at least one channel and {2 * _CELLS} px, channel_max at least {_GROUPS}",
            )
        self.channels, self.resolution, self.dim = channels, resolution, dim
        levels = math.floor(math.log2(resolution / _CELLS))
        widths = [_width(resolution >> n, channel_base, channel_max) for n in range(1, levels + 1)]
        before = [channels, *widths[:-1]]
        self.blocks = nn.ModuleList(_Block(i, o) for i, o in zip(before, widths, strict=True))
        self.last = nn.Linear(widths[-1] * _CELLS**2, dim)

    def initialise(self, chance: torch.Generator) -> None:
        """Draw all weights from `chance` (He et al. 2015, equation 10); biases start at 0."""
        with torch.no_grad():
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    drawn = torch.randn(layer.weight.shape, generator=chance)
                    layer.weight.copy_(drawn * math.sqrt(2 / layer.weight[0].numel()))
                    if layer.bias is not None:
                        layer.bias.zero_()

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, R, R) -> (B, dim)."""
        return self.read(image)[1]

    def features(self, image: Tensor) -> list[Feature]:
        """The activations of every block, fine to coarse, for a perceptual distance."""
        return self.read(image)[0]

    def read(self, image: Tensor) -> tuple[list[Feature], Tensor]:
        """Activations, fine to coarse, and the embedding (B, dim)."""
        found, x = [], image
        for number, block in enumerate(self.blocks):
            x = block(x)
            found.append(Feature(f"block{number}", x.shape[-1], x))
        embedding: Tensor = self.last(F.adaptive_avg_pool2d(x, _CELLS).flatten(1))
        return found, embedding


class _Block(nn.Module):
    """Halve the size, then look once more: two 3 x 3 convolutions, each normalised and rectified."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        self.down_norm = nn.GroupNorm(_GROUPS, after)
        self.look = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.look_norm = nn.GroupNorm(_GROUPS, after)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, S, S) -> (B, after, S / 2, S / 2)."""
        x = F.leaky_relu(self.down_norm(self.down(x)), 0.1)
        return x + F.leaky_relu(self.look_norm(self.look(x)), 0.1)


def _width(size: int, base: int, most: int) -> int:
    """Channels at `size` pixels, a multiple of the groups."""
    return max(min(base // size, most) // _GROUPS, 1) * _GROUPS
