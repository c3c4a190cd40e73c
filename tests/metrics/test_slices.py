"""Means over slices."""

import numpy as np
import pytest

from fewmask.metrics.overlap import dice, iou
from fewmask.metrics.slices import slice_means


def test_every_slice_weighs_the_same_and_blank_ones_do_not_count():
    reference = np.zeros((4, 8, 8), bool)
    reference[0, :4, :4] = True  # 16 voxels, found
    reference[1, 0, :2] = True  # 2 voxels, one found
    predicted = reference.copy()
    predicted[1, 0, 1] = False
    predicted[2, 5, 5] = True  # invented; slice 3 is blank in both
    means = slice_means(predicted, reference)
    assert means[0] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert means[1] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert means[0] != pytest.approx(dice(predicted, reference))


def test_one_slice_has_the_scores_of_the_case():
    rng = np.random.default_rng(0)
    predicted, reference = rng.random((2, 1, 9, 7)) < 0.4
    assert slice_means(predicted, reference) == pytest.approx(
        (dice(predicted, reference), iou(predicted, reference))
    )


def test_a_class_that_nobody_shows():
    nothing = np.zeros((3, 4, 4), bool)
    assert slice_means(nothing, nothing) == (1.0, 1.0)
    assert slice_means(~nothing, nothing) == (0.0, 0.0)
