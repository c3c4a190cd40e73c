"""Shapes in millimetres on voxels that need not be cubes. Arrays are (Z, Y, X); one slice counts as 2-D."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bool = NDArray[np.bool_]
TOUCHING = np.ones((3, 3, 3), dtype=np.bool_)
"""26 neighbours (8 within one slice)."""


def ball(radius_mm: float, spacing_mm: Sequence[float]) -> Bool:
    """The voxels whose centres lie within `radius_mm` of a voxel's, as a structuring element of odd sizes."""
    reach = [int(radius_mm / mm + 1e-9) for mm in spacing_mm]
    return away_mm(tuple(2 * n + 1 for n in reach), reach, spacing_mm) <= radius_mm + 1e-9


def away_mm(
    shape: tuple[int, ...], centre: Sequence[float], spacing_mm: Sequence[float]
) -> NDArray[np.float64]:
    """Distance in mm of every voxel of `shape` (Z, Y, X) from the voxel position `centre` (z, y, x)."""
    squares = [((np.arange(n) - c) * mm) ** 2 for n, c, mm in zip(shape, centre, spacing_mm, strict=True)]
    return np.asarray(np.sqrt(sum(np.ix_(*squares))), dtype=np.float64)


def closed(mask: Bool, radius_mm: float, spacing_mm: Sequence[float]) -> Bool:
    """Closing by a ball; what lies outside the array is no wall."""
    element = _element(mask, radius_mm, spacing_mm)
    reach = [n // 2 for n in element.shape]
    padded = np.pad(mask, [(n, n) for n in reach])
    result = ndimage.binary_closing(padded, element)
    return np.asarray(result[tuple(slice(n, n + size) for n, size in zip(reach, mask.shape, strict=True))])


def opened(mask: Bool, radius_mm: float, spacing_mm: Sequence[float]) -> Bool:
    """Opening by a ball: cuts what is thinner, such as vessels."""
    return np.asarray(ndimage.binary_opening(mask, _element(mask, radius_mm, spacing_mm)), dtype=np.bool_)


def _element(mask: Bool, radius_mm: float, spacing_mm: Sequence[float]) -> Bool:
    """A ball, or a disc where there is one slice: what lies above and below it is not known."""
    element = ball(radius_mm, spacing_mm)
    middle = element.shape[0] // 2
    return element[middle : middle + 1] if mask.shape[0] == 1 else element


def filled(mask: Bool) -> Bool:
    """Holes filled slice by slice (along Z)."""
    return np.stack([ndimage.binary_fill_holes(plane) for plane in mask])


def largest(mask: Bool) -> Bool:
    """The largest component of 26 (8) connected voxels; an empty mask stays empty."""
    parts, count = ndimage.label(mask, structure=TOUCHING)
    if count < 2:
        return mask
    return np.asarray(parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:])))


def surface(mask: Bool) -> Bool:
    """Voxels of `mask` with a face neighbour outside it or outside the array; in 2-D, an edge neighbour."""
    return mask & ~_kept_by_neighbours(mask)


def facing(mask: Bool, outside: Bool) -> Bool:
    """Voxels of `mask` with a face neighbour in `outside`, or beyond the array."""
    return mask & ~_kept_by_neighbours(~outside)


def _kept_by_neighbours(inside: Bool) -> Bool:
    """Voxels all of whose face neighbours lie in `inside` and in the array; axes of size 1 do not count."""
    kept = np.ones_like(inside)
    for axis, size in enumerate(inside.shape):
        if size == 1:
            continue
        for step in (1, -1):
            moved = np.roll(inside, step, axis=axis)
            edge = [slice(None)] * inside.ndim
            edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
            moved[tuple(edge)] = False
            kept &= moved
    return kept


def radius_mm(mask: Bool, spacing_mm: Sequence[float]) -> float:
    """Radius of the ball of the same volume, of the disc of the same area where there is one slice; mm."""
    voxels = int(np.count_nonzero(mask))
    if mask.shape[0] == 1:
        return float(np.sqrt(voxels * spacing_mm[1] * spacing_mm[2] / np.pi))
    return float(np.cbrt(3.0 * voxels * float(np.prod(spacing_mm)) / (4.0 * np.pi)))


def centre_of(mask: Bool) -> tuple[int, int, int]:
    """The voxel (z, y, x) of a mask that is not empty nearest to its centroid, in voxels."""
    places = np.argwhere(mask)
    nearest = np.argmin(((places - places.mean(axis=0)) ** 2).sum(axis=1))
    z, y, x = places[nearest].tolist()
    return z, y, x
