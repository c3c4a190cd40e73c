"""The running average of weights."""

import pytest
import torch
from torch import nn

from fewmask.training.ema import average_weights


def pair() -> tuple[nn.BatchNorm1d, nn.BatchNorm1d]:
    average, network = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    with torch.no_grad():
        average.weight.fill_(0.0)
        network.weight.fill_(1.0)
    network.running_mean.fill_(5.0)
    return average, network


def test_half_is_forgotten_after_the_half_life() -> None:
    average, network = pair()
    for n in range(0, 100, 4):
        average_weights(average, network, batch=4, images_seen=n, half_life=100, ramp=None)
    assert average.weight.item() == pytest.approx(0.5, abs=1e-5)
    assert average.running_mean.item() == 5.0, "buffers are copied"


def test_the_ramp_forgets_the_start() -> None:
    average, network = pair()
    average_weights(average, network, batch=4, images_seen=0, half_life=1000, ramp=0.05)
    assert average.weight.item() == 1.0
    network.weight.data.fill_(0.0)
    average_weights(average, network, batch=4, images_seen=80, half_life=1000, ramp=0.05)
    assert average.weight.item() == pytest.approx(0.5), "the half-life is 80 * 0.05 = 4 images"
    average_weights(average, network, batch=4, images_seen=10**6, half_life=4, ramp=0.05)
    assert average.weight.item() == pytest.approx(0.25)
