"""From an image to the latents of a generator in a few passes of one small network.

A pyramid of features as in Richardson et al. 2021 ("Encoding in Style": coarse, medium and fine styles read
coarse, medium and fine features), a common offset and one per layer as in Tov et al. 2021 ("Designing an
Encoder"), and refinement as in Alaluf et al. 2021 ("ReStyle"): every pass sees the image beside what the
generator makes of the latents so far, and says how to move them. It also sees the slope of the error at those
latents, as in the learned gradient schemes of Adler & Oktem 2017 ("Solving ill-posed inverse problems using
iterative deep neural networks"): where an image is unlike those of the training, the slope still tells.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewmask.networks.equalised import EqualConv2d, EqualLinear
from fewmask.networks.generator import ImageGenerator
from fewmask.networks.stylegan2 import ResidualBlock

_CELLS = 4
"""The trunk ends at 4 x 4 cells, and every level of the pyramid is led down to them for its styles."""

_LEVELS, _COARSE, _MEDIUM = 3, 3, 4
"""Levels of the pyramid; styles that read the coarse one and the medium one, the others read the fine one."""

_SHOWN = 4.0
"""The error of the latents so far is shown magnified: it is small after the first pass."""


class LatentEncoder(nn.Module):
    """Images, and what latents give so far, to better latents (see `refinements`).

    Args:
        channels: of the images.
        resolution: R, side of the images in pixels: a power of two, at least 16.
        num_ws: styles per image.
        centre: (w_dim,) the mean latent, from which the first pass starts.
        start: (C, R, R) what the generator makes of it.
        spread: root mean squared distance of latents to their mean.
        frame_ws: so many of the first styles stay at the centre (they place the image in its frame).
        shared: one style for all layers (W) rather than one per layer (W+).
        channel_base: channels at size s are min(base / s, max), at least 16.
        channel_max: see `channel_base`.
        width: channels of the pyramid.
        hidden: length of the hidden layer of each style's head.
    """

    centre: Tensor
    start: Tensor

    def __init__(
        self,
        channels: int,
        resolution: int,
        num_ws: int,
        centre: Tensor,
        start: Tensor,
        *,
        spread: float,
        frame_ws: int = 0,
        shared: bool = False,
        channel_base: int = 1024,
        channel_max: int = 128,
        width: int = 64,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.num_ws, self.frame_ws, self.w_dim = num_ws, frame_ws, len(centre)
        self.unit = spread / self.w_dim**0.5
        self.register_buffer("centre", centre.detach().clone())
        self.register_buffer("start", start.detach().clone())
        sizes = [resolution >> n for n in range(1, resolution.bit_length()) if resolution >> n >= _CELLS]
        widths = [max(16, min(channel_base // size, channel_max)) for size in sizes]
        self.stem = EqualConv2d(8 * channels, widths[0], 3)
        self.blocks = nn.ModuleList(ResidualBlock(before, after, None) for before, after in pairwise(widths))
        levels = list(zip(sizes, widths, strict=True))[: -_LEVELS - 1 : -1]
        self.laterals = nn.ModuleList(EqualConv2d(w, width, 1, activate=False) for _, w in levels)
        self.paths = nn.ModuleList(_path(size, width) for size, _ in levels)
        drawn = num_ws - frame_ws
        self.slopes = EqualLinear(drawn * self.w_dim, hidden, activate=True)
        self.common = StyleHead(width, self.w_dim, hidden)
        count = 0 if shared else drawn
        self.heads = nn.ModuleList(StyleHead(width, self.w_dim, hidden) for _ in range(count))

    def initialise(self, chance: torch.Generator) -> None:
        """Draw all weights from `chance`; until it has learned the encoder says the mean latent."""
        with torch.no_grad():
            for layer in self.modules():
                if isinstance(layer, EqualConv2d | EqualLinear):
                    layer.weight.copy_(torch.randn(layer.weight.shape, generator=chance))
                    if layer.bias is not None:
                        layer.bias.zero_()
            for head in [self.common, *self.heads]:
                assert isinstance(head, StyleHead)
                head.say.weight.zero_()

    def forward(self, image: Tensor, seen: Tensor, ws: Tensor, slope: Tensor) -> Tensor:
        """One pass.

        Args:
            image: (B, C, R, R) in [-1, 1].
            seen: (B, C, R, R) what the generator makes of `ws`.
            ws: (B, num_ws, w_dim) the latents so far.
            slope: (B, num_ws, w_dim) of their error, see `slope_of`; zeros where it is not known.

        Returns:
            Better latents (B, num_ws, w_dim).
        """
        levels = self._pyramid(torch.cat([image, _SHOWN * (image - seen)], dim=1))
        before, slope = ws[:, self.frame_ws :], slope[:, self.frame_ws :]
        told = torch.cat([(before - self.centre) / self.unit, slope], dim=2)
        slopes = self.slopes(slope.flatten(1))
        common = self.common(levels[0], slopes, told.mean(dim=1))[:, None]
        own = [
            head(levels[min(_level(n), len(levels) - 1)], slopes, told[:, n])
            for n, head in enumerate(self.heads)
        ]
        move = common + torch.stack(own, dim=1) if own else common
        return torch.cat([ws[:, : self.frame_ws], before + self.unit * move], dim=1)

    def look(self, image: Tensor) -> Tensor:
        """The first pass over images (B, C, R, R), from the mean latent: (B, num_ws, w_dim)."""
        ws = self.centre.expand(len(image), self.num_ws, -1)
        first: Tensor = self(image, self.start.expand_as(image), ws, torch.zeros_like(ws))
        return first

    def _pyramid(self, x: Tensor) -> list[Tensor]:
        """Features of every level, coarse to fine, each (B, cells * width)."""
        x = self.stem(F.pixel_unshuffle(x, 2))
        found = [x]
        for block in self.blocks:
            found.append(block(found[-1]))
        levels: list[Tensor] = []
        above: Tensor | None = None
        for lateral, path, x in zip(self.laterals, self.paths, found[::-1], strict=False):
            here = lateral(x)
            above = here if above is None else here + F.interpolate(above, scale_factor=2.0)
            levels.append(path(above).flatten(1))
        return levels


class StyleHead(nn.Module):
    """How to move one style (B, w_dim).

    It is told features (B, cells * width), a digest of all slopes (B, hidden), and where the style stands and
    its own slope (B, 2 w_dim).
    """

    def __init__(self, width: int, w_dim: int, hidden: int) -> None:
        super().__init__()
        self.read = EqualLinear(width * _CELLS**2, hidden, activate=True)
        self.say = EqualLinear(2 * hidden + 2 * w_dim, w_dim)

    def forward(self, features: Tensor, slopes: Tensor, told: Tensor) -> Tensor:
        """See the class."""
        move: Tensor = self.say(torch.cat([self.read(features), slopes, told], dim=1))
        return move


def refinements(
    encoder: LatentEncoder, generator: ImageGenerator, image: Tensor, passes: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each pass over images (B, C, R, R): latents (B, num_ws, w_dim) and what the generator draws.

    Gradients flow through one pass only: the next one starts from the numbers that this one said.
    """
    ws = encoder.look(image)
    for number in range(1, passes + 1):
        if number == passes:
            yield ws, generator.synthesis(ws, noise="constant")
            return
        with torch.enable_grad():
            ws = ws if ws.requires_grad else ws.requires_grad_()
            seen = generator.synthesis(ws, noise="constant")
            slope = slope_of(ws, seen, image)
        yield ws, seen
        ws = encoder(image, seen.detach(), ws.detach(), slope)


def slope_of(ws: Tensor, seen: Tensor, image: Tensor) -> Tensor:
    """Downhill in the mean squared error of `seen`, which was made of `ws`: (B, num_ws, w_dim), no gradient.

    Each style's slope has the length that a step has whose size is in keeping with the error: root mean
    square 1 times the root mean squared error, magnified. So it depends neither on the generator's scale nor
    on how steep the error is for one layer or another.
    """
    error = (seen.float() - image).square().mean(dim=(1, 2, 3))
    (gradient,) = torch.autograd.grad(error.sum(), ws, retain_graph=True)
    size = gradient.square().mean(dim=2, keepdim=True).sqrt()
    return -_SHOWN * error.detach().sqrt()[:, None, None] * gradient / (size + 1e-12)


def _level(style: int) -> int:
    """0 coarse, 1 medium, 2 fine."""
    return 0 if style < _COARSE else 1 if style < _COARSE + _MEDIUM else 2


def _path(size: int, width: int) -> nn.Sequential:
    """From a level of the pyramid down to its cells."""
    layers = []
    while size > _CELLS:
        layers.append(EqualConv2d(width, width, 3, down=True))
        size //= 2
    return nn.Sequential(*(layers or [EqualConv2d(width, width, 3)]))
