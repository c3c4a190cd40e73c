"""Which parts of several readers' masks are one physical structure, such as one nodule.

Two parts are neighbours when their voxels come within a tolerance of each other (one pixel by default);
chains of neighbours are one structure. Where more parts hang together than there are readers, the tolerance
shrinks by a tenth at a time until they do not, as in pylidc's clustering of annotations - but only within
that structure, so that a crowded corner does not tear nodules elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from fewmask.consensus.morphology import TOUCHING, surface
from fewmask.consensus.voting import require_alike

SHRINK = 0.9
LEAST_MM = 0.05
"""Below this the tolerance shrinks no further: what touches stays together."""

Bool = NDArray[np.bool_]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Structure:
    """One structure as each reader drew it, cut out with a margin."""

    box: Box
    """Where it lies in the scan (Z, Y, X)."""
    masks: Mapping[str, Bool]
    """The mask of every reader inside the box, of this structure only; empty where he marked nothing."""

    @property
    def marked_by(self) -> tuple[str, ...]:
        """The readers who marked it."""
        return tuple(reader for reader, mask in self.masks.items() if mask.any())

    @property
    def marked(self) -> tuple[Bool, ...]:
        """The masks of the readers who marked it."""
        return tuple(self.masks[reader] for reader in self.marked_by)


def find_structures(
    masks: Mapping[str, Bool],
    spacing_mm: Sequence[float],
    *,
    tolerance_mm: float | None = None,
    margin_mm: float = 5.0,
) -> list[Structure]:
    """Structures of one class in one case, from top to bottom of the array; none when all masks are empty.

    Args:
        masks: boolean mask (Z, Y, X) by reader, all of one shape.
        spacing_mm: along (Z, Y, X).
        tolerance_mm: parts nearer than this are one structure; default: the smaller in-plane voxel size.
        margin_mm: how far a structure's box reaches beyond it.

    Raises:
        ShapeError: no mask, or shapes that differ.
    """
    require_alike(list(masks.values()))
    tolerance = min(spacing_mm[1:]) if tolerance_mm is None else tolerance_mm
    parts = [part for reader, mask in masks.items() for part in _parts(reader, mask)]
    if not parts:
        return []
    distances = _distances(parts, spacing_mm, tolerance)
    groups = cluster(distances, tolerance_mm=tolerance, most=len(masks))
    margin = [int(np.ceil(margin_mm / mm)) for mm in spacing_mm]
    shape = next(iter(masks.values())).shape
    found = [_structure([parts[i] for i in group], tuple(masks), shape, margin) for group in groups]
    return sorted(found, key=lambda one: tuple(part.start for part in one.box))


def cluster(distances: NDArray[np.float64], *, tolerance_mm: float, most: int) -> list[list[int]]:
    """Groups of items that hang together: items nearer than the tolerance, and chains of them.

    Args:
        distances: (n, n) symmetric, mm; inf where far apart.
        tolerance_mm: items at most this far apart are neighbours.
        most: groups of more items are taken apart with a tolerance that shrinks tenth by tenth, down to
            `LEAST_MM`; items that touch stay together.

    Returns:
        Each item's index once, groups by their first item.
    """
    groups = []
    for group in _connected(distances, list(range(len(distances))), tolerance_mm):
        if len(group) > most and tolerance_mm * SHRINK >= LEAST_MM:
            inner = distances[np.ix_(group, group)]
            for smaller in cluster(inner, tolerance_mm=tolerance_mm * SHRINK, most=most):
                groups.append([group[i] for i in smaller])
        else:
            groups.append(group)
    return sorted(groups)


def cluster_points(
    points_mm: Sequence[NDArray[np.float64]], *, tolerance_mm: float, most: int = 4
) -> list[list[int]]:
    """Groups of annotations of one physical nodule, each annotation given by its points.

    Args:
        points_mm: (n, 3) per annotation, n > 0. Points of the whole region rather than of its outline: then
            an outline that lies inside another's region is its neighbour too.
        tolerance_mm: annotations whose nearest points are at most this far apart are neighbours; LIDC's usual
            value is the pixel size.
        most: see `cluster`; LIDC has four readers.
    """
    trees = [cKDTree(points) for points in points_mm]
    table = np.full((len(trees), len(trees)), np.inf)
    np.fill_diagonal(table, 0.0)
    for i, j in combinations(range(len(trees)), 2):
        nearest, _ = trees[i].query(trees[j].data, distance_upper_bound=tolerance_mm * (1 + 1e-6))
        table[i, j] = table[j, i] = float(nearest.min())
    return cluster(table, tolerance_mm=tolerance_mm, most=most)


def _connected(distances: NDArray[np.float64], items: list[int], tolerance: float) -> list[list[int]]:
    rows, columns = np.nonzero(distances <= tolerance * (1 + 1e-6))
    near = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=distances.shape)
    count, labels = connected_components(near, directed=False)
    return [[item for item in items if labels[item] == number] for number in range(count)]


@dataclass(frozen=True, eq=False)
class _Part:
    """A component of one reader's mask: 26 (8) connected voxels, cut to its box."""

    reader: str
    box: Box
    mask: Bool


def _parts(reader: str, mask: Bool) -> list[_Part]:
    labels, _ = ndimage.label(mask, structure=TOUCHING)
    return [
        _Part(reader, box, labels[box] == number)
        for number, box in enumerate(ndimage.find_objects(labels), start=1)
    ]


def _distances(parts: Sequence[_Part], spacing_mm: Sequence[float], tolerance: float) -> NDArray[np.float64]:
    """Smallest distance in mm between voxel centres of every two parts; inf where above the tolerance."""
    table = np.full((len(parts), len(parts)), np.inf)
    np.fill_diagonal(table, 0.0)
    trees: dict[int, cKDTree] = {}
    for i, j in _close(parts, spacing_mm, tolerance):
        if _overlap(parts[i], parts[j]):
            table[i, j] = table[j, i] = 0.0
            continue
        for number in (i, j):
            if number not in trees:
                trees[number] = cKDTree(_points_mm(parts[number], spacing_mm))
        nearest, _ = trees[i].query(trees[j].data, distance_upper_bound=tolerance * (1 + 1e-6))
        table[i, j] = table[j, i] = float(nearest.min())
    return table


def _close(
    parts: Sequence[_Part], spacing_mm: Sequence[float], tolerance: float
) -> Iterator[tuple[int, int]]:
    """Pairs (i < j) of parts whose boxes come within the tolerance, in mm between voxel centres."""
    first = np.array([[one.start for one in part.box] for part in parts])
    last = np.array([[one.stop - 1 for one in part.box] for part in parts])
    for i in range(len(parts) - 1):
        gaps = np.maximum(first[i + 1 :] - last[i], first[i] - last[i + 1 :]).clip(min=0) * spacing_mm
        for j in np.flatnonzero(np.linalg.norm(gaps, axis=1) <= tolerance * (1 + 1e-6)):
            yield i, i + 1 + int(j)


def _overlap(a: _Part, b: _Part) -> bool:
    """Whether two parts share a voxel."""
    shared = [(max(p.start, q.start), min(p.stop, q.stop)) for p, q in zip(a.box, b.box, strict=True)]
    if any(start >= stop for start, stop in shared):
        return False
    cuts = [
        tuple(slice(lo - p.start, hi - p.start) for (lo, hi), p in zip(shared, part.box, strict=True))
        for part in (a, b)
    ]
    return bool((a.mask[cuts[0]] & b.mask[cuts[1]]).any())


def _points_mm(part: _Part, spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Centres of the voxels at a part's surface, in mm; padded, so that a flat part is all surface."""
    start = np.array([one.start - 1 for one in part.box])
    places = np.argwhere(surface(np.pad(part.mask, 1))) + start
    return np.asarray(places * np.asarray(spacing_mm), dtype=np.float64)


def _structure(
    parts: Sequence[_Part], readers: Sequence[str], shape: tuple[int, ...], margin: Sequence[int]
) -> Structure:
    """The parts of one structure in a common box with a margin, clipped to the scan."""
    z, y, x = (
        slice(
            max(0, min(part.box[axis].start for part in parts) - margin[axis]),
            min(shape[axis], max(part.box[axis].stop for part in parts) + margin[axis]),
        )
        for axis in range(3)
    )
    box = (z, y, x)
    masks = {reader: np.zeros([one.stop - one.start for one in box], dtype=np.bool_) for reader in readers}
    for part in parts:
        place = tuple(
            slice(inner.start - outer.start, inner.stop - outer.start)
            for inner, outer in zip(part.box, box, strict=True)
        )
        masks[part.reader][place] |= part.mask
    return Structure(box, masks)
