"""Turning arrays to a standard orientation by exact flips and swaps of axes, and back."""

from dataclasses import dataclass
from itertools import permutations
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fewmask.core.volume import Grid

T = TypeVar("T", bound=np.generic)

STANDARD = {"RAS": (1.0, 1.0, 1.0), "LPS": (-1.0, -1.0, 1.0)}
"""Orientations by name: the sign, along right, anterior and superior, in which the x, y, z axes run."""


@dataclass(frozen=True)
class Turn:
    """A swap of axes, then flips; `permutation` and `flips` are in the array's order (Z, Y, X)."""

    permutation: tuple[int, int, int] = (0, 1, 2)
    """Turned axis a is the native axis permutation[a]."""
    flips: tuple[bool, bool, bool] = (False, False, False)
    """Whether turned axis a runs against the native axis."""

    def do(self, voxels: NDArray[T]) -> NDArray[T]:
        """The native array (Z, Y, X) turned; a view."""
        return self._flip(voxels.transpose(self.permutation))

    def undo(self, turned: NDArray[T]) -> NDArray[T]:
        """The turned array back in the native order; a view."""
        return self._flip(turned).transpose(np.argsort(self.permutation).tolist())

    def _flip(self, voxels: NDArray[T]) -> NDArray[T]:
        z, y, x = (slice(None, None, -1 if flip else None) for flip in self.flips)
        return voxels[z, y, x]

    def grid(self, native: Grid) -> Grid:
        """The grid of the turned array: other indices, the same places in the patient."""
        shape = tuple(native.shape[axis] for axis in self.permutation)
        step = np.zeros((4, 4))
        step[3, 3] = 1.0
        for axis, (source, flip) in enumerate(zip(self.permutation, self.flips, strict=True)):
            step[2 - source, 2 - axis] = -1.0 if flip else 1.0
            step[2 - source, 3] = native.shape[source] - 1 if flip else 0.0
        return Grid((shape[0], shape[1], shape[2]), native.affine @ step)


def nearest_turn(grid: Grid, orientation: str) -> Turn:
    """The turn that brings `grid` nearest to "LPS" or "RAS"; "native" leaves it as it is.

    Oblique scans keep their obliqueness: only whole axes are swapped and flipped. A picture (PNG, JPEG)
    lies nowhere in the patient and is never turned: one slice, whose affine tells at most its pixel size.
    """
    picture = grid.shape[0] == 1 and np.array_equal(grid.affine, np.diag([*grid.spacing_mm[:0:-1], 1.0, 1.0]))
    if orientation == "native" or picture:
        return Turn()
    directions = grid.directions
    world = max(permutations(range(3)), key=lambda v: sum(abs(directions[w, v[w]]) for w in range(3)))
    signs = [directions[w, world[w]] * STANDARD[orientation][w] for w in range(3)]
    z, y, x = (2 - world[2 - axis] for axis in range(3))
    return Turn((z, y, x), (bool(signs[2] < 0), bool(signs[1] < 0), bool(signs[0] < 0)))
