"""Which parts are one structure."""

import numpy as np
import pytest

from fewmask.consensus.structures import cluster, cluster_points, find_structures

SPACING = (2.5, 0.7, 0.7)


def _box(*slices: slice) -> np.ndarray:
    mask = np.zeros((6, 60, 60), bool)
    mask[slices] = True
    return mask


def test_two_nodules_and_who_marked_them():
    first, second = (
        _box(slice(1, 3), slice(10, 14), slice(10, 14)),
        _box(slice(4, 5), slice(40, 44), slice(40, 44)),
    )
    found = find_structures(
        {"a": first | second, "b": np.roll(first, 1, axis=2), "c": np.zeros_like(first)}, SPACING
    )
    assert [one.marked_by for one in found] == [("a", "b"), ("a",)]
    a = np.zeros_like(first)
    for one in found:
        a[one.box] |= one.masks["a"]
        assert set(one.masks) == {"a", "b", "c"}
    assert (a == (first | second)).all()
    # 5 mm are two slices and eight pixels.
    assert found[0].box == (slice(0, 5), slice(2, 22), slice(2, 23))


def test_a_neighbour_in_the_box_is_another_structure():
    one, other = (_box(slice(1, 2), slice(10, 14), slice(x, x + 4)) for x in (10, 16))
    near = find_structures({"a": one | other}, SPACING)
    assert len(near) == 2
    assert [int(one.masks["a"].sum()) for one in near] == [16, 16]


@pytest.mark.parametrize(("gap", "count"), [(1, 1), (2, 2)])
def test_parts_within_one_pixel_are_one(gap, count):
    a, b = (
        _box(slice(1, 2), slice(10, 14), slice(10, 14)),
        _box(slice(1, 2), slice(10, 14), slice(13 + gap, 20)),
    )
    assert len(find_structures({"a": a, "b": b}, SPACING)) == count
    assert len(find_structures({"a": a, "b": b}, SPACING, tolerance_mm=1.5)) == 1


def test_a_part_inside_another_belongs_to_it():
    ring = _box(slice(1, 2), slice(10, 30), slice(10, 30))
    inner = _box(slice(1, 2), slice(18, 20), slice(18, 20))
    assert len(find_structures({"a": ring, "b": inner}, SPACING)) == 1


def test_single_voxels_and_flat_parts_have_a_surface():
    """One slice below the middle of a flat part lies a voxel: 2.5 mm away, and 0.7 mm from its neighbour."""
    flat, below = (
        _box(slice(1, 2), slice(10, 30), slice(10, 30)),
        _box(slice(2, 3), slice(20, 21), slice(20, 21)),
    )
    masks = {"a": flat, "b": below, "c": np.roll(below, 1, axis=2)}
    assert [one.marked_by for one in find_structures(masks, SPACING)] == [("a",), ("b", "c")]
    assert len(find_structures(masks, SPACING, tolerance_mm=2.5)) == 1


def test_nothing_marked_is_no_structure():
    assert find_structures({"a": np.zeros((2, 4, 4), bool)}, SPACING) == []


def test_crowded_clusters_are_taken_apart_until_each_reader_has_one_place():
    # Two readers; two nodules 0.9 apart whose two outlines lie 0.2 apart; another pair far away.
    places = np.array([0.0, 0.2, 1.1, 1.3, 50.0, 50.95])
    distances = np.abs(places[:, None] - places[None])
    assert cluster(distances, tolerance_mm=1.0, most=4) == [[0, 1, 2, 3], [4, 5]]
    assert cluster(distances, tolerance_mm=1.0, most=2) == [[0, 1], [2, 3], [4, 5]]


def test_what_touches_stays_together():
    assert cluster(np.zeros((5, 5)), tolerance_mm=1.0, most=2) == [[0, 1, 2, 3, 4]]
    assert cluster(np.zeros((0, 0)), tolerance_mm=1.0, most=2) == []


def test_annotations_are_grouped_by_their_points():
    grid = np.stack(np.meshgrid([0.0], np.arange(5) * 0.7, np.arange(5) * 0.7, indexing="ij"), -1).reshape(
        -1, 3
    )
    inner = grid[12:13]  # the middle of the first
    beside = grid + np.array([0, 0, 5 * 0.7])
    above = grid + np.array([2.5, 0, 0])
    assert cluster_points([grid, inner, beside, above], tolerance_mm=0.7) == [[0, 1, 2], [3]]
    assert cluster_points([grid, inner, beside, above], tolerance_mm=0.7, most=2) == [[0, 1], [2], [3]]
    assert cluster_points([], tolerance_mm=0.7) == []
