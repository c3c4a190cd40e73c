"""From maps of change to masks: the document's rule and its faults, and the calibrated one."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fewmask.core.errors import ConfigError, DataError, ShapeError
from fewmask.synthesis.difference import (
    Calibration,
    DifferenceSettings,
    apply,
    body_mask,
    calibrate,
    calibrated,
    document_rule,
    masks_of,
    merge,
    smooth,
)

PLAIN = DifferenceSettings(smoothing="none", least_area=0)


def noise(count, size=48, seed=0):
    return np.abs(np.random.default_rng(seed).normal(size=(count, size, size))).astype(np.float32)


def pair(*differences):
    """Images whose differences from what was made of them are these, as one row of pixels."""
    x_h = np.zeros((1, 1, 1, len(differences)))
    return x_h + np.array(differences), x_h


def test_the_document_keeps_the_middle_and_drops_the_strongest():
    d, mask = document_rule(*pair(0.0, 0.2, 0.3, 0.4, 0.7, 0.8, 1.0))
    assert d[0, 0] == pytest.approx([0, 0.2, 0.3, 0.4, 0.7, 0.8, 1.0])
    assert mask[0, 0].tolist() == [0, 0, 0, 1, 1, 0, 0]
    assert d.dtype == np.float32
    assert mask.dtype == np.uint8


def test_the_document_gives_healthy_images_masks_as_well():
    x, x_h = pair(0.0, 0.002, 0.004)
    assert document_rule(x, x_h)[1][0, 0].tolist() == [0, 1, 0]


def test_the_maximum_of_the_document_is_signed():
    brightened = pair(-0.1, -0.5, -1.0)  # max(X - X') = -0.1
    assert document_rule(*brightened)[0][0, 0] == pytest.approx([1, 5, 10])
    d, mask = document_rule(*brightened, reading="absmax")
    assert d[0, 0] == pytest.approx([0.1, 0.5, 1.0])
    assert mask[0, 0].tolist() == [0, 1, 0]
    never_above = pair(0.0, -0.5)  # max(X - X') = 0
    assert np.isfinite(document_rule(*never_above)[0]).all()
    same = np.zeros((2, 3, 4, 4))
    for reading in ("document", "absmax"):
        assert not document_rule(same, same, reading=reading)[1].any()


def test_channels_are_averaged():
    x = np.zeros((1, 2, 1, 2))
    x[0, :, 0, 0] = [1.0, 0.0]
    x[0, :, 0, 1] = [1.0, 1.0]
    assert document_rule(x, np.zeros_like(x), reading="absmax")[0][0, 0] == pytest.approx([0.5, 1.0])
    with pytest.raises(ShapeError, match="differ"):
        document_rule(x, x[:, :1])


@pytest.mark.parametrize("smoothing", ["gaussian", "median", "none"])
def test_no_more_healthy_pixels_fire_than_allowed(smoothing):
    how = DifferenceSettings(smoothing=smoothing, window=3, least_area=0)
    found = calibrate(noise(20), settings=how)
    assert 0.0095 < found.fired <= 0.01
    assert found.covered == pytest.approx(found.fired)
    others = apply(found, noise(20, seed=1))
    assert others.mean() == pytest.approx(0.01, abs=0.003)
    assert others.dtype == np.uint8
    assert calibrated(found, noise(20)).max() > 1
    assert (calibrated(found, noise(20)) > 1).mean() == pytest.approx(0.005, abs=0.0005)


def test_ties_never_fire_too_many():
    steps = np.repeat(np.arange(10.0), 100).reshape(1, 20, 50)
    for share in (0.0, 0.05, 0.1, 0.25):
        how = replace(PLAIN, false_positive_share=share)
        found = calibrate(steps, settings=how)
        assert found.fired == pytest.approx(int(share * 10) / 10)
        assert apply(found, steps).mean() == pytest.approx(found.fired)


def test_lesions_are_found_and_specks_are_dropped():
    found = calibrate(noise(20))
    sick = noise(4, seed=3)
    sick[:, 10:20, 10:20] += 4.0
    masks = apply(found, sick)
    inside = masks[:, 11:19, 11:19]
    assert inside.mean() > 0.99
    masks[:, 7:23, 7:23] = 0
    assert masks.mean() < 0.02
    speck = np.zeros((1, 48, 48), dtype=np.float32)
    speck[0, 5, 5] = 1e3
    bare = replace(found, settings=PLAIN)
    assert apply(bare, speck).sum() == 1
    assert apply(replace(found, settings=replace(PLAIN, least_area=2 / 48**2)), speck).sum() == 0
    speck[0, 6, 6] = 1e3
    assert apply(replace(found, settings=replace(PLAIN, least_area=2 / 48**2)), speck).sum() == 2


def test_only_the_body_counts():
    maps = noise(10)
    bodies = np.zeros(maps.shape, dtype=bool)
    bodies[:, 12:36, 12:36] = True
    maps[~bodies] *= 100
    found = calibrate(maps, bodies, PLAIN)
    assert 0.0095 < found.fired <= 0.01
    assert found.threshold * found.scale == pytest.approx(2.576, abs=0.1)  # two-sided 1 % of a normal
    masks = apply(found, maps, bodies)
    assert not masks[~bodies].any()
    assert masks[bodies].mean() == pytest.approx(found.fired)


def test_a_method_that_leaves_healthy_images_alone_fires_on_any_change():
    found = calibrate(np.zeros((3, 16, 16)), settings=PLAIN)
    assert found.fired == 0
    assert not apply(found, np.zeros((3, 16, 16))).any()
    some = np.zeros((1, 16, 16))
    some[0, :4] = 0.1
    assert apply(found, some).sum() == 64


def test_the_unit_of_the_maps_does_not_matter():
    pixels = noise(10) * 1000
    assert np.array_equal(
        apply(calibrate(noise(10)), noise(5, seed=2)), apply(calibrate(pixels), noise(5, seed=2) * 1000)
    )


def test_a_calibration_is_kept_as_json():
    found = calibrate(noise(5), settings=DifferenceSettings(smoothing="median", percentile=99))
    again = Calibration.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert np.array_equal(apply(again, noise(5)), apply(found, noise(5)))
    with pytest.raises(DataError, match="is not a calibration"):
        Calibration.from_json({"scale": 1.0})


def test_smoothing_takes_each_map_by_itself():
    maps = np.zeros((2, 9, 9))
    maps[0, 4, 4] = 1.0
    gaussian = smooth(maps, DifferenceSettings())
    assert gaussian[0].sum() == pytest.approx(1.0)
    assert gaussian[0, 4, 4] == pytest.approx(1 / (2 * np.pi), abs=0.01)
    assert not gaussian[1].any()
    assert not smooth(maps, DifferenceSettings(smoothing="median")).any()


def test_of_several_diseases_the_largest_wins():
    first, second = np.array([[[2.0, 1.0, 3.0, 0.1]]]), np.array([[[1.0, 2.0, 3.0, 9.0]]])
    masks = {1: np.array([[[1, 1, 1, 0]]], dtype=np.uint8), 7: np.array([[[1, 1, 1, 0]]], dtype=np.uint8)}
    assert merge(masks, {1: first, 7: second})[0, 0].tolist() == [1, 7, 1, 0]
    masks[1][0, 0, 0] = 0
    assert merge(masks, {1: first, 7: second})[0, 0].tolist() == [7, 7, 1, 0]
    with pytest.raises(ShapeError, match="do not fit"):
        merge(masks, {1: first})
    with pytest.raises(ConfigError, match="1 to 254"):
        merge({0: masks[1]}, {0: first})


def test_body_mask_fills_the_dark_inside():
    image = np.full((2, 1, 40, 40), -1.0, dtype=np.float32)
    image[0, 0, 5:35, 5:35] = 0.5
    image[0, 0, 10:20, 10:20] = -1.0  # a lung
    image[0, 0, 0:2, 0:2] = 1.0  # a marker
    found = body_mask(image)
    expected = np.zeros((40, 40), dtype=bool)
    expected[5:35, 5:35] = True
    assert np.array_equal(found[0], expected)
    assert found[1].all()


def test_bodies_of_real_slices_hold_their_lesions(data_folder):
    folder = data_folder / "mr-glioma-3-sequences-NC"
    rows = [
        row
        for row in csv.DictReader((folder / "index.csv").read_text().splitlines())
        if row["has_lesion"] == "1"
    ][::15]
    pixels = np.stack([np.asarray(Image.open(folder / row["file"])) for row in rows])
    lesions = np.stack([np.asarray(Image.open(folder / row["mask"])) > 0 for row in rows])
    bodies = body_mask(pixels.transpose(0, 3, 1, 2) / 127.5 - 1)
    shares = bodies.mean(axis=(1, 2))
    assert len(rows) == 31
    assert bodies[lesions].mean() > 0.99
    assert shares.min() > 0.1
    assert shares.max() < 0.9


def test_what_has_no_meaning_is_told():
    with pytest.raises(ConfigError, match="cannot be read so") as told:
        DifferenceSettings(sigma=0, window=4, least_area=1)
    assert "sigma, window, least_area" in str(told.value)
    with pytest.raises(DataError, match="nothing to calibrate on"):
        calibrate(np.zeros((0, 4, 4)))
    with pytest.raises(DataError, match="0 or more everywhere"):
        calibrate(np.full((1, 4, 4), -1.0))
    with pytest.raises(ShapeError, match="do not fit"):
        calibrate(np.zeros((1, 4, 4)), np.zeros((2, 4, 4), dtype=bool))
    assert masks_of(calibrate(noise(1)), np.zeros((0, 4, 4), dtype=np.float32)).shape == (0, 4, 4)
