"""The records behind the page's tables."""

from dataclasses import replace

import pytest

from fewmask.metrics.statistics import MEAN
from fewmask.report.tables import choose_cases, comparisons, empty_lines, lines, plain_table

FEW = 200


def test_lines_stand_in_the_order_of_the_report(make_rows, make_report):
    rows = list(reversed(make_rows()))
    found = [line for line in lines(rows, make_report(rows), resamples=FEW) if line.class_name == MEAN]
    assert [(line.arm, line.shots) for line in found] == [
        ("head", 1), ("head", 3), ("head", 8), ("unet", 1), ("unet", 3), ("unet", 8), ("unet", None),
    ]  # fmt: skip
    assert found[0].name == "GAN-feature segmenter"
    assert {"dice", "iou", "assd_mm", "hd95_mm", "ceiling"} <= set(found[0].of)
    without = [replace(row, ceiling=None) for row in rows]
    assert "ceiling" not in lines(without, make_report(rows), resamples=FEW)[0].of


def test_empty_mask_scores_one_only_where_nothing_is(make_rows):
    rows = make_rows({("head", 3): 0.8}, patients=4, draws=1, classes=("nodule",))
    rows[0] = replace(rows[0], outcome="true_negative")
    rows[1] = replace(rows[1], outcome="false_alarm")
    nodule, mean = empty_lines(rows)
    assert nodule.dice == pytest.approx(0.5)
    assert (mean.class_name, mean.dice) == (MEAN, nodule.dice)
    assert empty_lines([]) == []


def test_comparisons_are_paired_by_shots_and_corrected(make_rows, make_report):
    rows = make_rows()
    found = comparisons(rows, make_report(rows), resamples=FEW)
    assert [(c.arm_a, c.shots_a, c.arm_b, c.shots_b) for c in found] == [
        ("head", 1, "unet", 1), ("head", 3, "unet", 3), ("head", 8, "unet", 8),
        ("head", 1, "unet", None), ("head", 3, "unet", None), ("head", 8, "unet", None),
    ]  # fmt: skip
    assert all(c.p_holm >= c.p_value for c in found)


def test_arms_without_common_patients_are_not_compared(make_rows, make_report):
    rows = [
        replace(r, patient=f"{r.arm}{r.patient}") for r in make_rows({("head", 3): 0.8, ("unet", 3): 0.8})
    ]
    assert comparisons(rows, make_report(rows), resamples=FEW) == []


def test_many_arms_are_compared_with_the_rival_and_the_best(many):
    rows, report = many
    found = {((c.arm_a, c.shots_a), (c.arm_b, c.shots_b)) for c in comparisons(rows, report, resamples=FEW)}
    expected = {((f"way {n}", k), ("unet", k)) for n in range(1, 7) for k in (1, 3)}
    expected |= {(("teacher", k), ("unet", k)) for k in (1, 3)}
    expected |= {(("way 6", k), ("teacher", k)) for k in (1, 3)}
    expected |= {(("way 6", k), ("unet", None)) for k in (1, 3)}
    assert found == expected


def test_the_scored_empty_mask_stands_once_and_needs_none(many):
    rows, report = many
    text = plain_table(rows, report, resamples=FEW)
    assert text.count("empty mask") == 1
    assert text.splitlines()[-1].split()[:3] == ["empty", "mask", "none"]
    unlisted = replace(report, arms=report.arms[:-1])
    assert (unlisted.kind_of("empty"), unlisted.name_of("empty")) == ("trivial", "empty mask")
    assert not any("empty" in (c.arm_a, c.arm_b) for c in comparisons(rows, unlisted, resamples=FEW))
    assert all(line.share is None for line in lines(rows, report, resamples=FEW) if line.arm == "empty")


def test_chosen_cases_are_worst_first_and_each_once(make_rows):
    rows = make_rows()
    found = choose_cases(rows, "head", 3)
    assert [rank for rank, _, _ in found] == ["worst"] * 5 + ["median", "best"]
    dice = [value for _, _, value in found]
    assert dice == sorted(dice)
    assert len({row.case for _, row, _ in found}) == 7
    assert [rank for rank, _, _ in choose_cases(make_rows(patients=1), "head", 3)] == ["best"]
    assert [rank for rank, _, _ in choose_cases(make_rows(patients=3), "head", 3)] == [
        "worst",
        "median",
        "best",
    ]
    assert choose_cases(rows, "head", 99) == []


def test_plain_table_for_the_terminal(make_rows, make_report):
    rows = make_rows()
    text = plain_table(rows, make_report(rows), resamples=FEW).splitlines()
    assert len(text) == 2 + 7 + 1
    assert text[0].split()[:2] == ["arm", "shots"]
    assert "GAN-feature segmenter" in text[2]
    assert text[-1].startswith("empty mask")
    assert len({len(line) for line in text}) == 1


def test_an_arm_with_masks_of_its_own_is_compared_with_none(many):
    rows, report = many
    arms = tuple(replace(arm, own_masks=arm.key == "way 6") for arm in report.arms)
    found = comparisons(rows, replace(report, arms=arms), resamples=FEW)
    assert found
    assert not any("way 6" in (one.arm_a, one.arm_b) for one in found)
    assert {one.arm_a for one in found if one.arm_b == "teacher"} == {"way 5"}
