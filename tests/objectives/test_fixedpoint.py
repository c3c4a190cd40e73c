"""Fixed-Point GAN's sums on small tensors, what rests, and micro-batches."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fewmask.core.errors import ConfigError
from fewmask.core.seed import stream
from fewmask.data.batches import ArraySource, Stream
from fewmask.networks.critic import Critic
from fewmask.networks.fixedpoint import ResidualTranslator
from fewmask.objectives.cyclegan import Rate
from fewmask.objectives.fixedpoint import FixedPointObjective, FixedPointWeights, translation_losses
from fewmask.objectives.minimise import Alone


class Identity(nn.Module):
    """Delta = atanh(x) - x: tanh(x + Delta) is x, whatever the domain."""

    domains = 3

    def forward(self, image, domain):
        return torch.tanh(image + (torch.atanh(image) - image))


def labelled(count=12, batch=4, domains=3):
    values = stream(0, "images").uniform(-0.9, 0.9, (count, 1, 8, 8)).astype("float32")
    labels = torch.eye(domains)[torch.arange(count) % domains].numpy()
    return Stream(ArraySource(values, labels=labels), batch, seed=0, name="images")


def build(lr=2e-3, width=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = ResidualTranslator(1, 3, widths=(4, 6))
        critic = Critic(1, widths=(width, 6), classes=3)
    return FixedPointObjective(generator, critic, labelled(), rate=Rate(lr, 1000), critic_steps=2)


def test_an_identity_map_has_no_identity_and_no_reconstruction_loss():
    critic = Critic(1, widths=(4, 6), classes=3)
    batch = labelled().at(0)
    weights = FixedPointWeights(classes=0.0)
    loss, same = translation_losses(Identity(), critic, batch.image, batch.label, batch.label, weights)
    assert torch.allclose(same, batch.image, atol=1e-6)
    assert torch.allclose(loss, -critic(batch.image).mean(), atol=1e-5)


def test_a_translation_costs_what_the_paper_says():
    objective = build()
    nn.init.normal_(objective.generator.trunk.out.weight)
    batch = labelled().at(0)
    target = F.one_hot(torch.tensor([2, 0, 1, 1]), 3).float()
    given = (objective.generator, objective.critic, batch.image, batch.label, target)
    loss, made = translation_losses(*given, FixedPointWeights())
    assert torch.equal(made, objective.generator(batch.image, target))
    score, logits = objective.critic.judge(made)
    chosen = logits.softmax(dim=1)[torch.arange(4), target.argmax(dim=1)]
    back = objective.generator(made, batch.label)
    wanted = -score.mean() - chosen.log().mean() + 10 * (back - batch.image).abs().mean()
    assert torch.allclose(loss, wanted, rtol=1e-5)


def test_the_identity_of_a_silent_generator_is_that_of_tanh():
    objective = build()
    batch = labelled().at(0)
    told = objective.update(batch, 0, Alone())
    assert float(told["identity"]) == pytest.approx(
        float((batch.image - batch.image.tanh()).abs().mean()), 1e-4
    )
    assert {"loss", "identity", "distance", "penalty", "loss_classes"} == set(told)
    assert objective.optimizers()["critic"].param_groups[0]["lr"] == 2e-3


def test_micro_batches_teach_what_one_batch_does():
    found = []
    for parts in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            objective = build()
            first = copy.deepcopy(objective.critic.state_dict())
            objective.update(labelled().at(0), 0, Alone(parts))
        now = objective.critic.state_dict()
        found.append([now[name] - value for name, value in first.items()])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=2e-4)


def test_the_critic_learns_domains():
    objective = build(lr=1e-2, width=12)
    values = torch.eye(3)[torch.arange(12) % 3]
    grey = ((torch.arange(12) % 3 - 1) * 0.8).view(12, 1, 1, 1).expand(12, 1, 8, 8).contiguous()
    shown = Stream(ArraySource(grey.numpy(), labels=values.numpy()), 4, seed=0, name="grey")
    objective.critic_stream = shown
    with torch.random.fork_rng():
        torch.manual_seed(0)
        told = [objective.update(shown.at(n), n, Alone()) for n in range(0, 60, 4)]
    assert float(told[-1]["loss_classes"]) < 0.7 * float(told[0]["loss_classes"])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="do not fit"):
        FixedPointObjective(
            ResidualTranslator(1, 2, widths=(4, 6)), Critic(1, widths=(4,)), labelled(), rate=Rate(1e-3, 9)
        )
    plain = Stream(ArraySource(labelled().source.images), 4, seed=0, name="plain")
    with pytest.raises(ConfigError, match="images with domains"):
        build().update(plain.at(0), 0, Alone())
