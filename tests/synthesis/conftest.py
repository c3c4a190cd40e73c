import pytest
import torch

from fewmask.networks.pixelhead import PixelHead
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.synthesis.features import FeatureStack, GeneratorFeatures
from fewmask.synthesis.pairs import PairMaker


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


@pytest.fixture(scope="session")
def maker(generator):
    stack = FeatureStack([GeneratorFeatures(generator)])
    image, ws = torch.zeros(1, 1, 16, 16), torch.zeros(1, generator.num_ws, 8)
    head = PixelHead(stack.channels(image, ws), 3, kind="mlp", width=8, members=5)
    head.initialise(*(torch.Generator().manual_seed(number) for number in range(5)))
    return PairMaker(generator, [head.eval()], stack, seed=3)
