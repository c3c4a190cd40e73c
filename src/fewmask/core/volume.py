"""Voxels and where they lie in the patient.

Arrays are (Z, Y, X). An affine maps voxel indices in the order (x, y, z) - the reverse of the array's
order - to millimetres in RAS+ (right, anterior, superior), as nibabel's does. Spacing follows from the
affine and is never kept beside it. Values never change in place: functions return new ones.
"""

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewmask.core.errors import ShapeError

IGNORE = 255
"""Label of voxels that nobody has judged; losses and scores leave them out."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns an affine in DICOM's and ITK's LPS+ millimetres into one in RAS+, and back."""


def _frozen(array: NDArray[np.generic]) -> NDArray[np.generic]:
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, eq=False)
class Grid:
    """A box of voxels in the patient: its shape (Z, Y, X) and its affine (4, 4), (x, y, z) -> RAS+ mm."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check shapes and freeze the affine."""
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ShapeError("an affine must be 4 x 4 and finite", found=f"{affine.tolist()}")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ShapeError("a grid must have three sizes (Z, Y, X) of at least 1", found=f"{self.shape}")
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along (Z, Y, X), in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @property
    def directions(self) -> NDArray[np.float64]:
        """Unit vectors (3, 3) of the x, y, z axes as columns, in RAS+."""
        columns = self.affine[:3, :3]
        return np.asarray(columns / np.linalg.norm(columns, axis=0), dtype=np.float64)

    def to_mm(self, index_xyz: ArrayLike) -> NDArray[np.float64]:
        """RAS+ mm (..., 3) of voxel indices (..., 3) given as (x, y, z)."""
        index = np.asarray(index_xyz, dtype=np.float64)
        return np.asarray(index @ self.affine[:3, :3].T + self.affine[:3, 3], dtype=np.float64)

    def corners_mm(self) -> NDArray[np.float64]:
        """RAS+ mm (8, 3) of the centres of the eight corner voxels."""
        z, y, x = (n - 1 for n in self.shape)
        return self.to_mm(list(product((0, x), (0, y), (0, z))))


def corner_displacement_mm(a: Grid, b: Grid) -> float:
    """Largest distance in mm between corresponding corners of two grids; inf if their shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    return float(np.linalg.norm(a.corners_mm() - b.corners_mm(), axis=1).max())


@dataclass(frozen=True, eq=False)
class Volume:
    """An image: voxels (Z, Y, X) of any real type, in the units of its source (HU for CT), and its affine.

    `notes` says in words what reading changed ("directions orthonormalised, largest shift 0.02 mm").
    """

    voxels: NDArray[np.generic]
    affine: NDArray[np.float64]
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Check the shape and freeze the arrays."""
        grid = Grid(_three(self.voxels), self.affine)
        object.__setattr__(self, "voxels", _frozen(self.voxels))
        object.__setattr__(self, "affine", grid.affine)

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        return Grid(_three(self.voxels), self.affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""
        return _three(self.voxels)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along (Z, Y, X), in mm."""
        return self.grid.spacing_mm


@dataclass(frozen=True, eq=False)
class Mask(Volume):
    """A label map: voxels (Z, Y, X) of an unsigned integer type; 0 is background, `IGNORE` is unjudged."""

    voxels: NDArray[np.unsignedinteger[Any]]

    def __post_init__(self) -> None:
        """Check the type of the voxels as well."""
        super().__post_init__()
        if self.voxels.dtype.kind != "u":
            raise ShapeError(
                "a mask's voxels must be unsigned integers",
                found=f"{self.voxels.dtype}",
                mend="Convert them, e.g. with .astype(np.uint8), after checking the values.",
            )


def _three(array: NDArray[np.generic]) -> tuple[int, int, int]:
    if array.ndim != 3:
        raise ShapeError("voxels must have three axes (Z, Y, X)", found=f"shape {array.shape}")
    z, y, x = array.shape
    return z, y, x
