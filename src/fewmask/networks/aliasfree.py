"""Low-pass filters and the filtered leaky ReLU of StyleGAN3.

Karras et al. 2021, "Alias-Free Generative Adversarial Networks", section 3 and appendices B-C. Written from
the paper.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import signal, special
from torch import Tensor, nn


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
        return torch.from_numpy(signal.firwin(taps, cutoff, width=width, fs=rate).astype(np.float32))
    axis = (np.arange(taps) - (taps - 1) / 2) / rate
    reach = np.hypot(axis[:, None], axis[None, :]) * np.pi
    safe = np.where(reach == 0, 1, reach)
    # The jinc J1(2 f r) / r tends to f in the middle, where an odd filter has a tap.
    jinc = np.where(reach == 0, cutoff, special.j1(2 * cutoff * safe) / safe)
    window = np.kaiser(taps, signal.kaiser_beta(signal.kaiser_atten(taps, width / (rate / 2))))
    kernel = jinc * np.outer(window, window)
    return torch.from_numpy((kernel / kernel.sum()).astype(np.float32))


@dataclass(frozen=True)
class Rates:
    """How a filtered nonlinearity resamples one axis.

    size_in, size_out: samples before and after; up, down: factors; taps_up, taps_down: lengths of the
    filters.
    """

    size_in: int
    size_out: int
    up: int
    down: int
    taps_up: int
    taps_down: int

    @property
    def padding(self) -> int:
        """Zeros before the first upsampled sample: the result is centred (appendix C.2)."""
        total = (
            (self.size_out - 1) * self.down + 1 - self.size_in * self.up + self.taps_up + self.taps_down - 2
        )
        return (total + self.up) // 2

    @property
    def size_up(self) -> int:
        """Samples between the filters."""
        return (self.size_out - 1) * self.down + self.taps_down


def upsampling(rates: Rates, taps: Tensor | None) -> Tensor:
    """The matrix (size_up, size_in) that inserts zeros, pads, and filters with gain `up`."""
    kernel = (torch.ones(1) if taps is None else taps).flip(0) * rates.up
    place = torch.arange(rates.size_in) * rates.up + rates.padding - torch.arange(rates.size_up)[:, None]
    inside = (place >= 0) & (place < len(kernel))
    return torch.where(inside, kernel[place.clamp(0, len(kernel) - 1)], 0.0)


def downsampling(rates: Rates, taps: Tensor | None) -> Tensor:
    """The matrix (size_out, size_up) that filters and keeps every `down`-th sample."""
    kernel = (torch.ones(1) if taps is None else taps).flip(0)
    place = torch.arange(rates.size_up) - torch.arange(rates.size_out)[:, None] * rates.down
    inside = (place >= 0) & (place < len(kernel))
    return torch.where(inside, kernel[place.clamp(0, len(kernel) - 1)], 0.0)


class FilteredLeakyReLU(nn.Module):
    """Upsample, leaky ReLU with gain and limit, low-pass filter, downsample (section 3.2)."""

    up: Tensor
    down: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(
        self,
        rates: Rates,
        up_filter: Tensor | None,
        down_filter: Tensor | None,
        *,
        slope: float = 0.2,
        gain: float = math.sqrt(2.0),
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.rates, self.slope, self.gain, self.clamp = rates, slope, gain, clamp
        self.radial = down_filter is not None and down_filter.ndim == 2
        self.register_buffer("up_filter", up_filter, persistent=False)
        self.register_buffer("down_filter", down_filter, persistent=False)
        self.register_buffer("up", upsampling(rates, up_filter), persistent=False)
        if not self.radial:
            self.register_buffer("down", downsampling(rates, down_filter), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, size_in, size_in) -> (B, C, size_out, size_out)."""
        fine = F.leaky_relu(self.up @ x @ self.up.mT, self.slope) * self.gain
        if self.clamp is not None:
            fine = fine.clamp(-self.clamp, self.clamp)
        if not self.radial:
            return self.down @ fine @ self.down.mT
        assert self.down_filter is not None
        maps = F.conv2d(fine.flatten(0, 1)[:, None], self.down_filter[None, None], stride=self.rates.down)
        return maps.view(*x.shape[:2], self.rates.size_out, self.rates.size_out)
