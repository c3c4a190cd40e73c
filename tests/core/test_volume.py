"""Grids, volumes and masks."""

import numpy as np
import pytest

from fewmask.core.errors import ShapeError
from fewmask.core.volume import LPS_TO_RAS, Grid, Mask, Volume, corner_displacement_mm

AFFINE = np.array([[0.7, 0, 0, -10], [0, 0, 2.5, 5], [0, -0.7, 0, 8], [0, 0, 0, 1.0]])


def test_spacing_is_in_array_order() -> None:
    assert Grid((4, 5, 6), AFFINE).spacing_mm == pytest.approx((2.5, 0.7, 0.7))


def test_corners() -> None:
    corners = Grid((4, 5, 6), AFFINE).corners_mm()
    assert corners.shape == (8, 3)
    assert corners[0] == pytest.approx([-10, 5, 8])
    assert corners[-1] == pytest.approx([-10 + 5 * 0.7, 5 + 3 * 2.5, 8 - 4 * 0.7])


def test_displacement_is_the_largest_corner_shift() -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 3
    assert corner_displacement_mm(Grid((4, 5, 6), AFFINE), Grid((4, 5, 6), moved)) == pytest.approx(3)
    assert corner_displacement_mm(Grid((4, 5, 6), AFFINE), Grid((4, 5, 7), AFFINE)) == float("inf")


def test_values_are_frozen() -> None:
    source = np.zeros((2, 3, 4), np.int16)
    volume = Volume(source, AFFINE)
    with pytest.raises(ValueError, match="read-only"):
        volume.voxels[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 0] = 1
    source[0, 0, 0] = 1  # the caller's own array stays its own
    assert volume.shape == (2, 3, 4)
    assert volume.grid.shape == (2, 3, 4)


def test_bad_shapes_and_types_are_refused() -> None:
    with pytest.raises(ShapeError, match="three axes"):
        Volume(np.zeros((3, 4)), AFFINE)
    with pytest.raises(ShapeError, match="4 x 4"):
        Volume(np.zeros((1, 3, 4)), np.eye(3))
    with pytest.raises(ShapeError, match="unsigned"):
        Mask(np.zeros((1, 3, 4), np.int16), AFFINE)
    with pytest.raises(ShapeError, match="at least 1"):
        Grid((0, 3, 4), AFFINE)


def test_lps_and_ras_are_each_others_inverse() -> None:
    assert (np.eye(4) == LPS_TO_RAS @ LPS_TO_RAS).all()
