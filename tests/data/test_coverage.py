"""Medoids: one in every cluster, nested, as the definition says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmask.core.errors import ConfigError, DataError
from fewmask.data.coverage import Coverage, medoids, standardised


def clusters(seed: int = 0, sizes=(60, 20, 8, 5)) -> tuple[np.ndarray, np.ndarray]:
    """Points of clusters of unlike sizes far apart, with the number of each point's cluster."""
    chance = np.random.default_rng(seed)
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]])[: len(sizes)]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    mixed = chance.permutation(len(owner))
    return (centres[owner] + 0.3 * chance.normal(size=(len(owner), 2)))[mixed], owner[mixed]


def cost(points: np.ndarray, rows) -> float:
    away = np.linalg.norm(points[:, None] - points[list(rows)], axis=2)
    return float(away.min(axis=1).sum())


@pytest.mark.parametrize("seed", range(5))
def test_one_medoid_in_every_cluster_where_chance_finds_less(seed) -> None:
    points, owner = clusters(seed)
    assert set(owner[list(medoids(points, 4))]) == {0, 1, 2, 3}
    chance = np.random.default_rng(seed)
    random = [set(owner[chance.choice(len(points), 4, replace=False)]) for _ in range(20)]
    assert sum(found == {0, 1, 2, 3} for found in random) < 10


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 6), size=st.integers(6, 30))
def test_each_choice_is_the_best_next_one(seed, count, size) -> None:
    points = np.random.default_rng(seed).normal(size=(size, 3))
    found = medoids(points, count)
    plain = standardised(points)
    for number in range(count):
        best = min(cost(plain, [*found[:number], row]) for row in range(size))
        assert cost(plain, found[: number + 1]) == pytest.approx(best)
    assert medoids(points, 6)[:count] == found


def test_no_coordinate_is_louder_than_another_and_a_constant_one_is_silent() -> None:
    points, _ = clusters()
    loud = np.column_stack([points[:, 0] * 1e4 + 7, points[:, 1], np.full(len(points), 0.1)])
    assert medoids(loud, 5) == medoids(points, 5)
    assert np.allclose(standardised(loud)[:, 2], 0)
    assert np.allclose(standardised(loud)[:, :2].std(axis=0), 1)


def test_points_that_are_taken_together_cover_together(monkeypatch) -> None:
    points = np.array([[0.0], [1.0], [9.0], [10.0]])
    coverage = Coverage(points)
    groups = [[1, 2], [0, 1], [0, 3], [2]]
    assert coverage.ranked(groups)[:2] == [0, 2]  # a tie: the earlier first
    monkeypatch.setattr("fewmask.data.coverage._ROWS", 2)
    assert coverage.ranked(groups)[:2] == [0, 2]
    assert coverage.cost == np.inf
    coverage.take([1, 2])
    assert coverage.cost == pytest.approx(cost(standardised(points), [1, 2]))
    assert coverage.ranked([[1], [0]]) == [1, 0]


def test_some_points_stand_for_all_and_any_may_be_taken() -> None:
    points = np.array([[0.0], [1.0], [2.0], [8.0], [9.0], [40.0]])
    coverage = Coverage(points, [0, 2, 4])
    plain = standardised(points)
    assert coverage.ranked([[n] for n in range(6)])[0] == 2
    coverage.take([1])  # none of those to be covered
    assert coverage.cost == pytest.approx(float(np.abs(plain[[0, 2, 4]] - plain[1]).sum()))
    coverage.take([4])
    assert coverage.nearest[2] == 0
    assert len(coverage.nearest) == 3


def test_equal_points_are_all_taken_in_the_end() -> None:
    assert sorted(medoids(np.ones((5, 2)), 5)) == [0, 1, 2, 3, 4]


def test_what_cannot_be_covered() -> None:
    with pytest.raises(ConfigError, match="6 medoids of 5"):
        medoids(np.ones((5, 2)), 6)
    with pytest.raises(ConfigError, match="0 medoids"):
        medoids(np.ones((5, 2)), 0)
    for bad in (np.ones(3), np.ones((0, 2)), np.array([[1.0], [np.nan]])):
        with pytest.raises(DataError, match="rows of finite numbers"):
            medoids(bad, 1)
