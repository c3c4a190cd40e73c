"""Votes."""

import numpy as np
import pytest

from fewmask.consensus.voting import vote
from fewmask.core.errors import ShapeError


def _masks(*columns: str) -> list[np.ndarray]:
    """One reader per word, one voxel per letter."""
    return [np.array([[[letter == "1" for letter in word]]]) for word in columns]


@pytest.mark.parametrize(
    ("strict", "voters", "expected"),
    [(True, None, "11100"), (False, None, "11110"), (True, 6, "11000"), (False, 6, "11100")],
)
def test_more_than_half_or_half_of_those_who_marked_or_of_all(strict, voters, expected):
    # By voxel 4, 4, 3, 2 and 0 of four readers; two more may have marked nothing.
    masks = _masks("11110", "11110", "11100", "11000")
    assert (vote(masks, strict=strict, voters=voters) == _masks(expected)[0]).all()


def test_a_voxel_without_any_vote_is_never_taken():
    masks = _masks("00", "00")
    judged = _masks("01", "01")
    assert not vote(masks, strict=False).any()
    assert not vote(masks, strict=False, judged=judged).any()


def test_who_has_not_judged_a_voxel_is_not_counted_there():
    masks = _masks("110", "010", "000")
    judged = _masks("111", "110", "010")
    assert (vote(masks, judged=judged) == _masks("010")[0]).all()
    assert (vote(masks, strict=False, judged=judged) == _masks("110")[0]).all()
    assert (vote(masks, strict=False) == _masks("010")[0]).all()


def test_a_mark_where_its_reader_did_not_judge_counts_for_nothing():
    masks = _masks("1", "0", "0")
    assert not vote(masks, strict=False, judged=_masks("0", "1", "1")).any()


def test_bad_votes_are_refused():
    with pytest.raises(ShapeError, match="at least one mask"):
        vote([])
    with pytest.raises(ShapeError, match=r"one shape \(Z, Y, X\)"):
        vote([np.zeros((1, 2, 2), bool), np.zeros((1, 2, 3), bool)])
    with pytest.raises(ShapeError, match="fewer voters"):
        vote(_masks("1", "1"), voters=1)
