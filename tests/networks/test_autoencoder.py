"""The autoencoder's three middles."""

import pytest
import torch

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.networks.autoencoder import Autoencoder


@pytest.mark.parametrize("size", [(32, 32), (21, 34), (7, 5)])
@pytest.mark.parametrize("code", [0, 3])
def test_any_size_is_drawn_again(size, code):
    drawn = Autoencoder(2, widths=(4, 8, 8), code=code)(torch.rand(2, 2, *size))
    assert drawn.shape == (2, 2, *size)


def test_a_code_is_all_that_passes():
    """The bottleneck is as narrow as is said: 3 numbers per 4 x 4 pixels, or 5 per image."""
    seen = []
    for network in (
        Autoencoder(1, widths=(4, 8, 8), code=3),
        Autoencoder(1, widths=(4, 8, 8), code=5, size=(16, 24)),
    ):
        narrow = next(part for part in network.middle if isinstance(part, torch.nn.Conv2d | torch.nn.Linear))
        narrow.register_forward_hook(lambda _, __, code: seen.append(tuple(code.shape[1:])))
        network(torch.rand(2, 1, 16, 24))
        assert not network.bridges
    assert seen == [(3, 4, 6), (5,)]


def test_a_dense_code_is_for_one_size():
    network = Autoencoder(1, widths=(4, 8), code=6, size=(11, 14))
    assert network(torch.rand(1, 1, 11, 14)).shape == (1, 1, 11, 14)
    with pytest.raises(ShapeError, match="another size"):
        network(torch.rand(1, 1, 12, 14))


def test_what_changed_is_the_mean_over_channels():
    network, image = Autoencoder(2, widths=(4, 8), code=1), torch.rand(1, 2, 8, 8) * 2 - 1
    drawn, delta = network.heal(image)
    assert drawn.abs().max() <= 1
    assert torch.allclose(delta, (image - drawn).abs().sum(dim=1) / 2)


@pytest.mark.parametrize(
    "wrong", [{"channels": 0}, {"widths": (4,)}, {"code": -1}, {"code": 0, "size": (8, 8)}]
)
def test_an_autoencoder_that_cannot_be_built(wrong):
    with pytest.raises(ConfigError, match="cannot be built"):
        Autoencoder(**{"channels": 1, **wrong})
