"""How far apart two surfaces lie, in mm.

Definitions, since the public tools disagree (measured on the same pairs of masks):

* The surface of a mask is the mask minus its erosion by the six face neighbours (four in 2-D); voxels at
  the image's border belong to it. As in medpy (connectivity 1) and MONAI. google-deepmind's
  surface-distance puts surfaces on the corner grid and weighs them by area: 2-88 % other values.
* ASSD is the mean over all surface distances of both directions together. Equals medpy's and MONAI's.
* HD95 is the larger of the two directed 95th percentiles (linear interpolation). Equals MONAI's; medpy
  pools both directions before it takes the percentile.
* Both masks empty: all distances are 0. One empty: a penalty. MONAI gives NaN or infinity there, and such
  a case would drop out of an average; here no distance is ever NaN.

A Z = 1 volume is a 2-D image: its surface is the outline in the plane.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.metrics.overlap import outcome, require_same_shape

Penalty = Literal["diag", "crossmoda", "brats_hd95"]
"""What a missed or invented structure costs: the image's diagonal, or a challenge's fixed number of mm."""

_FIXED_MM = {"crossmoda": 350.0, "brats_hd95": 373.13}


def penalty_mm(penalty: Penalty, shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """The distance that stands for "one of the two masks is empty".

    Args:
        penalty: "diag" is the diagonal of the whole image (the extent along an axis is voxels times
            spacing; an axis of one voxel has none), "crossmoda" 350 mm, "brats_hd95" 373.13 mm.
        shape: voxels of the image along each axis.
        spacing_mm: distance of voxel centres along each axis.

    Raises:
        ConfigError: an unknown penalty.
    """
    if penalty not in get_args(Penalty):
        raise ConfigError(
            "unknown penalty for a missed structure",
            found=repr(penalty),
            expected=", ".join(get_args(Penalty)),
        )
    if penalty != "diag":
        return _FIXED_MM[penalty]
    extent = [n * step for n, step in zip(shape, spacing_mm, strict=True) if n > 1]
    return float(np.linalg.norm(extent)) if extent else float(np.linalg.norm(np.asarray(spacing_mm)))


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distances of every surface voxel of one mask to the other's surface, in mm, in both directions."""

    forward_mm: NDArray[np.float64]
    """From the predicted surface to the reference surface, (n,); one penalty when one mask is empty."""
    backward_mm: NDArray[np.float64]
    """From the reference surface to the predicted surface, (m,); one penalty when one mask is empty."""

    @property
    def assd_mm(self) -> float:
        """Average symmetric surface distance: the mean of all distances of both directions."""
        return float(np.concatenate([self.forward_mm, self.backward_mm]).mean())

    @property
    def hd95_mm(self) -> float:
        """Larger of the two directed 95th percentiles."""
        return max(float(np.percentile(d, 95)) for d in (self.forward_mm, self.backward_mm))

    @property
    def hd_mm(self) -> float:
        """Hausdorff distance: the largest of all distances."""
        return float(max(self.forward_mm.max(), self.backward_mm.max()))

    def nsd(self, tolerance_mm: float) -> float:
        """Share of surface voxels of both masks within the tolerance, in 0..1 (MONAI's surface Dice)."""
        return float((np.concatenate([self.forward_mm, self.backward_mm]) <= tolerance_mm).mean())


def surface_distances(
    predicted: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    *,
    penalty: Penalty = "diag",
    unjudged: NDArray[np.bool_] | None = None,
) -> SurfaceDistances:
    """Distances between the surfaces of two boolean masks, as defined at the top of this page.

    Args:
        predicted: (Z, Y, X) or (Y, X).
        reference: same shape.
        spacing_mm: distance of voxel centres along each axis, in the array's order.
        penalty: what an empty mask costs when the other is not empty.
        unjudged: whole slices that nobody has judged, (Z,); their neighbours have no surface towards
            them, so a mask on every tenth slice is compared by its outlines. None: all are judged.

    Raises:
        ShapeError: shapes differ, or the number of spacings is not the number of axes.
    """
    require_same_shape(predicted, reference)
    if len(spacing_mm) != predicted.ndim:
        raise ShapeError(
            "one spacing per axis is needed",
            found=f"{len(spacing_mm)} spacings for shape {predicted.shape}",
        )
    empty = outcome(int(predicted.any()), int(reference.any()))
    if empty != "overlap":
        cost = 0.0 if empty == "true_negative" else penalty_mm(penalty, predicted.shape, spacing_mm)
        return SurfaceDistances(np.full(1, cost), np.full(1, cost))
    box = _common_box(predicted | reference)
    points = [_surface_points_mm(mask, box, spacing_mm, unjudged) for mask in (predicted, reference)]
    trees = [cKDTree(p, compact_nodes=False, balanced_tree=False) for p in points]
    forward, _ = trees[1].query(points[0])
    backward, _ = trees[0].query(points[1])
    return SurfaceDistances(np.asarray(forward, np.float64), np.asarray(backward, np.float64))


def surface(mask: NDArray[np.bool_], unjudged: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """The mask minus its erosion by face neighbours; outside the array is background.

    Axes of length 1 are not eroded along, so the surface of a single slice is its outline. `unjudged`
    (Z,) marks slices that count as inside when their neighbours' surface is looked for.
    """
    solid = mask if unjudged is None else mask | unjudged[:, None, None]
    if max(mask.shape) == 1:
        return mask
    inner = mask.copy()
    for axis in (axis for axis, n in enumerate(mask.shape) if n > 1):
        lower, upper = _cut(mask.ndim, axis, slice(None, -1)), _cut(mask.ndim, axis, slice(1, None))
        inner[lower] &= solid[upper]
        inner[upper] &= solid[lower]
        inner[_cut(mask.ndim, axis, slice(0, 1))] = False
        inner[_cut(mask.ndim, axis, slice(-1, None))] = False
    return np.asarray(mask & ~inner, dtype=np.bool_)


def _cut(axes: int, axis: int, part: slice) -> tuple[slice, ...]:
    """An index that takes `part` along `axis` and everything along the others."""
    return tuple(part if a == axis else slice(None) for a in range(axes))


def _common_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box around the True voxels, one voxel wider where the image goes on."""
    box = []
    for axis, size in enumerate(mask.shape):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(max(int(hit[0]) - 1, 0), min(int(hit[-1]) + 2, size)))
    return tuple(box)


def _surface_points_mm(
    mask: NDArray[np.bool_],
    box: tuple[slice, ...],
    spacing_mm: Sequence[float],
    unjudged: NDArray[np.bool_] | None,
) -> NDArray[np.float64]:
    """Positions (n, axes) of the surface voxels inside the box, in mm."""
    part = None if unjudged is None or mask.ndim < 3 else unjudged[box[0]]
    index = np.argwhere(surface(mask[box], part))
    return np.asarray(index * np.asarray(spacing_mm, dtype=np.float64), dtype=np.float64)
