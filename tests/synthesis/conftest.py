import numpy as np
import pytest
import torch

from fewmask.core.seed import stream
from fewmask.networks.pixelhead import PixelHead
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.synthesis.features import FeatureStack, GeneratorFeatures
from fewmask.synthesis.pairs import Pair, PairMaker


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


@pytest.fixture(scope="session")
def painter():
    """Pair n without a network: an image of noise, and a mask of two boxes that differ from pair to pair."""

    def paint(number, channels=1):
        chance = stream(0, "painter", number)
        mask = np.zeros((16, 18), dtype=np.uint8)
        mask[3 : 5 + number % 4, 2:6] = 1
        mask[9:12, 8 : 10 + number % 5] = 2
        soft = np.stack([mask == value for value in range(3)]).astype(np.float16)
        uncertain = chance.uniform(0, 1, mask.shape).astype(np.float32)
        image = chance.uniform(-1, 1, (channels, *mask.shape)).astype(np.float32)
        return Pair(number, image, mask, soft, uncertain, float(uncertain.mean()))

    return paint
