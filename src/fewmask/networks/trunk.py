"""A small U-Net whose normalisation may depend on a domain: the trunk of networks that make images healthy.

Ronneberger et al. 2015, "U-Net"; instance normalisation with one gain and shift per channel and domain
(Dumoulin et al. 2017, "A learned representation for artistic style", equation 5). A domain is not told by
constant planes beside the image, as in StarGAN: instance normalisation takes away what is constant.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewmask.core.errors import ConfigError


class Trunk(nn.Module):
    """Image (B, C, H, W) -> numbers (B, K, H, W) of any sign, for any height and width.

    The image is continued by its own reflection to a multiple of 2^(levels - 1), and cut back.

    Args:
        before: C, channels of the image.
        after: K, channels of the answer.
        widths: channels per level, the finest first; each level after the first halves the image.
        domains: how many domains there are; 1 for a network that is told none.
        silent: begin with an answer of 0 everywhere.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self, before: int, after: int, *, widths: Sequence[int], domains: int = 1, silent: bool = False
    ) -> None:
        super().__init__()
        if min(before, after, domains) < 1 or len(widths) < 2 or min(widths) < 1:
            raise ConfigError(
                "a trunk cannot be built",
                found=f"{before} to {after} channels, widths {tuple(widths)}, {domains} domains",
                expected="at least one channel and domain, and two levels or more",
            )
        self.multiple = 2 ** (len(widths) - 1)
        self.enter = _Block(before, widths[0], domains)
        self.down = nn.ModuleList(_Block(a, b, domains, stride=2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_Block(a + b, a, domains) for a, b in reversed(list(pairwise(widths))))
        self.out = nn.Conv2d(widths[0], after, 1)
        if silent:
            nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor, domain: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> (B, K, H, W); domain: (B, domains) one-hot, or None for the first one."""
        height, width = image.shape[2:]
        levels = [self.enter(reflected(image, self.multiple), domain)]
        for down in self.down:
            levels.append(down(levels[-1], domain))
        x = levels.pop()
        for up in self.up:
            beside = levels.pop()
            x = up(torch.cat([F.interpolate(x, scale_factor=2.0), beside], dim=1), domain)
        answer: Tensor = self.out(x)
        return answer[:, :, :height, :width].float()


class DomainNorm(nn.Module):
    """Mean 0 and deviation 1 per image and channel, then a gain and a shift of the domain's own."""

    def __init__(self, channels: int, domains: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(domains, channels))
        self.shift = nn.Parameter(torch.zeros(domains, channels))

    def forward(self, x: Tensor, domain: Tensor | None) -> Tensor:
        """(B, C, H, W) -> the same shape; domain: (B, domains) one-hot, or None for the first one."""
        if domain is None:
            gain, shift = self.gain[:1], self.shift[:1]
        else:
            gain, shift = domain.to(self.gain) @ self.gain, domain.to(self.shift) @ self.shift
        return F.instance_norm(x) * gain[:, :, None, None] + shift[:, :, None, None]


class _Block(nn.Module):
    """Two 3 x 3 convolutions, each normalised and rectified; the first one may halve the image."""

    def __init__(self, before: int, after: int, domains: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.first_norm = DomainNorm(after, domains)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.second_norm = DomainNorm(after, domains)

    def forward(self, x: Tensor, domain: Tensor | None) -> Tensor:
        """(B, before, H, W) -> (B, after, H / stride, W / stride)."""
        x = F.leaky_relu(self.first_norm(self.first(x), domain), 0.2)
        return F.leaky_relu(self.second_norm(self.second(x), domain), 0.2)


def reflected(image: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) continued below and to the right until both are multiples, at least two of them.

    By reflection; where an image is too small for that, by its last row and column.
    """
    height, width = (max(-(-n // multiple), 2) * multiple - n for n in image.shape[2:])
    if not height and not width:
        return image
    fits = height < image.shape[2] and width < image.shape[3]
    return F.pad(image, (0, width, 0, height), mode="reflect" if fits else "replicate")
