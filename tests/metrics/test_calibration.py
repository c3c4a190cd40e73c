"""The curve tells a score that knows its errors from one that does not, and counts patients, not images."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.core.seed import stream
from fewmask.metrics.calibration import uncertainty_curve


def images(count=200, *, knowing=1.0):
    """Scores, Dice and patients (4 images each); `knowing`: how far the score follows the error."""
    chance = stream(0, "calibration", str(knowing))
    error = chance.uniform(0, 0.6, count)
    score = knowing * error + (1 - knowing) * chance.uniform(0, 0.6, count)
    return score, 1 - error, [f"p{number // 4}" for number in range(count)]


def test_a_knowing_score_is_found_useful():
    score, dice, patients = images(knowing=0.8)
    found = uncertainty_curve(score, dice, patients, resamples=400)
    assert (found.images, found.patients) == (200, 50)
    assert found.rank == pytest.approx(spearmanr(score, 1 - dice).statistic, abs=1e-12)
    assert found.rank_interval[0] < found.rank < found.rank_interval[1]
    assert found.rank_interval[1] - found.rank_interval[0] < 0.1
    assert found.useful
    assert 0 < found.fall < found.best_fall
    errors = [one.error for one in found.bins]
    assert errors[0] < 0.1 < 0.5 < errors[-1]
    assert [one.images for one in found.bins] == [20] * 10
    assert all(a.high <= b.low for a, b in zip(found.bins, found.bins[1:], strict=False))


def test_a_score_of_chance_is_not():
    found = uncertainty_curve(*images(knowing=0.0), resamples=400)
    assert found.rank_interval[0] < 0 < found.rank_interval[1]
    assert not found.useful
    assert found.fall == pytest.approx(0, abs=0.03)


def test_a_score_that_is_wrong_about_errors_loses():
    score, dice, patients = images()
    found = uncertainty_curve(-score, dice, patients, resamples=200)
    assert found.rank == pytest.approx(-1)
    assert found.fall < 0
    assert found.fall_interval[1] < 0


def test_what_is_left_out_by_hand():
    score = [0.1, 0.9, 0.3, 0.2, 0.9]
    dice = [0.9, 0.2, 0.6, 0.8, 0.4]
    found = uncertainty_curve(score, dice, list("aabbc"), drop=0.2, bins=2, resamples=50)
    assert found.error == pytest.approx(0.42)
    assert found.error_kept == pytest.approx((0.1 + 0.8 + 0.4 + 0.2) / 4)  # of the two 0.9 the later goes
    assert found.fall == pytest.approx(0.42 - 0.375)
    assert found.best_fall == pytest.approx(0.42 - (0.1 + 0.4 + 0.2 + 0.6) / 4)
    assert [(one.images, one.low, one.high) for one in found.bins] == [(3, 0.1, 0.3), (2, 0.9, 0.9)]
    assert found.bins[0].error == pytest.approx((0.1 + 0.2 + 0.4) / 3)


def test_many_images_of_few_patients_widen_the_interval():
    score, dice, patients = images(40, knowing=0.5)
    repeated = [np.repeat(score, 10), np.repeat(dice, 10), list(np.repeat(patients, 10))]
    few = uncertainty_curve(score, dice, patients, resamples=400)
    same = uncertainty_curve(*repeated, resamples=400)
    widths = [one.rank_interval[1] - one.rank_interval[0] for one in (few, same)]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_one_patient_has_no_interval_and_equal_scores_no_rank():
    one = uncertainty_curve([0.1, 0.2, 0.3], [0.9, 0.8, 0.7], ["a"] * 3)
    assert one.rank == pytest.approx(1)
    assert one.rank_interval is None
    assert one.fall_interval is None
    assert not one.useful
    equal = uncertainty_curve([0.1] * 4, [0.9, 0.8, 0.7, 0.6], list("abcd"), resamples=50)
    assert equal.rank is None
    assert equal.rank_interval is None


def test_the_same_seed_gives_the_same_interval():
    score, dice, patients = images(60, knowing=0.4)
    assert uncertainty_curve(score, dice, patients, resamples=100) == uncertainty_curve(
        score, dice, patients, resamples=100
    )


def test_what_cannot_be_compared_is_refused():
    for scores, dice, patients in (
        ([0.1, 0.2, 0.3], [0.5, 0.5], list("abc")),
        ([0.1, 0.2], [0.5, 0.5], list("ab")),
        ([0.1, 0.2, float("nan")], [0.5, 0.5, 0.5], list("abc")),
    ):
        with pytest.raises(ShapeError, match="cannot be compared"):
            uncertainty_curve(scores, dice, patients)
    for how in ({"drop": 0.0}, {"drop": 1.0}, {"bins": 0}):
        with pytest.raises(ConfigError, match="no curve"):
            uncertainty_curve([0.1, 0.2, 0.3], [0.5, 0.5, 0.6], list("abc"), **how)
    with pytest.raises(ConfigError, match="no curve"):
        uncertainty_curve([0.1, 0.2, 0.3], [0.5, 0.5, 1.6], list("abc"))
