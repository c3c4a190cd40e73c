"""The running average of weights."""

import pytest
import torch
from torch import nn

from fewmask.objectives.average import follow, share_kept


def pair() -> tuple[nn.BatchNorm1d, nn.BatchNorm1d]:
    average, network = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    with torch.no_grad():
        average.weight.fill_(0.0)
        network.weight.fill_(1.0)
    network.running_mean.fill_(5.0)
    return average, network


def test_half_is_forgotten_after_the_half_life() -> None:
    average, network = pair()
    for _ in range(25):
        follow(average, network, share_kept(4, 100))
    assert average.weight.item() == pytest.approx(0.5, abs=1e-5)
    assert average.running_mean.item() == 5.0, "buffers are copied"


def test_no_half_life_forgets_at_once() -> None:
    average, network = pair()
    follow(average, network, share_kept(4, 0))
    assert average.weight.item() == 1.0
