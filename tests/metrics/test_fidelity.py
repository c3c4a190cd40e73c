"""Copies and collapse are told apart from new and varied images."""

import numpy as np
import pytest

from fewmask.core.errors import ShapeError
from fewmask.core.seed import stream
from fewmask.metrics.fidelity import (
    Overlap,
    coverage,
    nearest,
    nearest_other,
    novelty,
    overlap,
    spread,
    texture,
)


def images(name: str, count: int = 40) -> np.ndarray:
    return stream(0, "fidelity", name).normal(0, 0.4, (count, 1, 8, 8))


def test_distances_by_hand():
    a, b = np.zeros((1, 4)), np.array([[1.0, 1, 1, 1], [0, 0, 0, 2]])
    assert nearest(a, b) == pytest.approx([1.0])


def test_new_images_are_neither_copies_nor_collapsed():
    found = novelty(images("made"), images("train"), images("held out"))
    assert found.copying == pytest.approx(1, abs=0.1)
    assert found.variety == pytest.approx(1, abs=0.1)


def test_planted_copies_are_found():
    train = images("train")
    found = novelty(train[:20] + 0.01 * images("noise", 20), train, images("held out"))
    assert found.copying < 0.1


def test_a_collapsed_generator_is_found():
    one = np.repeat(images("made", 1), 20, axis=0) + 0.01 * images("noise", 20)
    assert novelty(one, images("train"), images("held out")).variety < 0.1


def test_nearest_others_and_spread_by_hand():
    points = np.array([[0.0], [1.0], [4.0]])
    assert nearest_other(points) == pytest.approx([1, 1, 3])
    assert spread(points) == pytest.approx((1 + 4 + 3) / 3)


def test_precision_and_recall_by_hand():
    real = np.array([[0.0], [1.0], [2.0], [3.0], [10.0]])
    made = np.array([[0.5], [1.5], [2.5], [3.5], [30.0]])
    # the balls of the real points reach 3, 2, 2, 3 and 9, of the generated ones 3, 2, 2, 3 and 28.5
    found = overlap(real, made)
    assert found.precision == pytest.approx(4 / 5)
    assert found.recall == pytest.approx(1)
    assert overlap(made, real) == Overlap(found.recall, found.precision)
    assert overlap(real, real) == Overlap(1, 1)


def test_dropped_modes_cost_recall_and_far_images_precision():
    real = images("real", 90)
    assert overlap(real, images("other", 90)).precision > 0.5
    assert overlap(real, np.repeat(images("few", 6), 15, axis=0)).recall < 0.1
    assert overlap(real, images("other", 90) + 5).precision == 0


def test_texture_knows_sharpness_grain_contrast_and_brightness_by_scale():
    base = images("sharp", 6).repeat(4, axis=2).repeat(4, axis=3)  # 32 x 32, details of 4 pixels and coarser
    plain = texture(base)
    assert plain.shape == (6, 5)
    assert plain[:, :2] == pytest.approx(np.log(1e-3))
    assert plain[:, -1] == pytest.approx(base.mean(axis=(1, 2, 3)))
    assert (texture(base / 2) - plain)[:, 2:4] == pytest.approx(-np.log(2), abs=0.02)
    grainy = texture(base + stream(0, "grain").normal(0, 0.1, base.shape))
    # of white noise a halving takes away three quarters of the variance
    assert grainy[:, 0] == pytest.approx(np.log(0.1 * np.sqrt(0.75)), abs=0.1)
    assert (texture(base + 0.3) - plain)[:, -1] == pytest.approx(0.3)
    assert (texture(base + 0.3) - plain)[:, :-1] == pytest.approx(0, abs=1e-9)


def test_coverage_is_read_beside_that_of_real_images():
    held_out, training = images("held out", 60), images("train", 80)
    whole = coverage(held_out, images("made", 70), training)
    assert whole.images == 60
    assert whole.covered == pytest.approx(whole.real_covered, abs=0.15)
    few = coverage(held_out, np.repeat(images("few", 6), 15, axis=0), training)
    assert few.covered < 0.1 < few.real_covered
    assert coverage(held_out, images("made", 70) + 5).inside == 0
    assert coverage(held_out, images("made", 70)).real_covered is None
    assert coverage(held_out, images("made", 70)) == coverage(held_out, images("made", 70))
    same = coverage(training, training)
    assert (same.covered, same.inside) == (1, 1)


def test_coverage_needs_enough_images():
    with pytest.raises(ShapeError, match="coverage"):
        coverage(images("held out", 3), images("made"))
    with pytest.raises(ShapeError, match="coverage"):
        coverage(images("held out"), np.zeros((20, 5)))
