"""Maps against masks: two accuracies, areas under curves against known values, intervals over patients."""

import numpy as np
import pytest

from fewmask.core.errors import ShapeError
from fewmask.metrics.bootstrap import Bootstrap
from fewmask.metrics.maps import (
    LEVELS,
    acc_mse_binary,
    acc_mse_soft,
    auprc,
    auroc,
    counts_by_level,
    false_positive_area,
    identity_error,
    image_ranking,
    image_scores,
    mean_figure,
    pixel_ranking,
    prevalence,
)

FEW = Bootstrap(200, 0.95, 0)


def areas(scores, positive):
    counts = counts_by_level(np.array(scores, dtype=float), np.array(positive, dtype=bool))
    return auroc(*counts), auprc(*counts)


def test_areas_are_the_published_ones():
    """The example of scikit-learn's roc_auc_score and average_precision_score: 0.75 and 0.8333."""
    assert areas([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == pytest.approx((0.75, 0.8333333))


def test_ties_count_a_half_and_are_taken_together():
    assert areas([1, 1, 1, 1], [1, 0, 0, 0]) == pytest.approx((0.5, 0.25))
    # by hand: of 4 pairs two are right, one is a tie, one is wrong; precision 1/2 at the tie, then 2/4
    assert areas([3, 3, 1, 2], [1, 0, 1, 0]) == pytest.approx(((0.5 + 1 + 0 + 0) / 4, 0.5 * 0.5 + 0.5 * 0.5))


def test_areas_agree_with_counting_all_pairs():
    chance = np.random.default_rng(0)
    positive = chance.random(300) < 0.2
    scores = np.round(chance.normal(size=300) + positive, 1)
    ours, _ = areas(scores, positive)
    above = scores[positive][:, None] - scores[~positive][None]
    assert ours == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean(), abs=1e-12)


def test_an_area_without_positives_has_no_value():
    assert all(np.isnan(areas([1, 2], [0, 0])))
    assert np.isnan(areas([1, 2], [1, 1])[0])


def test_accuracies_under_their_names():
    reference = np.zeros((2, 10, 10), dtype=bool)
    reference[0, :4] = True
    empty = np.zeros((2, 10, 10), dtype=np.uint8)
    assert acc_mse_binary(empty, reference) == pytest.approx([0.6, 1.0])
    assert prevalence(reference) == pytest.approx([0.4, 0.0])
    assert acc_mse_binary(empty, reference) == pytest.approx(1 - prevalence(reference))
    half = np.full((2, 10, 10), 0.5, dtype=np.float32)
    assert acc_mse_soft(half, reference) == pytest.approx([0.75, 0.75])
    assert acc_mse_binary(half, reference) == pytest.approx([0.4, 0.0])
    assert acc_mse_soft(reference * 7.0, reference) == pytest.approx([1.0, 1.0])
    judged = np.zeros_like(reference)
    judged[0, 3:5] = True
    found = acc_mse_binary(empty, reference, judged)
    assert found[0] == pytest.approx(0.5)
    assert np.isnan(found[1])


def test_areas_and_errors_of_healthy_images():
    masks = np.zeros((1, 4, 4), dtype=np.uint8)
    masks[0, 0] = 1
    body = np.zeros((1, 4, 4), dtype=bool)
    body[0, :2] = True
    assert false_positive_area(masks) == pytest.approx([0.25])
    assert false_positive_area(masks, body) == pytest.approx([0.5])
    images = np.zeros((2, 3, 4, 4), dtype=np.float32)
    assert identity_error(images, images + np.array([0.25, 0.5])[:, None, None, None]) == pytest.approx(
        [0.25, 0.5]
    )
    maps = np.arange(32.0).reshape(2, 4, 4)
    assert image_scores(maps).tolist() == [15, 31]


def test_a_mean_weighs_patients_not_images():
    found = mean_figure(np.array([1.0, 1.0, 1.0, 0.0, np.nan]), ["a", "a", "a", "b", "c"], FEW)
    assert (found.value, found.images, found.patients) == (0.5, 4, 2)
    assert (found.low, found.high) == (0.0, 1.0)
    assert mean_figure(np.array([0.3]), ["a"]).text() == "0.300"


def test_pixel_ranking_is_of_all_pixels_and_its_interval_of_patients():
    chance = np.random.default_rng(1)
    reference = chance.random((12, 32, 32)) < 0.1
    maps = (chance.normal(size=reference.shape) + 1.0 * reference).astype(np.float32)
    patients = [f"p{n // 2}" for n in range(12)]
    found = pixel_ranking(maps, reference, patients, bootstrap=FEW)
    assert maps.size > LEVELS
    assert found.auroc.value == pytest.approx(0.760, abs=0.015)  # Phi(1 / sqrt(2))
    assert found.auroc.low < found.auroc.value < found.auroc.high
    assert found.auprc.low < found.auprc.value < found.auprc.high
    assert found.prevalence == pytest.approx(0.1, abs=0.01)
    assert (found.auroc.images, found.auroc.patients) == (12, 6)
    judged = np.ones_like(reference)
    judged[3:] = False
    part = pixel_ranking(maps, reference, patients, judged=judged, bootstrap=FEW)
    assert part.auroc.value == pytest.approx(pixel_ranking(maps[:3], reference[:3], patients[:3]).auroc.value)


def test_one_noisy_patient_widens_the_interval():
    reference = np.zeros((6, 8, 8), dtype=bool)
    reference[:, :2] = True
    maps = np.where(reference, 1.0, 0.0)
    maps[5] = 1 - maps[5]
    found = pixel_ranking(maps, reference, list("abcdef"), bootstrap=FEW)
    assert found.auroc.value == pytest.approx((5 / 6) ** 2 + 0.5 * 2 * 5 / 36)
    assert found.auroc.high == 1.0
    assert found.auroc.low < 0.7


def test_image_ranking():
    found = image_ranking(
        np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1], dtype=bool), list("abcd"), bootstrap=FEW
    )
    assert found.auroc.value == pytest.approx(0.75)
    assert found.auprc.value == pytest.approx(0.8333333)


def test_what_cannot_be_scored_is_told():
    maps, none = np.zeros((2, 4, 4)), np.zeros((2, 4, 4), dtype=bool)
    with pytest.raises(ShapeError, match="all are of one kind"):
        pixel_ranking(maps, none, ["a", "b"])
    with pytest.raises(ShapeError, match="must have one shape"):
        acc_mse_binary(maps, none[:1])
    with pytest.raises(ShapeError, match="needs its patient"):
        mean_figure(np.zeros(3), ["a"])
    with pytest.raises(ShapeError, match="no image has a value"):
        mean_figure(np.array([np.nan]), ["a"])
    with pytest.raises(ShapeError, match="not a number"):
        image_ranking(np.array([np.nan, 1]), np.array([True, False]), ["a", "b"])
