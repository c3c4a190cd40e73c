import numpy as np
import pytest

from fewmask.core.seed import stream
from fewmask.data.phantom_styles import STYLES, Style, acquire, noise_filter


@pytest.mark.parametrize("noise", ["white", "lowpass", "streak"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 49)])
def test_filtered_noise_has_standard_deviation_one(noise, height, width):
    white = stream(0, noise).standard_normal((40, height, width))
    grain = np.fft.irfft2(np.fft.rfft2(white) * noise_filter(noise, height, width), s=(height, width))
    assert grain.std() == pytest.approx(1, abs=0.06)


def test_styles_differ_in_their_spectrum():
    flat = np.zeros((20, 64, 64), np.float32)
    noise = {
        n: acquire(flat, "A", STYLES[n], 2.0, stream(0, n)).astype(float)
        for n in ("white", "lowpass", "streak")
    }
    along = {
        n: [np.corrcoef(v.ravel(), np.roll(v, 1, axis).ravel())[0, 1] for axis in (1, 2)]
        for n, v in noise.items()
    }
    assert max(map(abs, along["white"])) < 0.05
    assert min(along["lowpass"]) > 0.6
    assert along["streak"][1] > 0.5
    assert abs(along["streak"][0]) < 0.1


def test_blur_and_offset():
    ideal = np.full((1, 64, 64), -1000, np.float32)
    ideal[:, 16:48, 16:48] = 40
    recorded = acquire(ideal, "A", Style("none", 0, 6.0, 25), 2.0, stream(0, "b"))
    assert recorded.dtype == np.int16
    assert recorded[0, 32, 32] == pytest.approx(65, abs=2)
    assert recorded[0, 2, 2] == pytest.approx(-1000, abs=2)
    assert -900 < recorded[0, 32, 15] < 0
    clean = acquire(ideal, "A", STYLES["clean"], 2.0, stream(0, "b"))
    assert np.array_equal(clean, ideal.astype(np.int16))


def test_b_is_a_magnitude():
    recorded = acquire(np.zeros((2, 32, 32), np.float32), "B", STYLES["white"], 2.0, stream(0, "b"))
    assert recorded.min() >= 0
    assert recorded.mean() > 5
