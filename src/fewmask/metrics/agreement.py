"""How far several readers of the same case agree."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fewmask.metrics.overlap import dice


@dataclass(frozen=True, eq=False)
class Agreement:
    """Dice of every two readers of one class in one case."""

    readers: tuple[str, ...]
    dice: NDArray[np.float64]
    """(readers, readers), symmetric, 1 on the diagonal."""

    @property
    def pairs(self) -> dict[tuple[str, str], float]:
        """Dice of every pair of different readers, each pair once."""
        numbered = combinations(enumerate(self.readers), 2)
        return {(a, b): float(self.dice[i, j]) for (i, a), (j, b) in numbered}

    @property
    def mean(self) -> float | None:
        """Mean Dice over the pairs; None for a single reader."""
        return float(np.mean(list(self.pairs.values()))) if len(self.readers) > 1 else None


def pairwise_dice(masks: Mapping[str, NDArray[np.bool_]]) -> Agreement:
    """Dice between all pairs of readers; two empty masks agree fully (1).

    Args:
        masks: boolean mask of one class by reader's name, all of the same shape.

    Raises:
        ShapeError: the shapes differ.
    """
    readers = tuple(masks)
    table = np.eye(len(readers))
    for (i, a), (j, b) in combinations(enumerate(readers), 2):
        table[i, j] = table[j, i] = dice(masks[a], masks[b])
    return Agreement(readers, table)
