"""A detector is proven by what it finds among planted copies, and said to be unproven when it misses any."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.core.seed import stream
from fewmask.metrics.memorisation import CopyDetector
from fewmask.metrics.planted import BRIGHTNESS, Planted, changes, false_alarms, plant, plant_copies

SIZE = 36
KINDS = ["exact", "shifted", "brightness", "contrast", "noise", "8 bit"]


def patients(name, count):
    """Images of a shared anatomy with deviations of their own."""

    def smooth(chance, sigma):
        field = ndimage.gaussian_filter(chance.normal(size=(SIZE, SIZE)), sigma, mode="wrap")
        return field / field.std()

    shared = smooth(stream(0, "planted test"), 4)
    found = []
    for number in range(count):
        chance = stream(0, name, number)
        found.append(0.3 * shared + 0.15 * smooth(chance, 3) + 0.08 * smooth(chance, 1))
    return np.clip(found, -1, 1)[:, None].astype(np.float32)


TRAIN, HELD_OUT = patients("train", 120), patients("held out", 100)


@pytest.fixture(scope="module")
def detector():
    return CopyDetector.of(TRAIN, HELD_OUT)


def test_a_sound_detector_is_proven(detector):
    found = plant_copies(detector, most=100)
    assert list(found.found) == KINDS
    assert found.copies == 100
    assert found.proven
    assert found.share >= 0.99
    assert plant_copies(detector, most=100) == found


def test_flips_are_planted_where_the_training_was_mirrored():
    found = plant_copies(CopyDetector.of(TRAIN, HELD_OUT, mirror=True), most=50)
    assert list(found.found) == [*KINDS, "flipped"]
    assert found.proven


def test_a_detector_that_misses_one_kind_is_unproven(detector):
    blind = replace(detector, thresholds=dict.fromkeys(detector.thresholds, 0.02))
    found = plant_copies(blind, most=50)
    assert found.found["exact"] == 1
    assert found.found["noise"] < 0.5
    assert not found.proven
    assert not Planted({"exact": 1.0, "noise": 0.98}, 100).proven
    assert Planted({"exact": 1.0, "noise": 0.99}, 100).share == pytest.approx(0.995)


def test_a_detector_without_tolerance_for_shifts_is_unproven():
    found = plant_copies(CopyDetector.of(TRAIN, HELD_OUT, shift=0), most=100)
    assert found.found["exact"] == 1
    assert found.found["shifted"] < 0.99
    assert not found.proven


def test_changes_do_what_they_say():
    images = TRAIN[:40]
    planted = {kind: plant(images, change, seed=1, kind=kind) for kind, change in changes(True).items()}
    for made in planted.values():
        assert made.shape == images.shape
        assert np.abs(made).max() <= 1
    assert np.array_equal(planted["exact"], images)
    assert np.array_equal(planted["flipped"], images[..., ::-1])
    assert np.abs(planted["8 bit"] - images).max() <= 1 / 255 + 1e-6
    assert len(np.unique(planted["8 bit"])) <= 256
    assert (planted["noise"] - images).std() == pytest.approx(0.05, rel=0.05)
    inner = np.abs(images).max(axis=(1, 2, 3)) < 1 - BRIGHTNESS
    apart = (planted["brightness"] - images)[inner]
    assert apart.std(axis=(1, 2, 3)).max() < 1e-6
    assert np.abs(apart).max() <= BRIGHTNESS + 1e-6
    for image, moved in zip(images, planted["shifted"], strict=True):
        fits = [
            (y, x)
            for y in range(-2, 3)
            for x in range(-2, 3)
            if np.array_equal(np.roll(image, (y, x), (1, 2))[0, 2:-2, 2:-2], moved[0, 2:-2, 2:-2])
        ]
        assert fits
        assert (0, 0) not in fits
    wide, narrow = (one.std(axis=(1, 2, 3)) for one in (planted["contrast"], images))
    assert 0.74 < (wide / narrow).min() < 0.9
    assert 1.1 < (wide / narrow).max() < 1.26


def test_alarms_are_counted_on_patients_that_set_no_threshold(detector):
    assert false_alarms(detector, np.arange(100)) <= 0.03
    # a single patient near the training set: his own images cannot raise the alarm that others do
    near = np.concatenate([TRAIN[:3] * 0.9, HELD_OUT[:97]])
    owner = np.array([0] * 3 + list(range(1, 98)))
    odd = CopyDetector.of(TRAIN, near)
    assert false_alarms(odd, owner) == pytest.approx(0.03, abs=0.021)
    assert odd.is_copy(odd.held_out).mean() <= 0.01


def test_senseless_questions_are_refused(detector):
    with pytest.raises(ConfigError, match="planted"):
        plant_copies(detector, most=0)
    for owners in (np.arange(7), np.zeros(100)):
        with pytest.raises(ShapeError, match="false alarms"):
            false_alarms(detector, owners)
    with pytest.raises(ShapeError, match="false alarms"):
        false_alarms(detector, np.arange(100), folds=1)
