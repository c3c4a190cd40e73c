"""Masks that give every voxel a share of each class: a network's probabilities, or how sure somebody is.

A mask is either integer (*S), class numbers with `IGNORE` where nobody judged, or soft (K, *S), K classes
with the background first. A soft voxel counts in a loss as much as its classes add up to, 1 fully, 0 not at
all: to weigh a voxel is to scale it.
"""

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import DataError, ShapeError
from fewmask.core.volume import IGNORE

MaskArray = NDArray[np.uint8] | NDArray[np.floating]
"""Integer masks (N, *S) uint8, or soft masks (N, K, *S) float16 or float32."""

ROUNDING = 1e-2
"""What the shares of a voxel may add up to beyond 1: 16-bit probabilities are rounded."""


def soft_targets(masks: NDArray[np.uint8], classes: int) -> NDArray[np.float16]:
    """Integer masks (N, *S) of class numbers as soft ones (N, K, *S): one-hot, and 0 where nobody judged.

    `classes`: K, with the background. Raises `DataError` on a class number of K or more.
    """
    refuse_classes(masks, classes)
    soft = np.empty((len(masks), classes, *masks.shape[1:]), dtype=np.float16)
    for number in range(classes):
        soft[:, number] = masks == number
    return soft


def refuse_classes(masks: NDArray[np.uint8], classes: int) -> None:
    """Raise `DataError` on class numbers of integer masks that are neither below `classes` nor `IGNORE`."""
    strange = sorted(set(np.unique(masks).tolist()) - {*range(classes), IGNORE})
    if strange:
        raise DataError(
            "a mask holds class numbers that the network does not have",
            found=", ".join(map(str, strange)),
            expected=f"0 to {classes - 1}, or {IGNORE} (unjudged)",
            mend="Turn label values into class numbers first.",
        )


def is_soft(masks: MaskArray) -> bool:
    """Whether the masks hold shares of classes, not class numbers."""
    return bool(np.issubdtype(masks.dtype, np.floating))


def refuse_mask(masks: MaskArray | None, shape: tuple[int, ...], *, soft: bool = False) -> None:
    """Raise `ShapeError` unless masks are uint8 of `shape` (N, *S) - or, with `soft`, shares (N, K, *S).

    `DataError` on shares that are negative, not finite, or add up to more than 1 in some voxel.
    """
    if masks is None or (masks.shape == tuple(shape) and masks.dtype == np.uint8):
        return
    expected = f"{tuple(shape)} uint8"
    if soft:
        fits = masks.ndim > 1 and (len(masks), *masks.shape[2:]) == tuple(shape)
        if fits and masks.dtype in (np.float16, np.float32):
            _refuse_shares(masks)
            return
        expected += f", or ({shape[0]}, classes, {', '.join(map(str, shape[1:]))}) float16 or float32"
    raise ShapeError(
        "training masks do not fit their images", found=f"{masks.shape} {masks.dtype}", expected=expected
    )


def _refuse_shares(masks: MaskArray) -> None:
    """One mask after the other, for all of them may be larger than memory."""
    for number, mask in enumerate(masks):
        least, most = mask.min(), mask.sum(axis=0, dtype=np.float32).max()
        if not (least >= 0 and most <= 1 + ROUNDING):
            raise DataError(
                "the shares of a soft mask must be at least 0 and add up to at most 1 in every voxel",
                where=f"mask {number}",
                found=f"smallest {least:g}, largest sum {most:g}",
                mend="Divide the classes of each voxel by their sum.",
            )
