"""Resampling by two with the binomial filter [1, 3, 3, 1] of StyleGAN2 (Zhang 2019; Karras et al. 2020, B).

One depthwise 4 x 4 convolution each. Measured on a CPU at 16-64 px, forward and backward, this is 5-10 times
faster than folding the channels into the batch, and 1.1-1.5 times faster than two separable passes or banded
matrix products; composing the filter with the layer's own kernel multiplies the layer's work by four.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewmask.networks.precise import in_float32


class Binomial(nn.Module):
    """The filter [1, 3, 3, 1] x [1, 3, 3, 1] / 64 over the last two axes; borders are padded with zeros."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None] / 64, persistent=False)

    def smooth(self, image: Tensor, *, padding: int, gain: float = 1.0) -> Tensor:
        """(B, C, H, W) -> (B, C, H + 2 * padding - 3, W + 2 * padding - 3)."""
        channels = image.shape[1]
        return F.conv2d(image, self._per_channel(channels, gain), padding=padding, groups=channels)

    @in_float32  # a stride of two in bfloat16 has a slow gradient: 25 ms instead of 4
    def down(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W / 2); a constant image keeps its value away from the border."""
        channels = image.shape[1]
        return F.conv2d(image, self._per_channel(channels, 1.0), stride=2, padding=1, groups=channels)

    @in_float32  # in bfloat16 80 ms instead of 5
    def up(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2 H, 2 W); a constant image keeps its value away from the border."""
        channels = image.shape[1]
        kernel = self._per_channel(channels, 4.0)
        return F.conv_transpose2d(image, kernel, stride=2, padding=1, groups=channels)

    def _per_channel(self, channels: int, gain: float) -> Tensor:
        kernel = self.kernel if gain == 1.0 else self.kernel * gain
        return kernel.expand(channels, 1, 4, 4)
