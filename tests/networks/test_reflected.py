"""Reflected convolutions and instance norm: the numbers and gradients of torch, in all ways they take."""

import pytest
import torch
import torch.nn.functional as F

from fewmask.core.errors import ShapeError
from fewmask.networks import winograd
from fewmask.networks.instancenorm import instance_norm
from fewmask.networks.reflected import ReflectConv2d, cut, whole


def same(ours, theirs, *inputs):
    """Values and gradients, relative to the spread."""
    found = []
    for way in (ours, theirs):
        given = [one.clone().requires_grad_(True) for one in inputs]
        y = way(*given)
        direction = torch.linspace(-1, 1, y.numel()).view(y.shape).cos()
        found.append([y, *torch.autograd.grad(y, given, direction)])
    for a, b in zip(*found, strict=True):
        assert float((a - b).detach().abs().max() / b.detach().std()) < 5e-5


@pytest.mark.parametrize(
    ("channels_in", "channels", "kernel", "size"),
    [
        (128, 160, 3, (16, 20)),
        (1, 32, 7, (17, 20)),
        (3, 16, 7, (16, 16)),
        (32, 1, 7, (19, 16)),
        (16, 3, 7, (16, 16)),
        (8, 8, 3, (9, 9)),
    ],
)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_equals_padding_and_convolving(channels_in, channels, kernel, size, memory):
    torch.manual_seed(0)
    layer = ReflectConv2d(channels_in, channels, kernel, bias=channels < 4)
    x = torch.randn(2, channels_in, *size).contiguous(memory_format=memory)

    def ours(x, weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    def theirs(x, weight):
        return F.conv2d(F.pad(x, (kernel // 2,) * 4, mode="reflect"), weight, layer.bias)

    assert winograd.faster(x, layer.weight) == (channels == 160)
    same(ours, theirs, x, layer.weight.detach())


@pytest.mark.parametrize("slope", [1.0, 0.0, 0.2])
@pytest.mark.parametrize("count", [1, 3])
def test_instance_norm_with_its_rectifier(slope, count):
    torch.manual_seed(0)
    x = torch.randn(count, 5, 9, 11) * 3 + 1

    def theirs(x):
        return F.leaky_relu(F.instance_norm(x), slope)

    same(lambda x: instance_norm(x, slope), theirs, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert instance_norm(x.bfloat16(), slope).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_of_one_image_in_any_layout(dtype):
    """Of a batch of one image torch's own are wrong where only the slope is laid out channels last."""
    x = torch.randn(1, 4, 6, 6, dtype=dtype, requires_grad=True)
    there = torch.randn(1, 4, 6, 6, dtype=dtype).contiguous(memory_format=torch.channels_last)
    mean, var = x.mean(dim=(2, 3), keepdim=True), x.var(dim=(2, 3), keepdim=True, correction=0)
    (expected,) = torch.autograd.grad((x - mean) / (var + 1e-5).sqrt(), x, there)
    (found,) = torch.autograd.grad(instance_norm(x), x, there)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_whole_and_cut_undo_each_other():
    x = torch.randn(1, 1, 13, 30)
    larger = whole(x, 8, 8)
    assert larger.shape == (1, 1, 16, 32)
    assert torch.equal(cut(larger, x), x)
    assert torch.equal(larger[:, :, 0], F.pad(x, (1, 1, 0, 0), mode="reflect")[:, :, 1])
    assert whole(x[..., :8, :8], 8, 8).shape == (1, 1, 8, 8)
    for small in (torch.zeros(1, 1, 7, 20), torch.zeros(1, 1, 40, 9)):
        with pytest.raises(ShapeError, match="too small for the network"):
            whole(small, 32, 8)
