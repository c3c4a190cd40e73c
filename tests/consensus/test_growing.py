"""Regions that grow, in mm on flat voxels."""

import numpy as np
import pytest

from fewmask.consensus.growing import Growth, grow
from fewmask.consensus.morphology import away_mm, ball, closed, facing, largest, radius_mm, surface
from fewmask.core.errors import ShapeError
from fewmask.core.seed import stream
from fewmask.metrics.overlap import dice

SPACING = (2.0, 0.8, 0.8)
SHAPE = (17, 40, 40)
CENTRE = (8, 20, 20)


def _ball(radius: float, centre=CENTRE) -> np.ndarray:
    return away_mm(SHAPE, centre, SPACING) <= radius


def _ct(nodule: np.ndarray, *, noise: float = 20.0) -> np.ndarray:
    """Aerated lung at -850 HU, soft tissue at 20 HU."""
    return np.where(nodule, 20.0, -850.0) + noise * stream(0, "test", "ct").standard_normal(nodule.shape)


def test_a_nodule_in_lung_is_found_again():
    nodule = _ball(6.0)
    found = grow(_ct(nodule), CENTRE, 6.0, SPACING)
    assert found.abstains == ""
    assert not found.leaked
    assert dice(found.mask, nodule) > 0.97
    assert found.at_cap == 0.0


def test_distances_are_in_mm():
    """A ball of 6 mm on voxels of 2 mm x 0.8 mm reaches 3 voxels along z and 7 along x."""
    nodule = _ball(6.0)
    found = grow(_ct(nodule), CENTRE, 6.0, SPACING, growth=Growth(morphology_mm=0.5)).mask
    extent = [np.ptp(np.flatnonzero(found.any(axis=tuple({0, 1, 2} - {axis})))) + 1 for axis in range(3)]
    assert extent == [7, 15, 15]


def test_the_guard_as_written_stops_every_small_region_at_once():
    nodule = _ball(6.0)
    found = grow(_ct(nodule), CENTRE, 6.0, SPACING, growth=Growth(guard="literal"))
    assert found.leaked
    assert found.rings <= 1
    assert dice(found.mask, nodule) < 0.5


def test_a_vessel_is_cut_and_the_wall_is_capped():
    nodule = _ball(6.0)
    vessel = np.zeros(SHAPE, bool)
    vessel[8, 20, :] = True
    uncut = grow(_ct(nodule | vessel), CENTRE, 8.0, SPACING, growth=Growth(morphology_mm=0.5))
    found = grow(_ct(nodule | vessel), CENTRE, 8.0, SPACING)
    assert uncut.mask[8, 20, 9]
    assert not found.mask[8, 20, 9]
    assert dice(found.mask, nodule) > 0.95
    cap = _ball(7.5)
    assert not (grow(_ct(np.ones(SHAPE, bool)), CENTRE, 6.0, SPACING).mask & ~cap).any()


def test_a_region_at_its_cap_abstains():
    found = grow(_ct(np.ones(SHAPE, bool)), CENTRE, 6.0, SPACING)
    assert "touches the cap" in found.abstains
    assert found.at_cap > 0.9
    half = np.zeros(SHAPE, bool)
    half[:, :, :20] = True  # a nodule on the chest wall: its free side keeps the vote
    assert grow(_ct(_ball(6.0) | half), CENTRE, 6.0, SPACING).at_cap < found.at_cap


def test_the_lung_holds_the_region_with_a_margin_of_three_mm():
    wall = np.zeros(SHAPE, bool)
    wall[:, :, :18] = True
    lung = ~wall
    found = grow(_ct(_ball(6.0) | wall), CENTRE, 6.0, SPACING, lung=lung)
    free = grow(_ct(_ball(6.0) | wall), CENTRE, 6.0, SPACING)
    assert not found.mask[:, :, :15].any()  # 3 mm are three pixels of 0.8 mm
    assert free.mask[:, :, :15].any()


def test_a_leak_stops_the_region():
    """Along a fading vessel the spread widens until all that lies beside it would join at once."""
    image = np.full((1, 60, 60), -280.0)
    image[0, 30] = -9.0 * np.abs(np.arange(60) - 30)
    how = Growth(seed_mm=0.5, morphology_mm=0.5)
    found = grow(image, (0, 30, 30), 30.0, (1.0, 1.0, 1.0), growth=how)
    assert found.leaked
    assert found.mask.sum() < 65
    free = grow(image, (0, 30, 30), 30.0, (1.0, 1.0, 1.0), growth=Growth(seed_mm=0.5, leak=9.0))
    assert free.mask.sum() > 2000


def test_no_number_is_no_tissue():
    nodule = _ball(6.0)
    image = _ct(nodule)
    image[8, 24, :] = np.nan
    found = grow(image, CENTRE, 6.0, SPACING)
    assert dice(found.mask, nodule) > 0.85


def test_a_grower_without_a_place_to_begin_abstains():
    nodule = _ball(6.0)
    outside = grow(_ct(nodule), CENTRE, 6.0, SPACING, lung=np.zeros(SHAPE, bool))
    unknown = grow(np.full(SHAPE, np.nan), CENTRE, 6.0, SPACING)
    for found in (outside, unknown):
        assert "its centre has no value" in found.abstains
        assert not found.mask.any()


def test_a_slice_is_grown_in_the_plane():
    disc = away_mm((1, 40, 40), (0, 20, 20), (1.0, 0.7, 0.7)) <= 5.0
    found = grow(_ct(disc), (0, 20, 20), 5.0, (1.0, 0.7, 0.7))
    assert found.abstains == ""
    assert dice(found.mask, disc) > 0.97


def test_bad_input_is_refused():
    with pytest.raises(ShapeError, match="same shape"):
        grow(np.zeros(SHAPE), CENTRE, 3.0, SPACING, lung=np.ones((1, 2, 3), bool))
    with pytest.raises(ShapeError, match="outside"):
        grow(np.zeros(SHAPE), (8, 20, 40), 3.0, SPACING)


def test_structuring_elements_are_balls_in_mm():
    assert ball(1.0, (2.5, 0.7, 0.7)).shape == (1, 3, 3)
    assert ball(1.0, (2.5, 0.7, 0.7)).all()  # the diagonal is 0.99 mm
    assert ball(0.9, (2.5, 0.7, 0.7)).sum() == 5
    assert ball(0.3, (1.0, 1.0, 1.0)).sum() == 1
    assert ball(2.0, (1.0, 1.0, 1.0)).sum() == 33


def test_closing_does_not_eat_at_the_edge_of_the_array():
    mask = np.zeros((3, 8, 8), bool)
    mask[:, :4, :4] = True
    assert (closed(mask, 1.0, (1.0, 1.0, 1.0)) & mask).sum() == mask.sum()


def test_surface_and_what_it_faces():
    mask = np.zeros((1, 9, 9), bool)
    mask[0, 2:7, 2:7] = True
    assert surface(mask).sum() == 16
    right = np.zeros_like(mask)
    right[0, :, 7:] = True
    assert facing(mask, right).sum() == 5
    assert facing(np.ones_like(mask), np.zeros_like(mask)).sum() == 32  # the frame of the picture


def test_largest_and_radius():
    mask = np.zeros((1, 20, 20), bool)
    mask[0, 2:4, 2:4] = True
    mask[0, 10:15, 10:15] = True
    assert largest(mask).sum() == 25
    assert radius_mm(largest(mask), (3.0, 2.0, 2.0)) == pytest.approx(np.sqrt(100 / np.pi))
    assert radius_mm(_ball(6.0), SPACING) == pytest.approx(6.0, rel=0.05)
    assert not largest(np.zeros_like(mask)).any()
