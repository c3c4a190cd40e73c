"""How far an inversion may be trusted: each case's residual beside those of the training images.

A generator draws what it has learned. An image that it cannot draw is inverted into one that it can, and
whatever reads the generator's features then reads those of another image. Its residual tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import DataError, ShapeError
from fewmask.inversion.result import Inversion

FEWEST = 8
"""Fewer training images do not tell which residual is unusual."""

_NAMES = ("MSE", "perceptual distance", "MS-SSIM")


@dataclass(frozen=True)
class Residual:
    """One case's residual, as a row of a table.

    mse, perceptual, ms_ssim: see `Inversion`; the percentiles: how many per cent of the training images are
    met better by that measure; percentile: how many per cent of them are met better in their own worst
    measure than this case is in its worst; flagged: not to be trusted, and why.
    """

    case: str
    mse: float
    perceptual: float
    ms_ssim: float
    mse_percentile: float
    perceptual_percentile: float
    ms_ssim_percentile: float
    percentile: float
    flagged: bool
    why: str


@dataclass(frozen=True, eq=False)
class ResidualGate:
    """The residuals of training images, and the percentile of them beyond which a case is flagged.

    errors (3, M): mean squared errors, perceptual distances and 1 - MS-SSIM, each sorted; worst (M,): every
    training image's highest percentile among the three, sorted. Because cases are judged by the rank of their
    worst measure among these, (100 - percentile) per cent of the training images themselves would be flagged,
    not up to three times as many.
    """

    errors: NDArray[np.float64]
    worst: NDArray[np.float64]
    percentile: float

    def percentiles(self, inversion: Inversion) -> NDArray[np.float64]:
        """(3, N): per cent of the training images met better by each measure; 100 for what is no number."""
        return _ranks(self.errors, _errors(inversion))

    def overall(self, inversion: Inversion) -> NDArray[np.float64]:
        """(N,): per cent of the training images whose worst measure is better than the case's worst."""
        worst = self.percentiles(inversion).max(axis=0)
        ranks = _ranks(self.worst[None], worst[None])[0]
        return np.where(np.isfinite(_errors(inversion)).all(axis=0), ranks, 100.0)

    def flags(self, inversion: Inversion) -> NDArray[np.bool_]:
        """(N,) True where a case lies beyond the percentile."""
        return np.asarray(self.overall(inversion) >= self.percentile, dtype=np.bool_)


def residual_gate(train: Inversion, *, percentile: float = 95.0) -> ResidualGate:
    """The gate from inversions of training images, made by the same recipe as those it will judge.

    Raises:
        DataError: fewer than 8 inversions, or residuals that are no numbers.
    """
    errors = _errors(train)
    if len(train.mse) < FEWEST:
        raise DataError(
            "too few inversions to say which residual is unusual",
            found=f"{len(train.mse)} images",
            expected=f"at least {FEWEST} training images",
            mend="Invert more of the unlabelled training images.",
        )
    if not np.isfinite(errors).all():
        raise DataError(
            "residuals of training images that are not numbers",
            found=f"{int((~np.isfinite(errors)).any(axis=0).sum())} of {len(train.mse)} images",
            mend="Invert them again at a lower learning rate.",
        )
    ordered = np.sort(errors, axis=1)
    return ResidualGate(ordered, np.sort(_ranks(ordered, errors).max(axis=0)), percentile)


def residuals(
    gate: ResidualGate, cases: Sequence[str], images: NDArray[np.floating], inversion: Inversion
) -> list[Residual]:
    """A row per case: `images` (N, C, H, W) are what was inverted, `cases` their names.

    A constant image is flagged whatever its residual: it shows nothing that an inversion could have met.

    Raises:
        ShapeError: names, images and inversions of different counts.
    """
    counts = (len(cases), len(images), len(inversion.mse))
    if len(set(counts)) != 1:
        raise ShapeError(
            "residuals need one name and one image per inversion",
            found=f"{counts[0]} names, {counts[1]} images, {counts[2]} inversions",
        )
    ranks, overall, flags = gate.percentiles(inversion), gate.overall(inversion), gate.flags(inversion)
    rows = []
    for n, case in enumerate(cases):
        constant = bool(np.ptp(images[n]) == 0)
        why = "a constant image" if constant else _why(gate, ranks[:, n], overall[n]) if flags[n] else ""
        rows.append(
            Residual(
                case=case,
                mse=float(inversion.mse[n]),
                perceptual=float(inversion.perceptual[n]),
                ms_ssim=float(inversion.ms_ssim[n]),
                mse_percentile=float(ranks[0, n]),
                perceptual_percentile=float(ranks[1, n]),
                ms_ssim_percentile=float(ranks[2, n]),
                percentile=float(overall[n]),
                flagged=bool(why),
                why=why,
            )
        )
    return rows


def _why(gate: ResidualGate, ranks: NDArray[np.float64], overall: float) -> str:
    name = _NAMES[int(ranks.argmax())]
    better = f"{ranks.max():.0f} % of the training images are met better in {name}"
    return f"{better}; overall percentile {overall:.0f}, limit {gate.percentile:g}"


def _errors(inversion: Inversion) -> NDArray[np.float64]:
    """(3, N): the higher the worse."""
    return np.stack([inversion.mse, inversion.perceptual, 1.0 - inversion.ms_ssim]).astype(np.float64)


def _ranks(ordered: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per cent of each row of `ordered` (K, M) that lies below the values (K, N); NaN lies above all."""
    below = [np.searchsorted(row, value, side="left") for row, value in zip(ordered, values, strict=True)]
    return np.asarray(100.0 * np.stack(below) / ordered.shape[1])
