"""Dice and IoU slice by slice, then their mean: the convention of papers that score slices as pictures.

A mean over slices weighs a slice with ten voxels of the structure like one with a thousand; the score of the
whole case weighs voxels. The two are different numbers: always say which.
"""

import numpy as np
from numpy.typing import NDArray


def slice_means(predicted: NDArray[np.bool_], reference: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean Dice and mean IoU over the slices of one class in one case.

    Counted are the slices on which the prediction or the reference shows the class: slices without it in
    both would each add a 1 and hide the errors in a long scan. When no slice shows it, both are 1, as the
    scores of the whole case are. A case with one slice has the scores of that slice.

    Args:
        predicted: the predicted set (Z, Y, X); voxels that nobody judged are False.
        reference: the reference set (Z, Y, X), likewise.

    Returns:
        (Dice, IoU), each in 0..1.
    """
    both, p, g = (_counts(mask) for mask in (predicted & reference, predicted, reference))
    shown = (p + g) > 0
    if not shown.any():
        return 1.0, 1.0
    both, total = both[shown], (p + g)[shown]
    return float(np.mean(2 * both / total)), float(np.mean(both / (total - both)))


def _counts(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Voxels of the set in every slice, (Z,)."""
    return np.asarray(mask.sum(axis=(1, 2), dtype=np.int64))
