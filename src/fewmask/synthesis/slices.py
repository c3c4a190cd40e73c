"""The slices that a generator is to learn from: refused when nothing can be learned from them."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, DataError

FEWEST = 16
"""Fewer slices than this teach a generator nothing but themselves."""

MOST_CONSTANT = 0.5
"""With a larger share of slices of one grey each, a generator learns to draw nothing."""

ROUNDING = 1e-2
"""So far beyond [-1, 1] is taken for rounding."""

CHUNK = 256

SIDES = (16, 32, 64, 128, 256, 512, 1024)


def refuse_slices(
    images: NDArray[Any],
    scale: tuple[float, float] | None,
    where: str = "images",
    *,
    fewest: int = FEWEST,
) -> None:
    """Look at every slice before a training begins.

    Args:
        images: (N, C, R, R); R a power of two from 16 to 1024.
        scale: (factor, offset) that brings the values to [-1, 1]; None if they are there.
        where: how to name them in an error.
        fewest: how many there must be.

    Raises:
        ConfigError: too few slices, or slices that are not square with a power of two for a side.
        DataError: a value that is not finite or outside [-1, 1], slices that are nearly all of one grey, or
            all the same.
    """
    _refuse_shape(images, where, fewest)
    constant, same = 0, True
    first = _scaled(images[:1], scale)[0]
    for start, some in _chunks(images, scale):
        flat = some.reshape(len(some), -1)
        _refuse_values(flat, start, where)
        constant += int((flat.max(axis=1) == flat.min(axis=1)).sum())
        same = same and bool((some == first).all())
    if constant > MOST_CONSTANT * len(images):
        raise DataError(
            "most slices are of one grey each",
            where=where,
            found=f"{constant} of {len(images)} slices are constant",
            expected=f"at most {MOST_CONSTANT:.0%}",
            mend="Leave empty slices out, and check the intensity window.",
        )
    if same and len(images) > 1:
        raise DataError(
            "all slices are the same",
            where=where,
            found=f"{len(images)} copies of one slice",
            mend="Give slices of different patients.",
        )


def fingerprint(images: NDArray[Any]) -> str:
    """A short hash of the slices."""
    digest = hashlib.sha256(f"{images.shape} {images.dtype}".encode())
    for image in images:
        digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()[:16]


def _refuse_shape(images: NDArray[Any], where: str, fewest: int) -> None:
    if images.ndim != 4:
        raise ConfigError(
            "slices must be an array of four axes",
            where=where,
            found=str(images.shape),
            expected="(N, C, R, R)",
        )
    if len(images) < fewest:
        raise ConfigError(
            "too few slices to train a generator",
            where=where,
            found=f"{len(images)}",
            expected=f"at least {fewest}, better some hundreds",
            mend="Add unlabelled scans of the same kind, or use `fewmask run supervised`.",
        )
    if images.shape[2] != images.shape[3] or images.shape[2] not in SIDES:
        raise ConfigError(
            "the generator draws square slices with a power of two for a side",
            where="prepare.size",
            found=f"{images.shape[2]} x {images.shape[3]}",
            expected="one of " + ", ".join(str(side) for side in SIDES),
            mend="Set prepare.size to two equal powers of two, e.g. [64, 64].",
        )


def _refuse_values(flat: NDArray[np.float32], start: int, where: str) -> None:
    finite = np.isfinite(flat).all(axis=1)
    if not finite.all():
        which = int(np.flatnonzero(~finite)[0])
        raise DataError(
            "a slice holds values that are no numbers",
            where=f"{where}, slice {start + which}",
            found=f"{int((~np.isfinite(flat[which])).sum())} of {flat.shape[1]} values are NaN or infinite",
            expected="finite numbers",
            mend="Check the scans: `fewmask check FOLDER`.",
        )
    low, high = float(flat.min()), float(flat.max())
    if low < -1 - ROUNDING or high > 1 + ROUNDING:
        raise DataError(
            "the intensities are not scaled",
            where=where,
            found=f"values from {low:g} to {high:g}",
            expected="values in [-1, 1]",
            mend="Prepare the slices (data/prepare), or give their scale.",
        )


def _chunks(
    images: NDArray[Any], scale: tuple[float, float] | None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    for start in range(0, len(images), CHUNK):
        yield start, _scaled(images[start : start + CHUNK], scale)


def _scaled(images: NDArray[Any], scale: tuple[float, float] | None) -> NDArray[np.float32]:
    some = np.asarray(images, dtype=np.float32)
    return some if scale is None else some * np.float32(scale[0]) + np.float32(scale[1])
