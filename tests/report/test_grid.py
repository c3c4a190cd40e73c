"""Methods by numbers of shots."""

from dataclasses import replace

import pytest

from fewmask.metrics.statistics import MEAN
from fewmask.report.grid import grid_of, named_arms
from fewmask.report.tables import comparisons, lines

FEW = 200


def drawn(rows, report):
    table = [
        line for line in lines(rows, report, measures=("dice",), resamples=FEW) if line.class_name == MEAN
    ]
    return grid_of(rows, table, comparisons(rows, report, resamples=FEW), report), table


def test_arms_by_kind_shots_in_columns_and_the_best_marked(many):
    grid, _ = drawn(*many)
    assert grid.shots == (1, 3, None)
    assert [row.first.arm for row in grid.rows] == [
        *(f"way {n}" for n in range(1, 7)),
        "unet",
        "teacher",
        "raw",
    ]
    best = {(cell.line.arm, cell.line.shots) for cell in grid.cells if cell.best}
    assert best == {("way 6", 1), ("way 6", 3)}  # one arm alone has all masks: no contest
    sides = {(cell.line.arm, cell.line.shots): cell.against for cell in grid.cells}
    assert (sides["way 6", 1], sides["way 1", 1], sides["teacher", 3]) == ("above", "below", "above")
    assert sides["unet", 1] == sides["raw", 1] == ""
    assert [row.cells[2] is None for row in grid.rows] == [row.first.arm != "unet" for row in grid.rows]
    assert [line.arm for line in grid.needless] == ["empty"]
    assert (grid.rival, grid.full) == ("plain U-Net", "plain U-Net")
    shares = {(cell.line.arm, cell.line.shots): cell.line.share for cell in grid.cells}
    assert shares["unet", None] is None
    assert shares["way 6", 3].value == pytest.approx(0.88 / 0.9, abs=0.01)
    assert shares["way 6", 3].low < shares["way 6", 3].value < shares["way 6", 3].high
    assert not grid.one_slice


def test_a_run_without_few_shots_has_no_grid(make_rows, make_report):
    rows = make_rows({("unet", None): 0.9})
    assert drawn(rows, make_report(rows))[0] is None
    assert drawn([], make_report(rows))[0] is None


def test_pictures_score_per_slice_as_per_patient(make_rows, make_report):
    rows = [replace(row, slice_dice=row.dice, slice_iou=row.iou) for row in make_rows(patients=6)]
    assert drawn(rows, make_report(rows))[0].one_slice
    assert not drawn(make_rows(patients=6), make_report(rows))[0].has_slices


def test_a_figure_names_the_rival_the_other_baseline_and_the_best(many):
    _, table = drawn(*many)
    assert list(named_arms(table)) == ["way 3", "way 4", "way 5", "way 6", "unet", "teacher"]
    assert list(named_arms(table).values()) == [0, 1, 2, 3, 4, 5]
    few = [line for line in table if line.arm in ("way 1", "unet", "empty")]
    assert list(named_arms(few)) == ["way 1", "unet"]
