"""StyleGAN2's objective: it learns, resumes, and keeps the papers' rules."""

import copy
import math

import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.objectives.ada import AdaptiveAugmentation
from fewmask.objectives.stylegan2 import (
    Average,
    Regularisation,
    StyleGAN2Objective,
    path_lengths,
    r1_penalty,
    spread,
)

BATCH = 4


def minimise(loss, optimizer):
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def build(seed=0, **settings):
    torch.manual_seed(seed)
    size = {"channel_base": 128, "channel_max": 8}
    generator = Generator(8, 8, 16, 1, mapping_layers=2, **size)
    discriminator = Discriminator(16, 1, **size)
    settings = {"augment": AdaptiveAugmentation(p=0.5, images=100), "pictures": 4} | settings
    return StyleGAN2Objective(generator, discriminator, copy.deepcopy(generator), batch=BATCH, **settings)


def train(objective, start, stop):
    logged = {}
    for seen in range(start, stop, BATCH):
        torch.manual_seed(seen)
        image = torch.rand(BATCH, 1, 16, 16) * 0.2 + torch.rand(BATCH, 1, 1, 1)
        batch = Batch(image=image, mask=None, index=torch.arange(BATCH))
        logged = objective.update(batch, seen, minimise)
    return logged


def test_an_update_reports_and_changes_everything():
    objective = build(regularisation=Regularisation(path_length_weight=2.0))
    before = copy.deepcopy({n: m.state_dict() for n, m in objective.modules().items()})
    logged = train(objective, 0, BATCH)
    wanted = {"loss_d", "loss_g", "sign_real", "sign_fake", "r1", "ada_p", "path_length"}
    assert wanted | {"spread_real", "spread_fake"} == set(logged)
    assert all(math.isfinite(float(value)) for value in logged.values())
    for name, module in objective.modules().items():
        changed = [k for k, v in module.state_dict().items() if not torch.equal(v, before[name][k])]
        assert len(changed) > 0.8 * len(before[name]) - 4, name
    assert all(p.requires_grad for p in objective.discriminator.parameters())
    assert objective.samples().shape == (4, 1, 16, 16)
    assert objective.samples().abs().max() <= 1


def test_lazy_steps_come_at_their_minibatches():
    objective = build(regularisation=Regularisation(r1_every=3))
    assert ["r1" in train(objective, n * BATCH, (n + 1) * BATCH) for n in range(5)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_resuming_is_bit_identical():
    settings = {"regularisation": Regularisation(r1_every=2, path_length_weight=2.0)}
    whole = build(**settings)
    train(whole, 0, 10 * BATCH)
    first = build(**settings)
    train(first, 0, 5 * BATCH)
    second = build(seed=1, **settings)
    for name, module in second.modules().items():
        module.load_state_dict(first.modules()[name].state_dict())
    for name, optimizer in second.optimizers().items():
        optimizer.load_state_dict(copy.deepcopy(first.optimizers()[name].state_dict()))
    second.load_state(first.state())
    train(second, 5 * BATCH, 10 * BATCH)
    assert second.state() == whole.state()
    for name, module in second.modules().items():
        theirs = whole.modules()[name].state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in module.state_dict().items()), name


def test_the_generator_learns_the_mean_intensity():
    objective = build(augment=None, lr=1e-2, averaging=Average(half_life=100.0))
    assert abs(float(objective.samples().mean()) - 0.6) > 0.3
    train(objective, 0, 40 * BATCH)
    assert abs(float(objective.samples().mean()) - 0.6) < 0.3


def test_adam_is_slowed_for_the_lazy_steps():
    objective = build(lr=0.002, regularisation=Regularisation(r1_every=16))
    group = objective.optimizers()["discriminator"].param_groups[0]
    assert group["lr"] == pytest.approx(0.002 * 16 / 17)
    assert group["betas"] == (0.0, pytest.approx(0.99 ** (16 / 17)))
    assert objective.optimizers()["generator"].param_groups[0]["lr"] == 0.002


def test_r1_of_a_linear_discriminator_is_its_squared_weight():
    weight = torch.randn(1, 1, 3, 3)
    penalty = r1_penalty(lambda x: (x * weight).sum(dim=(1, 2, 3)), torch.randn(5, 1, 3, 3))
    torch.testing.assert_close(penalty, weight.square().sum())


def test_path_length_of_an_orthogonal_map_is_one_on_average():
    torch.manual_seed(0)
    ws = torch.randn(512, 1, 16, requires_grad=True)
    image = ws.reshape(512, 1, 4, 4) * 1.0
    lengths = path_lengths(image, ws)
    torch.testing.assert_close(lengths.square().mean(), torch.tensor(1.0), atol=0.1, rtol=0)


def test_the_average_forgets_early_weights():
    average = Average(half_life=1000.0, ramp=0.05)
    assert average.decay(0, 16) == 0.0
    assert average.decay(1000, 50) == pytest.approx(0.5)
    assert average.decay(10**6, 1000) == pytest.approx(0.5)


def test_spread_sees_a_collapse():
    assert spread(torch.ones(4, 1, 8, 8)) == 0
    assert spread(torch.randn(4, 1, 64, 64)) == pytest.approx(math.sqrt(2), rel=0.05)


def test_networks_that_do_not_fit():
    generator = Generator(4, 4, 16, 1, channel_max=4)
    with pytest.raises(ConfigError, match="do not fit"):
        StyleGAN2Objective(generator, Discriminator(32, 1, channel_max=4), generator, batch=4)
    with pytest.raises(ConfigError, match="minibatch of one image"):
        StyleGAN2Objective(generator, Discriminator(16, 1, channel_max=4), generator, batch=1)
    labelled = Generator(4, 4, 16, 1, channel_max=4, classes=2)
    with pytest.raises(ConfigError, match="class labels"):
        StyleGAN2Objective(labelled, Discriminator(16, 1, channel_max=4), labelled, batch=4)
