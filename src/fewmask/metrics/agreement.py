"""How far several readers of the same case agree: Dice and kappa of pairs, Fleiss' kappa, unanimity.

Kappa compares the agreement with that of chance and so depends on how much background is looked at. It is
therefore measured in the box of all that anybody marked, widened by a fixed margin in mm.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fewmask.metrics.overlap import dice, require_same_shape

MARGIN_MM = 5.0
"""How far the box in which kappa is measured reaches beyond the marks."""


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


@dataclass(frozen=True, eq=False)
class Concord:
    """All measures of the agreement on one class in one case."""

    overlap: Agreement
    """Dice of pairs."""
    cohen: NDArray[np.float64]
    """Cohen's kappa of pairs (readers, readers), symmetric, -1..1, 1 on the diagonal."""
    fleiss: float | None
    """Fleiss' kappa of all readers, -1..1; None for a single reader."""
    unanimous: float | None
    """Share of the voxels that anybody marked which everybody marked, 0..1; None for a single reader."""
    marked_by: tuple[str, ...]
    """The readers who marked anything."""

    @property
    def mean_dice(self) -> float | None:
        """Mean Dice over the pairs; None for a single reader."""
        return self.overlap.mean

    @property
    def mean_cohen(self) -> float | None:
        """Mean of Cohen's kappa over the pairs; None for a single reader."""
        pairs = self.cohen[np.triu_indices(len(self.cohen), k=1)]
        return float(pairs.mean()) if pairs.size else None


def agreement(
    masks: Mapping[str, NDArray[np.bool_]], spacing_mm: Sequence[float], *, margin_mm: float = MARGIN_MM
) -> Concord:
    """How far readers agree. Where nobody marked anything, they agree fully: every measure is 1.

    Args:
        masks: boolean mask (Z, Y, X) of one class by reader's name, all of the same shape.
        spacing_mm: along (Z, Y, X).
        margin_mm: how far the box in which kappa is measured reaches beyond the marks.

    Raises:
        ShapeError: the shapes differ.
    """
    overlap = pairwise_dice(masks)
    inner = list(_in_box(list(masks.values()), spacing_mm, margin_mm))
    kappas = np.eye(len(inner))
    for (i, a), (j, b) in combinations(enumerate(inner), 2):
        kappas[i, j] = kappas[j, i] = cohen_kappa(a, b)
    single = len(inner) < 2
    return Concord(
        overlap,
        kappas,
        None if single else fleiss_kappa(inner),
        None if single else unanimous_fraction(inner),
        tuple(reader for reader, mask in masks.items() if mask.any()),
    )


def cohen_kappa(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Kappa of two readers (Cohen 1960): (p - e) / (1 - e), -1..1; 1 where chance alone leaves no doubt.

    p is the share of voxels on which they agree, e what it would be if each marked as many at random.

    Raises:
        ShapeError: the shapes differ.
    """
    require_same_shape(a, b)
    observed = float(np.mean(a == b))
    p, q = float(np.mean(a)), float(np.mean(b))
    return _above_chance(observed, p * q + (1 - p) * (1 - q))


def fleiss_kappa(masks: Sequence[NDArray[np.bool_]]) -> float:
    """Kappa of two or more readers (Fleiss 1971, equations 2 to 7 with two categories), -1..1."""
    votes = _votes(masks)
    n = len(masks)
    of_voxels = (votes * (votes - 1) + (n - votes) * (n - votes - 1)) / (n * (n - 1))
    marked = float(votes.mean()) / n
    return _above_chance(float(of_voxels.mean()), marked**2 + (1 - marked) ** 2)


def unanimous_fraction(masks: Sequence[NDArray[np.bool_]]) -> float:
    """Of the voxels that any reader marked, the share that every reader marked, 0..1; 1 without marks."""
    votes = _votes(masks)
    anybody = int(np.count_nonzero(votes))
    return int(np.count_nonzero(votes == len(masks))) / anybody if anybody else 1.0


def _votes(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    for mask in masks[1:]:
        require_same_shape(mask, masks[0])
    return np.asarray(np.sum(masks, axis=0, dtype=np.float64))


def _above_chance(observed: float, expected: float) -> float:
    return 1.0 if expected >= 1.0 - 1e-12 else (observed - expected) / (1.0 - expected)


def _in_box(
    masks: Sequence[NDArray[np.bool_]], spacing_mm: Sequence[float], margin_mm: float
) -> Iterator[NDArray[np.bool_]]:
    """The masks cut to the box of all marks and a margin; uncut where nobody marked anything."""
    anybody = np.logical_or.reduce(masks)
    box = []
    for axis, mm in enumerate(spacing_mm):
        others = tuple(other for other in range(anybody.ndim) if other != axis)
        marked = np.flatnonzero(anybody.any(axis=others))
        margin = int(np.ceil(margin_mm / mm))
        box.append(slice(max(0, marked[0] - margin), marked[-1] + 1 + margin) if marked.size else slice(None))
    for mask in masks:
        yield mask[tuple(box)]
