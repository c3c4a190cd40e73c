"""Outlines of several readers on one slice."""

import numpy as np
import pytest

from fewmask.core.errors import ShapeError
from fewmask.data.outlines import drawn_by, panel
from fewmask.data.overlay import colour_of


def _square(low: int, high: int) -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[low:high, low:high] = True
    return mask


def test_a_panel_is_square_and_inside():
    assert panel(_square(10, 20), 5) == (slice(5, 25), slice(5, 25))
    assert panel(_square(0, 10), 5) == (slice(0, 20), slice(0, 20))
    assert panel(_square(30, 40), 5) == (slice(20, 40), slice(25, 45))
    assert panel(_square(0, 40), 30) == (slice(0, 40), slice(0, 60))
    assert panel(np.zeros((4, 6), bool), 3) == (slice(None), slice(None))


def test_each_reader_has_his_colour_and_later_ones_lie_on_top():
    masks = {"b": _square(10, 20), "a": _square(12, 18)}
    drawn = drawn_by(np.zeros((40, 60)), masks, ("a", "b"), (slice(0, 40), slice(0, 60)), size=60)
    assert drawn.shape == (40, 60, 3)
    assert tuple(drawn[10, 15]) == colour_of(2)
    assert tuple(drawn[12, 15]) == colour_of(1)
    assert tuple(drawn[15, 15]) == (0, 0, 0)
    large = drawn_by(np.zeros((40, 60)), masks, ("a", "b"), panel(masks["b"], 5), size=200)
    assert large.shape == (200, 200, 3)
    assert tuple(large[50, 100]) == colour_of(2)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ShapeError, match="same shape"):
        drawn_by(np.zeros((4, 4)), {"a": _square(1, 2)}, ("a",), (slice(None), slice(None)), size=10)
