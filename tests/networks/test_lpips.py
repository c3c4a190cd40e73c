"""LPIPS's backbones have the layers of the published classifiers."""

import pytest
import torch

from fewmask.networks.lpips import SMALLEST, LpipsNetwork, classifier_names, published_names

# Of the published classifiers: (channels, downsampling) of the five activations.
ACTIVATIONS = {
    "alex": [(64, 4), (192, 8), (384, 16), (256, 16), (256, 16)],
    "vgg": [(64, 1), (128, 2), (256, 4), (512, 8), (512, 16)],
}
PARAMETERS = {"alex": 2_469_696, "vgg": 14_714_688}
"""Of the convolutions, as published."""


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
def test_layers_are_the_published_ones(backbone):
    network = LpipsNetwork(backbone)
    counted = sum(p.numel() for name, p in network.named_parameters() if name.startswith("convolutions"))
    assert counted == PARAMETERS[backbone]
    found = network(torch.zeros(2, 1, 64, 64))
    assert [x.shape[1] for x in found] == [channels for channels, _ in ACTIVATIONS[backbone]]
    for x, (_, down) in zip(found, ACTIVATIONS[backbone], strict=True):
        assert abs(x.shape[-1] - 64 / down) <= 1
    assert [len(weight) for weight in network.weights] == [x.shape[1] for x in found]
    assert len(network(torch.zeros(1, 3, SMALLEST, SMALLEST))) == 5


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
def test_every_parameter_has_its_published_name(backbone):
    parameters = {name for name, _ in LpipsNetwork(backbone).named_parameters()}
    names = published_names(backbone)
    assert set(names) == parameters
    assert len(set(names.values())) == len(names)
    assert set(classifier_names(backbone)) == {name for name in parameters if name.startswith("conv")}
    last = {"alex": "net.slice5.10.bias", "vgg": "net.slice5.28.bias"}[backbone]
    assert last in names.values()


def test_grey_is_shown_in_all_colours():
    network = LpipsNetwork()
    grey = torch.rand(1, 1, 40, 40)
    for one, three in zip(network(grey), network(grey.repeat(1, 3, 1, 1)), strict=True):
        assert torch.equal(one, three)
