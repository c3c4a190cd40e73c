"""Low-pass filters and the filtered leaky ReLU of StyleGAN3.

Karras et al. 2021, "Alias-Free Generative Adversarial Networks", section 3 and appendices B-C. Written from
the paper.

How it is computed. Zeros are never inserted: upsampling is a transposed convolution of each channel along one
axis, then the other, and downsampling a strided one; each is the other's adjoint. The upsampled activations,
four times the pixels or more, exist only for a piece of the batch that fits into the cache, and backward
makes them again. Measured on a CPU, with channels last in memory, pieces are twice as fast as the whole batch
at once, and these convolutions twice as fast as banded matrix products.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import signal, special
from torch import Tensor, nn
from torch.autograd import Function

PIECE_BYTES = {"cpu": 8 * 2**20}
PIECE_BYTES_ELSEWHERE = 2**30
"""Upsampled activations held at once: what a processor's cache takes; on a GPU large pieces keep it busy."""


def lowpass(taps: int, cutoff: float, width: float, rate: float, *, radial: bool = False) -> Tensor | None:
    """A low-pass filter of unit sum, windowed by Kaiser (appendix C.1).

    Args:
        taps: length in samples; 1 needs no filter.
        cutoff: frequency of half amplitude, in the unit of `rate`.
        width: width of the transition band, in the unit of `rate`.
        rate: sampling rate.
        radial: two-dimensional and radially symmetric, a jinc; otherwise one axis of a separable filter.

    Returns:
        (taps,), or (taps, taps) when `radial`; None for a single tap.
    """
    if taps == 1:
        return None
    if not radial:
        return torch.tensor(signal.firwin(taps, cutoff, width=width, fs=rate), dtype=torch.float32)
    axis = (np.arange(taps) - (taps - 1) / 2) / rate
    reach = np.hypot(axis[:, None], axis[None, :]) * np.pi
    safe = np.where(reach == 0, 1, reach)
    # The jinc J1(2 f r) / r tends to f in the middle, where an odd filter has a tap.
    jinc = np.where(reach == 0, cutoff, special.j1(2 * cutoff * safe) / safe)
    window = np.kaiser(taps, signal.kaiser_beta(signal.kaiser_atten(taps, width / (rate / 2))))
    kernel = jinc * np.outer(window, window)
    return torch.tensor(kernel / kernel.sum(), dtype=torch.float32)


@dataclass(frozen=True)
class Resampling:
    """A linear map between a coarse and a fine grid along each axis.

    fine[j] = sum_i kernel[j - step i + offset] coarse[i]. coarse, fine: samples; step: how much finer; taps:
    length of the kernel.
    """

    coarse: int
    fine: int
    step: int
    taps: int
    offset: int

    @property
    def first(self) -> int:
        """The first coarse sample that any fine one feels."""
        return max(0, -((self.taps - 1 - self.offset) // self.step))

    @property
    def count(self) -> int:
        """How many coarse samples from there on are felt."""
        return min(self.coarse, (self.fine - 1 + self.offset) // self.step + 1) - self.first

    @property
    def padding(self) -> int:
        """Fine samples before the first that the felt coarse ones would reach; negative: not reached."""
        return self.offset - self.step * self.first

    @property
    def surplus(self) -> int:
        """Fine samples after the last that the felt coarse samples reach, less `padding`."""
        return self.fine - ((self.count - 1) * self.step + self.taps - 2 * self.padding)

    def grow(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Coarse to fine, (B, C, coarse, coarse); a kernel (taps,) acts on one axis, then the other."""
        x = x[:, :, self.first : self.first + self.count, self.first : self.first + self.count]
        for taps in _passes(kernel):
            x = self._grow(x, taps.expand(x.shape[1], 1, *taps.shape))
        return x

    def shrink(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Fine to coarse, the adjoint of `grow`."""
        for taps in _passes(kernel):
            x = self._shrink(x, taps.expand(x.shape[1], 1, *taps.shape))
        after = self.coarse - self.first - self.count
        return F.pad(x, [self.first, after] * 2) if self.first or after else x

    def _grow(self, x: Tensor, weight: Tensor) -> Tensor:
        axes = [side > 1 or self.taps == 1 for side in weight.shape[2:]]
        stride = [self.step if axis else 1 for axis in axes]
        if self.padding >= 0 and 0 <= self.surplus < self.step:
            padding, surplus = ([n if axis else 0 for axis in axes] for n in (self.padding, self.surplus))
            return F.conv_transpose2d(x, weight, None, stride, padding, surplus, x.shape[1])
        x = F.conv_transpose2d(x, weight, None, stride, groups=x.shape[1])
        return F.pad(x, self._sides(axes, -self.padding, self.surplus - self.padding))

    def _shrink(self, x: Tensor, weight: Tensor) -> Tensor:
        axes = [side > 1 or self.taps == 1 for side in weight.shape[2:]]
        stride = [self.step if axis else 1 for axis in axes]
        if self.padding >= 0 and 0 <= self.surplus < self.step:
            return F.conv2d(x, weight, None, stride, [self.padding if a else 0 for a in axes], 1, x.shape[1])
        x = F.pad(x, self._sides(axes, self.padding, self.padding - self.surplus))
        return F.conv2d(x, weight, None, stride, groups=x.shape[1])

    @staticmethod
    def _sides(axes: list[bool], before: int, after: int) -> list[int]:
        return [n for axis in reversed(axes) for n in ((before, after) if axis else (0, 0))]


def _passes(kernel: Tensor) -> list[Tensor]:
    """The kernels (h, w) that act one after the other."""
    if kernel.ndim == 2 or len(kernel) == 1:
        return [kernel if kernel.ndim == 2 else kernel[None]]
    return [kernel[None], kernel[:, None]]


class FilteredLeakyReLU(nn.Module):
    """Scale, shift, upsample, leaky ReLU with gain and limit, filter and downsample (section 3.2).

    Args:
        size_in: side of the maps that come in.
        size_out: side of the maps that go out; both lie centred on one another.
        up: factor of the upsampling.
        down: factor of the downsampling.
        up_filter: `lowpass` of the upsampling, None if `up` is 1.
        down_filter: `lowpass` of the downsampling, separable or radial, None if `down` is 1.
        slope: of the leaky ReLU below 0.
        gain: factor after it.
        clamp: limit of the absolute activations after `gain`; None for no limit.
    """

    up_filter: Tensor | None
    down_filter: Tensor | None
    up_kernel: Tensor
    down_kernel: Tensor

    def __init__(
        self,
        size_in: int,
        size_out: int,
        up: int,
        down: int,
        up_filter: Tensor | None,
        down_filter: Tensor | None,
        *,
        slope: float = 0.2,
        gain: float = math.sqrt(2.0),
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.slope, self.limit = slope, None if clamp is None else clamp / gain
        self.register_buffer("up_filter", up_filter, persistent=False)
        self.register_buffer("down_filter", down_filter, persistent=False)
        up_taps = torch.ones(1) if up_filter is None else up_filter
        down_taps = torch.ones(1) if down_filter is None else down_filter
        # The gain is folded into the filter behind the nonlinearity, and the limit divided by it.
        self.register_buffer("up_kernel", up_taps * up, persistent=False)
        share = gain ** (1 / len(_passes(down_taps)))
        self.register_buffer("down_kernel", down_taps.flip(*range(down_taps.ndim)) * share, persistent=False)
        fine = (size_out - 1) * down + len(down_taps)
        before = (fine + len(up_taps) - 1 - size_in * up + up) // 2
        self.up = Resampling(size_in, fine, up, len(up_taps), len(up_taps) - 1 - before)
        self.down = Resampling(size_out, fine, down, len(down_taps), 0)
        # No upsampled value exceeds the largest that comes in by more than this factor.
        phases = [float(self.up_kernel[n::up].abs().sum()) for n in range(up)]
        self.overshoot = max(phases) ** 2

    def forward(self, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """Maps (B, C, size_in, size_in), scale (B, C), bias (C,) -> (B, C, size_out, size_out)."""
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = _Filtered.apply(x.float(), scale.float(), bias, self)  # type: ignore[no-untyped-call]
            return y

    def plain(self, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """What `forward` gives, all at once and by operations that autograd knows."""
        fine = F.leaky_relu(self.up.grow(shifted(x, scale, bias), self.up_kernel), self.slope)
        if self.limit is not None:
            fine = fine.clamp(-self.limit, self.limit)
        return self.down.shrink(fine, self.down_kernel)

    def limits(self, x: Tensor) -> bool:
        """Whether the limit may be reached from x, before upsampling; not looked at where that would wait."""
        if self.limit is None or x.device.type != "cpu":
            return self.limit is not None
        least, most = torch.aminmax(x)
        return not max(-float(least), float(most)) * self.overshoot <= self.limit

    def pieces(self, x: Tensor) -> Iterator[tuple[slice, slice]]:
        """Parts of images and channels whose upsampled activations are small enough."""
        budget = PIECE_BYTES.get(x.device.type, PIECE_BYTES_ELSEWHERE)
        maps = max(1, budget // (4 * self.up.fine**2))
        channels = x.shape[1] if maps >= x.shape[1] else max(16, maps // 16 * 16)
        images = max(1, maps // channels)
        for n in range(0, x.shape[0], images):
            for c in range(0, x.shape[1], channels):
                yield slice(n, n + images), slice(c, c + channels)


def shifted(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Maps (B, C, H, W) times scale (B, C) plus bias (C,)."""
    return torch.addcmul(bias[:, None, None], x, scale[:, :, None, None])


class _Filtered(Function):
    """`FilteredLeakyReLU.plain`, piece by piece; keeps only what comes in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bias: Tensor, op: FilteredLeakyReLU) -> Tensor:
        ctx.save_for_backward(x, scale, bias)
        ctx.op = op
        size = op.down.coarse
        out = x.new_empty(x.shape[0], size, size, x.shape[1]).permute(0, 3, 1, 2)
        for n, c in op.pieces(x):
            coarse = shifted(x[n, c], scale[n, c], bias[c])
            fine = F.leaky_relu_(op.up.grow(coarse, op.up_kernel), op.slope)
            if op.limit is not None and op.limits(coarse):
                fine.clamp_(-op.limit, op.limit)
            out[n, c] = op.down.shrink(fine, op.down_kernel)
        return out

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, bias = inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The gradient itself is to be differentiated: slower, and keeps everything.
            wanted = [one for one, needed in zip(inputs, ctx.needs_input_grad, strict=False) if needed]
            found = iter(torch.autograd.grad(ctx.op.plain(*inputs), wanted, grad, create_graph=True))
            return (*(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None)
        return (*_backward(ctx.op, x, scale, bias, grad[0]), None)


def _backward(
    op: FilteredLeakyReLU, x: Tensor, scale: Tensor, bias: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    into_x, into_scale, into_bias = torch.empty_like(x), torch.empty_like(scale), torch.zeros_like(bias)
    for n, c in op.pieces(x):
        coarse = shifted(x[n, c], scale[n, c], bias[c])
        fine = op.up.grow(coarse, op.up_kernel)
        slopes = op.down.grow(grad[n, c], op.down_kernel)
        if op.limit is not None and op.limits(coarse):
            slopes.masked_fill_((fine > op.limit) | (fine < -op.limit / op.slope), 0.0)
        torch.ops.aten.leaky_relu_backward.grad_input(slopes, fine, op.slope, False, grad_input=slopes)
        part = op.up.shrink(slopes, op.up_kernel)
        into_bias[c] += part.sum(dim=(0, 2, 3))
        into_scale[n, c] = (part * x[n, c]).sum(dim=(2, 3))
        into_x[n, c] = part * scale[n, c, None, None]
    return into_x, into_scale, into_bias
