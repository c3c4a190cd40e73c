"""Directions of voxel axes: made orthonormal, and turned into what the file formats want.

Most formats, and every segmentation tool behind them, need axes that stand at right angles. Rounded
headers miss that by a little, a tilted CT gantry or a registration by a lot. The first is mended and
noted, the second is refused: moving voxels is the user's decision.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import DataError
from fewmask.core.volume import LPS_TO_RAS, Grid, corner_displacement_mm

NOTED_SHIFT_MM = 1e-3
"""A shift of the corners above this is worth a note."""


@dataclass(frozen=True)
class Orthonormal:
    """An affine whose axes stand at right angles, and how far the corners moved to get there."""

    affine: NDArray[np.float64]
    shift_mm: float
    notes: tuple[str, ...]


def nearest_rotation(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """The orthogonal matrix (3, 3) nearest to `directions` (3, 3): the polar factor U V^T of its SVD."""
    u, _, vt = np.linalg.svd(directions)
    return np.asarray(u @ vt, dtype=np.float64)


def is_orthonormal(affine: NDArray[np.float64]) -> bool:
    """Whether the voxel axes of `affine` (4, 4) stand at right angles to 1e-10."""
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(columns.T @ columns - np.eye(3)).max() < 1e-10)


def orthonormalise(grid: Grid) -> Orthonormal:
    """The nearest grid with axes at right angles: same voxel sizes, same centre, nearest rotation.

    No voxel value changes. `shift_mm` is the largest distance that a corner voxel moved.
    """
    if is_orthonormal(grid.affine):
        return Orthonormal(grid.affine, 0.0, ())
    sizes = np.linalg.norm(grid.affine[:3, :3], axis=0)
    affine = np.eye(4)
    affine[:3, :3] = nearest_rotation(grid.affine[:3, :3] / sizes) * sizes
    z, y, x = grid.shape
    centre = (np.array([x, y, z], dtype=np.float64) - 1) / 2
    affine[:3, 3] = grid.to_mm(centre) - affine[:3, :3] @ centre
    shift = corner_displacement_mm(grid, Grid(grid.shape, affine))
    note = f"axes were not at right angles: made orthonormal, largest shift of a corner {shift:.3f} mm"
    return Orthonormal(affine, shift, (note,) if shift > NOTED_SHIFT_MM else ())


def tolerated_shift_mm(grid: Grid) -> float:
    """How far orthonormalising may move a corner before it counts as real shear: the smallest voxel size."""
    return min(grid.spacing_mm)


def upright(grid: Grid, where: str) -> Orthonormal:
    """`orthonormalise`, or a `DataError` naming `where` when a corner would move by more than one voxel."""
    check_sizes(grid, where)
    result = orthonormalise(grid)
    if result.shift_mm > tolerated_shift_mm(grid):
        raise DataError(
            "the voxel axes are sheared: they do not stand at right angles",
            where=where,
            found=f"angles between the axes of {_angles(grid)}; at right angles a corner would be off by "
            f"{result.shift_mm:.2f} mm",
            expected=f"axes at right angles, or off by at most one voxel ({tolerated_shift_mm(grid):.2f} mm)",
            mend="Resample it onto an upright grid first (e.g. SimpleITK.Resample, or 3D Slicer), or export "
            "it again without the affine registration.",
        )
    return result


def check_sizes(grid: Grid, where: str) -> None:
    """A `DataError` when the voxel axes are zero or lie in one plane."""
    sizes = np.linalg.norm(grid.affine[:3, :3], axis=0)
    flat = sizes.min() <= 0 or abs(np.linalg.det(grid.affine[:3, :3] / sizes)) < 1e-3
    if flat:
        raise DataError(
            "the header gives no usable voxel size",
            where=where,
            found=f"voxel sizes (x, y, z) of {tuple(round(float(n), 6) for n in sizes)} mm",
            expected="three positive sizes along three different directions",
            mend="Export the scan again from its source, or correct the header (e.g. with nibabel).",
        )


def to_itk(
    affine: NDArray[np.float64],
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Origin, spacing (x, y, z) and direction (9, row by row) in ITK's LPS+ mm, from an affine to RAS+."""
    lps = LPS_TO_RAS @ affine
    sizes = np.linalg.norm(lps[:3, :3], axis=0)
    direction = nearest_rotation(lps[:3, :3] / sizes)
    return tuple(lps[:3, 3].tolist()), tuple(sizes.tolist()), tuple(direction.ravel().tolist())


def from_itk(
    origin: tuple[float, ...], spacing: tuple[float, ...], direction: tuple[float, ...]
) -> NDArray[np.float64]:
    """An affine (4, 4) to RAS+ mm from ITK's origin, spacing and direction, of two or three axes (LPS+)."""
    n = len(origin)
    affine = np.eye(4)
    affine[:n, :n] = np.reshape(direction, (n, n)) * np.asarray(spacing)
    affine[:n, 3] = origin
    return np.asarray(LPS_TO_RAS @ affine, dtype=np.float64)


def _angles(grid: Grid) -> str:
    d = grid.directions
    cosines = [d[:, i] @ d[:, j] for i, j in ((0, 1), (0, 2), (1, 2))]
    return ", ".join(f"{np.degrees(np.arccos(np.clip(c, -1, 1))):.1f}" for c in cosines) + " degrees"
