"""The network that says which noise is in an image."""

import math

import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.networks.diffusion import Attention, Denoiser, sinusoids


def seeded(attention=True):
    torch.manual_seed(0)
    network = Denoiser(2, widths=(4, 8, 8), attention=attention)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    return network.eval()


@pytest.mark.parametrize("size", [(16, 16), (13, 22), (4, 5)])
def test_any_size_has_noise(size):
    noise = seeded()(torch.rand(2, 2, *size), torch.tensor([1, 900]), torch.eye(2))
    assert noise.shape == (2, 2, *size)


def test_it_begins_with_silence():
    network = Denoiser(1, widths=(4, 8))
    assert not network(torch.rand(2, 1, 8, 8), torch.tensor([3, 4]), torch.eye(2)).any()


def test_level_and_label_count():
    network, noisy = seeded(), torch.rand(1, 2, 16, 16).expand(4, -1, -1, -1)
    label = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 0]])
    noise = network(noisy, torch.tensor([5, 500, 5, 5]), label)
    for other in (1, 2, 3):
        assert (noise[0] - noise[other]).abs().max() > 0.01


def test_attention_reads_everywhere():
    """By hand: one channel of equal queries and keys reads the mean of all positions."""
    attention = Attention(1)
    with torch.no_grad():
        attention.norm.weight.fill_(0.0)
        attention.norm.bias.fill_(1.0)
        attention.ask.weight.copy_(torch.tensor([0.0, 0.0, 3.0])[:, None, None, None])
        attention.ask.bias.zero_()
        attention.tell.weight.fill_(0.5)
    x = torch.rand(1, 1, 2, 3)
    assert torch.allclose(attention(x), x + 1.5)


def test_attention_only_where_asked():
    assert isinstance(seeded(attention=False).attention, torch.nn.Identity)


def test_sinusoids_by_hand():
    found = sinusoids(torch.tensor([0, 2]), 4)
    expected = [[0, 0, 1, 1], [math.sin(2), math.sin(2e-4), math.cos(2), math.cos(2e-4)]]
    assert torch.allclose(found, torch.tensor(expected))


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"classes": 0}, {"widths": (8,)}, {"widths": (5, 8)}])
def test_a_network_that_cannot_be_built(wrong):
    with pytest.raises(ConfigError, match="cannot be built"):
        Denoiser(**{"channels": 1, **wrong})
