import pytest
import torch

from fewmask.networks.stylegan2 import Discriminator, Generator


def _seeded(network, seed):
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=chance) * parameter.std())
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def generator():
    return _seeded(Generator(8, 8, 16, 1, channel_base=128, channel_max=8, mapping_layers=2), 0)


@pytest.fixture(scope="session")
def discriminator():
    return _seeded(Discriminator(16, 1, channel_base=128, channel_max=8), 1)
