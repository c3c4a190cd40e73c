"""Does a mask lie on its image? In mm at the corners, against the size of a voxel."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewmask.core.volume import Grid, corner_displacement_mm

Verdict = Literal["fine", "tolerable", "wrong"]

FINE = 0.01
TOLERABLE = 0.5
"""Largest corner displacement, in voxels (the smallest edge), that is fine and that is tolerable."""


@dataclass(frozen=True)
class Fit:
    """How one grid lies on another.

    Attributes:
        verdict: "fine"; "tolerable": off by less than half a voxel; "wrong".
        displacement_mm: largest distance between corresponding corner voxels; inf when the shapes differ.
        why: what differs, in words; empty when fine.
    """

    verdict: Verdict
    displacement_mm: float
    why: str = ""


def judge(grid: Grid, image: Grid, *, unplaced: bool = False) -> Fit:
    """How `grid` (a mask's, or another modality's) lies on the grid of `image`.

    Args:
        grid: the grid to judge.
        image: the grid it must agree with.
        unplaced: `grid` is that of a picture file without pixel size, which takes the image's place.
    """
    displacement = corner_displacement_mm(grid, image)
    if grid.shape != image.shape:
        return Fit("wrong", displacement, _shapes(grid, image))
    if unplaced and np.array_equal(grid.affine, np.eye(4)):
        return Fit("fine", 0.0)
    edge = min(image.spacing_mm)
    if displacement <= FINE * edge:
        return Fit("fine", displacement)
    verdict: Verdict = "tolerable" if displacement < TOLERABLE * edge else "wrong"
    return Fit(verdict, displacement, f"corners {displacement:.3g} mm apart: {_difference(grid, image)}")


def _shapes(grid: Grid, image: Grid) -> str:
    text = f"shape (Z, Y, X) {grid.shape} on {image.shape}"
    if sorted(grid.shape) == sorted(image.shape):
        return f"{text}: the axes are in another order (orientation {axes(grid)} on {axes(image)})"
    text += f", spacing {in_mm(grid)} on {in_mm(image)} mm"
    extents = [np.sort(np.array(one.shape) * np.array(one.spacing_mm)) for one in (grid, image)]
    if np.allclose(extents[0], extents[1], rtol=0.02):
        text += "; the same field of view, sampled differently"
    return text


def _difference(grid: Grid, image: Grid) -> str:
    """The first thing that differs: orientation, spacing, direction, or place."""
    if axes(grid) != axes(image):
        return f"orientation {axes(grid)} on {axes(image)}"
    if not np.allclose(grid.spacing_mm, image.spacing_mm, rtol=1e-3):
        return f"spacing {in_mm(grid)} on {in_mm(image)} mm"
    if not np.allclose(grid.directions, image.directions, atol=1e-3):
        cosines = np.clip((grid.directions * image.directions).sum(axis=0), -1, 1)
        return f"turned by up to {np.degrees(np.arccos(cosines)).max():.2g} degrees"
    shift = grid.affine[:3, 3] - image.affine[:3, 3]
    return "moved by (" + ", ".join(f"{value:.3g}" for value in shift) + ") mm (right, anterior, superior)"


def axes(grid: Grid) -> str:
    """Where the x, y, z axes point, as three letters of R L A P S I: "LPS" is usual for DICOM."""
    letters = []
    for column in grid.directions.T:
        largest = int(np.abs(column).argmax())
        letters.append(("RL", "AP", "SI")[largest][0 if column[largest] > 0 else 1])
    return "".join(letters)


def in_mm(grid: Grid) -> str:
    """Spacing (Z, Y, X) as text."""
    return "(" + ", ".join(f"{value:.4g}" for value in grid.spacing_mm) + ")"
