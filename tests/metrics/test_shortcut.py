"""What height or brightness alone tell of the domain."""

import numpy as np
import pytest

from fewmask.core.errors import ShapeError
from fewmask.metrics.bootstrap import Bootstrap
from fewmask.metrics.shortcut import mean_and_size, shortcut

FEW = Bootstrap(300, 0.95, 0)


def slices(patients, each, seed=0):
    height = np.random.default_rng(seed).random(patients * each)
    return height, [f"p{n // each}" for n in range(patients * each)]


def test_a_middle_that_is_diseased_is_found_out():
    height, patients = slices(20, 12)
    diseased = np.abs(height - 0.5) < 0.25
    found = shortcut("height", height, diseased, patients, seed=0, bootstrap=FEW)
    assert found.accuracy.value > 0.9
    assert found.auroc.low > 0.9
    assert found.tells
    assert found.text().startswith("height alone tells the domain: accuracy 0.9")


def test_heights_alike_tell_nothing():
    height, patients = slices(20, 12)
    diseased = np.arange(240) // 12 % 2 == 0
    found = shortcut("height", height, diseased, patients, seed=0, bootstrap=FEW)
    assert 0.35 < found.accuracy.value < 0.65
    assert found.auroc.low < 0.5
    assert not found.tells
    assert found == shortcut("height", height, diseased, patients, seed=0, bootstrap=FEW)


def test_a_rare_domain_weighs_the_same():
    height, patients = slices(40, 6)
    diseased = np.arange(240) // 6 % 10 == 0
    found = shortcut("height", height, diseased, patients, seed=1, bootstrap=FEW)
    assert 0.3 < found.accuracy.value < 0.7  # answering "healthy" always is right in 90 % of the slices


def test_a_patient_never_tells_its_own_domain():
    """Each patient has a height of its own; only its own slices would tell its domain."""
    patients = [f"p{n // 10:02d}" for n in range(300)]
    number = np.arange(300) // 10
    diseased = number % 2 == 0
    height = number / 30 + np.random.default_rng(0).random(300) * 1e-4
    found = shortcut("height", height, diseased, patients, seed=0, bootstrap=FEW)
    assert found.accuracy.value < 0.7


def test_mean_and_size():
    images = np.full((2, 1, 4, 4), -1.0, dtype=np.float16)
    images[1, 0, :2] = 1.0
    assert mean_and_size(images).tolist() == [[-1.0, 0.0], [0.0, 0.5]]
    wide = mean_and_size(images, np.array([[256, 200], [512, 400]]))
    assert wide[:, 2:].tolist() == [[256, 200], [512, 400]]
    patients = [f"p{n}" for n in range(40)]
    shown = np.tile(images, (20, 1, 1, 1))
    found = shortcut("brightness", mean_and_size(shown), np.arange(40) % 2 == 1, patients, seed=0)
    assert (found.accuracy.value, found.auroc.value) == (1.0, 1.0)


def test_what_cannot_be_checked_is_told():
    with pytest.raises(ShapeError, match="too few patients"):
        shortcut("height", np.arange(4.0), np.array([1, 0, 0, 0], dtype=bool), list("abcd"), seed=0)
    with pytest.raises(ShapeError, match="not finite"):
        shortcut("height", np.array([0, np.nan]), np.array([True, False]), list("ab"), seed=0)
