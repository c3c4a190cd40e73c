"""Does an ensemble's uncertainty know where its masks are wrong? Asked of held-out real images with masks.

Zhang et al. 2021 (DatasetGAN) leave out the generated images that the ensemble is least sure of. That helps
only where unsure images are the wrong ones, which real images with masks can tell: error against score.
Images of one patient are not independent, so every interval comes from resampled patients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.core.seed import stream

Values = NDArray[np.float64]
Interval = tuple[float, float]

FEWEST = 3
"""Fewer images have no ranks to correlate."""


@dataclass(frozen=True)
class Bin:
    """Images of neighbouring scores: the least and the largest score, how many, means of score and error."""

    low: float
    high: float
    images: int
    score: float
    error: float


@dataclass(frozen=True)
class UncertaintyCurve:
    """Error against uncertainty over real images; error is 1 - Dice, 0-1. Intervals are None for one patient.

    bins: from the least to the most uncertain; rank: Spearman's correlation of score and error, None where
    all scores or all errors are equal; dropped: share that is left out; error, error_kept: mean over all
    images and without those; fall: error - error_kept, above 0 when the score is of use; best_fall: what
    leaving out the images with the largest error would gain.
    """

    images: int
    patients: int
    bins: tuple[Bin, ...]
    rank: float | None
    rank_interval: Interval | None
    dropped: float
    error: float
    error_kept: float
    fall: float
    fall_interval: Interval | None
    best_fall: float
    level: float

    @property
    def useful(self) -> bool:
        """Whether the interval of the fall lies above 0."""
        return self.fall_interval is not None and self.fall_interval[0] > 0


def uncertainty_curve(
    scores: Sequence[float] | Values,
    dice: Sequence[float] | Values,
    patients: Sequence[str],
    *,
    bins: int = 10,
    drop: float = 0.1,
    resamples: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> UncertaintyCurve:
    """Curve, rank correlation, and what leaving out the most uncertain images gains.

    Args:
        scores: (N,) how uncertain the ensemble is of each real image (`synthesis.pairs.image_score`).
        dice: (N,) Dice of its mask with the reader's, 0-1, mean over classes.
        patients: (N,) whose image each is.
        bins: at most so many, of equal numbers of images.
        drop: share of the images to leave out, those with the highest score, as `synthesis.sift` does.
        resamples: of the patients, for the intervals.
        level: of the intervals.
        seed: of the resamples.

    Raises:
        ShapeError: lengths that differ, fewer than `FEWEST` images, or values that are no numbers.
        ConfigError: a share outside (0, 1), a Dice outside [0, 1], or no bin.
    """
    unsure, error = np.asarray(scores, dtype=np.float64), 1 - np.asarray(dice, dtype=np.float64)
    _refuse(unsure, error, patients, bins, drop)
    owner = np.unique(np.asarray(patients), return_inverse=True)[1]
    several = owner.max() > 0
    drawn = list(_drawn(owner, resamples, seed)) if several else []

    def interval(figure: Callable[[Values, Values], float]) -> Interval | None:
        found = np.array([figure(unsure[rows], error[rows]) for rows in drawn])
        found = found[np.isfinite(found)]
        tail = (1 - level) / 2
        return (
            None if not len(found) else (float(np.quantile(found, tail)), float(np.quantile(found, 1 - tail)))
        )

    def fall(by: Values, wrong: Values) -> float:
        return float(wrong.mean() - wrong[_kept(by, drop)].mean())

    rank = _spearman(unsure, error)
    gained = fall(unsure, error)
    return UncertaintyCurve(
        images=len(error),
        patients=int(owner.max()) + 1,
        bins=_bins(unsure, error, bins),
        rank=rank if np.isfinite(rank) else None,
        rank_interval=interval(_spearman) if np.isfinite(rank) else None,
        dropped=drop,
        error=float(error.mean()),
        error_kept=float(error.mean()) - gained,
        fall=gained,
        fall_interval=interval(fall),
        best_fall=fall(error, error),
        level=level,
    )


def _bins(unsure: Values, error: Values, bins: int) -> tuple[Bin, ...]:
    order = np.argsort(unsure, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, len(order))) if len(part)]
    return tuple(
        Bin(
            low=float(unsure[part].min()),
            high=float(unsure[part].max()),
            images=len(part),
            score=float(unsure[part].mean()),
            error=float(error[part].mean()),
        )
        for part in parts
    )


def _kept(score: Values, drop: float) -> NDArray[np.intp]:
    """Rows that stay when the share `drop` of the highest scores goes, of equal ones the later; one stays."""
    order = np.argsort(score, kind="stable")
    return order[: max(1, len(order) - round(drop * len(order)))]


def _spearman(a: Values, b: Values) -> float:
    """Pearson's correlation of the ranks, equal values sharing theirs; NaN where one never differs."""
    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in (a, b))
    length = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / length if length > 0 else float("nan")


def _drawn(owner: NDArray[np.intp], resamples: int, seed: int) -> list[NDArray[np.intp]]:
    """Rows of every resample: all images of as many patients as there are, drawn with replacement."""
    count = int(owner.max()) + 1
    rows = [np.flatnonzero(owner == number) for number in range(count)]
    chance = stream(seed, "uncertainty curve", count, resamples)
    picks = chance.integers(count, size=(resamples, count))
    return [np.concatenate([rows[number] for number in pick]) for pick in picks]


def _refuse(unsure: Values, error: Values, patients: Sequence[str], bins: int, drop: float) -> None:
    finite = bool(np.isfinite(unsure).all() and np.isfinite(error).all())
    if unsure.ndim != 1 or not len(unsure) == len(error) == len(patients) >= FEWEST or not finite:
        raise ShapeError(
            "scores and errors cannot be compared",
            found=f"{unsure.shape} scores, {error.shape} Dice, {len(patients)} patients"
            + ("" if finite else ", not all of them numbers"),
            expected=f"one of each per image, at least {FEWEST} images",
        )
    if not 0 < drop < 1 or bins < 1 or error.min() < 0 or error.max() > 1:
        raise ConfigError(
            "no curve of errors can be drawn so",
            found=f"drop {drop:g}, {bins} bins, Dice {1 - error.max():g} to {1 - error.min():g}",
            expected="a share between 0 and 1, at least one bin, Dice from 0 to 1",
        )
