"""The pointing game and overlap with boxes."""

import numpy as np
import pytest

from fewmask.core.errors import ShapeError
from fewmask.metrics.pointing import box_iou, box_masks, pointing


def peak(row, column, shape=(64, 64)):
    out = np.zeros(shape)
    out[row, column] = 1.0
    return out


def test_a_maximum_in_any_box_or_near_it_hits():
    boxes = np.array([[10.0, 20.0, 5.0, 4.0], [50.0, 50.0, 5.0, 5.0]])  # x, y, w, h
    maps = np.stack([peak(21, 12), peak(52, 52), peak(12, 21), peak(21, 20), peak(28, 18)])
    every = [boxes] * 5
    assert pointing(maps, every, tolerance=0).tolist() == [1, 1, 0, 0, 0]
    # (20.5, 21.5) is 5.5 right of the first box, (18.5, 28.5) is 3.5 right and 4.5 below
    assert pointing(maps, every, tolerance=5.5).tolist() == [1, 1, 0, 1, 0]
    assert pointing(maps, every, tolerance=np.hypot(3.5, 4.5)).tolist() == [1, 1, 0, 1, 1]


def test_images_without_boxes_have_no_say_and_flat_maps_guess():
    found = pointing(np.zeros((2, 10, 10)), [np.zeros((0, 4)), np.array([[0.0, 0.0, 5.0, 2.0]])], tolerance=0)
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(0.1)


def test_boxes_as_masks_and_their_overlap():
    boxes = [np.array([[1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 3.0, 4.0]]), np.zeros((0, 4))]
    inside = box_masks(boxes, (8, 8))
    assert inside[0, 2:6, 1:5].all()
    assert inside.sum() == 16
    masks = np.zeros((2, 8, 8), dtype=np.uint8)
    masks[0, 2:6, 1:3] = 1
    masks[0, 0, :4] = 1
    found = box_iou(masks, boxes)
    assert found[0] == pytest.approx(8 / 20)
    assert np.isnan(found[1])


def test_maps_and_boxes_that_do_not_fit():
    with pytest.raises(ShapeError, match="maps and boxes do not fit"):
        pointing(np.zeros((2, 4, 4)), [np.zeros((0, 4))])
    with pytest.raises(ShapeError, match="one of shape"):
        box_iou(np.zeros((1, 4, 4)), [np.zeros((1, 5))])
