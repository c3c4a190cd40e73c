"""Scores by lesion: how many were found, how many were invented, how far the volume is off."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fewmask.metrics.overlap import require_same_shape

HIT_SHARE = 0.10
"""A reference lesion is hit when at least this share of its voxels is predicted."""

OUTLINED_DICE = 0.10
"""A reference lesion is outlined when its Dice with the predicted lesions that touch it is above this."""


@dataclass(frozen=True)
class LesionScore:
    """Lesions of one class in one case. A lesion is a component of 26 (in 2-D: 8) connected voxels."""

    reference: int
    """Lesions of the reference."""
    hit: int
    """Reference lesions of which at least `HIT_SHARE` of the voxels are predicted."""
    outlined: int
    """Reference lesions whose Dice with all predicted lesions that touch them is above `OUTLINED_DICE`: a
    prediction of everything hits every lesion and outlines none."""
    predicted: int
    """Lesions of the prediction."""
    false_positives: int
    """Predicted lesions that share no voxel with the reference."""
    reference_ml: float
    """Volume of the reference."""
    predicted_ml: float
    """Volume of the prediction."""

    @property
    def sensitivity(self) -> float | None:
        """Share of the reference lesions that are hit, in 0..1; None when there is no lesion to find."""
        return self.hit / self.reference if self.reference else None

    @property
    def detected(self) -> bool | None:
        """At least one lesion of the case is hit; None when there is no lesion to find."""
        return self.hit > 0 if self.reference else None

    @property
    def error_ml(self) -> float:
        """Predicted minus reference volume."""
        return self.predicted_ml - self.reference_ml

    @property
    def error_percent(self) -> float | None:
        """The volume error as a percentage of the reference volume; None when that is empty."""
        return 100.0 * self.error_ml / self.reference_ml if self.reference_ml else None


def score_lesions(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> LesionScore:
    """Compare two boolean masks (Z, Y, X) lesion by lesion; `spacing_mm` is along (Z, Y, X).

    Raises:
        ShapeError: the shapes differ.
    """
    require_same_shape(predicted, reference)
    neighbours = np.ones((3,) * reference.ndim, dtype=bool)
    lesions, count = ndimage.label(reference, structure=neighbours)
    found, found_count = ndimage.label(predicted, structure=neighbours)
    sizes = np.bincount(lesions.ravel(), minlength=count + 1)[1:]
    covered = np.bincount(lesions[predicted], minlength=count + 1)[1:]
    touching = np.unique(found[reference & predicted])
    ml = float(np.prod(np.asarray(spacing_mm, dtype=np.float64))) / 1000.0
    return LesionScore(
        reference=int(count),
        hit=int(np.count_nonzero(covered >= HIT_SHARE * sizes)),
        outlined=_outlined(lesions, count, found),
        predicted=int(found_count),
        false_positives=int(found_count - touching.size),
        reference_ml=float(sizes.sum()) * ml,
        predicted_ml=int(np.count_nonzero(predicted)) * ml,
    )


def _outlined(lesions: NDArray[np.integer], count: int, found: NDArray[np.integer]) -> int:
    """How many of the `count` reference components are outlined by the predicted ones that touch them."""
    sizes = np.bincount(found.ravel())
    number = 0
    for lesion in range(1, count + 1):
        inside = found[lesions == lesion]
        touching = np.unique(inside[inside > 0])
        both = 2 * int(np.count_nonzero(inside))
        number += bool(touching.size) and both / (inside.size + int(sizes[touching].sum())) > OUTLINED_DICE
    return number
