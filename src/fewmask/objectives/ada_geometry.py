"""Moving images by an affine map, without aliasing.

Karras et al. 2020, "Training GANs with limited data", appendix B: images are doubled in size with the
low-pass filter of the wavelet sym6, sampled bilinearly there, and halved with the same filter; beyond its
border an image goes on as its own reflection. The filters are banded matrices: at a discriminator's input
sizes that is faster on a CPU than convolutions of one channel.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
"""Scaling filter of the symlet with six vanishing moments (Daubechies 1992, "Ten lectures on wavelets")."""

TAPS = len(SYM6)
MARGIN = TAPS // 4


def rotation(angle: Tensor) -> Tensor:
    """(B,) radians -> (B, 3, 3); turns x towards y."""
    cosine, sine, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rows = [cosine, -sine, zero, sine, cosine, zero, zero, zero, one]
    return torch.stack(rows, dim=1).view(-1, 3, 3)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Factors (B,), (B,) -> (B, 3, 3)."""
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], dim=1))


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Pixels (B,), (B,) -> (B, 3, 3)."""
    matrix = torch.eye(3, dtype=x.dtype, device=x.device).repeat(len(x), 1, 1)
    matrix[:, 0, 2], matrix[:, 1, 2] = x, y
    return matrix


def move(image: Tensor, inverse: Tensor, reached: Tensor | None = None) -> Tensor:
    """Where `inverse` sends an output pixel, there its value is read.

    Args:
        image: (B, C, H, W).
        inverse: (B, 3, 3) from output to input coordinates, (x, y, 1) in pixels from the image's centre.
        reached: the maps (N, 3, 3) for which the border is laid on; None for `inverse` itself.

    Returns:
        (B, C, H, W), linear in `image` and differentiable twice with respect to it.
    """
    height, width = image.shape[2:]
    left, right, top, bottom = _margins(inverse if reached is None else reached, height, width)
    image = F.pad(image, (left, right, top, bottom), mode="reflect")
    padded_height, padded_width = image.shape[2:]
    image = _columns(image, _doubling(padded_width).to(image))
    image = _rows(image, _doubling(padded_height).to(image))
    # The filter's weight lies half a doubled pixel off its middle: index j is the original place j / 2.
    x = _places(width, inverse)
    y = _places(height, inverse)[:, None]
    matrix = inverse[:, :, :, None, None]
    source_x = matrix[:, 0, 0] * x + matrix[:, 0, 1] * y + matrix[:, 0, 2]
    source_y = matrix[:, 1, 0] * x + matrix[:, 1, 1] * y + matrix[:, 1, 2]
    source_x = (2 * source_x + (left - right) - 0.5) / padded_width
    source_y = (2 * source_y + (top - bottom) - 0.5) / padded_height
    grid = torch.stack([source_x, source_y], dim=3)
    image = _Sampling.apply(image, grid)  # type: ignore[no-untyped-call]
    return _rows(_columns(image, _halving(width).to(image)), _halving(height).to(image))


class _Sampling(torch.autograd.Function):
    """Bilinear samples, zero outside; the grid is taken as constant.

    Sampling is linear in the image, so its gradient is the transposed map, whose own gradient is the sampling
    again: R1 needs this second derivative, which torch's grid_sample lacks.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = image.shape
        return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _Spreading.apply(gradient, grid, ctx.shape), None  # type: ignore[no-untyped-call]


class _Spreading(torch.autograd.Function):
    """The transposed map of `_Sampling`."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        image = gradient.new_zeros(()).expand(shape)  # only its shape is read
        spread: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            gradient, image, grid, 0, 0, False, [True, False]
        )[0]
        return spread

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Sampling.apply(gradient, grid), None, None  # type: ignore[no-untyped-call]


def _places(size: int, like: Tensor) -> Tensor:
    """Original coordinates, from the centre, of a doubled output that is `MARGIN` wider on each side."""
    count = 2 * (size + 2 * MARGIN)
    return (torch.arange(count, dtype=like.dtype, device=like.device) + 1 - count / 2) / 2


def _margins(inverse: Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    """How far the reflection must reach: (left, right, top, bottom) in pixels, less than the image's size."""
    x, y = (width - 1) / 2, (height - 1) / 2
    corners = inverse.new_tensor([[-x, -y, 1], [x, -y, 1], [x, y, 1], [-x, y, 1]]).t()
    reached = inverse[:, :2] @ corners
    low = reached.amin(dim=(0, 2)).tolist()
    high = reached.amax(dim=(0, 2)).tolist()
    most_x, most_y = width - 1, height - 1
    return (
        _whole(-low[0] + 2 * MARGIN - x, most_x),
        _whole(high[0] + 2 * MARGIN - x, most_x),
        _whole(-low[1] + 2 * MARGIN - y, most_y),
        _whole(high[1] + 2 * MARGIN - y, most_y),
    )


def _whole(margin: float, most: int) -> int:
    return int(-(-min(max(margin, 0.0), most) // 1))


def _columns(image: Tensor, matrix: Tensor) -> Tensor:
    return image @ matrix


def _rows(image: Tensor, matrix: Tensor) -> Tensor:
    return matrix.t() @ image


@functools.lru_cache(maxsize=256)
def _doubling(size: int) -> Tensor:
    """(size, 2 * size): zeros between the samples, then the filter."""
    source, target = torch.arange(size)[:, None], torch.arange(2 * size)
    return 2 * _filter_at(TAPS // 2 - 1 - 2 * source + target)


@functools.lru_cache(maxsize=16)
def _halving(size: int) -> Tensor:
    """(2 * (size + 2 * MARGIN), size): the filter, then every second sample, without the margin."""
    source, target = torch.arange(2 * (size + 2 * MARGIN))[:, None], torch.arange(size)
    return _filter_at(source - 2 * target - 1)


def _filter_at(tap: Tensor) -> Tensor:
    """The filter's value at each tap number, normalised to a sum of 1; zero outside."""
    taps = torch.tensor(SYM6, dtype=torch.float64)
    taps = (taps / taps.sum()).float()
    inside = (tap >= 0) & (tap < TAPS)
    return torch.where(inside, taps[tap.clamp(0, TAPS - 1)], torch.zeros(()))
