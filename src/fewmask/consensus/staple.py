"""STAPLE (Warfield et al. 2004): a mask and the quality of those who drew it, estimated together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from fewmask.consensus.voting import require_alike

ITERATIONS = 200
"""Far more than STAPLE takes; a stop for masks on which it does not settle."""


@dataclass(frozen=True, eq=False)
class Staple:
    """What STAPLE found."""

    mask: NDArray[np.bool_]
    """(Z, Y, X): probability above one half."""
    probability: NDArray[np.float64]
    """(Z, Y, X), 0..1."""
    sensitivity: tuple[float, ...]
    """By voter, 0..1: share of the true structure that he marked."""
    specificity: tuple[float, ...]
    """By voter, 0..1: share of the rest that he left free. Grows with the box that is looked at."""


def staple(masks: Sequence[NDArray[np.bool_]]) -> Staple:
    """STAPLE by SimpleITK on boolean masks (Z, Y, X) of one shape, one per voter.

    The prior is the mean of the masks, so the box matters: cut it to the structure with a margin. Voters
    who marked nothing take part with a sensitivity of 0. When nobody marked anything the mask is empty,
    the sensitivities are 1 and so are the specificities.

    Raises:
        ShapeError: no mask, or shapes that differ.
    """
    require_alike(masks)
    if not any(mask.any() for mask in masks):
        ones = (1.0,) * len(masks)
        return Staple(np.zeros_like(masks[0]), np.zeros(masks[0].shape), ones, ones)
    if all(mask.all() for mask in masks):
        ones = (1.0,) * len(masks)
        return Staple(np.ones_like(masks[0]), np.ones(masks[0].shape), ones, ones)
    how = sitk.STAPLEImageFilter()
    how.SetForegroundValue(1)
    how.SetMaximumIterations(ITERATIONS)
    how.SetNumberOfThreads(1)
    images = [sitk.GetImageFromArray(np.ascontiguousarray(mask, dtype=np.uint8)) for mask in masks]
    probability = np.nan_to_num(sitk.GetArrayFromImage(how.Execute(images)))
    sensitivity, specificity = (
        tuple(float(value) for value in values) for values in (how.GetSensitivity(), how.GetSpecificity())
    )
    return Staple(probability > 0.5, probability, sensitivity, specificity)
