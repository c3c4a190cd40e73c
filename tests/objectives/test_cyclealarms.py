"""The alarms of two translators ring by their rules, and hidden traces are found where they are."""

import math

import pytest
import torch

from fewmask.objectives.alarms import NOT_FINITE
from fewmask.objectives.cyclealarms import (
    DIVERGENCE,
    SATURATION,
    STEGANOGRAPHY,
    CycleRules,
    cycle_alarms,
    hiding,
    saturation,
)

RULES = CycleRules(images=1000)


def training(late=None):
    """Twenty reports; the last ten have `late` numbers."""
    usual = {"loss_g": 3.0, "saturated_ab": 0.05, "saturated_ba": 0.0, "hidden_ab": 1.1}
    return [
        {"images": images, **usual, **((late or {}) if images > 500 else {})}
        for images in range(50, 1001, 50)
    ]


def test_a_good_training_rings_nothing():
    assert cycle_alarms(training(), RULES) == []
    assert cycle_alarms([], RULES) == []


@pytest.mark.parametrize(
    ("late", "name", "value"),
    [
        ({"loss_g": 9.0}, DIVERGENCE, 3.0),
        ({"saturated_ba": 0.7}, SATURATION, 0.7),
        ({"hidden_ab": 4.0}, STEGANOGRAPHY, 4.0),
    ],
)
def test_each_rings_after_three_reports(late, name, value):
    (alarm,) = cycle_alarms(training(late), RULES)
    assert (alarm.name, alarm.images, alarm.value) == (name, 650, value)
    lines = training()
    for place in (12, 13, 15, 16):
        lines[place] |= late
    assert cycle_alarms(lines, RULES) == []


def test_a_number_that_is_none_rings_at_once():
    lines = training()
    lines[0]["loss_d"] = math.inf
    (alarm,) = cycle_alarms(lines, RULES)
    assert (alarm.name, alarm.images) == (NOT_FINITE, 50)


def test_saturation_is_told_against_real_images():
    real = torch.zeros(1, 1, 4, 4)
    real[..., :2] = -1
    fake = real.clone()
    assert saturation(fake, real) == 0
    fake[..., 2] = 1
    assert saturation(fake, real) == pytest.approx(0.5)
    assert saturation(torch.ones(1, 1, 4, 4), real) == 1
    assert saturation(real * 0, real) == 0


def test_hidden_traces_are_found_and_honest_ones_are_not():
    x = torch.rand(4, 1, 32, 32) * 1.6 - 0.8
    noise = torch.randn(4, 1, 32, 32)
    secret = hiding(lambda x: 0.3 + 0.001 * x, lambda y: 1000 * (y - 0.3) + 0.02, x, noise)
    assert secret["hidden"] > 5
    assert secret["cycle_noisy"] > secret["cycle_plain"]
    honest = hiding(lambda x: 0.5 * x + 0.1, lambda y: 2 * (y - 0.1) + 0.02, x, noise)
    assert honest["hidden"] < RULES.most_hidden
    assert honest["cycle_plain"] == pytest.approx(0.02, abs=1e-4)
