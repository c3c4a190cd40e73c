"""The encoder's objective: its loss by hand, and that many processes and micro-batches change nothing."""

import math
import threading

import pytest
import torch

from fewmask.data.batches import Batch
from fewmask.networks.embedding import ImageEncoder
from fewmask.objectives.embedding import EmbeddingObjective, Expander, Views, contrast
from fewmask.objectives.minimise import Alone, backward, rows


def _objective(images=1000):
    encoder, expander = ImageEncoder(1, 16, dim=8, channel_base=128, channel_max=16), Expander(8, 16)
    encoder.initialise(torch.Generator().manual_seed(1))
    expander.initialise(torch.Generator().manual_seed(2))
    return EmbeddingObjective(encoder, expander, images=images)


def _images(count):
    coarse = torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=16, mode="bilinear")


def _batch(image):
    return Batch(image, None, torch.arange(len(image)))


class Half:
    """`Minimise` of one of two processes, which are threads here and meet at a barrier."""

    ranks = 2

    def __init__(self, rank, parts, board, barrier):
        self.rank, self.parts, self.board, self.barrier = rank, parts, board, barrier

    def mean(self, value):
        self.board[self.rank] = value.detach().clone()
        self.barrier.wait()
        found = (self.board[0] + self.board[1]) / 2
        self.barrier.wait()
        return found

    def __call__(self, loss, optimizer):
        total = backward(loss, optimizer)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad.copy_(self.mean(parameter.grad))
        optimizer.step()
        return self.mean(total)


def test_the_loss_by_hand():
    # images at right angles, views equal: every row finds its partner at 1, the others at 0
    two = torch.eye(2).expand(2, 2, 2)
    assert float(contrast(two, 0.5)) == pytest.approx(-math.log(math.e**2 / (math.e**2 + 2)))
    twins = torch.eye(4).view(2, 1, 2, 4).expand(2, 2, 2, 4).flatten(0, 1)
    assert float(contrast(twins, 0.5)) == pytest.approx(-math.log(math.e**2 / (math.e**2 + 6)))


def test_views_of_two_processes_are_the_rows_of_one():
    image = _images(6)
    torch.manual_seed(5)
    whole = Views()(image, 0, 1)
    for rank in range(2):
        torch.manual_seed(5)
        mine = Views()(image[rows(6, rank, 2)], rank, 2)
        assert torch.allclose(mine, whole[:, rank::2], atol=1e-5)
    assert whole.shape == (4, 6, 1, 16, 16)
    assert float((whole - image).abs().mean(dim=(1, 2, 3, 4)).min()) > 0.01


@pytest.mark.parametrize("parts", [1, 2])
def test_micro_batches_and_processes_take_the_same_step(parts, monkeypatch):
    image = _images(8)
    one = _objective()
    torch.manual_seed(5)
    told = one.update(_batch(image), 500, Alone())

    monkeypatch.setattr(Views, "__call__", _prepared(image))
    board, barrier, halves = {}, threading.Barrier(2), [_objective(), _objective()]
    losses = {}

    def work(rank):
        mine = Half(rank, parts, board, barrier)
        losses[rank] = halves[rank].update(_batch(image[rank::2]), 500, mine)["loss"]

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert float(losses[0]) == pytest.approx(float(told["loss"]), rel=1e-5)
    start = _objective().encoder.state_dict()
    for name, weight in one.encoder.state_dict().items():
        for half in halves:
            assert torch.allclose(half.encoder.state_dict()[name], weight, atol=1e-5), name
    assert any(not torch.equal(start[name], weight) for name, weight in one.encoder.state_dict().items())


def _prepared(image):
    """Views drawn beforehand, since threads share torch's generator."""
    torch.manual_seed(5)
    drawn = Views()(image, 0, 1)
    return lambda self, mine, rank, ranks: drawn[:, rank::ranks]


def test_it_learns_to_tell_images_apart():
    objective = _objective(images=16 * 30)
    batch, losses = _batch(_images(16)), []
    for seen in range(0, 16 * 30, 16):
        torch.manual_seed(seen)
        losses.append(float(objective.update(batch, seen, Alone())["loss"]))
    assert sum(losses[-6:]) < 0.7 * sum(losses[:3]) * 6 / 3
