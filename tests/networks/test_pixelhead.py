import pytest
import torch
from torch.nn import functional as F

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.networks.pixelhead import PixelHead, ProjectedSum, resize


def _maps(sizes=((3, 4), (5, 8), (2, 8), (7, 16), (1, 32))):
    chance = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, s, s, generator=chance) for c, s in sizes]


def test_projected_sum_equals_the_concatenated_computation():
    maps = _maps()
    layer = ProjectedSum([m.shape[1] for m in maps], 6)
    layer.initialise(torch.Generator().manual_seed(1))
    layer.mean.copy_(torch.randn(18, generator=torch.Generator().manual_seed(2)))
    layer.deviation.copy_(torch.rand(18, generator=torch.Generator().manual_seed(3)) + 0.5)
    with torch.no_grad():
        layer.bias.copy_(torch.arange(6.0))
    big = torch.cat([resize(m, (16, 16)) for m in maps], dim=1)
    standard = (big - layer.mean[None, :, None, None]) / layer.deviation[None, :, None, None]
    expected = F.conv2d(standard, layer.weight[:, :, None, None], layer.bias)
    assert torch.allclose(layer(maps, (16, 16)), expected, atol=1e-5)


def test_gradients_equal_the_concatenated_computation():
    maps = _maps()
    layer = ProjectedSum([m.shape[1] for m in maps], 6)
    layer.initialise(torch.Generator().manual_seed(1))
    layer(maps, (16, 16)).square().sum().backward()
    weight = layer.weight.detach().clone().requires_grad_()
    big = torch.cat([resize(m, (16, 16)) for m in maps], dim=1)
    F.conv2d(big, weight[:, :, None, None], layer.bias.detach()).square().sum().backward()
    assert torch.allclose(layer.weight.grad, weight.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("kind", "layers"), [("S", 4), ("M", 6), ("L", 8), ("mlp", 2)])
def test_heads_of_the_paper(kind, layers):
    maps = _maps()
    head = PixelHead([m.shape[1] for m in maps], 4, kind=kind, width=16)
    head.initialise(torch.Generator().manual_seed(1))
    assert head(maps, (16, 16)).shape == (2, 4, 16, 16)
    assert len(head.rest) == 2 * layers


def test_mlp_looks_at_single_pixels_and_cnn_does_not():
    one = torch.zeros(1, 2, 8, 8)
    other = one.clone()
    other[:, :, 0, 0] = 1.0
    for kind, spread in (("mlp", False), ("S", True)):
        head = PixelHead([2], 3, kind=kind, width=8)
        head.initialise(torch.Generator().manual_seed(1))
        changed = (head([one], (8, 8)) - head([other], (8, 8))).abs().sum(dim=1)[0] > 0
        assert bool(changed[3, 3] or changed[2, 2]) is spread


def test_initialise_is_fixed_by_its_chance():
    heads = [PixelHead([4], 2, width=8) for _ in range(2)]
    for head in heads:
        head.initialise(torch.Generator().manual_seed(7))
    for a, b in zip(heads[0].parameters(), heads[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_standardise_survives_dead_channels():
    head = PixelHead([3], 2, width=8)
    head.initialise(torch.Generator().manual_seed(7))
    head.standardise(torch.zeros(3), torch.tensor([1.0, 0.0, 2.0]))
    assert torch.isfinite(head([torch.zeros(1, 3, 4, 4)], (4, 4))).all()


def test_other_maps_are_refused():
    head = PixelHead([3, 2], 2, width=8)
    with pytest.raises(ShapeError, match="not the feature maps"):
        head([torch.zeros(1, 3, 4, 4)], (4, 4))


def test_unknown_head_is_refused():
    with pytest.raises(ConfigError, match="no such head"):
        PixelHead([3], 2, kind="XL")
