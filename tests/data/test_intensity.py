import numpy as np
import pytest

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.seed import stream
from fewmask.core.volume import Volume
from fewmask.data.intensity import WINDOWS_HU, check_window, fit_intensity, refuse_nonfinite


def volume(voxels):
    return Volume(np.asarray(voxels), np.eye(4))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("lung", -1350, 150), ("soft_tissue", -160, 240), ("bone", -500, 1300), ("wide", -1000, 400)],
)
def test_windows_map_their_ends_to_minus_one_and_one(name, low, high):
    how = fit_intensity(volume(np.zeros((1, 1, 1))), "ct", name)
    ends = how.apply(np.array([low, (low + high) / 2, high]))
    floor = (max(low, -1024) - low) * 2 / (high - low) - 1
    assert np.allclose(ends, [floor, 0, 1], atol=1e-6)
    assert ends.dtype == np.float32


def test_padding_below_minus_1024_is_read_as_air():
    how = fit_intensity(volume(np.zeros((1, 1, 1))), "ct", "lung")
    mapped = how.apply(np.array([-3024, -1024], dtype=np.int16))
    assert mapped[0] == mapped[1] == pytest.approx(how.padding)
    assert how.padding == pytest.approx((-1024 + 600) / 750)


def test_a_custom_window():
    how = fit_intensity(volume(np.zeros((1, 1, 1))), "ct", (127.5, 255.0))
    assert np.allclose(how.apply(np.array([0, 255])), [-1, 1])


@pytest.mark.parametrize("window", [*WINDOWS_HU, (50.0, 350.0), "percentile", "zscore", "film"])
def test_values_inside_the_range_come_back(window):
    voxels = stream(0, "values").normal(40, 60, (3, 20, 20)).astype(np.float32)
    how = fit_intensity(volume(voxels), "image", window)
    mapped = how.apply(voxels)
    assert mapped.min() >= -1
    assert mapped.max() <= 1
    inside = np.abs(mapped) < 1
    assert inside.mean() > 0.5
    assert np.allclose(how.invert(mapped)[inside], voxels[inside], atol=1e-2)


def test_percentile_looks_inside_non_zero_only():
    voxels = np.zeros((2, 50, 50), dtype=np.int16)
    voxels[:, 20:30, 20:30] = np.arange(100).reshape(10, 10) + 100
    how = fit_intensity(volume(voxels), "mr", "percentile", percentiles=(0, 100))
    assert np.allclose(how.apply(np.array([100, 199])), [-1, 1])
    assert how.padding == -1


def test_zscore_maps_three_standard_deviations_to_one():
    voxels = stream(0, "z").normal(500, 50, (4, 40, 40))
    how = fit_intensity(volume(voxels), "mr", "zscore")
    assert np.allclose(how.apply(np.array([350, 500, 650])), [-1, 0, 1], atol=0.05)


def test_films_of_other_brightness_and_contrast_and_with_a_black_border_agree():
    film = stream(0, "film").integers(40, 200, (1, 60, 60)).astype(np.float32)
    other = np.pad(0.6 * film + 30, ((0, 0), (9, 9), (15, 3)))
    a = fit_intensity(volume(film), "image", "film").apply(film)
    b = fit_intensity(volume(other), "image", "film").apply(other)[:, 9:-9, 15:-3]
    assert np.abs(a - b).max() < 0.03


@pytest.mark.parametrize("window", ["percentile", "zscore", "film"])
@pytest.mark.parametrize("value", [0, 7])
def test_a_scan_of_one_value_becomes_finite(window, value):
    voxels = np.full((1, 5, 5), value, dtype=np.uint8)
    mapped = fit_intensity(volume(voxels), "image", window).apply(voxels)
    assert (mapped == -1).all()


def test_large_scans_are_sampled():
    voxels = np.broadcast_to(np.arange(1, 401, dtype=np.int16), (100, 400, 400))
    how = fit_intensity(volume(voxels), "mr", "percentile", percentiles=(0, 100))
    assert np.allclose(how.apply(np.array([1, 400])), [-1, 1], atol=0.02)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'soft_tissue'"):
        check_window("soft-tissue")
    with pytest.raises(ConfigError, match="width above 0"):
        check_window((40.0, 0.0))


def test_nan_is_refused_with_its_count():
    voxels = np.zeros((2, 3, 3))
    voxels[1, 2] = np.nan
    with pytest.raises(DataError, match="3 of 18 voxels are NaN"):
        refuse_nonfinite(volume(voxels), "ct")
