"""Layers with equalised learning rate (Karras et al. 2018, "Progressive growing of GANs", section 4.1).

Weights are drawn from N(0, 1) and scaled at run time by the He constant, so that Adam moves every layer at
the same relative speed. The gain sqrt(2) of the leaky ReLU (slope 0.2) is folded into weight and bias: exact,
because the leaky ReLU is positively homogeneous, and it saves a pass over the activations.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewmask.networks.precise import in_float32
from fewmask.networks.resample import Binomial
from fewmask.networks.winograd import convolve

SLOPE = 0.2
ACTIVATION_GAIN = math.sqrt(2.0)


class EqualLinear(nn.Module):
    """y = act(gain * W x + lr_multiplier * b), W (out, in).

    Args:
        features_in: length of the input vector.
        features_out: length of the output vector.
        activate: apply the leaky ReLU with gain sqrt(2).
        lr_multiplier: slows this layer's learning (0.01 in StyleGAN's mapping network).
        bias_init: initial value of the effective bias.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        *,
        activate: bool = False,
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features_out, features_in) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((features_out,), bias_init / lr_multiplier))
        self.activate = activate
        gain = ACTIVATION_GAIN if activate else 1.0
        self.weight_gain = gain * lr_multiplier / math.sqrt(features_in)
        self.bias_gain = gain * lr_multiplier

    @in_float32
    def forward(self, x: Tensor) -> Tensor:
        """(B, in) -> (B, out)."""
        bias = self.bias if self.bias_gain == 1.0 else self.bias * self.bias_gain
        y = torch.addmm(bias, x, self.weight.t(), alpha=self.weight_gain)
        return F.leaky_relu(y, SLOPE) if self.activate else y


class EqualConv2d(nn.Module):
    """A k x k convolution, optionally smoothed and halved in size, then leaky ReLU with gain sqrt(2).

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        kernel: 1 or 3.
        bias: add a bias per channel.
        activate: apply the leaky ReLU with gain sqrt(2).
        down: smooth with [1, 3, 3, 1] and halve the size.
        gain: factor on the output (sqrt(1/2) in residual branches).
        clamp: limit of the absolute output before `gain`; None for no limit.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        bias: bool = True,
        activate: bool = True,
        down: bool = False,
        gain: float = 1.0,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels_out)) if bias else None
        self.activate = activate
        self.filter = Binomial() if down else None
        self.output_gain = gain * (ACTIVATION_GAIN if activate else 1.0)
        self.weight_gain = self.output_gain / math.sqrt(channels_in * kernel**2)
        self.clamp = None if clamp is None else clamp * gain

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W), or (B, out, H / 2, W / 2) when `down`."""
        weight = self.weight * self.weight_gain
        bias = None if self.bias is None else self.bias * self.output_gain
        kernel = weight.shape[-1]
        if kernel == 1:
            y = _pointwise(x if self.filter is None else self.filter.down(x), weight, bias)
        elif self.filter is None:
            y = convolve(x, weight, bias)
        else:
            y = F.conv2d(self.filter.smooth(x, padding=kernel // 2 + 1), weight, bias, stride=2)
        if self.activate:
            # In place only where y owns its memory: changing a view in place costs copies in backward.
            y = F.leaky_relu(y, SLOPE) if kernel == 1 else F.leaky_relu_(y, SLOPE)
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1 x 1 convolution as one matrix product; the result lies in memory with its channels last."""
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
