"""A modulated 3 x 3 convolution that keeps its input only once, with the weight's gradient by Winograd.

PyTorch's gradient of a weight is slow with channels last. With 64 channels and 8 images it takes, in CPU
time, 70-80 ms at 86 pixels and 650 ms at 150; Winograd's filtering (see `winograd`) takes 35 and 110 ms.
Going forward it was tried too: 1.0-1.2 times faster at these widths, and it rounds more, so it is not used.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from fewmask.networks.winograd import TILE, correlate

FEWEST_CHANNELS = 32
"""Below this PyTorch's own gradient is as fast."""


def modulated_convolution(x: Tensor, styles: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Convolution of x * styles; x (B, I, H, W), styles (B, I), weight (O, I, k, k), zeros around."""
    if torch.is_autocast_enabled(x.device.type):
        return _plain(x, styles, weight, padding)
    y: Tensor = _Modulated.apply(x, styles, weight, padding)  # type: ignore[no-untyped-call]
    return y


def _plain(x: Tensor, styles: Tensor, weight: Tensor, padding: int) -> Tensor:
    return F.conv2d(x * styles[:, :, None, None], weight, padding=padding)


class _Modulated(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, styles: Tensor, weight: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(x, styles, weight)
        ctx.padding = padding
        return _plain(x, styles, weight, padding)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x, styles, weight = inputs = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The gradient itself is to be differentiated.
            wanted = [one for one, needed in zip(inputs, ctx.needs_input_grad, strict=False) if needed]
            y = _plain(x, styles, weight, ctx.padding)
            found = iter(torch.autograd.grad(y, wanted, grad, create_graph=True))
            return (*(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None)
        into_x = into_styles = into_weight = None
        if ctx.needs_input_grad[2]:
            into_weight = weight_gradient(x, styles, grad[0], weight, ctx.padding)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            into_x = _convolution_gradient(x, grad[0], weight, ctx.padding, 0)
            into_styles = torch.stack([(a * b).sum(dim=(1, 2)) for a, b in zip(into_x, x, strict=True)])
            into_x = into_x.mul_(styles[:, :, None, None])
        return into_x, into_styles, into_weight, None


def weight_gradient(x: Tensor, styles: Tensor, grad: Tensor, weight: Tensor, padding: int) -> Tensor:
    """The gradient of `modulated_convolution` at its weight, from `grad` (B, O, H', W') at its output."""
    few = min(weight.shape[:2]) < FEWEST_CHANNELS or weight.shape[2] != 3
    if few or x.device.type != "cpu" or not x.dtype == grad.dtype == torch.float32:
        return _convolution_gradient(x * styles[:, :, None, None], grad, weight, padding, 1)
    (inputs, height, width), (outputs, high, wide) = x.shape[1:], grad.shape[1:]
    # Zeros around both, up to whole tiles; only the inside is written, image after image. The convolution of
    # `winograd` pads by 1: another padding shifts one against the other.
    inset, offset = max(padding - 1, 0), max(1 - padding, 0)
    down, across = (-(-max(a + inset, b + offset) // TILE) * TILE for a, b in ((height, high), (width, wide)))
    around, beneath = x.new_zeros(1, down, across, inputs), x.new_zeros(1, down, across, outputs)
    total = torch.zeros_like(weight)
    for n in range(x.shape[0]):
        inside = around[0, inset : inset + height, inset : inset + width]
        torch.mul(x[n].permute(1, 2, 0), styles[n], out=inside)
        beneath[0, offset : offset + high, offset : offset + wide] = grad[n].permute(1, 2, 0)
        total += correlate(around.permute(0, 3, 1, 2), beneath.permute(0, 3, 1, 2))
    return total


def _convolution_gradient(x: Tensor, grad: Tensor, weight: Tensor, padding: int, which: int) -> Tensor:
    """At the input (0) or at the weight (1) of a convolution."""
    asked = [which == 0, which == 1, False]
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], [padding] * 2, [1, 1], False, [0, 0], 1, asked
    )
    gradient: Tensor = found[which]
    return gradient
