"""How far two sets of voxels share the same voxels; and what counts when one of them is empty.

P is the predicted set of one class in one case, G the reference set. The empty-set rule lives here and
nowhere else: both empty is a true negative (Dice and IoU are 1, and the row is counted separately); one
empty is a miss or a false alarm (Dice and IoU are 0). medpy's `dc` gives 0 for both empty, MONAI NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ShapeError

Outcome = Literal["overlap", "true_negative", "missed", "false_alarm"]


def outcome(predicted: int, reference: int) -> Outcome:
    """Which of P and G (numbers of voxels) are empty: the one place that decides."""
    if predicted and reference:
        return "overlap"
    if predicted:
        return "false_alarm"
    return "missed" if reference else "true_negative"


@dataclass(frozen=True)
class Overlap:
    """Counts of voxels of one class in one case; every overlap measure follows from them."""

    both: int
    """In P and in G."""
    predicted: int
    """In P."""
    reference: int
    """In G."""
    total: int
    """Judged voxels; those with the label `IGNORE` are not among them."""

    @property
    def outcome(self) -> Outcome:
        """Which of the two sets are empty."""
        return outcome(self.predicted, self.reference)

    @property
    def either(self) -> int:
        """In P or in G."""
        return self.predicted + self.reference - self.both

    @property
    def dice(self) -> float:
        """2 |P and G| / (|P| + |G|), in 0..1; 1 when both are empty."""
        return _ratio(2 * self.both, self.predicted + self.reference)

    @property
    def iou(self) -> float:
        """|P and G| / |P or G|, in 0..1; 1 when both are empty."""
        return _ratio(self.both, self.either)

    @property
    def pixel_accuracy(self) -> float:
        """Share of judged voxels on which P and G agree, in 0..1. Read it only beside `empty_accuracy`."""
        return 1.0 - (self.either - self.both) / self.total

    @property
    def empty_accuracy(self) -> float:
        """Pixel accuracy of a prediction that is empty everywhere, in 0..1."""
        return 1.0 - self.prevalence

    @property
    def prevalence(self) -> float:
        """Share of judged voxels that belong to G, in 0..1."""
        return self.reference / self.total


def _ratio(part: int, whole: int) -> float:
    """The quotient of two counts; 1 when there is nothing to share: both sets are empty."""
    return part / whole if whole else 1.0


def overlap(
    predicted: NDArray[np.bool_], reference: NDArray[np.bool_], judged: NDArray[np.bool_] | None = None
) -> Overlap:
    """Count the voxels of two boolean masks of the same shape, of any number of axes.

    Args:
        predicted: P.
        reference: G.
        judged: where somebody has judged; everything else is left out. None: everywhere.

    Raises:
        ShapeError: the shapes differ, or no voxel is judged.
    """
    require_same_shape(predicted, reference)
    if judged is not None:
        require_same_shape(judged, reference)
        predicted, reference = predicted & judged, reference & judged
    total = reference.size if judged is None else int(np.count_nonzero(judged))
    if total == 0:
        raise ShapeError(
            "no voxel of the reference is judged, so there is nothing to score",
            mend="Leave the case out of the test part, or draw its mask.",
        )
    return Overlap(
        both=int(np.count_nonzero(predicted & reference)),
        predicted=int(np.count_nonzero(predicted)),
        reference=int(np.count_nonzero(reference)),
        total=total,
    )


def dice(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """2 |P and G| / (|P| + |G|) of two boolean masks of the same shape, in 0..1; 1 when both are empty."""
    return overlap(predicted, reference).dice


def iou(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """|P and G| / |P or G| of two boolean masks of the same shape, in 0..1; 1 when both are empty."""
    return overlap(predicted, reference).iou


def miou_dataset(by_class: Mapping[str, Sequence[Overlap]]) -> float:
    """Mean over classes of (sum over images of |P and G|) / (sum over images of |P or G|), in 0..1.

    The "mIoU" of DatasetGAN (Zhang et al. 2021): large structures and large images weigh more.
    """
    return float(
        np.mean([_ratio(sum(o.both for o in row), sum(o.either for o in row)) for row in by_class.values()])
    )


def miou_image(by_class: Mapping[str, Sequence[Overlap]]) -> float:
    """Mean over classes of the mean IoU over images, in 0..1: every image weighs the same."""
    return float(np.mean([np.mean([o.iou for o in row]) for row in by_class.values()]))


def require_same_shape(a: NDArray[np.generic], b: NDArray[np.generic]) -> None:
    """Raise a `ShapeError` unless the two masks have the same shape."""
    if a.shape != b.shape:
        raise ShapeError(
            "two masks that are compared must have the same shape",
            found=f"{a.shape} and {b.shape}",
            mend="Bring the prediction back to the reference's grid first.",
        )
