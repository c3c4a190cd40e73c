import json
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmask.core.errors import ConfigError, DataError, ShapeError
from fewmask.core.seed import stream
from fewmask.core.volume import IGNORE, Mask, Volume
from fewmask.data.prepare import (
    Preparation,
    ceiling_mask,
    prepare,
    prepare_mask,
    undo,
    undo_probabilities,
)

ORIENTATIONS = [
    (order, signs) for order in permutations(range(3)) for signs in product((1.0, -1.0), repeat=3)
]


def affine_of(order, signs, spacing=(0.7, 0.9, 2.5)):
    affine = np.eye(4)
    affine[:3, :3] = 0
    for voxel_axis, world_axis in enumerate(order):
        affine[world_axis, voxel_axis] = signs[voxel_axis] * spacing[voxel_axis]
    affine[:3, 3] = (-20, 31, 7)
    return affine


def moved(affine, by_mm):
    other = affine.copy()
    other[0, 3] += by_mm
    return other


def a_case(shape=(5, 9, 7), affine=None, seed=0):
    chance = stream(seed, "case")
    affine = np.diag([-0.7, -0.9, 2.5, 1]) if affine is None else affine
    image = Volume(chance.integers(-900, 300, shape).astype(np.int16), affine)
    labels = chance.choice(np.array([0, 1, 2, IGNORE], dtype=np.uint8), shape)
    return image, Mask(labels, affine)


@pytest.mark.parametrize("orientation", ["LPS", "RAS"])
@pytest.mark.parametrize("axes", ["slices", "volume"])
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_labels_come_back_exactly_in_all_48_orientations(orientation, axes, tilt):
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    for order, signs in ORIENTATIONS:
        image, mask = a_case(affine=turn @ affine_of(order, signs))
        prepared = prepare({"image": image}, Preparation(axes=axes, orientation=orientation))
        there = prepare_mask(mask, prepared.trace)
        back = undo(there, prepared.trace)
        assert prepared.image.shape[1:] == there.shape
        assert np.array_equal(back.voxels, mask.voxels)
        assert np.array_equal(back.affine, mask.affine)
        assert back.voxels.dtype == np.uint8


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.25)])
def test_pictures_are_not_turned(spacing):
    picture = Volume(np.arange(12, dtype=np.uint8).reshape(1, 3, 4), np.diag([*spacing, 1.0, 1.0]))
    prepared = prepare({"image": picture}, Preparation({"image": ((5.5, 11.0),)}, square=False))
    assert np.allclose(prepared.image[0], picture.voxels / 5.5 - 1)
    placed = Volume(picture.voxels, np.diag([*spacing, 2.0, 1.0]))
    turned = prepare({"image": placed}, Preparation({"image": ((5.5, 11.0),)}, square=False))
    assert np.array_equal(turned.image, prepared.image[:, :, ::-1, ::-1])


def test_every_orientation_looks_the_same_once_prepared():
    # The same patient, stored 48 ways: a function of the place in mm.
    def scan(affine, shape):
        z, y, x = np.indices(shape)
        place = np.stack([x, y, z], axis=-1) @ affine[:3, :3].T + affine[:3, 3]
        return Volume((place @ [1.0, 10.0, 100.0]).astype(np.float32), affine)

    pictures = []
    for order, signs in ORIENTATIONS:
        spacing = np.array([1.0, 1.0, 1.0])
        sizes_world = np.array([6, 5, 4])
        affine = affine_of(order, signs, spacing)
        for world in range(3):
            affine[world, 3] = 0 if signs[order.index(world)] > 0 else sizes_world[world] - 1
        x, y, z = (int(sizes_world[world]) for world in order)
        prepared = prepare(
            {"image": scan(affine, (z, y, x))}, Preparation({"image": ((0.0, 4000.0),)}, axes="volume")
        )
        pictures.append(prepared.image)
        assert np.allclose(np.diag(prepared.trace.grid.affine)[:3], [-1, -1, 1])
    assert all(np.array_equal(pictures[0], picture) for picture in pictures)
    # LPS: left at the right end of a row, back at the bottom, head last.
    picture = pictures[0][0]
    assert picture[0, 0, 0] > picture[0, 0, -1]
    assert picture[0, 0, 0] > picture[0, -1, 0]
    assert picture[-1, 0, 0] > picture[0, 0, 0]


def shift_of_blob(axes, factor, centre):
    """Voxels by which the centre of an ellipsoid moves on the way there and back, by labels and softly."""
    shape = (24, 148, 185)
    z, y, x = np.indices(shape)
    distances = (((i - c) / r) ** 2 for i, c, r in zip((z, y, x), centre, (8, 41, 52), strict=True))
    blob = (sum(distances) < 1).astype(np.uint8)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    side = round(185 / factor)
    if axes == "slices":
        how = Preparation(size=(side, side))
    else:
        how = Preparation(axes="volume", spacing_mm=(min(factor, 2.0), factor, factor))
    trace = prepare({"image": Volume(blob, affine)}, how).trace
    low = prepare_mask(Mask(blob, affine), trace)
    one_hot = np.stack([low == 0, low == 1]).astype(np.float32)
    backs = (undo(low, trace), undo_probabilities(one_hot, trace))
    return [[i[b.voxels == 1].mean() - i[blob == 1].mean() for i in (z, y, x)] for b in backs]


@pytest.mark.parametrize("factor", [2, 3.7, 8])
@pytest.mark.parametrize("axes", ["slices", "volume"])
def test_undo_stays_on_the_grid(factor, axes):
    # Centres spread evenly over one voxel of the coarse grid: one blob's error is up to 0.2, their mean's is
    # the shift of the grid.
    centres = [(12, 70 + factor * i / 8, 95 + factor * (3 * i % 8) / 8) for i in range(8)]
    shifts = np.mean([shift_of_blob(axes, factor, centre) for centre in centres], axis=0)
    assert np.abs(shifts).max() < 0.1


def test_image_and_mask_stay_aligned_when_resized():
    shape = (3, 90, 120)
    labels = np.zeros(shape, np.uint8)
    labels[:, 20:61, 33:80] = 1
    affine = np.diag([-1.0, -1.0, 3.0, 1.0])
    image = Volume(np.where(labels, 400.0, -1000.0), affine)
    prepared = prepare({"image": image}, Preparation(size=(32, 32)))
    assert prepared.image.shape == (1, 3, 32, 32)
    share = (prepared.image[0] + 1) / 2
    there = prepare_mask(Mask(labels, affine), prepared.trace)
    assert np.array_equal(there == 1, share >= 0.4 - 1e-5)


@given(
    st.tuples(st.integers(1, 6), st.integers(4, 24), st.integers(4, 24)),
    st.tuples(st.integers(3, 40), st.integers(3, 40)) | st.none(),
    st.booleans(),
    st.sampled_from(["none", "nonzero", "body"]),
    st.sampled_from(ORIENTATIONS),
)
@settings(max_examples=40, deadline=None)
def test_shapes_ranges_and_grids(shape, size, square, crop, orientation):
    image, mask = a_case(shape, affine_of(*orientation), seed=3)
    how = Preparation(size=size, square=square, crop=crop)
    prepared = prepare({"image": image}, how)
    assert prepared.image.dtype == np.float32
    assert prepared.image.shape == (1, *prepared.trace.shape)
    assert np.abs(prepared.image).max() <= 1
    if size:
        assert prepared.trace.shape[1:] == size
    there = prepare_mask(mask, prepared.trace)
    assert there.shape == prepared.trace.shape
    assert set(np.unique(there)) <= {0, 1, 2, IGNORE}
    back = ceiling_mask(mask, prepared.trace)
    assert back.shape == mask.shape
    json.dumps(prepared.trace.to_json())


def test_the_prepared_grid_names_the_places_of_its_voxels():
    affine = affine_of((1, 2, 0), (1.0, -1.0, 1.0), (1.0, 1.0, 1.0))
    shape = (24, 30, 28)
    z, y, x = np.indices(shape)
    place = np.stack([x, y, z], axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    for world in range(3):
        image = Volume(place[..., world].astype(np.float32), affine)
        how = Preparation({"image": ((0.0, 400.0),)}, axes="volume", spacing_mm=(2.0, 3.0, 2.5))
        prepared = prepare({"image": image}, how)
        grid = prepared.trace.grid
        pz, py, px = np.indices(grid.shape)
        wanted = grid.to_mm(np.stack([px, py, pz], axis=-1))[..., world]
        # Area averages of a ramp lie within an eighth of a voxel of it; half a voxel would be 0.5.
        assert np.abs(prepared.image[0] * 200 - wanted).max() < 0.15


def test_body_crop_keeps_the_largest_part_and_the_undo_is_zero_outside():
    voxels = np.full((4, 60, 80), -1000, np.int16)
    voxels[:, 10:50, 20:70] = 40
    voxels[:, 20:40, 30:60] = -850  # lungs: a hole, inside the box anyway
    voxels[:, 55:58, 5:75] = 0  # a table below the body
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    prepared = prepare({"image": Volume(voxels, affine)}, Preparation(crop="body", square=False))
    assert prepared.trace.crop == ((0, 4), (10, 50), (20, 70))
    back = undo(np.ones(prepared.trace.shape, np.uint8), prepared.trace)
    inside = np.zeros(voxels.shape, bool)
    inside[:, 10:50, 20:70] = True
    assert np.array_equal(back.voxels == 1, inside)


def test_body_crop_on_fine_voxels_holds_the_whole_body():
    voxels = np.full((7, 201, 203), -1000, np.int16)
    voxels[2:6, 33:150, 41:160] = 40
    affine = np.diag([-0.7, -0.7, 0.8, 1.0])
    how = Preparation(axes="volume", crop="body")
    box = prepare({"image": Volume(voxels, affine)}, how).trace.crop
    for (low, high), (first, last), slack in zip(box, ((2, 6), (33, 150), (41, 160)), (3, 3, 3), strict=True):
        assert first - slack < low <= first
        assert last <= high < last + slack


def test_nonzero_crop_and_nothing_to_crop():
    voxels = np.zeros((3, 20, 30), np.uint16)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    how = Preparation({"image": ("percentile",)}, crop="nonzero", axes="volume")
    assert prepare({"image": Volume(voxels, affine)}, how).trace.shape == (3, 20, 30)
    voxels[1, 4:9, 6:20] = 100
    assert prepare({"image": Volume(voxels, affine)}, how).trace.shape == (1, 5, 14)


def test_padding_to_a_square_is_air_and_centred():
    image = Volume(np.full((1, 10, 20), 40, np.int16), np.diag([-1.0, -1.0, 1.0, 1.0]))
    prepared = prepare({"image": image}, Preparation({"image": ("lung",)}))
    assert prepared.image.shape == (1, 1, 20, 20)
    assert np.allclose(prepared.image[0, 0, :5], (-1024 + 600) / 750)
    assert np.allclose(prepared.image[0, 0, 5:15], (40 + 600) / 750)


def test_channels_follow_the_order_asked_for():
    image, _ = a_case()
    other = Volume(image.voxels + 1000, moved(image.affine, 0.1))
    how = Preparation({"mr": ("zscore",), "ct": ("lung", [40, 400])})
    prepared = prepare({"ct": image, "mr": other, "unused": image}, how)
    assert how.channel_count == 3
    assert [i.modality for i in prepared.trace.intensities] == ["mr", "ct", "ct"]
    lung = prepared.trace.intensities[1]
    assert np.allclose(lung.invert(prepared.image[1]), np.pad(image.voxels[:, :, ::1], prepared.trace.pad,
                       constant_values=-1024).clip(-1024, 150), atol=0.01)  # fmt: skip


def test_settings_travel_through_json():
    how = Preparation({"a": ("lung", (40.0, 400.0)), "b": ("zscore",)}, size=(64, 48), crop="body")
    again = Preparation.from_json(json.loads(json.dumps(how.to_json())))
    assert again == how


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"channels": {}}, "at least one channel"),
        ({"channels": {"image": ["luna"]}}, "Did you mean 'lung'"),
        ({"axes": "3d"}, "unknown axes"),
        ({"crop": "head"}, "unknown crop"),
        ({"orientation": "XYZ"}, "unknown orientation"),
        ({"size": [64, 64], "axes": "volume"}, "no meaning"),
        ({"spacing_mm": [1, 1, 1]}, "no meaning"),
        ({"size": [0, 64]}, "above 0"),
        ({"percentiles": [99, 1]}, "must rise"),
        ({"sise": [64, 64]}, "Did you mean 'size'"),
    ],
)
def test_wrong_settings_are_named(settings_, message):
    with pytest.raises(ConfigError, match=message):
        Preparation.from_json(settings_)


def test_wrong_cases_are_named():
    image, mask = a_case()
    how = Preparation()
    with pytest.raises(DataError, match="modality is missing"):
        prepare({"ct": image}, how)
    shifted = Volume(image.voxels, moved(image.affine, 0.4))
    both = Preparation({"image": ("wide",), "b": ("wide",)})
    with pytest.raises(DataError, match="half a voxel"):
        prepare({"image": image, "b": shifted}, both)
    with pytest.raises(DataError, match="NaN"):
        prepare({"image": Volume(np.full((1, 2, 2), np.nan), np.eye(4))}, how)
    trace = prepare({"image": image}, how).trace
    with pytest.raises(DataError, match="half a voxel"):
        prepare_mask(Mask(mask.voxels, shifted.affine), trace)
    with pytest.raises(DataError, match="above 255"):
        prepare_mask(Mask(np.full(image.shape, 256, np.uint16), image.affine), trace)
    with pytest.raises(ShapeError, match="shape of the prepared image"):
        undo(np.zeros((1, 2, 3), np.uint8), trace)
    with pytest.raises(ShapeError, match="0 to 255"):
        undo(np.full(trace.shape, -1), trace)
    with pytest.raises(ShapeError, match="shape of the prepared image"):
        undo_probabilities(np.zeros((2, 1, 2, 3)), trace)
