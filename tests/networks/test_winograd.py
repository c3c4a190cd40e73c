"""Winograd's convolution: the direct one's numbers and derivatives, in the cases it is meant for."""

import pytest
import torch
import torch.nn.functional as F

from fewmask.networks import winograd
from fewmask.networks.winograd import convolve, minimal


@pytest.mark.parametrize(
    ("count", "channels_in", "channels", "size"), [(3, 5, 7, (8, 12)), (1, 2, 1, (4, 4))]
)
def test_equals_the_direct_convolution_and_its_gradients(count, channels_in, channels, size):
    x = torch.randn(count, channels_in, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(channels, channels_in, 3, 3, dtype=torch.float64, requires_grad=True)
    ours, theirs = minimal(x, weight), F.conv2d(x, weight, padding=1)
    torch.testing.assert_close(ours, theirs)
    there = torch.randn_like(theirs)
    for a, b in zip(*(torch.autograd.grad(y, (x, weight), there) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b)


def test_derivatives_of_derivatives():
    x = torch.randn(2, 2, 4, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(minimal, (x, weight), fast_mode=True)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_wide_layers_take_it_within_the_error_told(memory):
    x = torch.randn(2, 256, 16, 16).contiguous(memory_format=memory)
    weight = torch.randn(256, 256, 3, 3)
    there = torch.randn(2, 256, 16, 16)
    x.requires_grad_(True)
    weight.requires_grad_(True)
    y = convolve(x, weight)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    pairs = [(y, exact)]
    pairs += zip(*(torch.autograd.grad(z, (x, weight), there.to(z)) for z in (y, exact)), strict=True)
    for ours, theirs in pairs:
        error = (ours - theirs).detach().abs().max() / theirs.detach().std()
        assert float(error) < 3e-5


def test_narrow_small_and_half_precision_layers_take_the_direct_way(monkeypatch):
    def refuse(*_):
        raise AssertionError("took the fast way")

    monkeypatch.setattr(winograd, "filtered", refuse)
    wide = torch.randn(128, 128, 3, 3)
    with torch.no_grad():
        convolve(torch.randn(1, 8, 16, 16), torch.randn(128, 8, 3, 3))
        convolve(torch.randn(1, 128, 8, 8), wide)
        convolve(torch.randn(1, 128, 18, 18), wide)
        convolve(torch.randn(1, 128, 16, 16, dtype=torch.bfloat16), wide.bfloat16())
        with torch.autocast("cpu", torch.bfloat16):
            convolve(torch.randn(1, 128, 16, 16), wide)
        with pytest.raises(AssertionError, match="fast way"):
            convolve(torch.randn(1, 128, 16, 16), wide)


def test_only_the_gradients_asked_for_are_computed(monkeypatch):
    def refuse(*_):
        raise AssertionError("computed the weight's gradient")

    monkeypatch.setattr(winograd, "correlate", refuse)
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    weight = torch.randn(2, 2, 3, 3, requires_grad=True)
    torch.autograd.grad(minimal(x, weight).sum(), x)
