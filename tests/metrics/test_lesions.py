"""Scores by lesion, counted by hand."""

import numpy as np
import pytest

from fewmask.core.errors import ShapeError
from fewmask.metrics.lesions import score_lesions


def test_hand_counted():
    reference = np.zeros((4, 20, 20), bool)
    reference[1:3, 2:7, 2:7] = True  # 50 voxels, 4 of them predicted: 8 %, not hit
    reference[1, 10:14, 10:15] = True  # 20 voxels, 2 of them predicted: 10 %, hit
    predicted = np.zeros_like(reference)
    predicted[1, 2, 2:6] = True
    predicted[1, 10, 10:12] = True
    predicted[3, 18, 18] = True  # invented
    found = score_lesions(predicted, reference, (10.0, 10.0, 10.0))
    assert (found.reference, found.hit, found.predicted, found.false_positives) == (2, 1, 3, 1)
    assert found.sensitivity == 0.5
    assert found.outlined == 2  # Dice 8 / 54 and 4 / 22
    assert score_lesions(np.ones_like(predicted), reference, (1, 1, 1)).hit == 2
    assert score_lesions(np.ones_like(predicted), reference, (1, 1, 1)).outlined == 0
    assert found.detected is True
    assert found.reference_ml == pytest.approx(70.0)
    assert found.error_ml == pytest.approx(7 - 70)
    assert found.error_percent == pytest.approx(-90.0)


def test_corners_connect():
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert score_lesions(mask, mask, (1, 1, 1)).reference == 1


def test_two_predicted_parts_hit_one_lesion_together():
    reference = np.ones((1, 1, 20), bool)
    predicted = np.zeros_like(reference)
    predicted[0, 0, [2, 10]] = True
    found = score_lesions(predicted, reference, (1, 1, 1))
    assert (found.hit, found.predicted, found.false_positives) == (1, 2, 0)


def test_nothing_to_find():
    none = np.zeros((2, 3, 3), bool)
    found = score_lesions(none, none, (1, 1, 1))
    assert (found.reference, found.hit, found.false_positives) == (0, 0, 0)
    assert found.sensitivity is None
    assert found.detected is None
    assert found.error_percent is None
    assert score_lesions(~none, none, (1, 1, 1)).false_positives == 1


def test_other_shape_is_an_error():
    with pytest.raises(ShapeError):
        score_lesions(np.ones((1, 2, 2), bool), np.ones((1, 2, 3), bool), (1, 1, 1))
