"""Agreement of readers."""

import numpy as np
import pytest

from fewmask.metrics.agreement import (
    agreement,
    cohen_kappa,
    fleiss_kappa,
    pairwise_dice,
    unanimous_fraction,
)


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


def test_cohen_kappa_by_hand():
    a = np.array([[[1, 1, 1, 0, 0, 0, 0, 0, 0, 0]]], bool)
    b = np.array([[[1, 1, 0, 1, 0, 0, 0, 0, 0, 0]]], bool)
    # They agree on 8 of 10; by chance on 0.3 * 0.3 + 0.7 * 0.7 = 0.58.
    assert cohen_kappa(a, b) == pytest.approx((0.8 - 0.58) / 0.42)
    assert cohen_kappa(a, ~a) == pytest.approx((0 - 0.42) / 0.58)
    assert cohen_kappa(a, a) == 1.0


def test_fleiss_kappa_by_hand():
    # Four voxels, three readers, votes 3, 2, 0, 0: per voxel 1, 1/3, 1, 1; marked share 5/12.
    masks = [
        np.array([[[1, 1, 0, 0]]], bool),
        np.array([[[1, 1, 0, 0]]], bool),
        np.array([[[1, 0, 0, 0]]], bool),
    ]
    observed, chance = (1 + 1 / 3 + 1 + 1) / 4, (5 / 12) ** 2 + (7 / 12) ** 2
    assert fleiss_kappa(masks) == pytest.approx((observed - chance) / (1 - chance))
    assert fleiss_kappa([masks[0]] * 3) == 1.0
    assert unanimous_fraction(masks) == 0.5


def test_kappa_does_not_depend_on_how_much_scan_is_around():
    small = np.zeros((1, 30, 30), bool)
    small[0, 12:18, 12:18] = True
    other = np.roll(small, 1, axis=2)
    found = agreement({"a": small, "b": other}, (1.0, 1.0, 1.0))
    wide = {k: np.pad(m, ((3, 3), (50, 50), (50, 50))) for k, m in (("a", small), ("b", other))}
    far = agreement(wide, (10.0, 1.0, 1.0))
    near = agreement({"a": small, "b": other}, (10.0, 1.0, 1.0))
    assert near.mean_dice == far.mean_dice == pytest.approx(30 / 36)
    assert near.unanimous == far.unanimous == pytest.approx(30 / 42)
    assert found.mean_cohen == pytest.approx(near.fleiss, abs=0.01)
    padded = agreement({k: m[2:5] for k, m in wide.items()}, (10.0, 1.0, 1.0))
    assert padded.fleiss == pytest.approx(far.fleiss)
    assert near.fleiss < fleiss_kappa([wide["a"], wide["b"]])


def test_agreement_of_nobody_and_of_one():
    nothing = np.zeros((1, 4, 4), bool)
    both = agreement({"a": nothing, "b": nothing}, (1.0, 1.0, 1.0))
    assert (both.mean_dice, both.mean_cohen, both.fleiss, both.unanimous) == (1.0, 1.0, 1.0, 1.0)
    assert both.marked_by == ()
    alone = agreement({"a": ~nothing}, (1.0, 1.0, 1.0))
    assert (alone.mean_dice, alone.mean_cohen, alone.fleiss, alone.unanimous) == (None, None, None, None)
    assert alone.marked_by == ("a",)
