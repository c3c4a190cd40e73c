"""Random changes of an image's grey values: drawn first, then applied to a whole batch without a loop.

Each change has a neutral setting (gamma 1, noise 0, an identity blur), which images that are not chosen get.
Blur and low resolution are linear and act along one axis at a time, so both are one small matrix per axis.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewmask.data.augment_spatial import along_axes, smooth_field


@dataclass(frozen=True)
class IntensityRanges:
    """How far grey values may change in images in [-1, 1]; second numbers are the share of images changed."""

    gamma: tuple[float, float] = (1.8, 0.5)
    """Largest exponent (its inverse is the smallest); in half of the cases of the inverted image."""
    contrast: tuple[float, float] = (1.5, 0.4)
    """Largest factor on the distance from the image's mean (its inverse is the smallest)."""
    brightness: tuple[float, float] = (0.3, 0.4)
    """Largest offset."""
    bias: tuple[float, float] = (1.0, 0.8)
    """Largest standard deviation of a smooth additive field. Strong, because it tells organs by shape rather
    than by shade: from one chest film, two draws, mean Dice 0.86 and 0.83, with (0.3, 0.4) 0.81 and 0.81."""
    bias_cells: int = 2
    """Cells of the field's control grid along an axis; more cells, finer shades."""
    noise: tuple[float, float] = (0.15, 0.3)
    """Largest standard deviation of white noise."""
    blur: tuple[float, float] = (1.2, 0.2)
    """Largest standard deviation of a Gaussian blur, in voxels."""
    low_resolution: tuple[float, float] = (2.0, 0.2)
    """Largest factor by which an image is made coarser and then enlarged again."""
    erase: tuple[float, float] = (0.3, 0.0)
    """Largest side of a box that is filled with noise, as a fraction of the image's side. Off by default."""


@dataclass(frozen=True)
class Tone:
    """Drawn changes of B images with C channels; every tensor begins with (B, C) or (B,)."""

    gamma: Tensor
    inverted: Tensor
    contrast: Tensor
    brightness: Tensor
    noise: Tensor
    bias: Tensor
    blur: Tensor
    coarser: Tensor
    box_centre: Tensor
    box_half: Tensor
    white: Tensor


def draw_tone(shape: Sequence[int], ranges: IntensityRanges, generator: torch.Generator) -> Tone:
    """Draw changes for images of `shape` (B, C, *S) from `generator`."""
    count, channels, *size = shape
    dims = len(size)
    device = generator.device

    def uniform(*names: int) -> Tensor:
        return torch.rand(*names, generator=generator, device=device)

    def chosen(share: float, *names: int) -> Tensor:
        return (uniform(*names) < share).float()

    def signed(setting: tuple[float, float]) -> Tensor:
        return chosen(setting[1], count, channels) * (2 * uniform(count, channels) - 1) * setting[0]

    def factor(setting: tuple[float, float]) -> Tensor:
        return torch.exp(signed((math.log(setting[0]), setting[1])))

    def positive(setting: tuple[float, float], *names: int) -> Tensor:
        return chosen(setting[1], *names) * uniform(*names) * setting[0]

    points = torch.randn(
        count, channels, *(ranges.bias_cells + 3,) * dims, generator=generator, device=device
    )
    coarser = 1 + positive((ranges.low_resolution[0] - 1, ranges.low_resolution[1]), count)
    return Tone(
        gamma=factor(ranges.gamma),
        inverted=chosen(0.5, count, channels),
        contrast=factor(ranges.contrast),
        brightness=signed(ranges.brightness),
        noise=positive(ranges.noise, count, channels),
        bias=points * positive(ranges.bias, count, channels).view(count, channels, *(1,) * dims),
        blur=positive(ranges.blur, count),
        coarser=coarser,
        box_centre=uniform(count, dims),
        box_half=chosen(ranges.erase[1], count, 1) * uniform(count, dims) * ranges.erase[0] / 2,
        white=torch.randn(*shape, generator=generator, device=device),
    )


def apply_tone(image: Tensor, tone: Tone) -> Tensor:
    """Change images (B, C, *S) in [-1, 1] as drawn; the result stays in [-1, 1] and no mask is touched.

    Order: gamma, contrast, brightness, smooth field, blur and low resolution, noise, erasing.
    """
    dims = image.ndim - 2

    def each(values: Tensor) -> Tensor:
        return values.to(image.device).view(*values.shape, *(1,) * (image.ndim - values.ndim))

    sign = 1 - 2 * each(tone.inverted)
    unit = (sign * image.clamp(-1, 1) + 1) / 2
    image = sign * (2 * unit.clamp(min=1e-6) ** each(tone.gamma) - 1)
    mean = image.mean(dim=tuple(range(2, image.ndim)), keepdim=True)
    image = (image - mean) * each(tone.contrast) + (mean + each(tone.brightness))
    image = image + smooth_field(tone.bias.to(image.device), image.shape[2:])
    touched = torch.nonzero((tone.blur > 0) | (tone.coarser > 1)).flatten().to(image.device)
    if len(touched):
        matrices = [
            (_coarse_matrices(n, tone.coarser) @ _blur_matrices(n, tone.blur)).to(image.device)[touched, None]
            for n in image.shape[2:]
        ]
        image = image.index_copy(0, touched, along_axes(image[touched], _widen(matrices, dims)))
    white = tone.white.to(image.device)
    image = image + white * each(tone.noise)
    if bool((tone.box_half > 0).any()):
        image = torch.where(_boxes(tone, image.shape[2:]).to(image.device), 0.5 * white, image)
    return image.clamp(-1.0, 1.0)


def _widen(matrices: Sequence[Tensor], dims: int) -> list[Tensor]:
    """Matrices (B, 1, n, n) with the extra axes of length 1 that `along_axes` broadcasts over."""
    extra = [min(axis, dims - 2) for axis in range(dims)]
    return [m.view(len(m), 1, *(1,) * e, *m.shape[-2:]) for m, e in zip(matrices, extra, strict=True)]


def _blur_matrices(size: int, sigma: Tensor) -> Tensor:
    """Gaussian blur along an axis of `size` voxels as matrices (B, size, size); sigma 0 is the identity."""
    index = torch.arange(size, device=sigma.device, dtype=torch.float32)
    squared = (index[:, None] - index[None, :]) ** 2
    weights = torch.exp(-squared / (2 * sigma.clamp(min=1e-3)[:, None, None] ** 2))
    return weights / weights.sum(-1, keepdim=True)


def _coarse_matrices(size: int, factor: Tensor) -> Tensor:
    """Averaging over voxels `factor` times as large, then a linear blend between them, as matrices (B, n, n).

    The blend is a tent of half width `factor`; a factor of 1 gives the identity.
    """
    index = torch.arange(size, device=factor.device, dtype=torch.float32)
    coarse = torch.floor(index[None, :] / factor[:, None])
    near = (coarse[:, :, None] == coarse[:, None, :]).float()
    average = near / near.sum(-1, keepdim=True)
    distance = (index[:, None] - index[None, :]).abs()[None]
    tent = (factor[:, None, None] - distance).clamp(min=0)
    tent = tent / tent.sum(-1, keepdim=True)
    return tent @ average


def _boxes(tone: Tone, size: Sequence[int]) -> Tensor:
    """True (B, 1, *size) inside each image's drawn box."""
    inside = torch.ones(
        len(tone.box_half), 1, *(1,) * len(size), dtype=torch.bool, device=tone.box_half.device
    )
    for axis, n in enumerate(size):
        centre = (torch.arange(n, device=inside.device) + 0.5) / n
        near = (centre[None] - tone.box_centre[:, axis, None]).abs() < tone.box_half[:, axis, None]
        shape = [len(near), 1, *(1,) * len(size)]
        shape[axis + 2] = n
        inside = inside & near.view(shape)
    return inside
