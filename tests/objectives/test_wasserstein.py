"""The critic's game: its penalty in closed form, how often it learns, and on which images."""

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.core.seed import stream
from fewmask.data.batches import ArraySource, Stream
from fewmask.networks.critic import Critic
from fewmask.objectives.minimise import Alone
from fewmask.objectives.unpaired import batch_at, set_rate
from fewmask.objectives.wasserstein import CriticSteps, HealthyCritic, gradient_penalty


def images(name, level=0.0, count=12, batch=4):
    values = stream(0, name).uniform(-0.2, 0.2, (count, 1, 8, 8)) + level
    return Stream(ArraySource(values.astype(np.float32)), batch, seed=0, name=name)


def test_the_penalty_of_a_linear_critic_is_its_slope():
    """D(x) = w x has the gradient w everywhere: the penalty is (|w| - 1)^2, whatever the images."""
    weight = torch.randn(1, 3, 5, 4, requires_grad=True)
    real, fake = torch.randn(2, 6, 3, 5, 4)
    found = gradient_penalty(lambda x: (x * weight).sum(dim=(1, 2, 3)), real, fake, torch.rand(6))
    assert torch.allclose(found, (weight.norm() - 1).square(), rtol=1e-5)
    (slope,) = torch.autograd.grad(found, weight)
    wanted = 2 * (weight.norm() - 1) * weight / weight.norm()
    assert torch.allclose(slope, wanted, rtol=1e-4, atol=1e-6)


def test_the_penalty_is_taken_between_the_images():
    """D(x) = |x|^2 / 2 has the gradient x: at x = share real + (1 - share) fake."""
    real, fake, share = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2), torch.tensor([0.0, 1.0, 0.25])
    found = gradient_penalty(lambda x: x.square().sum(dim=(1, 2, 3)) / 2, real, fake, share)
    at = torch.stack([fake[0], real[1], 0.25 * real[2] + 0.75 * fake[2]])
    assert torch.allclose(found, (at.flatten(1).norm(dim=1) - 1).square().mean(), rtol=1e-5)


def test_a_flat_critic_has_a_penalty_of_one_and_no_nan():
    weight = torch.zeros(1, requires_grad=True)
    found = gradient_penalty(
        lambda x: (weight * x).sum(dim=(1, 2, 3)),
        torch.ones(2, 1, 2, 2),
        torch.zeros(2, 1, 2, 2),
        torch.rand(2),
    )
    found.backward()
    assert float(found.detach()) == 1
    assert torch.isfinite(weight.grad).all()


@pytest.mark.parametrize("steps", [CriticSteps(), CriticSteps(2, 7, 3, 5), CriticSteps(1, 1, 0, 1)])
def test_steps_are_counted_without_counting(steps):
    """100 for the first 25 updates and every 100th, else 5 (Baumgartner et al. 2018)."""
    many = [n < steps.first or n % steps.every == 0 for n in range(230)]
    each = [steps.many if one else steps.usual for one in many]
    assert [steps.before(n) for n in range(231)] == [0, *np.cumsum(each).tolist()]


def test_the_critic_learns_to_tell_on_its_own_batches():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = Critic(1, widths=(4, 8))
        game = HealthyCritic(
            critic,
            images("sick", level=0.5),
            images("well"),
            steps=CriticSteps(usual=2, many=20, first=1, every=1000),
            penalty=10.0,
            lr=2e-3,
            betas=(0.0, 0.9),
        )
        batch = images("sick", level=0.5).at(0)
        asked = []
        told = game.learn(lambda sick: asked.append(sick) or sick, batch, 0, Alone())
        assert len(asked) == 20
        assert torch.equal(asked[3], game.diseased.at(12).image)
        first = float(told["distance"])
        told = game.learn(lambda sick: asked.append(sick) or sick, batch, 4, Alone())
        assert len(asked) == 22
        assert torch.equal(asked[20], game.diseased.at(80).image)
        assert float(told["distance"]) > first + 0.1
        assert set(told) == {"distance", "penalty"}


def test_a_rate_is_set_for_every_parameter():
    one, other = (torch.zeros(1, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.Adam([{"params": [one]}, {"params": [other]}], 1.0)
    set_rate(0.25, optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="steps are out of range"):
        CriticSteps(usual=5, many=4)
    with pytest.raises(ConfigError, match="batches of one size"):
        batch_at(images("other", batch=3), 0, images("one").at(0), Alone())
