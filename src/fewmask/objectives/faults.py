"""Faults as generators make them, planted in real images: what an encoder must not overlook.

An encoder that has seen real images only may lay rubbish beside them. So it is shown images that a young
generator might have drawn - soft, grainy, with a grid, with parts out of place, with wobbling outlines - and
learns to keep each apart from the real image it was made of, as measures of image quality are taught
(Madhusudana et al. 2022, "Image quality assessment using contrastive learning").
"""

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from fewmask.data.augment_intensity import IntensityRanges, Tone, apply_tone, draw_tone
from fewmask.data.augment_spatial import SpatialRanges, Warp, apply_warp, draw_warp

Record = TypeVar("Record", Warp, Tone)

WOBBLE = SpatialRanges(
    rotate_deg=0, scale=1, stretch=1, shear=0, shift=0, elastic=0.03, elastic_cells=8, probability=0.35
)
"""Bends of an eighth of the image."""

GRAIN = IntensityRanges(
    gamma=(1, 0),
    contrast=(1, 0),
    brightness=(0, 0),
    bias=(0, 0),
    noise=(0.3, 0.4),
    blur=(2.0, 0.35),
    low_resolution=(3.0, 0.25),
)
"""Blur, coarse pixels, and noise after them. Strong: with two thirds of the noise, the grid and the blotches,
a GAN's first rubbish was laid nearer to real films than its first recognisable chests."""


@dataclass(frozen=True)
class Faults:
    """Drawn faults of B images."""

    wobble: Warp
    grain: Tone
    blotch: Tensor
    """(B, C, H, W): coarse noise, zero for most images."""
    stripes: Tensor
    """(B, 3): amplitude, and frequency along y and x in half turns per pixel (1: every second pixel)."""
    paste: Tensor
    """(B, 6) in [0, 1): place of a box (y, x), its size (y, x), and how far away it is taken from (y, x)."""

    def take(self, mine: slice) -> "Faults":
        """Those of some of the images."""
        rest = self.blotch[mine], self.stripes[mine], self.paste[mine]
        return Faults(take_rows(self.wobble, mine), take_rows(self.grain, mine), *rest)


def take_rows(record: Record, mine: slice) -> Record:
    """Some rows of a drawn record, whose every field begins with the images."""
    values = {each.name: getattr(record, each.name) for each in fields(record)}
    return replace(record, **{name: value[mine] for name, value in values.items() if value is not None})


def draw_faults(shape: torch.Size, chance: torch.Generator) -> Faults:
    """Draw for images of `shape` (B, C, H, W); most get one or two kinds of fault."""
    count, channels, height, width = shape

    def uniform(*size: int) -> Tensor:
        return torch.rand(count, *size, generator=chance)

    def chosen(share: float) -> Tensor:
        return (uniform(1) < share).float()

    coarse = torch.randn(count, channels, (height + 2) // 3, (width + 2) // 3, generator=chance)
    blotch = coarse.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)[:, :, :height, :width]
    stripes = torch.cat([chosen(0.3) * (0.05 + 0.25 * uniform(1)), (uniform(2) * 3).floor() / 2], dim=1)
    paste = torch.cat([uniform(2), chosen(0.35) * (0.15 + 0.35 * uniform(2)), uniform(2)], dim=1)
    return Faults(
        draw_warp(count, 2, WOBBLE, chance),
        draw_tone(shape, GRAIN, chance),
        blotch * (chosen(0.25) * (0.05 + 0.25 * uniform(1)))[:, :, None, None],
        stripes,
        paste,
    )


def plant(image: Tensor, faults: Faults) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] -> the same with the drawn faults."""
    image = _pasted(image, faults.paste.to(image.device))
    image, _ = apply_warp(image, None, faults.wobble, outside=0)
    image = image + faults.blotch.to(image.device) + _waves(image, faults.stripes.to(image.device))
    return apply_tone(image, faults.grain)


def _pasted(image: Tensor, paste: Tensor) -> Tensor:
    """A box of every image is filled with what lies elsewhere in it."""
    height, width = image.shape[2:]
    size = image.new_tensor([height, width])
    first = (paste[:, :2] * size).long()[:, :, None, None]
    extent = (paste[:, 2:4] * size).long()[:, :, None, None]
    away = ((0.15 + 0.7 * paste[:, 4:]) * size).long()[:, :, None, None]
    y = torch.arange(height, device=image.device)[:, None].expand(height, width)
    x = torch.arange(width, device=image.device)[None].expand(height, width)
    here = torch.stack([y, x])[None]
    inside = (((here - first) % size.long()[:, None, None]) < extent).all(dim=1)
    there = torch.where(inside[:, None], (here + away) % size.long()[:, None, None], here)
    index = (there[:, 0] * width + there[:, 1]).flatten(1)[:, None].expand(-1, image.shape[1], -1)
    return image.flatten(2).gather(2, index).view_as(image)


def _waves(image: Tensor, stripes: Tensor) -> Tensor:
    """A regular grid of a few pixels, as upsampling leaves it."""
    y = torch.arange(image.shape[2], device=image.device)[:, None]
    x = torch.arange(image.shape[3], device=image.device)
    turn = stripes[:, 1, None, None] * y + stripes[:, 2, None, None] * x
    return (stripes[:, 0, None, None] * torch.cos(torch.pi * turn))[:, None]
