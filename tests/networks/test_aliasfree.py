"""Filters and the filtered leaky ReLU against dense matrices in double precision."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fewmask.networks import aliasfree
from fewmask.networks.aliasfree import FilteredLeakyReLU, lowpass

# size_in, size_out, up, down, radial
SHAPES = [
    (14, 12, 2, 2, False),
    (13, 12, 2, 2, True),
    (12, 20, 4, 2, False),
    (24, 10, 2, 2, False),  # cuts a margin off
    (9, 21, 2, 1, False),  # pads more than the filter's length
    (20, 8, 1, 2, True),
    (11, 7, 1, 1, False),
    (10, 13, 3, 2, False),
]


def inserting_zeros(size_in, size_out, up, down, up_filter, down_filter):
    """The matrices of upsampling and downsampling, from the definition: insert zeros, pad, filter, drop."""
    fine = (size_out - 1) * down + len(down_filter)
    total = fine + len(up_filter) - 1 - size_in * up
    inserted = torch.zeros(size_in * up, size_in, dtype=torch.float64)
    inserted[::up] = torch.eye(size_in, dtype=torch.float64)
    before = (total + up) // 2
    padded = F.pad(inserted, (0, 0, before, total - before))
    grow = F.conv1d(padded.t()[:, None], up_filter.double().flip(0)[None, None] * up)[:, 0].t()
    shrink = None
    if down_filter.ndim == 1:
        eye = torch.eye(fine, dtype=torch.float64)[:, None]
        shrink = F.conv1d(eye, down_filter.double().flip(0)[None, None], stride=down)[:, 0].t()
    return grow, shrink


def build(size_in, size_out, up, down, radial, clamp=None):
    generator = torch.Generator().manual_seed(size_in)
    up_filter = torch.rand(6 * up, generator=generator) - 0.3 if up > 1 else None
    shape = (6 * down, 6 * down) if radial else (6 * down,)
    down_filter = torch.rand(shape, generator=generator) - 0.3 if down > 1 else None
    return FilteredLeakyReLU(size_in, size_out, up, down, up_filter, down_filter, clamp=clamp)


def by_definition(op, x, scale, bias, size_out, up, down, clamp):
    one = torch.ones(1)
    up_filter = one if op.up_filter is None else op.up_filter
    down_filter = one if op.down_filter is None else op.down_filter
    grow, shrink = inserting_zeros(x.shape[2], size_out, up, down, up_filter, down_filter)
    x = x * scale[:, :, None, None] + bias[:, None, None]
    fine = F.leaky_relu(grow @ x @ grow.t(), 0.2) * math.sqrt(2)
    if clamp is not None:
        fine = fine.clamp(-clamp, clamp)
    if shrink is not None:
        return shrink @ fine @ shrink.t()
    kernel = down_filter.double().flip(0, 1)[None, None]
    maps = F.conv2d(fine.flatten(0, 1)[:, None], kernel, stride=down)
    return maps.reshape(*x.shape[:2], size_out, size_out)


def draw(size, channels=5):
    torch.manual_seed(size)
    x = torch.randn(3, channels, size, size).contiguous(memory_format=torch.channels_last)
    return [one.requires_grad_(True) for one in (x, torch.rand(3, channels) + 0.5, torch.randn(channels))]


@pytest.mark.parametrize("clamp", [None, 1.5, 1e4])
@pytest.mark.parametrize(("size_in", "size_out", "up", "down", "radial"), SHAPES)
def test_filtered_leaky_relu_and_its_gradients_are_the_definition(size_in, size_out, up, down, radial, clamp):
    op = build(size_in, size_out, up, down, radial, clamp)
    inputs = draw(size_in)
    doubles = [one.detach().double().requires_grad_(True) for one in inputs]
    ours = op(*inputs)
    theirs = by_definition(op, *doubles, size_out, up, down, clamp)
    assert ours.shape == (3, 5, size_out, size_out)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)
    weights = torch.randn_like(ours)
    gradients = torch.autograd.grad((ours * weights).sum(), inputs)
    wanted = torch.autograd.grad((theirs * weights.double()).sum(), doubles)
    for a, b in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-3 * float(b.std()))


def test_pieces_of_the_batch_and_of_the_channels_give_the_same(monkeypatch):
    op = build(14, 12, 2, 2, False, 1.5)
    inputs = draw(14, channels=40)
    found = []
    for budget in (2**30, 1, 4 * op.up.fine**2 * 45):
        monkeypatch.setattr(aliasfree, "PIECE_BYTES", {"cpu": budget})
        found.append((len(list(op.pieces(inputs[0]))), op(*inputs)))
        found[-1] += torch.autograd.grad(found[-1][1].square().sum(), inputs)
    assert [one[0] for one in found] == [1, 9, 3]
    for other in found[1:]:
        for a, b in zip(other[1:], found[0][1:], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.detach().std()))


def test_gradients_can_be_differentiated():
    op = build(14, 12, 2, 2, False, 1.5)
    x, scale, bias = draw(14)
    doubles = [one.detach().double().requires_grad_(True) for one in (x, scale, bias)]
    second = []
    for inputs, draw_image in (
        ((x, scale, bias), op),
        (doubles, lambda *given: by_definition(op, *given, 12, 2, 2, 1.5)),
    ):
        (slope,) = torch.autograd.grad(draw_image(*inputs).square().sum(), inputs[1], create_graph=True)
        second.append(torch.autograd.grad(slope.square().sum(), inputs))
    for a, b in zip(*second, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-3 * float(b.std()))


def test_memory_holds_only_what_comes_in():
    op = build(14, 12, 2, 2, False)
    x, scale, bias = draw(14)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        op(x, scale, bias)
    assert sorted(kept) == sorted([x.shape, scale.shape, bias.shape])


def test_a_separable_filter_passes_low_and_stops_high_frequencies():
    taps = lowpass(24, 2.0, 2.0, 16.0).double().numpy()
    gain = np.abs(np.exp(-2j * np.pi * np.outer([0.0, 2.0, 4.0], np.arange(24)) / 16) @ taps)
    assert gain[0] == pytest.approx(1)
    assert gain[1] == pytest.approx(0.5, abs=0.02)
    assert gain[2] < 0.02
    assert lowpass(1, 2.0, 2.0, 16.0) is None


@pytest.mark.parametrize("taps", [12, 13])
def test_a_radial_filter_is_the_same_in_every_direction(taps):
    kernel = lowpass(taps, 2.0, 3.0, 16.0, radial=True).double().numpy()
    assert kernel.sum() == pytest.approx(1)
    place = (np.arange(taps) - (taps - 1) / 2) / 16
    wave = np.exp(-2j * np.pi * 2.0 * place)
    straight = abs((kernel * wave[:, None]).sum())
    slanted = np.exp(-2j * np.pi * 2.0 * (place[:, None] * 0.6 + place[None] * 0.8))
    assert abs((kernel * slanted).sum()) == pytest.approx(straight, abs=0.02)
    assert np.isfinite(kernel).all()
