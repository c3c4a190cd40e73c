"""Instance normalisation with the rectifier that follows it, channels last.

Ulyanov et al. 2016, "Instance normalization": every channel of every image loses its mean over the pixels and
is divided by its deviation; no scale, no shift, no running averages.

Not `F.instance_norm` on a CPU: for a batch of one image its gradient is wrong, without a word, where the
slope that comes back is laid out channels last and the image is not (torch 2.13).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fewmask.networks.precise import in_float32

EPSILON = 1e-5


@in_float32
def instance_norm(x: Tensor, slope: float = 1.0) -> Tensor:
    """(B, C, H, W), normalised; below 0 then multiplied by `slope`: 1 for no rectifier, 0 for ReLU.

    First derivatives only. H x W is at least 2.
    """
    if x.device.type == "cpu" and x.shape[2] * x.shape[3] > 1:
        y: Tensor = _Normalise.apply(x, slope)  # type: ignore[no-untyped-call]
        return y
    y = F.instance_norm(x, eps=EPSILON)
    return y if slope == 1 else F.leaky_relu(y, slope)


class _Normalise(torch.autograd.Function):
    """Image by image as a batch of one, for which torch's CPU kernels know channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        y = torch.empty_like(x)
        mean, inverse = x.new_empty(x.shape[:2]), x.new_empty(x.shape[:2])
        for n in range(len(x)):
            torch.native_batch_norm(
                x[n : n + 1],
                *(None, None, None, None),
                True,
                0.0,
                EPSILON,
                out=(y[n : n + 1], mean[n], inverse[n]),
            )
        if slope != 1:
            F.leaky_relu(y, slope, inplace=True)
        ctx.slope = slope
        ctx.save_for_backward(x, y, mean, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None]:
        x, y, mean, inverse = ctx.saved_tensors
        slopes = slopes.contiguous(memory_format=torch.channels_last)
        if ctx.slope != 1:
            slopes = torch.ops.aten.leaky_relu_backward(slopes, y, ctx.slope, True)
        found = [
            torch.ops.aten.native_batch_norm_backward(
                slopes[n : n + 1],
                x[n : n + 1],
                *(None, None, None),
                mean[n],
                inverse[n],
                True,
                EPSILON,
                [True, False, False],
            )[0]
            for n in range(len(x))
        ]
        return found[0] if len(found) == 1 else torch.cat(found), None
