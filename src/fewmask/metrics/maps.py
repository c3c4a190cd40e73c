"""Scores of maps that say how diseased each pixel is, and of masks that come from image labels alone.

Page `lazylabel`, section 7. Two accuracies carry the name of what they are: the document scores "the mean
squared error of the ground truth and the proposed segmentation", which for masks is the share of wrong
pixels and for soft maps is not. Both are high for an empty mask, so `prevalence` stands beside them.
Functions that end in a `Figure` give an interval from resampled patients (`bootstrap`); the others give one
number per image, of which `mean_figure` makes a figure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ShapeError
from fewmask.metrics.bootstrap import Bootstrap, Table
from fewmask.metrics.statistics import interval_text

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Values = NDArray[np.float64]

LEVELS = 4096
"""Intervals of areas under curves look at so many levels of the score; the figure itself looks at all."""


@dataclass(frozen=True)
class Figure:
    """One number over images with its interval over patients; ends are None with a single patient."""

    value: float
    low: float | None
    high: float | None
    images: int
    patients: int

    def text(self, digits: int = 3) -> str:
        """`0.850 [0.820, 0.880]`, or the bare number with a single patient."""
        return interval_text(self.value, self.low, self.high, digits)


def usual_bootstrap() -> Bootstrap:
    """2000 resamples, 95 %."""
    return Bootstrap(2_000, 0.95, 0)


def mean_figure(values: Values, patients: Sequence[str], bootstrap: Bootstrap | None = None) -> Figure:
    """Mean over patients of their means over images.

    Args:
        values: (N,), NaN for images without a value.
        patients: whose image each is.
        bootstrap: of the interval; by default `usual_bootstrap`.

    Raises:
        ShapeError: lengths that differ, or no value at all.
    """
    _same_length(len(values), patients)
    kept = np.flatnonzero(np.isfinite(values))
    if not len(kept):
        raise ShapeError("no image has a value", found=f"{len(values)} images", expected="one at least")
    names, owner = np.unique([patients[int(row)] for row in kept], return_inverse=True)
    means = np.bincount(owner, values[kept]) / np.bincount(owner)
    table = Table(tuple(names.tolist()), (0,), means[:, None])
    low, high = (bootstrap or usual_bootstrap()).interval(table)
    return Figure(table.mean(), low, high, len(kept), len(names))


def acc_mse_binary(masks: NDArray[np.generic], reference: Bools, judged: Bools | None = None) -> Values:
    """1 - mean squared error of binary masks, (N,), 0..1: the share of right pixels (pixel accuracy).

    The document's "accuracy" (page `lazylabel`, section 7) if it scored masks; it prints per cent. An empty
    mask reaches 1 - prevalence.

    Args:
        masks: (N, H, W), 0 is background.
        reference: (N, H, W).
        judged: (N, H, W), pixels that count; None: all.
    """
    return _acc_mse((masks != 0).astype(np.float64), reference, judged)


def acc_mse_soft(maps: Floats, reference: Bools, judged: Bools | None = None) -> Values:
    """1 - mean squared error of soft maps, (N,): the document's "accuracy" if it scored the map d itself.

    This is one minus a Brier score and no share of right pixels: a map of 0.5 everywhere reaches 0.75.

    Args:
        maps: (N, H, W), cut to 0..1.
        reference: (N, H, W).
        judged: (N, H, W), pixels that count; None: all.
    """
    return _acc_mse(np.clip(maps, 0.0, 1.0).astype(np.float64), reference, judged)


def prevalence(reference: Bools, judged: Bools | None = None) -> Values:
    """Share of judged pixels that are diseased, (N,), 0..1."""
    return _share(np.asarray(reference, dtype=np.float64), judged)


def false_positive_area(masks: NDArray[np.generic], body: Bools | None = None) -> Values:
    """Share of each healthy image that its mask covers, (N,), 0..1; with a body, the share of the body.

    NaN where there is no body.
    """
    return _share((masks != 0).astype(np.float64), body)


def identity_error(images: Floats, translated: Floats) -> Values:
    """Mean |G(y) - y| of healthy images (N, C, H, W) and what the method makes of them, (N,), 0..2."""
    _same_shape(images, translated)
    wide = np.abs(translated.astype(np.float64) - images.astype(np.float64))
    return np.asarray(wide.mean(axis=(1, 2, 3)))


def image_scores(maps: Floats) -> Values:
    """The largest value of each map (N, H, W), (N,): the image's score. Smooth the maps before."""
    return np.asarray(maps.max(axis=(1, 2)), dtype=np.float64)


def auroc(positives: Values, negatives: Values) -> float:
    """Area under the ROC curve; a tie of a positive and a negative counts a half (Mann and Whitney 1947).

    Args:
        positives: (L,), how many there are at each level of the score, the highest level first.
        negatives: (L,), the same of the others.

    Returns:
        0..1; NaN without positives or without negatives.
    """
    total = positives.sum() * negatives.sum()
    below = negatives.sum() - np.cumsum(negatives)
    return float((positives * (below + 0.5 * negatives)).sum() / total) if total > 0 else float("nan")


def auprc(positives: Values, negatives: Values) -> float:
    """Average precision: the sum of precision times the gain in recall, level by level, not interpolated.

    Arguments as for `auroc`. Chance gives the prevalence. NaN without positives.
    """
    if positives.sum() <= 0:
        return float("nan")
    found = np.cumsum(positives)
    called = found + np.cumsum(negatives)
    precision = np.divide(found, called, out=np.zeros(len(found)), where=called > 0)
    return float((positives * precision).sum() / found[-1])


def counts_by_level(scores: Floats, positive: Bools) -> tuple[Values, Values]:
    """Positives and negatives at each different score, the highest first: what `auroc` and `auprc` take."""
    values, level = np.unique(-np.ravel(scores), return_inverse=True)
    is_positive = np.ravel(positive)
    return (
        np.bincount(level[is_positive], minlength=len(values)).astype(np.float64),
        np.bincount(level[~is_positive], minlength=len(values)).astype(np.float64),
    )


@dataclass(frozen=True)
class Ranking:
    """How well a score ranks diseased above healthy: AUROC and average precision, and chance's precision."""

    auroc: Figure
    auprc: Figure
    prevalence: float


def pixel_ranking(
    maps: Floats,
    reference: Bools,
    patients: Sequence[str],
    *,
    judged: Bools | None = None,
    bootstrap: Bootstrap | None = None,
) -> Ranking:
    """Areas under the curves over all judged pixels of all images together.

    Maps must be comparable between images: divided by one scale, not by each image's maximum. Intervals
    come from resampled patients and from `LEVELS` levels of the score.

    Args:
        maps: (N, H, W), larger is more diseased.
        reference: (N, H, W).
        patients: whose image each is.
        judged: (N, H, W), pixels that count; None: all.
        bootstrap: of the intervals; by default `usual_bootstrap`.

    Raises:
        ShapeError: shapes that differ, or pixels of one kind only.
    """
    _same_shape(maps, reference)
    _same_length(len(maps), patients)
    names, owner = np.unique(list(patients), return_inverse=True)
    whose = np.broadcast_to(owner[:, None, None], maps.shape)
    if judged is None:
        return _ranking(maps.ravel(), reference.ravel(), whose.ravel(), len(names), len(maps), bootstrap)
    _same_shape(judged, reference)
    return _ranking(maps[judged], reference[judged], whose[judged], len(names), len(maps), bootstrap)


def image_ranking(
    scores: Values, diseased: Bools, patients: Sequence[str], *, bootstrap: Bootstrap | None = None
) -> Ranking:
    """Areas under the curves of image scores (N,) against image labels (N,).

    Raises:
        ShapeError: lengths that differ, or images of one kind only.
    """
    _same_shape(scores, diseased)
    _same_length(len(scores), patients)
    names, owner = np.unique(list(patients), return_inverse=True)
    return _ranking(scores, diseased, owner, len(names), len(scores), bootstrap)


def _ranking(
    scores: Floats,
    positive: Bools,
    owner: NDArray[np.intp],
    patients: int,
    images: int,
    bootstrap: Bootstrap | None,
) -> Ranking:
    positive = np.asarray(positive, dtype=np.bool_)
    if positive.all() or not positive.any():
        raise ShapeError(
            "nothing can be ranked: all are of one kind",
            found=f"{int(positive.sum())} diseased of {positive.size}",
            expected="some diseased and some healthy",
        )
    if not np.isfinite(scores).all():
        raise ShapeError("a score is not a number", found=f"{int((~np.isfinite(scores)).sum())} of them")
    exact = counts_by_level(scores, positive)
    above, below = _counts_by_patient(scores, positive, owner, patients)
    chosen = bootstrap or usual_bootstrap()

    def figure(area: Callable[[Values, Values], float]) -> Figure:
        low, high = chosen.of_figure(patients, lambda weights: area(weights @ above, weights @ below))
        return Figure(area(*exact), low, high, images, patients)

    return Ranking(figure(auroc), figure(auprc), float(positive.mean()))


def _counts_by_patient(
    scores: Floats, positive: Bools, owner: NDArray[np.intp], patients: int
) -> tuple[Values, Values]:
    """Positives and negatives (patients, levels) at no more than `LEVELS` levels, the highest first."""
    values, level, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    if len(values) > LEVELS:
        middle = np.cumsum(counts) - 0.5 * counts
        level = (middle * (LEVELS / counts.sum())).astype(np.intp)[level]
    levels = min(len(values), LEVELS)
    cell = owner * levels + level
    return tuple(  # type: ignore[return-value]
        np.bincount(cell[kind], minlength=patients * levels).reshape(patients, levels).astype(np.float64)
        for kind in (positive, ~positive)
    )


def _acc_mse(maps: Values, reference: Bools, judged: Bools | None) -> Values:
    _same_shape(maps, reference)
    return 1.0 - _share((maps - reference) ** 2, judged)


def _share(values: Values, judged: Bools | None) -> Values:
    """Mean over the judged pixels of each image; NaN where none is judged."""
    if judged is None:
        return np.asarray(values.mean(axis=(1, 2)))
    _same_shape(values, judged)
    counts = judged.sum(axis=(1, 2))
    shares: Values = np.divide(
        (values * judged).sum(axis=(1, 2)), counts, out=np.full(len(values), np.nan), where=counts > 0
    )
    return shares


def _same_shape(a: NDArray[np.generic], b: NDArray[np.generic]) -> None:
    if a.shape != b.shape:
        raise ShapeError(
            "maps and what they are compared with must have one shape", found=f"{a.shape} and {b.shape}"
        )


def _same_length(images: int, patients: Sequence[str]) -> None:
    if images != len(patients):
        raise ShapeError(
            "every image needs its patient", found=f"{images} images and {len(patients)} patients"
        )
