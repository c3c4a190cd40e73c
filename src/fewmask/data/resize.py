"""Resizing along one axis at a time: area average when shrinking, linear when enlarging.

Resizing maps the box of voxels onto the box of voxels, outer faces onto outer faces, so nothing shifts by
half a voxel and the way back lies beside the way there. The operators are sparse matrices with rows that
sum to one, so values never leave their range by more than rounding.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Shape = tuple[int, int, int]
Plane = NDArray[np.float32]


@lru_cache(maxsize=64)
def operator(source: int, target: int) -> sparse.csr_array:
    """The (target, source) float32 matrix that resizes one axis of `source` voxels to `target` voxels."""
    step = source / target
    if target < source:
        low = np.arange(target)[:, None] * step
        voxel = np.arange(source)[None, :]
        overlap = np.minimum(low + step, voxel + 1) - np.maximum(low, voxel)
        weights = np.where(overlap > 1e-9 * step, overlap, 0.0)
        return sparse.csr_array((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))
    centre = np.clip((np.arange(target) + 0.5) * step - 0.5, 0, source - 1)
    left = np.minimum(np.floor(centre).astype(np.int64), max(source - 2, 0))
    share = (centre - left).astype(np.float32)
    rows = np.repeat(np.arange(target), 2)
    columns = np.stack([left, np.minimum(left + 1, source - 1)], axis=1).ravel()
    weights = np.stack([1 - share, share], axis=1).ravel()
    matrix = sparse.csr_array((weights, (rows, columns)), shape=(target, source))
    matrix.eliminate_zeros()
    return matrix


def resize_plane(plane: NDArray[np.float32], shape: tuple[int, int]) -> Plane:
    """A (Y, X) float32 plane resized to `shape`."""
    if plane.shape[0] != shape[0]:
        plane = operator(plane.shape[0], shape[0]) @ plane
    if plane.shape[1] != shape[1]:
        plane = (operator(plane.shape[1], shape[1]) @ plane.T).T
    return plane


def _taps(source: int, target: int) -> list[tuple[list[int], list[float]]]:
    """For every target voxel of one axis: the source voxels it reads and their weights."""
    if source == target:
        return [([i], [1.0]) for i in range(source)]
    matrix = operator(source, target)
    ends = matrix.indptr
    return [(matrix.indices[a:b].tolist(), matrix.data[a:b].tolist()) for a, b in pairwise(ends)]


def resize_slices(
    read: Callable[[int], NDArray[np.float32]], source: Shape, out: NDArray[np.float32]
) -> None:
    """Resize a volume that is read slice by slice into `out` (Z', Y', X').

    `read(z)` gives slice z (Y, X) of a volume of shape `source`. Only the slices that one output slice needs
    are held at a time; each is read once.
    """
    held: dict[int, Plane] = {}
    for z, (indices, weights) in enumerate(_taps(source[0], out.shape[0])):
        held = {i: held[i] if i in held else resize_plane(read(i), out.shape[1:]) for i in indices}
        out[z] = weights[0] * held[indices[0]]
        for i, weight in zip(indices[1:], weights[1:], strict=True):
            out[z] += weight * held[i]


def resize_labels(labels: NDArray[np.uint8], shape: Shape, *, background: float = 1.0) -> NDArray[np.uint8]:
    """A label map (Z, Y, X) resized: each voxel takes the label that covers most of it.

    Every label present, `IGNORE` too, is resized as a fuzzy set and the largest share wins. The share of
    label 0 counts `background` times; on a tie 0 loses. Same shape: an exact copy.
    """
    if labels.shape == shape:
        return labels.copy()
    out = np.empty(shape, dtype=np.uint8)
    for z, (indices, weights) in enumerate(_taps(labels.shape[0], shape[0])):
        planes = labels[indices]
        present = np.flatnonzero(np.bincount(planes.ravel(), minlength=256)).tolist()

        def share(label: int, planes: NDArray[np.uint8] = planes, weights: list[float] = weights) -> Plane:
            total = np.zeros(planes.shape[1:], dtype=np.float32)
            for plane, weight in zip(planes, weights, strict=True):
                total += np.float32(weight) * (plane == label)
            return total if label else total * np.float32(background * (1 - 1e-6))

        out[z] = _largest(share, present, shape[1:])
    return out


def resize_probabilities(
    probabilities: NDArray[np.floating], shape: Shape, labels: Sequence[int]
) -> NDArray[np.uint8]:
    """The label map (Z, Y, X) of `shape` with the largest of the resized probabilities (K, Z', Y', X').

    `labels[k]` is the label of class k. One output slice is in memory at a time.
    """
    out = np.empty(shape, dtype=np.uint8)
    table = np.asarray(labels, dtype=np.uint8)
    for z, (indices, weights) in enumerate(_taps(probabilities.shape[1], shape[0])):

        def score(k: int, indices: list[int] = indices, weights: list[float] = weights) -> Plane:
            total = np.zeros(probabilities.shape[2:], dtype=np.float32)
            for i, weight in zip(indices, weights, strict=True):
                total += np.float32(weight) * probabilities[k, i]
            return total

        out[z] = table[_largest(score, range(len(table)), shape[1:])]
    return out


def _largest(
    score: Callable[[int], Plane], labels: Sequence[int], shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """Per pixel of the resized plane, the label whose score is largest; the first of equals."""
    winner = np.full(shape, labels[0], dtype=np.uint8)
    if len(labels) == 1:
        return winner
    best = resize_plane(score(labels[0]), shape)
    for label in labels[1:]:
        rival = resize_plane(score(label), shape)
        better = rival > best
        winner[better] = label
        best = np.maximum(best, rival)
    return winner
