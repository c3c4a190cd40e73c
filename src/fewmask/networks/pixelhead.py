"""Small heads that read a stack of feature maps and say what each pixel is.

The heads of RepurposeGAN (Tritrong et al. 2021) and DatasetGAN (Zhang et al. 2021) concatenate all maps at
full size first. Their first layer, when it is 1 x 1, is linear per pixel, and so is bilinear resizing over
pixels; the two commute. Here every map is projected at its own size and only the sum is enlarged:
W . cat(up(f_1), ..., up(f_n)) = sum over sizes s of up_s(sum over maps i of that size of W_i . f_i).
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewmask.core.errors import ConfigError, ShapeError

HeadKind = Literal["S", "M", "L", "mlp"]
_DILATIONS: dict[str, tuple[int, ...]] = {
    "S": (2, 1, 2, 1),
    "M": (2, 4, 1, 2, 4, 1),
    "L": (2, 4, 8, 1, 2, 4, 8, 1),
}


class ProjectedSum(nn.Module):
    """A 1 x 1 convolution of the concatenation of maps of many sizes, without the concatenation.

    Each channel is standardised first, (x - mean) / deviation; that is folded into the weights.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.weight = nn.Parameter(torch.zeros(width, sum(self.channels)))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(sum(self.channels)))
        self.register_buffer("deviation", torch.ones(sum(self.channels)))

    def initialise(self, chance: torch.Generator) -> None:
        """Draw weights of equal variance per map, so that a map of one channel is heard beside one of 512."""
        parts = [
            torch.randn(len(self.weight), c, generator=chance) * (2.0 / (len(self.channels) * c)) ** 0.5
            for c in self.channels
        ]
        with torch.no_grad():
            self.weight.copy_(torch.cat(parts, dim=1))
            self.bias.zero_()

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps (B, c_i, h_i, w_i) to (B, width, *size); large ones are averaged down."""
        found = tuple(int(m.shape[1]) for m in maps)
        if found != self.channels:
            raise ShapeError(
                "these are not the feature maps the head was made for",
                found=f"channels {found}",
                expected=f"channels {self.channels}",
            )
        weight = self.weight / self.deviation
        by_size: dict[tuple[int, int], Tensor] = {}
        for one, part in zip(maps, torch.split(weight, list(self.channels), dim=1), strict=True):
            here = (int(one.shape[2]), int(one.shape[3]))
            projected = F.conv2d(one, part[:, :, None, None])
            by_size[here] = by_size[here] + projected if here in by_size else projected
        bias = self.bias - weight @ self.mean
        total = bias[None, :, None, None]
        for projected in by_size.values():
            total = total + resize(projected, size)
        return total


class PixelHead(nn.Module):
    """Feature maps to class logits (B, classes, H, W).

    Kinds "S", "M", "L" are the convolutional heads of RepurposeGAN with dilations 1,2,1,2,1; 1,2,4,1,2,4,1
    and 1,2,4,8,1,2,4,8,1, the first layer 1 x 1 to `width` channels (as in the authors' release), then 3 x 3
    to width / 2, the last but one width / 4, LeakyReLU 0.2 between. "mlp" is DatasetGAN's per-pixel
    classifier: width, width / 4, classes.
    """

    def __init__(
        self, channels: Sequence[int], classes: int, *, kind: HeadKind = "S", width: int = 128
    ) -> None:
        super().__init__()
        if kind not in get_args(HeadKind):
            raise ConfigError(
                "no such head", found=repr(kind), expected=f"one of {', '.join(get_args(HeadKind))}"
            )
        self.channels, self.classes, self.kind, self.width = tuple(channels), classes, kind, width
        self.first = ProjectedSum(channels, width)
        dilations = _DILATIONS.get(kind, (0, 0))
        widths = [width] + [width // 2] * (len(dilations) - 2) + [width // 4, classes]
        layers: list[nn.Module] = []
        for dilation, before, after in zip(dilations, widths[:-1], widths[1:], strict=True):
            taps = 3 if dilation else 1
            layers.append(nn.LeakyReLU(0.2))
            layers.append(nn.Conv2d(before, after, taps, padding=dilation, dilation=max(dilation, 1)))
        self.rest = nn.Sequential(*layers)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps (B, c_i, h_i, w_i) to logits (B, classes, *size)."""
        logits: Tensor = self.rest(self.first(maps, size))
        return logits

    def initialise(self, chance: torch.Generator) -> None:
        """Draw all weights from `chance` (He et al. 2015, for LeakyReLU 0.2); biases are 0."""
        self.first.initialise(chance)
        for layer in self.rest:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=0.2, generator=chance)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def standardise(self, mean: Tensor, deviation: Tensor) -> None:
        """Fix the features' mean and standard deviation (sum of channels,), in the order of the maps."""
        self.first.mean.copy_(mean)
        self.first.deviation.copy_(deviation.clamp_min(1e-6))


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, C, h, w) to (B, C, *size): bilinear when enlarging, area average when shrinking."""
    if tuple(maps.shape[2:]) == size:
        return maps
    if maps.shape[2] > size[0]:
        return F.adaptive_avg_pool2d(maps, size)
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
