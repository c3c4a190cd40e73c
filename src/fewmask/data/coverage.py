"""Which few points stand for all: k-medoids by greedy choice, so that the first k are among the first k + 1.

The BUILD phase of PAM (Kaufman & Rousseeuw 1990, "Finding groups in data", chapter 2): the first medoid has
the least sum of distances to all points, each next one lowers the sum of distances to the nearest medoid
most. The gain is submodular, so what k medoids gain over the first is at least 63 % of the most that could be
gained (Nemhauser et al. 1978). PAM's SWAP phase does a little better for one k, but is not nested.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, DataError

Vectors = NDArray[np.floating]
"""(N, d): one row per point."""

_ROWS = 512
"""At most so many candidates are compared with all points at once."""


class Coverage:
    """Points to be covered, and how far each is from the nearest one that was taken.

    Distances are Euclidean in standardised coordinates (see `standardised`).

    Args:
        vectors: (N, d) all points, N at least 1: whatever may be taken.
        covered: rows of those to be covered, n of them, each once; None: all. Time and memory grow with n.

    Raises:
        DataError: vectors that are no (N, d) array of finite numbers, or none.
    """

    def __init__(self, vectors: Vectors, covered: Sequence[int] | None = None) -> None:
        self._points = standardised(vectors)
        self._squares = np.square(self._points).sum(axis=1)
        self._covered = np.arange(len(self._points)) if covered is None else np.asarray(covered, np.intp)
        self._place = np.full(len(self._points), -1)
        self._place[self._covered] = np.arange(len(self._covered))
        self.nearest: NDArray[np.float64] = np.full(len(self._covered), np.inf)
        """(n,) distance of each point to be covered to the nearest taken one."""

    @property
    def cost(self) -> float:
        """Sum of the distances of what is to be covered to the nearest taken point; infinite before any."""
        return float(self.nearest.sum())

    def ranked(self, candidates: Sequence[Sequence[int]]) -> list[int]:
        """Numbers of the candidates, the one first that would leave the least cost; equals in their order.

        Args:
            candidates: each one or more points (rows of `vectors`) that would be taken together.
        """
        costs: list[float] = []
        for some in _chunks(candidates):
            starts = np.cumsum([0, *(len(rows) for rows in some[:-1])])
            away = self._distances([row for rows in some for row in rows])
            left = np.minimum(self.nearest[:, None], np.minimum.reduceat(away, starts, axis=1))
            costs += left.sum(axis=0).tolist()
        return [int(number) for number in np.argsort(costs, kind="stable")]

    def take(self, rows: Sequence[int]) -> None:
        """Take these points: whatever is near to them is covered."""
        self.nearest = np.minimum(self.nearest, self._distances(rows).min(axis=1))

    def _distances(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """(n, len(rows)) from every point to be covered to these."""
        those = np.asarray(rows, dtype=np.intp)
        square = self._points[self._covered] @ self._points[those].T
        square *= -2
        square += self._squares[self._covered, None]
        square += self._squares[those]
        itself = np.flatnonzero(self._place[those] >= 0)
        square[self._place[those[itself]], itself] = 0  # exactly, whatever rounding says
        return np.asarray(np.sqrt(np.maximum(square, 0, out=square), out=square))


def _chunks(candidates: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Some candidates after the other, of about `_ROWS` points together."""
    some: list[Sequence[int]] = []
    count = 0
    for rows in candidates:
        some.append(rows)
        count += len(rows)
        if count >= _ROWS:
            yield some
            some, count = [], 0
    if some:
        yield some


def medoids(vectors: Vectors, count: int) -> tuple[int, ...]:
    """Rows of the `count` points (N, d) that stand best for all, in the order of PAM's BUILD phase.

    Raises:
        ConfigError: fewer than one, or more than there are.
        DataError: see `Coverage`.
    """
    coverage = Coverage(vectors)
    if not 1 <= count <= len(vectors):
        raise ConfigError(f"{count} medoids of {len(vectors)} points", expected=f"1 to {len(vectors)}")
    left, taken = list(range(len(vectors))), []
    for _ in range(count):
        best = left.pop(coverage.ranked([[row] for row in left])[0])
        coverage.take([best])
        taken.append(best)
    return tuple(taken)


def standardised(vectors: Vectors) -> NDArray[np.float64]:
    """Every coordinate of (N, d) with mean 0 and deviation 1 over the points; 0 where it says nothing.

    Raises:
        DataError: no (N, d) array of finite numbers, or no point.
    """
    points = np.asarray(vectors, dtype=np.float64)
    if points.ndim != 2 or not points.size or not np.isfinite(points).all():
        raise DataError(
            "points must be rows of finite numbers",
            found=f"shape {points.shape}"
            + ("" if np.isfinite(points).all() else ", values that are not finite"),
            expected="(N, d), at least one point",
            mend="Check what makes the embedding.",
        )
    centred = points - points.mean(axis=0)
    deviation = centred.std(axis=0)
    tiny = 1e-9 * np.abs(points).max(axis=0)  # a constant coordinate, up to rounding
    return np.where(deviation > tiny, centred / np.where(deviation > tiny, deviation, 1.0), 0.0)
