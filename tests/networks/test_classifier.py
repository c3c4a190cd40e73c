"""The classifier whose evidence has a place, and the block it is made of."""

import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.networks.classifier import Classifier
from fewmask.networks.residual import ResidualBlock, group_norm


def seeded(**settings):
    torch.manual_seed(0)
    network = Classifier(2, 3, widths=(4, 8, 8), blocks=2, **settings)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    return network.eval()


@pytest.mark.parametrize("size", [(32, 32), (19, 45), (5, 6)])
def test_any_size_is_classified(size):
    network = seeded()
    assert network(torch.rand(2, 2, *size)).shape == (2, 3)
    height, width = (max(-(-side // 4), 2) for side in size)
    assert network.maps(torch.rand(2, 2, *size)).shape == (2, 8, height, width)
    assert network.stride == 4


def test_the_logit_is_the_mean_of_the_weighted_maps():
    network, image = seeded(), torch.rand(2, 2, 16, 24)
    maps = network.maps(image)
    map_of_class = torch.einsum("bkhw,k->bhw", maps, network.out.weight[1])
    expected = map_of_class.mean(dim=(1, 2)) + network.out.bias[1]
    assert maps.min() >= 0
    assert torch.allclose(network(image)[:, 1], expected, atol=1e-5)


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_the_rest_of_the_network_goes_on_from_any_stage(stages):
    network, image = seeded(), torch.rand(2, 2, 16, 16)
    assert torch.allclose(network.decide(network.maps(image, stages), stages), network(image), atol=1e-6)


def test_a_fresh_classifier_knows_nothing():
    assert torch.equal(Classifier(1)(torch.rand(3, 1, 16, 16)), torch.zeros(3, 2))


def test_an_image_does_not_depend_on_its_neighbours():
    network, images = seeded(), torch.rand(3, 2, 16, 16)
    assert torch.allclose(network(images)[:1], network(images[:1]), atol=1e-5)


def test_what_is_halved_stays_in_its_place():
    """A mirrored image gives the mirrored answer of mirrored kernels: no shift by half a pixel."""
    torch.manual_seed(0)
    block = ResidualBlock(2, 4, stride=2).eval()
    torch.nn.init.normal_(block.second.weight)
    x = torch.rand(1, 2, 8, 8)
    answer = block(x)
    for layer in (block.first, block.second, block.around):
        layer.weight.data = layer.weight.data.flip(3)
    assert torch.allclose(block(x.flip(3)).flip(3), answer, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"classes": 1}, {"widths": ()}, {"blocks": 0}])
def test_a_classifier_that_cannot_be_built(wrong):
    with pytest.raises(ConfigError, match="cannot be built"):
        Classifier(**{"channels": 1, **wrong})


@pytest.mark.parametrize(("channels", "groups"), [(2, 1), (4, 1), (8, 2), (16, 4), (24, 2), (64, 8), (11, 1)])
def test_no_channel_is_normalised_alone(channels, groups):
    assert group_norm(channels).num_groups == groups
