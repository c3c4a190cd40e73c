"""Warps, their smoothness and where they fold, and the additive and residual forms beside them."""

import pytest
import torch
from torch.nn import functional as F

from fewmask.networks.displacement import Displacer, folded, smooth, warp
from fewmask.networks.fixedpoint import ResidualTranslator
from fewmask.networks.vagan import AdditiveMap


def test_a_constant_field_shifts_by_whole_pixels():
    image = torch.randn(1, 2, 6, 9)
    field = torch.stack([torch.full((1, 6, 9), 2.0), torch.full((1, 6, 9), -1.0)], dim=1)
    moved = warp(image, field)
    assert torch.allclose(moved[:, :, :4, 1:], image[:, :, 2:, :-1], atol=1e-5)
    assert torch.allclose(moved[:, :, 4:, 1:], image[:, :, -1:, :-1].expand(-1, -1, 2, -1), atol=1e-5)
    assert torch.allclose(warp(image, torch.zeros(1, 2, 6, 9)), image, atol=1e-5)


def test_folds_are_counted():
    """u = -2 y turns every row over; u = -0.5 y only squeezes; half an image turned is half."""
    rows = torch.arange(9.0)[:, None].expand(9, 9)
    still = torch.zeros(9, 9)
    turned, squeezed = (torch.stack([factor * rows, still]) for factor in (-2.0, -0.5))
    half = torch.where(torch.arange(9)[None, None, :] < 4, turned, 0.0)
    found = folded(torch.stack([turned, squeezed, half]))
    assert found.tolist()[:2] == [1.0, 0.0]
    assert 0.4 < float(found[2]) < 0.7


@pytest.mark.parametrize("size", [(16, 16), (13, 22)])
def test_a_smoothed_field_has_no_checkerboard(size):
    board = (torch.arange(size[0])[:, None] + torch.arange(size[1])) % 2 * 2.0 - 1
    assert smooth(board.expand(1, 2, *size)).abs().max() < 0.1
    assert torch.allclose(smooth(torch.full((1, 2, *size), 3.0)), torch.tensor(3.0))


@pytest.mark.parametrize("size", [(7, 10), (16, 16)])
def test_a_displacer_moves_and_adds(size):
    displacer = Displacer(2, widths=(4, 6), reach=3.0, grey_in_pixels=5.0)
    image = torch.rand(2, 2, *size) * 2 - 1
    healthy, delta = displacer.heal(image)
    assert torch.allclose(healthy, image, atol=1e-5)
    assert not delta.any()
    torch.nn.init.normal_(displacer.trunk.out.weight)
    moved = displacer(image)
    assert moved.field.abs().max() <= 3
    assert torch.allclose(moved.healthy, warp(image, moved.field) + moved.added)
    _, delta = displacer.heal(image)
    wanted = moved.field.norm(dim=1) + 5 * moved.added.abs().mean(dim=1)
    assert torch.allclose(delta, wanted, atol=1e-5)


def test_an_additive_map_is_added_and_its_size_told():
    network = AdditiveMap(3, widths=(4, 6))
    image = torch.rand(2, 3, 9, 11)
    assert torch.equal(network.heal(image)[0], image)
    torch.nn.init.normal_(network.trunk.out.weight)
    healthy, delta = network.heal(image)
    assert torch.equal(healthy, image + network(image))
    assert torch.allclose(delta, (healthy - image).abs().mean(dim=1), atol=1e-5)


def test_a_residual_translator_ends_in_tanh():
    network = ResidualTranslator(2, 3, widths=(4, 6))
    image = torch.rand(2, 2, 9, 11)
    domain = F.one_hot(torch.tensor([0, 2]), 3)
    assert torch.allclose(network(image, domain), torch.tanh(image))
    torch.nn.init.normal_(network.trunk.out.weight, std=0.1)
    healthy, delta = network.heal(image)
    assert torch.allclose(torch.atanh(healthy) - image, network.trunk(image), atol=1e-3)
    assert torch.allclose(delta, (healthy - image).abs().mean(dim=1))
