"""What VA-GAN and its displacing neighbour minimise: sums on small tensors, and micro-batches."""

import numpy as np
import pytest
import torch
from torch import nn

from fewmask.core.seed import stream
from fewmask.data.batches import ArraySource, Stream
from fewmask.networks.critic import Critic
from fewmask.networks.displacement import Displacer, warp
from fewmask.networks.vagan import AdditiveMap
from fewmask.objectives.cyclegan import Rate
from fewmask.objectives.displacement import DisplacementObjective, DisplacementWeights, bending
from fewmask.objectives.minimise import Alone
from fewmask.objectives.vagan import AdditiveMapObjective
from fewmask.objectives.wasserstein import CriticSteps, HealthyCritic


def images(name, level=0.0):
    values = stream(0, name).uniform(-0.2, 0.2, (12, 1, 8, 8)) + level
    return Stream(ArraySource(values.astype(np.float32)), 4, seed=0, name=name)


def build(kind, lr=1e-3, penalty=10.0, **how):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AdditiveMap if kind is AdditiveMapObjective else Displacer
        generator, critic = network(1, widths=(4, 6)), Critic(1, widths=(4, 6))
        nn.init.normal_(generator.trunk.out.weight, std=0.3)
    game = HealthyCritic(
        critic,
        images("sick", 0.3),
        images("well"),
        steps=CriticSteps(2, 2),
        penalty=penalty,
        lr=lr,
        betas=(0.0, 0.9),
    )
    return kind(generator, game, rate=Rate(lr, 1000, 1.0), **how)


class Losses(Alone):
    """Remembers every loss that was minimised, and steps nothing."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __call__(self, loss, optimizer):
        total = torch.stack([one.detach() for one in loss]).sum()
        self.seen.append(total)
        return total


def test_an_additive_map_is_charged_for_its_size():
    objective, batch, losses = (
        build(AdditiveMapObjective, sparsity=100.0),
        images("sick", 0.3).at(0),
        Losses(),
    )
    objective.update(batch, 0, losses)
    added = objective.generator(batch.image)
    wanted = 100 * added.abs().mean() - objective.game.critic(batch.image + added).mean()
    assert torch.allclose(losses.seen[-1], wanted, rtol=1e-5)
    sick, well = objective.game.diseased.at(0).image, objective.game.healthy.at(0).image
    critic = objective.game.critic
    distance = critic(well).mean() - critic(sick + objective.generator(sick)).mean()
    without = build(AdditiveMapObjective, penalty=0.0)
    losses = Losses()
    without.update(batch, 0, losses)
    assert len(losses.seen) == 3
    assert torch.allclose(losses.seen[0], -distance, rtol=1e-4, atol=1e-6)


def test_a_displacement_is_charged_for_length_bends_and_grey():
    weights = DisplacementWeights(added=3.0, bending=5.0, length=7.0)
    objective, batch, losses = build(DisplacementObjective, weights=weights), images("sick").at(0), Losses()
    told = objective.update(batch, 0, losses)
    moved = objective.generator(batch.image)
    wanted = 3 * moved.added.abs().mean() + 7 * moved.field.abs().mean() + 5 * bending(moved.field)
    wanted = wanted - objective.game.critic(warp(batch.image, moved.field) + moved.added).mean()
    assert torch.allclose(losses.seen[-1], wanted, rtol=1e-5)
    assert 0 <= float(told["folded"]) <= 1
    ramp = torch.stack([torch.arange(6.0)[:, None].expand(6, 5), torch.zeros(6, 5)])[None]
    assert float(bending(ramp)) == pytest.approx(0.5)


@pytest.mark.parametrize("kind", [AdditiveMapObjective, DisplacementObjective])
def test_micro_batches_teach_what_one_batch_does(kind):
    found = []
    for parts in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            objective = build(kind)
            objective.update(images("sick", 0.3).at(0), 0, Alone(parts))
        found.append([p.detach().clone() for one in objective.modules().values() for p in one.parameters()])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=2e-3)  # Adam's first step is lr whatever the gradient's size


def test_a_heavy_charge_makes_the_map_vanish():
    objective = build(AdditiveMapObjective, lr=5e-3, sparsity=1000.0)
    told = [objective.update(images("sick", 0.3).at(n), n, Alone()) for n in range(0, 120, 4)]
    assert float(told[-1]["size"]) < 0.3 * float(told[0]["size"])
