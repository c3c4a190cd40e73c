"""Convolutions of images that are reflected at their borders, and images of any size for networks that halve.

The same numbers as `F.conv2d(F.pad(x, ..., mode="reflect"), weight)`, sooner on a CPU where a layer is wide
(`winograd`) or has few channels on one side. Memory is laid out channels last throughout. First derivatives
only.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fewmask.core.errors import ShapeError
from fewmask.networks import winograd

FEW = 4
"""Up to so many channels on one side of a 7 x 7 convolution are a matrix product and a sum of shifts."""


class ReflectConv2d(nn.Conv2d):
    """A convolution with stride 1 that keeps the size; what lies beyond the border is the image, mirrored.

    (B, in, H, W) -> (B, out, H, W) for an odd kernel; H and W more than half of it.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, *, bias: bool = False) -> None:
        super().__init__(channels_in, channels_out, kernel, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """The image, convolved."""
        kernel = self.kernel_size[0]
        if kernel == 3 and self.bias is None and winograd.faster(x, self.weight):
            return _apply(_Reflected, x, self.weight)
        padded = F.pad(x, (kernel // 2,) * 4, mode="reflect")
        plain = x.device.type != "cpu" or torch.is_autocast_enabled("cpu")
        if not plain and self.out_channels <= FEW < self.in_channels:
            return _to_few(padded, self.weight, self.bias)
        if not plain and self.in_channels <= FEW < self.out_channels and self.bias is None:
            return _apply(_FromFew, padded, self.weight)
        return F.conv2d(padded, self.weight, self.bias)


def _apply(function: Any, *arguments: object) -> Tensor:
    result: Tensor = function.apply(*arguments)
    return result


class _Reflected(torch.autograd.Function):
    """A 3 x 3 convolution by Winograd's way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return winograd.filtered(x, weight, "reflect")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = ctx.needs_input_grad
        return (
            _from_reflections(winograd.filtered(y, weight.flip(2, 3).transpose(0, 1)), y, weight)
            if of_x
            else None,
            winograd.correlate(x, y, "reflect") if of_weight else None,
        )


def _from_reflections(inside: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Add to the gradient `inside` the image what the ring of one reflected pixel around it receives."""
    top = F.conv_transpose2d(y[:, :, :1], weight[:, :, :1])
    bottom = F.conv_transpose2d(y[:, :, -1:], weight[:, :, 2:])
    left = F.conv_transpose2d(y[:, :, :, :1], weight[:, :, :, :1])
    right = F.conv_transpose2d(y[:, :, :, -1:], weight[:, :, :, 2:])
    for row, ring in ((1, top), (-2, bottom)):
        inside[:, :, row] += ring[:, :, 0, 1:-1]
        inside[:, :, row, 1] += ring[:, :, 0, 0]
        inside[:, :, row, -2] += ring[:, :, 0, -1]
    inside[:, :, :, 1] += left[:, :, 1:-1, 0]
    inside[:, :, :, -2] += right[:, :, 1:-1, 0]
    return inside


def _to_few(padded: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution as one matrix product, whose out x k x k planes are then shifted and summed."""
    many, kernel = weight.shape[1:3]
    height, width = (side - kernel + 1 for side in padded.shape[2:])
    matrix = weight.flip(2, 3).permute(0, 2, 3, 1).reshape(-1, many)
    planes = torch.matmul(matrix, padded.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2))
    y = F.fold(planes, (height, width), kernel, padding=kernel - 1)
    return y if bias is None else y + bias[:, None, None]


class _FromFew(torch.autograd.Function):
    """A convolution of few channels; its input's gradient is a convolution to few."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(padded, weight)
        return F.conv2d(padded, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor | None, Tensor | None]:
        padded, weight = ctx.saved_tensors
        of_x, of_weight = ctx.needs_input_grad
        kernel = weight.shape[2]
        slope = None
        if of_x:
            matrix = weight.permute(1, 2, 3, 0).reshape(-1, len(weight))
            planes = torch.matmul(matrix, y.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2))
            slope = F.fold(planes, (padded.shape[2], padded.shape[3]), kernel)
        if not of_weight:
            return slope, None
        pair, nothing = [1, 1], [0, 0]
        found = torch.ops.aten.convolution_backward(
            y, padded, weight, None, pair, nothing, pair, False, nothing, 1, [False, True, False]
        )
        return slope, found[1]


def whole(x: Tensor, multiple: int, least: int) -> Tensor:
    """Pad images (B, C, H, W) by reflection on both sides until both sides are a multiple.

    Raises:
        ShapeError: a side has fewer than `least` pixels, or less than half of what it must be padded to.
    """
    height, width = x.shape[2:]
    more = [-side % multiple for side in (height, width)]
    if min(height, width) < least or any(
        (extra + 1) // 2 >= side for extra, side in zip(more, (height, width), strict=True)
    ):
        raise ShapeError(
            "the image is too small for the network",
            found=f"{height} x {width} pixels",
            expected=f"at least {max(least, multiple // 3 + 1)} pixels a side",
            mend="Prepare larger images, or build the network with fewer halvings.",
        )
    if not any(more):
        return x
    (above, below), (left, right) = ((extra // 2, extra - extra // 2) for extra in more)
    return F.pad(x, (left, right, above, below), mode="reflect")


def cut(y: Tensor, x: Tensor) -> Tensor:
    """Cut from `y`, made from `whole(x, ...)`, what lies on `x`."""
    above, left = ((large - small) // 2 for large, small in zip(y.shape[2:], x.shape[2:], strict=True))
    return y[:, :, above : above + x.shape[2], left : left + x.shape[3]]
