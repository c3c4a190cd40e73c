"""The trunk of networks that make images healthy, and the critic: any size, domains, no neighbours."""

import pytest
import torch
from torch.nn import functional as F

from fewmask.core.errors import ConfigError
from fewmask.networks.critic import Critic
from fewmask.networks.trunk import DomainNorm, Trunk, reflected


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (16, 16), (21, 34)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_height_width_and_channels(size, channels):
    image = torch.randn(2, channels, *size)
    trunk = Trunk(channels, 5, widths=(4, 6, 8))
    assert trunk(image).shape == (2, 5, *size)
    critic = Critic(channels, widths=(4, 6), classes=3)
    score, logits = critic.judge(image)
    assert score.shape == (2,)
    assert logits.shape == (2, 3)
    assert torch.allclose(critic(image), score, atol=1e-6)


def test_an_image_goes_on_as_its_reflection():
    image = torch.arange(30.0).view(1, 1, 5, 6)
    padded = reflected(image, 4)
    assert padded.shape == (1, 1, 8, 8)
    assert torch.equal(padded[0, 0, 5], padded[0, 0, 3])
    assert torch.equal(padded[0, 0, :5, 6], image[0, 0, :, 4])
    assert reflected(torch.zeros(1, 1, 1, 1), 4).shape == (1, 1, 8, 8)
    whole = torch.zeros(1, 1, 8, 12)
    assert reflected(whole, 4) is whole


def test_no_image_sees_its_neighbours():
    trunk = Trunk(1, 1, widths=(4, 6, 8))
    images = torch.randn(3, 1, 12, 12)
    alone = torch.cat([trunk(image[None]) for image in images])
    assert torch.allclose(trunk(images), alone, atol=1e-5)


def test_a_domain_changes_the_answer_though_constants_are_normalised_away():
    trunk = Trunk(1, 1, widths=(4, 6), domains=2)
    image = torch.randn(2, 1, 8, 8)
    first, second = (F.one_hot(torch.full((2,), n), 2) for n in range(2))
    assert torch.equal(trunk(image, first), trunk(image))
    assert torch.equal(trunk(image, first), trunk(image, second))
    with torch.no_grad():
        for module in trunk.modules():
            if isinstance(module, DomainNorm):
                module.shift[1] += 1
    assert not torch.allclose(trunk(image, first), trunk(image, second), atol=1e-2)
    mixed = trunk(image, torch.stack([first[0], second[1]]))
    assert torch.allclose(mixed[1], trunk(image, second)[1], atol=1e-5)


def test_a_silent_trunk_says_nothing_yet_and_learns():
    trunk = Trunk(1, 2, widths=(4, 6), silent=True)
    answer = trunk(torch.randn(1, 1, 8, 8))
    assert not answer.any()
    answer[:, :, 2].sum().backward()
    assert trunk.out.weight.grad.abs().sum() > 0


def test_networks_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="trunk cannot be built"):
        Trunk(1, 1, widths=(4,))
    with pytest.raises(ConfigError, match="critic cannot be built"):
        Critic(0, widths=(4,))
    with pytest.raises(ConfigError, match="without classes"):
        Critic(1, widths=(4,)).judge(torch.zeros(1, 1, 4, 4))
