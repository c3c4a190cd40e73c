"""Small heads that read a stack of feature maps and say what each pixel is.

The heads of RepurposeGAN (Tritrong et al. 2021) and DatasetGAN (Zhang et al. 2021) concatenate all maps at
full size first. Their first layer, when it is 1 x 1, is linear per pixel, and so is bilinear resizing over
pixels; the two commute. Here every map is projected at its own size and only the sum is enlarged:
W . cat(up(f_1), ..., up(f_n)) = sum over sizes s of up_s(sum over maps i of that size of W_i . f_i).

The members of an ensemble share that computation: their first layers are one layer with all their rows, what
follows is one grouped convolution per layer. Without gradients nothing wide is ever held at full size: the
per-pixel heads work in bands of rows, the convolutional ones member by member.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewmask.core.errors import ConfigError, ShapeError

HeadKind = Literal["S", "M", "L", "mlp"]
ALL = slice(None)
"""All rows."""
_DILATIONS: dict[str, tuple[int, ...]] = {
    "S": (2, 1, 2, 1),
    "M": (2, 4, 1, 2, 4, 1),
    "L": (2, 4, 8, 1, 2, 4, 8, 1),
}
ROWS_AT_ONCE = 256
"""Rows of the stacked first layer that are computed together without gradients."""
BAND_PIXELS = 2048
"""Pixels of a band: with 256 rows 2 MiB, which stays in a core's cache."""

Group = list[tuple[Tensor, Tensor]]
"""Maps of one size, each with its part of the weights (rows, c_i)."""


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

    def initialise(self, chance: torch.Generator, rows: slice = ALL) -> None:
        """Draw weights of equal variance per map, so that a map of one channel is heard beside one of 512."""
        count = len(self.bias[rows])
        parts = [
            torch.randn(count, c, generator=chance) * (2.0 / (len(self.channels) * c)) ** 0.5
            for c in self.channels
        ]
        with torch.no_grad():
            self.weight[rows] = torch.cat(parts, dim=1)
            self.bias[rows] = 0.0

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int], rows: slice = ALL) -> Tensor:
        """Maps (B, c_i, h_i, w_i) to (B, width, *size), or only some rows of the width.

        Large maps are averaged down. Raises `ShapeError` when the maps have other channels.
        """
        groups, bias = self._folded(maps, size, rows)
        total = bias[None, :, None, None]
        for group in groups:
            first, *others = [F.conv2d(one, part[:, :, None, None]) for one, part in group]
            total = total + resize(sum(others, start=first), size)
        return total

    def bands(
        self, maps: Sequence[Tensor], size: tuple[int, int], rows: slice = ALL
    ) -> Iterator[tuple[slice, Tensor]]:
        """What `forward` gives for maps of one image, band by band, without gradients.

        Yields:
            The band's image rows, and (its pixels, rows of the width); each band is overwritten by the next.
        """
        groups, bias = self._folded(maps, size, rows)
        fine = [(one[0], part) for group in groups if group[0][0].shape[2:] == size for one, part in group]
        coarse = [_pixels_first(group) for group in groups if group[0][0].shape[2:] != size]
        height = max(1, BAND_PIXELS // size[1]) if bias.device.type == "cpu" else size[0]
        held = bias.new_empty(min(height, size[0]) * size[1], len(bias))
        for top in range(0, size[0], height):
            band = slice(top, min(top + height, size[0]))
            here = held[: (band.stop - top) * size[1]]
            here.copy_(bias.expand_as(here))
            for one, part in fine:
                here.addmm_(one[:, band].flatten(1).t(), part.t())
            for one in coarse:
                here.add_(_enlarged(one, band, size).reshape_as(here))
            yield band, here

    def _folded(
        self, maps: Sequence[Tensor], size: tuple[int, int], rows: slice
    ) -> tuple[list[Group], Tensor]:
        """The maps by their sizes, none larger than `size`, with weights that standardise; and the bias."""
        found = tuple(int(m.shape[1]) for m in maps)
        if found != self.channels:
            raise ShapeError(
                "these are not the feature maps the head was made for",
                found=f"channels {found}",
                expected=f"channels {self.channels}",
            )
        weight = self.weight[rows] / self.deviation
        groups: dict[tuple[int, ...], Group] = {}
        for one, part in zip(maps, torch.split(weight, list(self.channels), dim=1), strict=True):
            small = resize(one, size) if one.shape[2] > size[0] else one
            groups.setdefault(tuple(small.shape[2:]), []).append((small, part))
        return list(groups.values()), self.bias[rows] - weight @ self.mean


class PixelHead(nn.Module):
    """Feature maps to the class logits of `members` heads, (members, B, classes, H, W).

    Kinds "S", "M", "L" are the convolutional heads of RepurposeGAN with dilations 1,2,1,2,1; 1,2,4,1,2,4,1
    and 1,2,4,8,1,2,4,8,1, the first layer 1 x 1 to `width` channels (as in the authors' release), then 3 x 3
    to width / 2, the last but one width / 4, LeakyReLU 0.2 between. "mlp" is DatasetGAN's per-pixel
    classifier: width, width / 4, classes; DatasetGAN trains 10 members.
    """

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        *,
        kind: HeadKind = "S",
        width: int = 128,
        members: int = 1,
    ) -> None:
        super().__init__()
        if kind not in get_args(HeadKind) or members < 1:
            raise ConfigError(
                "no such head",
                found=f"{kind!r}, {members} members",
                expected=f"one of {', '.join(get_args(HeadKind))}, with at least one member",
            )
        self.channels, self.classes, self.kind, self.width = tuple(channels), classes, kind, width
        self.members = members
        self.first = ProjectedSum(channels, members * width)
        dilations = _DILATIONS.get(kind, (0, 0))
        widths = [width] + [width // 2] * (len(dilations) - 2) + [width // 4, classes]
        layers: list[nn.Module] = []
        for dilation, before, after in zip(dilations, widths[:-1], widths[1:], strict=True):
            taps = 3 if dilation else 1
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            inside, outside = members * before, members * after
            layers.append(
                nn.Conv2d(inside, outside, taps, padding=dilation, dilation=max(dilation, 1), groups=members)
            )
        self.rest = nn.Sequential(*layers)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps (B, c_i, h_i, w_i) to logits (members, B, classes, *size).

        Without gradients image by image and a few members at once, so that little memory is needed.
        """
        if torch.is_grad_enabled():
            return self.some(maps, size, 0, self.members)
        together = max(1, ROWS_AT_ONCE // self.width) if self.kind == "mlp" else 1
        read = self._in_bands if self.kind == "mlp" else self.some
        images = []
        for number in range(len(maps[0])):
            one = [each[number : number + 1] for each in maps]
            firsts = range(0, self.members, together)
            logits = [read(one, size, first, min(first + together, self.members)) for first in firsts]
            images.append(torch.cat(logits))
        return torch.cat(images, dim=1)

    def some(self, maps: Sequence[Tensor], size: tuple[int, int], first: int, last: int) -> Tensor:
        """The logits (last - first, B, classes, *size) of the members from `first` to before `last`."""
        rows = slice(first * self.width, last * self.width)
        x = self.first(maps, size, rows)
        for layer in self._convolutions():
            weight, bias = _of_members(layer, first, last)
            x = F.leaky_relu_(x, 0.2)
            x = F.conv2d(x, weight, bias, 1, layer.padding, layer.dilation, groups=last - first)
        logits: Tensor = x.view(len(x), last - first, self.classes, *size)
        return logits.transpose(0, 1)

    def _in_bands(self, maps: Sequence[Tensor], size: tuple[int, int], first: int, last: int) -> Tensor:
        """`some` of the per-pixel head on one image, without gradients and without a map of full size."""
        count = last - first
        rows = slice(first * self.width, last * self.width)
        layers = []
        for layer in self._convolutions():
            weight, bias = _of_members(layer, first, last)
            weight = weight.reshape(count, -1, weight.shape[1]).transpose(1, 2)
            layers.append((weight, bias.reshape(count, 1, -1)))
        logits = maps[0].new_empty(count, 1, self.classes, *size)
        for band, wide in self.first.bands(maps, size, rows):
            x = wide.view(len(wide), count, self.width).transpose(0, 1)
            for weight, bias in layers:
                x = torch.baddbmm(bias, F.leaky_relu_(x, 0.2), weight)
            logits[:, 0, :, band] = x.transpose(1, 2).reshape(count, self.classes, -1, size[1])
        return logits

    def _convolutions(self) -> list[nn.Conv2d]:
        return [layer for layer in self.rest if isinstance(layer, nn.Conv2d)]

    def initialise(self, *chances: torch.Generator) -> None:
        """Draw all weights, each member's from its own generator (He et al. 2015, for LeakyReLU 0.2).

        Biases are 0. Raises `ConfigError` unless there are as many generators as members.
        """
        if len(chances) != self.members:
            raise ConfigError(
                "every member draws its weights from its own generator",
                found=f"{len(chances)} generators",
                expected=f"{self.members}",
            )
        for number, chance in enumerate(chances):
            self.first.initialise(chance, slice(number * self.width, (number + 1) * self.width))
            for layer in self._convolutions():
                weight, bias = _of_members(layer, number, number + 1)
                nn.init.kaiming_normal_(weight.detach(), a=0.2, generator=chance)
                nn.init.zeros_(bias.detach())

    def standardise(self, mean: Tensor, deviation: Tensor) -> None:
        """Fix the features' mean and standard deviation (sum of channels,), in the order of the maps."""
        self.first.mean.copy_(mean)
        self.first.deviation.copy_(deviation.clamp_min(1e-6))

    def member(self, number: int) -> "PixelHead":
        """One member as a head of its own, with its own copy of the weights."""
        alone = PixelHead(self.channels, self.classes, kind=self.kind, width=self.width)
        shared = {"first.mean", "first.deviation"}
        alone.load_state_dict(
            {
                name: value if name in shared else value.tensor_split(self.members)[number]
                for name, value in self.state_dict().items()
            }
        )
        return alone.train(self.training)


def _of_members(layer: nn.Conv2d, first: int, last: int) -> tuple[Tensor, Tensor]:
    """The weight and bias of some members in a grouped convolution."""
    assert layer.bias is not None
    each = layer.out_channels // layer.groups
    rows = slice(first * each, last * each)
    return layer.weight[rows], layer.bias[rows]


def _pixels_first(group: Group) -> Tensor:
    """The projected sum of one image's maps of one size: (h, w, rows)."""
    first, part = group[0]
    total = first[0].flatten(1).t() @ part.t()
    for one, part in group[1:]:
        total.addmm_(one[0].flatten(1).t(), part.t())
    return total.view(first.shape[2], first.shape[3], -1)


def _enlarged(coarse: Tensor, band: slice, size: tuple[int, int]) -> Tensor:
    """The rows `band` of the bilinear enlargement of (h, w, C) to `size`: (rows of the band, W, C)."""
    height, width, channels = coarse.shape
    at = torch.arange(band.start, band.stop, device=coarse.device, dtype=torch.float32)
    at = ((at + 0.5) * (height / size[0]) - 0.5).clamp_min(0)
    above = at.long().clamp_max(height - 1)
    below = (above + 1).clamp_max(height - 1)
    part = (at - above)[:, None, None].to(coarse.dtype)
    lines = torch.lerp(coarse.index_select(0, above), coarse.index_select(0, below), part)
    count = len(at)
    # The strides say that channels come last; an added axis of length 1 would not, and be four times slower.
    strides = (count * width * channels, 1, width * channels, channels)
    image = lines.as_strided((1, channels, count, width), strides)
    wide = F.interpolate(image, size=(count, size[1]), mode="bilinear", align_corners=False)
    return wide[0].permute(1, 2, 0)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, C, h, w) to (B, C, *size): bilinear when enlarging, area average when shrinking."""
    if tuple(maps.shape[2:]) == size:
        return maps
    if maps.shape[2] > size[0]:
        return F.adaptive_avg_pool2d(maps, size)
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
