"""Can the domain of a slice be told from what has nothing to do with disease: its height, brightness, size?

If so, a translator may learn that instead of the disease, and an image score looks good without seeing any.
A logistic regression predicts the domain from such numbers alone, for patients that it has not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fewmask.core.errors import ShapeError
from fewmask.core.seed import stream
from fewmask.metrics.bootstrap import Bootstrap
from fewmask.metrics.maps import Bools, Figure, Floats, Values, image_ranking, usual_bootstrap

FEWEST = 2
"""Patients of each domain without which nothing can be told."""

_FOLDS = 5
_RIDGE = 1.0
_STEPS = 25
_SHOWN = 0.1


@dataclass(frozen=True)
class Shortcut:
    """What a number beside the disease tells of the domain; 0.5 is nothing.

    accuracy: mean of the share of right answers among diseased and among healthy slices, 0..1.
    """

    of: str
    accuracy: Figure
    auroc: Figure

    @property
    def tells(self) -> bool:
        """Whether the interval of the AUROC, or of the accuracy, lies above 0.5."""
        return any(figure.low is not None and figure.low > 0.5 for figure in (self.auroc, self.accuracy))

    def text(self) -> str:
        """One line for a page or a terminal."""
        told = "tells" if self.tells else "does not tell"
        return (
            f"{self.of} alone {told} the domain: accuracy {self.accuracy.text()}, "
            f"AUROC {self.auroc.text()} (0.5 is chance)"
        )


def shortcut(
    of: str,
    numbers: Floats,
    diseased: Bools,
    patients: Sequence[str],
    *,
    seed: int,
    bootstrap: Bootstrap | None = None,
) -> Shortcut:
    """Predict the domain of slices from a few numbers each, cross-validated by patient.

    A logistic regression on the numbers and their squares, since the middle of a stack may be diseased and
    both its ends not; both domains weigh the same. Where domains were made exactly alike, leaving out a
    patient leaves a little too few of its kind at its heights, so that figures somewhat below 0.5 are usual.

    Args:
        of: what the numbers are, in words.
        numbers: (N,) or (N, F), e.g. the relative height; or mean and size (`mean_and_size`).
        diseased: (N,), the domain.
        patients: whose slice each is.
        seed: of the folds.
        bootstrap: of the intervals over patients; by default `usual_bootstrap`.

    Raises:
        ShapeError: lengths that differ, numbers that are none, or fewer than `FEWEST` patients in a domain.
    """
    table = np.asarray(numbers, dtype=np.float64).reshape(len(numbers), -1)
    labels = np.asarray(diseased, dtype=np.bool_)
    folds = _folds(labels, patients, table, seed)
    spread = table.std(axis=0)
    table = (table - table.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    design = np.concatenate([np.ones((len(table), 1)), table, table**2], axis=1)
    scores = np.empty(len(table))
    for fold in np.unique(folds):
        held_out = folds == fold
        scores[held_out] = expit(design[held_out] @ _regression(design[~held_out], labels[~held_out]))
    chosen = bootstrap or usual_bootstrap()
    ranking = image_ranking(scores, labels, patients, bootstrap=chosen)
    return Shortcut(of, _balanced_accuracy(scores, labels, patients, chosen), ranking.auroc)


def mean_and_size(images: Floats, native: NDArray[np.integer] | None = None) -> Values:
    """Mean intensity and size of what each image shows, (N, 2), or (N, 4) with native heights and widths.

    Disease itself may change the mean; so it is read beside the height, not as a proof of a fault.

    Args:
        images: (N, C, H, W) in [-1, 1]; the size is the share of pixels 5 % of the range above the darkest.
        native: (N, 2), height and width of the source pictures in pixels.
    """
    flat = images.astype(np.float64).mean(axis=1).reshape(len(images), -1)
    size = (flat > flat.min(axis=1, keepdims=True) + _SHOWN).mean(axis=1)
    columns = [flat.mean(axis=1), size, *([] if native is None else native.T)]
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def _folds(labels: Bools, patients: Sequence[str], table: Values, seed: int) -> NDArray[np.intp]:
    """The fold of each slice (N,): patients of each domain are dealt out in turn, after shuffling."""
    if not len(labels) == len(patients) == len(table) or not np.isfinite(table).all():
        raise ShapeError(
            "a shortcut is looked for with numbers, a domain and a patient of each slice",
            found=f"{len(table)} rows, {len(labels)} domains, {len(patients)} patients"
            + ("" if np.isfinite(table).all() else ", some numbers are not finite"),
        )
    ill = sorted({patient for patient, sick in zip(patients, labels, strict=True) if sick})
    well = sorted(set(patients) - set(ill))
    most = min(len(ill), len({patient for patient, sick in zip(patients, labels, strict=True) if not sick}))
    if most < FEWEST:
        raise ShapeError(
            "too few patients to look for a shortcut",
            found=f"{most} in the smaller domain",
            expected=f"at least {FEWEST} in each",
        )
    chance = stream(seed, "shortcut", "folds")
    order = [group[number] for group in (ill, well) for number in chance.permutation(len(group))]
    fold = {patient: place % min(_FOLDS, most) for place, patient in enumerate(order)}
    return np.array([fold[patient] for patient in patients])


def _regression(design: Values, labels: Bools) -> Values:
    """Weights (F,) of a ridge logistic regression by Newton's method; both kinds weigh the same in all."""
    if labels.all() or not labels.any():
        return np.where(np.arange(design.shape[1]) == 0, 1.0 if labels[0] else -1.0, 0.0)
    each = np.where(labels, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    ridge = _RIDGE * np.diag(np.arange(design.shape[1]) > 0).astype(np.float64)
    weights = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        likely = expit(design @ weights)
        slope = design.T @ (each * (labels - likely)) - ridge @ weights
        curve = (design * (each * likely * (1 - likely))[:, None]).T @ design + ridge
        weights = weights + np.linalg.solve(curve, slope)
    return weights


def _balanced_accuracy(
    scores: Values, labels: Bools, patients: Sequence[str], bootstrap: Bootstrap
) -> Figure:
    """Mean of the shares of right answers in both domains; a score of exactly 0.5 is half right."""
    names, owner = np.unique(list(patients), return_inverse=True)
    right = np.where(scores == 0.5, 0.5, (scores > 0.5) == labels)
    hits, totals = (
        np.stack([np.bincount(owner, values * (labels == kind), len(names)) for kind in (True, False)])
        for values in (right, np.ones(len(right)))
    )

    def figure(weights: Values) -> float:
        there = totals @ weights
        return float((hits @ weights / there).mean()) if (there > 0).all() else float("nan")

    low, high = bootstrap.of_figure(len(names), figure)
    return Figure(figure(np.ones(len(names))), low, high, len(labels), len(names))
