"""Shares of full supervision."""

from dataclasses import replace

import numpy as np
import pytest

from fewmask.metrics.score import Row
from fewmask.metrics.share import share_of

ROW = Row(
    arm="unet", shots=None, draw=0, case="c", patient="p", class_name="lung", site="", dice=0.5, iou=0.2,
    assd_mm=1.0, hd95_mm=1.0, ceiling=None, pixel_accuracy=0.9, empty_accuracy=0.8, prevalence=0.2,
    reference_ml=1.0, predicted_ml=1.0, outcome="overlap",
)  # fmt: skip
FULL, FEW = ("unet", None), ("head", 1)


def rows_of(arm, shots, dice, draw=0):
    return [
        replace(ROW, arm=arm, shots=shots, draw=draw, case=f"c{i}", patient=f"p{i}", dice=float(value))
        for i, value in enumerate(dice)
    ]


def test_a_share_is_paired_over_patients():
    full = np.linspace(0.2, 0.9, 20)
    rows = rows_of("unet", None, full) + rows_of("head", 1, 0.9 * full)
    found = share_of(rows, FEW, FULL, resamples=300)
    assert (found.value, found.low, found.high) == pytest.approx((0.9, 0.9, 0.9))
    assert found.n_patients == 20
    assert found.text() == "90.0 % [90.0, 90.0]"
    shuffled = rows_of("unet", None, full[::-1]) + rows_of("head", 1, 0.9 * full)
    wide = share_of(shuffled, FEW, FULL, resamples=300)
    assert wide.low < 0.8 < 1.0 < wide.high


def test_draws_widen_the_interval():
    full = np.full(12, 0.8)
    rows = rows_of("unet", None, full)
    rows += rows_of("head", 1, 0.9 * full, draw=0) + rows_of("head", 1, 0.7 * full, draw=1)
    found = share_of(rows, FEW, FULL, resamples=300)
    assert found.value == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx((0.7, 0.9))


def test_no_share_where_there_is_nothing_to_share():
    rows = rows_of("head", 1, [0.5, 0.6])
    assert share_of(rows, FEW, FULL) is None
    assert share_of(rows + rows_of("unet", None, [0.0, 0.0]), FEW, FULL) is None
    alone = share_of(rows + rows_of("unet", None, [0.8]), FEW, FULL)
    assert (alone.low, alone.text()) == (None, "62.5 %")
    # A resample of patients on whom full supervision scores nothing has no ratio: no interval is claimed.
    assert share_of(rows + rows_of("unet", None, [0.0, 0.8]), FEW, FULL, resamples=300).low is None
