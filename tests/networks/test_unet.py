import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.networks.unet import build_unet


@pytest.mark.parametrize(("dims", "size"), [(2, (16, 24)), (3, (8, 16, 8))])
def test_logits_have_the_size_of_the_image(dims, size):
    network = build_unet(dims, 2, 3, (4, 8, 8))
    assert network.multiple == 4
    assert network(torch.randn(2, 2, *size)).shape == (2, 3, *size)


def test_no_weight_is_kept_twice():
    state = build_unet(2, 1, 2, (4, 8)).state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state)


def test_default_widths_are_a_million_weights():
    assert 1.0e6 < sum(p.numel() for p in build_unet(2, 1, 4).parameters()) < 1.2e6


def test_every_level_sees_its_input():
    network = build_unet(2, 1, 2, (4, 8))
    image = torch.randn(1, 1, 8, 8, requires_grad=True)
    network(image)[:, :, 4, 4].sum().backward()
    assert (image.grad != 0).any()
    assert all(p.grad is not None for p in network.parameters())


def test_levels_are_what_the_way_down_hands_over():
    network = build_unet(2, 1, 2, (4, 8, 8))
    image = torch.randn(2, 1, 16, 24)
    levels = network.levels(image)
    assert [tuple(level.shape) for level in levels] == [(2, 4, 16, 24), (2, 8, 8, 12), (2, 8, 4, 6)]
    x = levels.pop()
    for up in network.up:
        x = up(x, levels.pop())
    assert torch.equal(network.out(x), network(image))


@pytest.mark.parametrize(
    "arguments", [(4, 1, 2, (4, 8)), (2, 0, 2, (4, 8)), (2, 1, 1, (4, 8)), (2, 1, 2, (4,)), (2, 1, 2, (4, 0))]
)
def test_numbers_out_of_range_are_refused(arguments):
    with pytest.raises(ConfigError, match="U-Net"):
        build_unet(*arguments)
