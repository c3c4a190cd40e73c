from dataclasses import asdict

import numpy as np
import pytest

from fewmask.core.errors import DataError, ShapeError
from fewmask.core.seed import stream
from fewmask.inversion.project import Inversion
from fewmask.inversion.residual import residual_gate, residuals


def _inversion(mse, perceptual, ms_ssim=None):
    count = len(mse)
    empty = np.zeros((count, 1, 1), np.float32)
    alike = np.full(count, 0.9) if ms_ssim is None else ms_ssim
    measures = (np.asarray(values, np.float32) for values in (mse, perceptual, alike))
    return Inversion(empty, empty[..., None], *measures)


def _train(count=100):
    return _inversion(
        np.linspace(0.001, 0.01, count), np.linspace(0.1, 1.0, count), np.linspace(0.95, 0.8, count)
    )


def test_the_gate_flags_what_training_images_do_not_show():
    gate = residual_gate(_train())
    assert gate.flags(_train()).sum() == 5
    unseen = _inversion([0.005, 0.02, 0.005, np.nan, 0.005], [0.5, 0.5, 1.5, 0.5, 0.5], [0.9] * 4 + [0.1])
    assert gate.flags(unseen).tolist() == [False, True, True, True, True]


def test_three_measures_do_not_flag_three_times_as_many():
    chance = stream(0, "residuals")
    train = _inversion(chance.random(400), chance.random(400), chance.random(400))
    for percentile in (80.0, 95.0):
        flagged = residual_gate(train, percentile=percentile).flags(train).mean()
        assert flagged == pytest.approx(1 - percentile / 100, abs=0.01)


def test_percentiles_are_shares_of_the_training_images():
    gate = residual_gate(_train())
    assert np.allclose(gate.percentiles(_train()), np.arange(100))
    case = _inversion([0.0, 1.0], [0.55, 0.0], [0.99, 0.99])
    assert gate.percentiles(case).T.tolist() == [[0.0, 50.0, 0.0], [100.0, 0.0, 0.0]]
    assert gate.overall(case).tolist() == [50.0, 100.0]


def test_a_row_per_case_says_why_it_is_flagged():
    chance = stream(0, "images")
    images = chance.uniform(-1, 1, (3, 1, 16, 16)).astype(np.float32)
    images[2] = -1.0
    found = _inversion([0.005, 0.5, 0.001], [0.5, 0.5, 0.1], [0.9, 0.9, 0.99])
    rows = residuals(residual_gate(_train()), ["a", "b", "c"], images, found)
    assert [row.flagged for row in rows] == [False, True, True]
    assert rows[0].why == ""
    assert (
        rows[1].why == "100 % of the training images are met better in MSE; overall percentile 100, limit 95"
    )
    assert rows[2].why == "a constant image"
    assert rows[2].percentile == 0
    assert asdict(rows[1])["mse_percentile"] == 100
    assert rows[0].mse == pytest.approx(0.005)
    assert rows[0].ms_ssim == pytest.approx(0.9)


def test_too_few_images_make_no_gate():
    with pytest.raises(DataError, match="too few inversions"):
        residual_gate(_inversion([0.1] * 3, [0.1] * 3))
    with pytest.raises(DataError, match="not numbers"):
        residual_gate(_inversion([0.1] * 9, [0.1] * 8 + [np.nan]))


def test_rows_need_an_image_and_a_name_each():
    with pytest.raises(ShapeError, match="one name"):
        residuals(residual_gate(_train()), ["a"], np.zeros((2, 1, 4, 4)), _train(2))
