"""Agreement of readers."""

import numpy as np
import pytest

from fewmask.metrics.agreement import pairwise_dice


def test_pairs_of_readers():
    masks = {
        "anna": np.array([[1, 1, 0, 0]], bool),
        "ben": np.array([[1, 0, 0, 0]], bool),
        "cleo": np.array([[0, 0, 0, 0]], bool),
        "dan": np.array([[0, 0, 0, 0]], bool),
    }
    found = pairwise_dice(masks)
    assert found.pairs["anna", "ben"] == pytest.approx(2 / 3)
    assert found.pairs["anna", "cleo"] == 0.0
    assert found.pairs["cleo", "dan"] == 1.0
    assert len(found.pairs) == 6
    assert (found.dice == found.dice.T).all()
    assert found.mean == pytest.approx((2 / 3 + 1) / 6)


def test_one_reader_agrees_with_nobody():
    assert pairwise_dice({"anna": np.ones((2, 2), bool)}).mean is None
