"""CycleGAN's update: the plain way's gradients, its history and chance, division, refusals; pix2pix's."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.data.batches import ArraySource, Batch, Stream
from fewmask.networks import winograd
from fewmask.networks.cyclegan import (
    DocumentDiscriminator,
    DocumentGenerator,
    PatchDiscriminator,
    ResNetGenerator,
)
from fewmask.networks.cyclegan_names import (
    from_published_discriminator,
    from_published_generator,
    from_published_unet,
)
from fewmask.networks.pix2pix import UNetGenerator
from fewmask.objectives.cyclegan import CycleGANObjective, CycleWeights, Players, Rate, least_squares
from fewmask.objectives.history import History
from fewmask.objectives.minimise import Alone, backward, rows
from fewmask.objectives.pix2pix import Pix2PixObjective

_SPEC = importlib.util.spec_from_file_location(
    "plain_cyclegan", Path(__file__).parents[2] / "benchmarks" / "plain_cyclegan.py"
)
plain = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(plain)


class Watched(Alone):
    """Keeps the gradients and steps nothing."""

    def __init__(self, parts=1):
        super().__init__(parts)
        self.gradients = []

    def __call__(self, loss, optimizer):
        total = backward(loss, optimizer)
        self.gradients.append([p.grad.clone() for group in optimizer.param_groups for p in group["params"]])
        return total


def images(count, channels=1, size=32, seed=0):
    chance = np.random.default_rng(seed)
    return chance.uniform(-1, 1, (count, channels, size, size)).astype(np.float32)


def players(width=4, blocks=1, channels=1):
    torch.manual_seed(3)
    return Players(
        *(ResNetGenerator(channels, channels, width=width, blocks=blocks) for _ in range(2)),
        *(PatchDiscriminator(channels, width=width) for _ in range(2)),
    )


class Other(Stream):
    """Domain B, in any precision."""

    dtype = torch.float32

    def at(self, images_seen, **where):
        batch = super().at(images_seen, **where)
        return Batch(batch.image.to(self.dtype), None, batch.index)


def objective(nets, *, batch=4, size=32, dtype=torch.float32, **more):
    other = Other(ArraySource(images(9, size=size, seed=1)), batch, seed=0, name="b")
    other.dtype = dtype
    rate = Rate(2e-4, 1000)
    return CycleGANObjective(nets, other, size=(size, size), **{"rate": rate, "judge_rate": rate, **more})


def batch_of(count=4, size=32):
    return Batch(torch.from_numpy(images(count, size=size)), None, torch.arange(count))


def off(ours, theirs):
    """Largest difference over the largest gradient of the tensor."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


RENAMED = {
    "ab": from_published_generator,
    "ba": from_published_generator,
    "judge_a": from_published_discriminator,
    "judge_b": from_published_discriminator,
}


def gradients(width, size, count, dtype, seed=0):
    """Every tensor's gradient, of our update in `dtype` and of the plain one in float64."""
    nets = players(width)
    torch.manual_seed(seed)
    theirs = plain.CycleStep(
        *(plain.resnet(1, width, 1) for _ in range(2)), *(plain.patches(1, width) for _ in range(2))
    )
    for name, rename in RENAMED.items():
        getattr(nets, name).load_state_dict(rename(getattr(theirs, name).state_dict()))
        getattr(nets, name).to(dtype)
        getattr(theirs, name).double()
    watched = Watched()
    learner = objective(nets, batch=count, size=size, dtype=dtype)
    batch = batch_of(count, size)
    other = learner.other.at(0).image
    learner.update(Batch(batch.image.to(dtype), None, batch.index), 0, watched)
    theirs.adam_g.step = theirs.adam_d.step = lambda: None
    theirs(batch.image.double(), other.double())
    for name, rename in RENAMED.items():
        names = [n for n, _ in getattr(nets, name).named_parameters()]
        found = dict(zip(names, watched_of(nets, watched, name), strict=True))
        expected = rename({n: p.grad for n, p in getattr(theirs, name).named_parameters()})
        assert set(found) == set(expected)
        for key, gradient in expected.items():
            yield (name, key), found[key], gradient


def test_gradients_are_the_plain_ones():
    """But for the discriminators' answers, which are float32."""
    for key, ours, theirs in gradients(4, 32, 3, torch.float64):
        assert off(ours, theirs) < 1e-6, key


def test_gradients_of_the_fast_convolutions_are_the_plain_ones(monkeypatch):
    """In float32 one number beside 0 on the other side of a ReLU moves a gradient by 1e-2, in the plain way
    too: of three draws one must be without."""
    taken, direct = [], winograd.filtered
    monkeypatch.setattr(winograd, "WIDE", 16)
    monkeypatch.setattr(winograd, "LARGE", 8)
    monkeypatch.setattr(winograd, "filtered", lambda *given: taken.append(1) or direct(*given))
    worst = [
        max(off(ours.double(), theirs) for _, ours, theirs in gradients(4, 32, 2, torch.float32, seed))
        for seed in range(3)
    ]
    assert len(taken) == 3 * 2 * (2 + 2) * 2  # draws, ways, passes with two convolutions each, there and back
    assert min(worst) < 1e-4
    assert max(worst) < 0.3


def watched_of(nets, watched, name):
    """The gradients of one network, in the order of its parameters."""
    both, first, second = {
        "ab": (0, nets.ab, nets.ba),
        "ba": (0, nets.ab, nets.ba),
        "judge_a": (1, nets.judge_a, nets.judge_b),
        "judge_b": (1, nets.judge_a, nets.judge_b),
    }[name]
    count = len(list(first.parameters()))
    assert len(watched.gradients[both]) == count + len(list(second.parameters()))
    return watched.gradients[both][:count] if name in ("ab", "judge_a") else watched.gradients[both][count:]


def test_pix2pix_gradients_are_the_plain_ones():
    torch.manual_seed(3)
    ours = UNetGenerator(1, 1, width=2, depth=5, dropout=0.0), PatchDiscriminator(2, width=4, norm="batch")
    theirs = plain.PairStep(plain.unet(1, 2, 5, 0.0), plain.patches(2, 4, batch_norm=True))
    ours[0].load_state_dict(from_published_unet(theirs.generator.state_dict()))
    ours[1].load_state_dict(from_published_discriminator(theirs.judge.state_dict()))
    watched = Watched()
    a, b = torch.from_numpy(images(3)), torch.from_numpy(images(3, seed=1))
    batch = Batch(torch.cat([a, b], dim=1), None, torch.arange(3))
    learner = Pix2PixObjective(*ours, rate=Rate(2e-4, 1000))
    learner.update(batch, 0, watched)
    theirs.adam_g.step = theirs.adam_d.step = lambda: None
    theirs(a, b)
    for network, gradients, plainly, rename in (
        (ours[1], watched.gradients[0], theirs.judge, from_published_discriminator),
        (ours[0], watched.gradients[1], theirs.generator, from_published_unet),
    ):
        found = dict(zip((n for n, _ in network.named_parameters()), gradients, strict=True))
        expected = rename({n: p.grad for n, p in plainly.named_parameters()})
        assert set(found) == set(expected)
        for key, gradient in expected.items():
            assert off(found[key], gradient) < 1e-4, key
    with pytest.raises(ConfigError, match="whole batch"):
        learner.update(batch, 0, Watched(parts=3))
    with pytest.raises(ShapeError, match="side by side"):
        learner.update(batch_of(3), 0, watched)
    with pytest.raises(ConfigError, match="its translation"):
        Pix2PixObjective(ours[0], PatchDiscriminator(3, width=4), rate=Rate(2e-4, 1000))


def test_micro_batches_give_the_step_of_the_whole():
    whole, divided = Watched(), Watched(parts=2)
    told = []
    for how in (whole, divided):
        nets = players()
        torch.manual_seed(0)
        told.append(objective(nets, history=3).update(batch_of(), 8, how))
    for ours, theirs in zip(divided.gradients, whole.gradients, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert off(a, b) < 1e-4
    assert float(told[0]["loss_g"]) == pytest.approx(float(told[1]["loss_g"]), rel=1e-5)
    assert {"loss_d", "cycle_ab", "identity_ba", "fooled_ab", "saturated_ab"} <= set(told[0])


class OneOfTwo(Alone):
    """Process `rank` of two that answer each other with what `both` has for them."""

    def __init__(self, rank, sent, answers):
        super().__init__()
        self.rank, self.ranks, self.sent, self.answers = rank, 2, sent, answers

    def mean(self, value):
        self.sent.append(value)
        return self.answers.pop(0) if self.answers else value


def test_processes_share_one_history():
    """Both hold the same older fakes, those that one process alone would hold."""
    alone = objective(players(), history=3)
    torch.manual_seed(0)
    alone.update(batch_of(), 0, Alone())
    sent = {0: [], 1: []}
    for rank in (0, 1):
        ask(rank, sent[rank], [])
    answers = [(a + b) / 2 for a, b in zip(sent[0], sent[1], strict=True)]
    for rank in (0, 1):
        learner = ask(rank, [], list(answers))
        for ours, theirs in zip(learner.histories, alone.histories, strict=True):
            assert int(ours.held) == 3
            torch.testing.assert_close(ours.images, theirs.images, rtol=1e-4, atol=1e-4)


def ask(rank, sent, answers):
    learner = objective(players(), history=3)
    torch.manual_seed(0)
    learner.update(batch_of().take(rows(4, rank, 2)), 0, OneOfTwo(rank, sent, answers))
    return learner


def test_batch_norm_keeps_the_batch_whole():
    torch.manual_seed(0)
    nets = Players(
        *(DocumentGenerator(1, 1, width=2, blocks=1) for _ in range(2)),
        *(DocumentDiscriminator(1, width=2) for _ in range(2)),
    )
    learner = objective(nets)
    before = [p.clone() for p in nets.ab.parameters()]
    learner.update(batch_of(), 0, Alone())
    assert not any(torch.equal(a, b) for a, b in zip(before, nets.ab.parameters(), strict=True))
    with pytest.raises(ConfigError, match="batch norm needs the whole batch"):
        learner.update(batch_of(), 4, Alone(parts=2))


def test_refusals():
    torch.manual_seed(0)
    nets = Players(
        ResNetGenerator(1, 3, width=2, blocks=0),
        ResNetGenerator(3, 1, width=2, blocks=0),
        PatchDiscriminator(1, width=2),
        PatchDiscriminator(3, width=2),
    )
    with pytest.raises(ConfigError, match="no identity"):
        objective(nets)
    objective(nets, weights=CycleWeights(identity=0.0))
    with pytest.raises(ConfigError, match="history"):
        History(-1, (1, 8, 8))
    with pytest.raises(ConfigError, match="batches of one size"):
        objective(players(), batch=2).update(batch_of(), 0, Alone())


def test_history_gives_back_older_images_half_of_the_time():
    torch.manual_seed(0)
    history = History(50, (1, 1, 1))
    older = 0
    for first in range(0, 2000, 4):
        new = torch.arange(first, first + 4).float()[:, None, None, None]
        given = history.exchange(new, *history.draw(4))
        assert first >= 50 or int((given != new).sum()) <= max(0, first + 4 - 50)
        older += int((given < new).sum())
    assert 850 < older < 1100
    assert int(history.held) == 50
    assert torch.equal(History(0, (1, 1, 1)).exchange(new, *history.draw(4)), new)


def test_rates():
    stable = Rate(2e-4, 100)
    assert stable.at(0) == stable.at(49) == 2e-4
    assert stable.at(75) == pytest.approx(2e-4 * (1 - 26 / 51))
    assert 0 < stable.at(99) < 1e-5
    assert stable.at(200) == 0
    assert Rate(5e-3, 100, stays=1.0).at(99) == 5e-3


def test_least_squares():
    assert least_squares(torch.tensor([0.0, 2.0]), 1.0) == 1.0
