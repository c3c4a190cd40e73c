import pytest
import torch
from torch.nn import functional as F

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.networks import pixelhead
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
    assert head(maps, (16, 16)).shape == (1, 2, 4, 16, 16)
    assert len(head.rest) == 2 * layers


def test_mlp_looks_at_single_pixels_and_cnn_does_not():
    one = torch.zeros(1, 2, 8, 8)
    other = one.clone()
    other[:, :, 0, 0] = 1.0
    for kind, spread in (("mlp", False), ("S", True)):
        head = PixelHead([2], 3, kind=kind, width=8)
        head.initialise(torch.Generator().manual_seed(1))
        changed = (head([one], (8, 8)) - head([other], (8, 8))).abs().sum(dim=2)[0, 0] > 0
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


def _ensemble(maps, kind, members=3, width=8, classes=3):
    head = PixelHead([m.shape[1] for m in maps], classes, kind=kind, width=width, members=members)
    head.initialise(*[torch.Generator().manual_seed(number) for number in range(members)])
    chance = torch.Generator().manual_seed(9)
    count = sum(head.channels)
    head.standardise(torch.randn(count, generator=chance), torch.rand(count, generator=chance) + 0.5)
    with torch.no_grad():
        for parameter in head.parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.randn(parameter.shape, generator=chance))
    return head


def _concatenating(head, maps, size, number):
    """The way of the papers, for one member of the ensemble."""
    big = torch.cat([resize(m, size) for m in maps], dim=1)
    x = (big - head.first.mean[:, None, None]) / head.first.deviation[:, None, None]
    rows = slice(number * head.width, (number + 1) * head.width)
    x = F.conv2d(x, head.first.weight[rows, :, None, None], head.first.bias[rows])
    for layer in head.rest[1::2]:
        out = layer.out_channels // head.members
        mine = slice(number * out, (number + 1) * out)
        x = F.conv2d(
            F.leaky_relu(x, 0.2),
            layer.weight[mine],
            layer.bias[mine],
            padding=layer.padding,
            dilation=layer.dilation,
        )
    return x


SIZES = {"even": (16, 16), "odd": (19, 23), "wide": (13, 40)}


@pytest.mark.parametrize("kind", ["S", "M", "L", "mlp"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("gradients", [True, False])
def test_every_member_equals_the_concatenating_computation(kind, size, gradients, monkeypatch):
    monkeypatch.setattr(pixelhead, "BAND_PIXELS", 5 * size[1])
    monkeypatch.setattr(pixelhead, "ROWS_AT_ONCE", 16)
    maps = [*_maps(), torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(4))]
    maps.append(torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(5)))
    head = _ensemble(maps, kind)
    with torch.set_grad_enabled(gradients):
        found = head(maps, size)
    for number in range(3):
        expected = _concatenating(head, maps, size, number)
        assert (found[number] - expected).abs().max() < 1e-5 * expected.std()
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("kind", ["S", "mlp"])
def test_without_a_map_of_full_size(kind):
    maps = _maps(((3, 4), (5, 8)))
    head = _ensemble(maps, kind)
    with torch.no_grad():
        found = head(maps, (16, 16))
    expected = _concatenating(head, maps, (16, 16), 2)
    assert (found[2] - expected).abs().max() < 1e-5 * expected.std()


@pytest.mark.parametrize("kind", ["S", "M", "L", "mlp"])
def test_members_are_heads(kind):
    maps = _maps()
    head = _ensemble(maps, kind)
    alone = [head.member(number) for number in range(3)]
    with torch.no_grad():
        together = head(maps, (16, 16))
        for number, one in enumerate(alone):
            assert one.members == 1
            assert torch.allclose(one(maps, (16, 16))[0], together[number], atol=1e-5)


def test_every_member_has_its_own_chance():
    head = PixelHead([3], 2, width=8, members=2)
    with pytest.raises(ConfigError, match="own generator"):
        head.initialise(torch.Generator())
    with pytest.raises(ConfigError, match="at least one member"):
        PixelHead([3], 2, members=0)


def test_narrow_bands_hold_little(monkeypatch):
    monkeypatch.setattr(pixelhead, "BAND_PIXELS", 32)
    maps = _maps()
    head = _ensemble(maps, "mlp")
    with torch.no_grad():
        heights = [len(wide) // 16 for _, wide in head.first.bands([m[:1] for m in maps], (16, 16))]
    assert heights == [2] * 8
