"""Failure checks of a GAN never stop a run, however few or many slices there are."""

import numpy as np
import pytest

from fewmask.core.seed import stream
from fewmask.inversion.project import Inversion
from fewmask.networks.stylegan2 import Generator
from fewmask.recipes import ganchecks


def inversion(count: int) -> Inversion:
    chance = stream(0, "inversion", count)
    errors = chance.uniform(0.01, 0.02, (3, count)).astype(np.float32)
    return Inversion(np.zeros((count, 6, 8), np.float32), np.zeros((count, 1, 16, 16), np.float32), *errors)


def test_few_labelled_slices_leave_the_check_undone():
    assert ganchecks.inversion_check(inversion(5), inversion(4)).outcome == "not run"
    assert ganchecks.inversion_check(inversion(40), inversion(4)).outcome in ("passed", "warning")


@pytest.mark.parametrize("most", [8, 1000])
def test_large_sets_are_sampled(most, monkeypatch):
    monkeypatch.setattr(ganchecks, "MOST", most)
    monkeypatch.setattr(ganchecks, "SAMPLES", 16)
    slices = stream(0, "slices").uniform(-1, 1, (40, 1, 16, 16)).astype(np.float32)
    generator = Generator(8, 8, 16, 1, channel_base=64, channel_max=4, mapping_layers=1).eval()
    checks = ganchecks.gan_checks(generator, slices, slices[:10], seed=0)
    assert [check.outcome in ("passed", "failed") for check in checks] == [True, True]
