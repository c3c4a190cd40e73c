"""Alarms ring by their rules: not early, not for a single report, once each."""

import math

import pytest
import torch

from fewmask.objectives.alarms import BY_HEART, COLLAPSE, NOT_FINITE, Rules, alarms, by_heart, spread

RULES = Rules(images=1000)


def report(images, **numbers):
    return {
        "images": images,
        "spread_fake": 0.4,
        "spread_real": 0.4,
        "sign_real": 0.3,
        "ada_p": 0.1,
    } | numbers


def training(**numbers):
    return [report(images, **numbers) for images in range(50, 1001, 50)]


def test_a_good_training_rings_no_alarm():
    assert alarms(training(), RULES) == []
    assert alarms([], RULES) == []


def test_collapse_rings_after_three_reports_in_a_row_and_not_early():
    (alarm,) = alarms(training(spread_fake=0.1), RULES)
    assert (alarm.name, alarm.images, alarm.value) == (COLLAPSE, 200, 0.25)
    assert "0.5 times" in str(alarm)
    lines = training()
    for place in (8, 9, 11, 12):
        lines[place] = report(lines[place]["images"], spread_fake=0.1)
    assert alarms(lines, RULES) == []


def test_learning_by_heart_is_seen_on_unseen_images():
    good = {"logit_real": 1.0, "logit_fake": -1.0, "logit_held_out": 0.5}
    assert by_heart(good) == pytest.approx(0.25)
    assert alarms(training(**good), RULES) == []
    (alarm,) = alarms(training(**good | {"logit_held_out": -0.8}), RULES)
    assert (alarm.name, alarm.images) == (BY_HEART, 200)
    assert by_heart(good | {"logit_fake": 2.0}) is None


def test_without_unseen_images_a_sure_discriminator_alarms_once_p_is_at_its_limit():
    assert alarms(training(sign_real=0.95), RULES) == []
    (alarm,) = alarms(training(sign_real=0.95, ada_p=0.85), RULES)
    assert alarm.name == BY_HEART
    assert "p = 0.85" in alarm.rule


def test_a_number_that_is_none_rings_at_once():
    lines = training()
    lines[1] = report(100, loss_g=math.nan)
    (alarm,) = alarms(lines, RULES)
    assert (alarm.name, alarm.images) == (NOT_FINITE, 100)


def test_spread_sees_a_collapse():
    assert spread(torch.ones(4, 1, 8, 8)) == 0
    assert spread(torch.ones(1, 1, 8, 8)) == 0
    assert spread(torch.randn(4, 1, 64, 64)) == pytest.approx(math.sqrt(2), rel=0.05)
