"""Statistics: known answers, coverage of the interval, pairing, corrections, and what may be claimed."""

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from scipy.stats import wilcoxon

from fewmask.core.errors import ConfigError
from fewmask.core.seed import stream
from fewmask.metrics.overlap import Overlap, miou_dataset, miou_image
from fewmask.metrics.score import Row
from fewmask.metrics.statistics import MEAN, compare, holm, miou, signed_rank, summarise, with_holm

ROW = Row(
    arm="a", shots=3, draw=0, case="c", patient="p", class_name="lung", site="", dice=0.5, iou=0.4,
    assd_mm=1.0, hd95_mm=2.0, ceiling=None, pixel_accuracy=0.9, empty_accuracy=0.8, prevalence=0.2,
    reference_ml=1.0, predicted_ml=1.0, outcome="overlap",
)  # fmt: skip


def rows_of(values, **change):
    """Rows from values (patients, draws)."""
    return [
        replace(
            ROW, case=f"c{p}", patient=f"p{p}", draw=d, dice=float(value), assd_mm=10 - float(value), **change
        )
        for p, line in enumerate(np.atleast_2d(np.asarray(values, float).T).T)
        for d, value in enumerate(line)
    ]


def test_summary_by_hand():
    rows = rows_of([[0.2, 0.4], [0.6, 0.6], [0.9, 0.7]])
    lung, mean = summarise(rows)
    assert (lung.class_name, mean.class_name) == ("lung", MEAN)
    assert lung.mean == pytest.approx((0.3 + 0.6 + 0.8) / 3)
    assert lung.sd == pytest.approx(np.std([0.3, 0.6, 0.8], ddof=1))
    assert (lung.median, lung.q1, lung.q3) == pytest.approx((0.6, 0.45, 0.7))
    assert (lung.n_patients, lung.n_draws) == (3, 2)
    assert lung.draw_means == pytest.approx((1.7 / 3, 1.7 / 3))
    assert 0.2 <= lung.low <= lung.mean <= lung.high <= 0.9
    assert replace(mean, class_name="lung") == lung


def test_mean_over_classes_and_cases_of_a_patient():
    rows = [
        replace(ROW, case="first", dice=0.2),
        replace(ROW, case="second", dice=0.4),
        replace(ROW, case="first", class_name="heart", dice=0.9),
        replace(ROW, case="other", patient="q", dice=0.8),
        replace(ROW, case="other", patient="q", class_name="heart", dice=1.0, outcome="true_negative"),
    ]
    lung, heart, mean = summarise(rows)
    assert lung.mean == pytest.approx((0.3 + 0.8) / 2)
    assert mean.mean == pytest.approx(((0.3 + 0.9) / 2 + (0.8 + 1.0) / 2) / 2)
    assert (lung.n_patients, lung.true_negatives, heart.true_negatives, mean.true_negatives) == (2, 0, 1, 1)


def test_many_slices_of_one_patient_are_one_patient():
    rows = [replace(ROW, case=f"slice{i}", dice=i / 100) for i in range(100)]
    found = summarise(rows)[0]
    assert found.n_patients == 1
    assert (found.low, found.high, found.sd) == (None, None, 0.0)
    assert found.text() == "0.495"


def test_values_that_are_not_there_are_left_out():
    assert summarise([ROW], "ceiling") == []
    rows = [replace(ROW, ceiling=0.9), replace(ROW, patient="q")]
    assert summarise(rows, "ceiling")[0].n_patients == 1
    with pytest.raises(ConfigError, match="'dize'"):
        summarise([ROW], "dize")


def test_interval_agrees_with_student_and_is_reproducible():
    values = stream(5, "test").normal(0.8, 0.05, 40)
    found = summarise(rows_of(values))[0]
    half = student.ppf(0.975, 39) * values.std(ddof=1) / np.sqrt(40)
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert summarise(rows_of(values))[0] == found
    assert summarise(rows_of(values), seed=1)[0].low != found.low
    assert found.text(2) == f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"


def test_draws_widen_the_interval():
    chance = stream(3, "draws")
    patients = chance.normal(0.8, 0.01, 30)[:, None]
    shifts = np.array([-0.1, 0.0, 0.05, 0.1, -0.05])
    with_draws = summarise(rows_of(patients + shifts))[0]
    one_draw = summarise(rows_of(patients))[0]
    assert with_draws.high - with_draws.low > 5 * (one_draw.high - one_draw.low)


def test_patients_of_different_draws_are_allowed():
    rows = [replace(ROW, patient=f"p{i}", draw=i % 2, dice=i / 10) for i in range(10)]
    found = summarise(rows)[0]
    assert found.mean == pytest.approx(0.45)
    assert 0.0 <= found.low < found.high <= 0.9


def test_comparison_is_paired():
    chance = stream(1, "pairs")
    base = chance.uniform(0.2, 0.9, (12, 3))
    rows = rows_of(base) + rows_of(base + 0.02 + chance.normal(0, 0.005, base.shape), arm="b")
    found = compare(rows, ("b", 3), ("a", 3))
    assert found.difference == pytest.approx(0.02, abs=0.005)
    assert 0.01 < found.low < found.difference < found.high < 0.03
    assert found.claim == "a"
    assert compare(rows, ("a", 3), ("b", 3)).claim == "b"
    assert (found.n_patients, found.n_draws_a, found.n_draws_b) == (12, 3, 3)
    assert found.p_value == pytest.approx(2 / 2**12)
    distance = compare(rows, ("b", 3), ("a", 3), "assd_mm")
    assert distance.difference < 0
    assert distance.claim == "a"
    assert found.text(3).startswith("+0.0")


def test_only_common_patients_are_compared():
    rows = rows_of([0.1, 0.2, 0.3]) + rows_of([0.5, 0.6], arm="b", shots=None)
    found = compare(rows, ("b", None), ("a", 3), class_name="lung")
    assert found.n_patients == 2
    assert found.difference == pytest.approx(0.4)
    with pytest.raises(ConfigError, match=r"(?s)c \(k = 1\) against a \(k = 3\).*b \(all masks\)"):
        compare(rows, ("c", 1), ("a", 3))


def test_other_draws_are_resampled_apart():
    base = np.linspace(0.3, 0.9, 10)[:, None]
    three = rows_of(base + np.array([-0.1, 0.0, 0.1]))
    full = rows_of(base + 0.02, arm="full", shots=None)
    paired = rows_of(base + np.array([-0.1, 0.0, 0.1]) + 0.02, arm="paired")
    apart, together = (
        compare(three + full, ("full", None), ("a", 3)),
        compare(three + paired, ("paired", 3), ("a", 3)),
    )
    assert apart.difference == pytest.approx(together.difference)
    assert apart.claim == "none"
    assert together.claim == "a"


def test_few_patients_decide_nothing():
    rows = rows_of([0.1, 0.2, 0.15, 0.2, 0.1]) + rows_of([0.8, 0.9, 0.85, 0.9, 0.9], arm="b")
    assert compare(rows, ("b", 3), ("a", 3)).claim == "too few patients"
    single = compare(rows_of([0.1]) + rows_of([0.9], arm="b"), ("b", 3), ("a", 3))
    assert (single.low, single.p_value, single.claim) == (None, None, "too few patients")


def test_false_claims_are_rare():
    """Two equal arms: the claim rule must speak in about one of twenty comparisons."""
    chance = stream(9, "null")
    claims = 0
    for _ in range(200):
        a, b = chance.normal(0.8, 0.05, (2, 20))
        claims += compare(rows_of(a) + rows_of(b, arm="b"), ("b", 3), ("a", 3), resamples=500).claim != "none"
    assert 2 <= claims <= 24


def test_signed_rank():
    assert signed_rank(np.zeros(8)) == 1.0
    assert signed_rank(np.array([0.3])) is None
    differences = np.array([0.1, -0.2, 0.35, 0.4, 0.55, 0.6, 0.7, -0.05])
    assert signed_rank(differences) == pytest.approx(wilcoxon(differences, method="exact").pvalue)
    assert 0 < signed_rank(np.array([0.1] * 12)) < 0.01
    assert 0 < signed_rank(np.linspace(-0.1, 0.9, 80)) < 1e-6


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, None]) == [
        pytest.approx(0.03),
        pytest.approx(0.06),
        pytest.approx(0.06),
        None,
    ]
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    rows = rows_of(np.linspace(0.1, 0.9, 8)) + rows_of(np.linspace(0.2, 0.95, 8), arm="b")
    one = compare(rows, ("b", 3), ("a", 3))
    assert [c.p_holm for c in with_holm([one, one])] == [pytest.approx(min(1.0, 2 * one.p_value))] * 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value(values):
    adjusted = holm(values)
    assert all(p <= q <= 1.0 for p, q in zip(values, adjusted, strict=True))
    order = np.argsort(values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_interval_holds_within_the_values(values):
    found = summarise(rows_of(values), resamples=200)[0]
    assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12


def test_ten_thousand_resamples_are_fast_and_lean():
    rows = rows_of(stream(2, "big").uniform(size=(1500, 2)))
    start = time.process_time()
    summarise(rows)
    assert time.process_time() - start < 5.0


def test_miou_of_rows_equals_that_of_counts():
    counts = {
        "lung": [Overlap(90, 95, 95, 1000), Overlap(0, 5, 5, 1000), Overlap(0, 0, 0, 1000)],
        "heart": [Overlap(10, 20, 12, 1000), Overlap(30, 30, 40, 1000), Overlap(0, 0, 4, 1000)],
    }
    rows = [
        replace(
            ROW, case=f"c{i}", class_name=name, dice=o.dice, iou=o.iou,
            reference_ml=o.reference * 0.02, predicted_ml=o.predicted * 0.02,
        )
        for name, members in counts.items() for i, o in enumerate(members)
    ]  # fmt: skip
    assert miou(rows) == pytest.approx({"dataset": miou_dataset(counts), "image": miou_image(counts)})
