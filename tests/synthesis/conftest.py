from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import rankdata

from fewmask.core.seed import stream
from fewmask.networks.pixelhead import PixelHead
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.synthesis.features import FeatureStack, GeneratorFeatures
from fewmask.synthesis.healthy import Domains
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


@dataclass(frozen=True, eq=False)
class Spots:
    """Smooth slices of 32 px, and some with a bright spot; others to test on, and where their spots are."""

    domains: Domains
    test: np.ndarray
    mask: np.ndarray
    well: np.ndarray

    def auroc(self, delta):
        """How often a spot's pixel has a larger delta than another pixel; ties count half."""
        ranks, inside = rankdata(delta), self.mask.ravel()
        count = inside.sum()
        pairs = count * (len(inside) - count)
        return (ranks.ravel()[inside].sum() - count * (count + 1) / 2) / pairs


def _smooth(name, count):
    white = stream(0, "spots", name).normal(size=(count, 1, 32, 32))
    field = ndimage.gaussian_filter(white, (0, 0, 4, 4), mode="wrap") * 4
    return (field - 0.3).clip(-1, 1).astype(np.float32)


def _spotted(name, count):
    chance = stream(0, "spots", name, "places")
    y, x = np.mgrid[:32, :32]
    centre, radius = chance.uniform(6, 26, (2, count, 1, 1)), chance.uniform(3, 5, (count, 1, 1))
    away = np.hypot(y - centre[0], x - centre[1]) - radius
    slices = _smooth(name, count) + 0.8 / (1 + np.exp(2 * away))[:, None]
    return slices.clip(-1, 1).astype(np.float32), away < 0


@pytest.fixture(scope="session")
def spots():
    test, mask = _spotted("test", 16)
    return Spots(
        Domains(_spotted("diseased", 96)[0], _smooth("healthy", 96)), test, mask, _smooth("well", 16)
    )
