"""Overlap: hand-computed counts, the empty-set rule, the two kinds of mIoU."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from fewmask.core.errors import ShapeError
from fewmask.metrics.overlap import Overlap, dice, iou, miou_dataset, miou_image, outcome, overlap

MASKS = arrays(bool, (2, 3, 4))


def row(*values):
    return np.array(values, dtype=bool)


def test_hand_computed():
    found = overlap(row(1, 1, 1, 0, 0, 0, 0, 0), row(0, 1, 1, 1, 1, 0, 0, 0))
    assert (found.both, found.predicted, found.reference, found.either, found.total) == (2, 3, 4, 5, 8)
    assert found.dice == pytest.approx(4 / 7)
    assert found.iou == pytest.approx(2 / 5)
    assert found.pixel_accuracy == pytest.approx(5 / 8)
    assert found.empty_accuracy == pytest.approx(4 / 8)
    assert found.prevalence == pytest.approx(4 / 8)


def test_empty_set_rule():
    some, none = row(0, 1, 1), row(0, 0, 0)
    assert (dice(none, none), iou(none, none)) == (1.0, 1.0)
    assert (dice(some, none), iou(some, none)) == (0.0, 0.0)
    assert (dice(none, some), iou(none, some)) == (0.0, 0.0)
    assert outcome(0, 0) == "true_negative"
    assert outcome(0, 5) == "missed"
    assert outcome(5, 0) == "false_alarm"
    assert outcome(1, 1) == "overlap"
    # Two masks that both exist and share nothing are not a miss.
    assert overlap(row(1, 0), row(0, 1)).outcome == "overlap"


def test_unjudged_voxels_count_nowhere():
    judged = row(1, 1, 1, 0)
    found = overlap(row(1, 0, 0, 1), row(1, 1, 0, 1), judged)
    assert (found.both, found.predicted, found.reference, found.total) == (1, 1, 2, 3)


def test_nothing_judged_is_an_error():
    with pytest.raises(ShapeError, match="nothing to score"):
        overlap(row(1), row(1), row(0))


def test_other_shape_is_an_error():
    with pytest.raises(ShapeError, match=r"\(2,\) and \(3,\)"):
        dice(row(1, 0), row(1, 0, 0))


def test_miou_levels_differ_as_defined():
    # A large image with IoU 0.9, a small one with IoU 0, and one where the class is rightly absent.
    images = [Overlap(90, 95, 95, 1000), Overlap(0, 5, 5, 1000), Overlap(0, 0, 0, 1000)]
    assert miou_dataset({"lung": images}) == pytest.approx(90 / 110)
    assert miou_image({"lung": images}) == pytest.approx((0.9 + 0.0 + 1.0) / 3)
    assert miou_dataset({"lung": images, "none": [images[2]]}) == pytest.approx((90 / 110 + 1) / 2)


@settings(max_examples=60, deadline=None)
@given(MASKS, MASKS)
def test_symmetric_and_bounded(a, b):
    assert dice(a, b) == dice(b, a)
    assert 0.0 <= iou(a, b) <= dice(a, b) <= 1.0
    assert dice(a, b) == pytest.approx(2 * iou(a, b) / (1 + iou(a, b)))
    assert dice(a, a) == 1.0
    assert 0.0 <= overlap(a, b).pixel_accuracy <= 1.0
