"""The modulated convolution and its gradients against plain double precision."""

import pytest
import torch
import torch.nn.functional as F

from fewmask.networks.modulated import FEWEST_CHANNELS, modulated_convolution


def by_definition(x, styles, weight, padding):
    return F.conv2d(x * styles[:, :, None, None], weight, padding=padding)


def draw(inputs, outputs, size, kernel):
    torch.manual_seed(size)
    x = torch.randn(3, inputs, size, size + 3).contiguous(memory_format=torch.channels_last)
    given = (x, torch.rand(3, inputs) + 0.5, torch.randn(outputs, inputs, kernel, kernel))
    return [one.requires_grad_(True) for one in given]


@pytest.mark.parametrize(("kernel", "padding"), [(3, 2), (3, 1), (3, 0), (1, 0)])
@pytest.mark.parametrize("channels", [(5, 6), (FEWEST_CHANNELS, FEWEST_CHANNELS + 7)])
def test_convolution_and_gradients_are_the_definition(channels, kernel, padding):
    inputs = draw(*channels, 9, kernel)
    doubles = [one.detach().double().requires_grad_(True) for one in inputs]
    ours, theirs = modulated_convolution(*inputs, padding), by_definition(*doubles, padding)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-3)
    weights = torch.randn_like(ours)
    found = torch.autograd.grad((ours * weights).sum(), inputs)
    wanted = torch.autograd.grad((theirs * weights.double()).sum(), doubles)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=3e-5 * float(b.std()))


def test_only_gradients_that_are_asked_for_are_made(monkeypatch):
    x, styles, weight = draw(5, 6, 9, 3)

    def refuse(*_):
        raise AssertionError("the weight is frozen")

    monkeypatch.setattr("fewmask.networks.modulated.weight_gradient", refuse)
    modulated_convolution(x, styles, weight.detach(), 2).sum().backward()
    assert styles.grad is not None


def test_gradients_can_be_differentiated():
    inputs = draw(5, 6, 9, 3)
    doubles = [one.detach().double().requires_grad_(True) for one in inputs]
    second = []
    for given, convolve in ((inputs, modulated_convolution), (doubles, by_definition)):
        (slope,) = torch.autograd.grad(convolve(*given, 2).square().sum(), given[1], create_graph=True)
        second.append(torch.autograd.grad(slope.square().sum(), given))
    for a, b in zip(*second, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-3 * float(b.std()))
