"""Failure checks of a GAN never stop a run, however few or many slices there are."""

import numpy as np
import pytest

from fewmask.core.seed import stream
from fewmask.inversion.project import Inversion
from fewmask.networks.stylegan2 import Generator
from fewmask.objectives.alarms import COLLAPSE, Alarm
from fewmask.recipes import ganchecks


def inversion(count: int) -> Inversion:
    chance = stream(0, "inversion", count)
    errors = chance.uniform(0.01, 0.02, (3, count)).astype(np.float32)
    return Inversion(np.zeros((count, 6, 8), np.float32), np.zeros((count, 1, 16, 16), np.float32), *errors)


def test_few_labelled_slices_leave_the_check_undone():
    assert ganchecks.inversion_check(inversion(5), inversion(4), "w+").outcome == "not run"
    assert ganchecks.inversion_check(inversion(40), inversion(4), "w+").outcome in ("passed", "warning")


@pytest.mark.parametrize(("most", "classes"), [(8, 0), (1000, 3)])
def test_large_sets_are_sampled_and_all_classes_drawn(most, classes, monkeypatch):
    monkeypatch.setattr(ganchecks, "MOST", most)
    monkeypatch.setattr(ganchecks, "SAMPLES", 16)
    slices = stream(0, "slices").uniform(-1, 1, (40, 1, 16, 16)).astype(np.float32)
    generator = Generator(8, 8, 16, 1, channel_base=64, channel_max=4, mapping_layers=1, classes=classes)
    checks = ganchecks.gan_checks(generator, slices, slices[:10], seed=0)
    assert [check.outcome in ("passed", "failed") for check in checks] == [True, True]


def test_an_alarm_that_rang_is_a_warning_with_its_rule():
    rung = [Alarm(COLLAPSE, 4000, 0.2, "two generated images should differ")]
    collapse, by_heart = ganchecks.alarm_checks(rung)
    assert (collapse.outcome, by_heart.outcome) == ("warning", "passed")
    assert "two generated images should differ" in collapse.found
