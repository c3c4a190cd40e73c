"""The pairing table names every case, its mask and how well they lie on each other."""

import csv

import pytest

from fewmask.cli import main
from fewmask.data.check import check_cohort
from fewmask.data.cohort import read_cohort
from fewmask.recipes.pairing import SHOWN, pairing_table, write_pairing


def test_every_case_stands_in_the_file(phantom, tmp_path):
    report = check_cohort(read_cohort(phantom))
    with write_pairing(tmp_path / "pairing.csv", report.rows).open() as stream:
        lines = list(csv.DictReader(stream))
    assert [line["case"] for line in lines] == [row.case for row in report.rows]
    assert {line["geometry"] for line in lines} == {"fine"}
    assert all("masks/" in line["masks"] and "left_lung" in line["voxels"] for line in lines)


def test_the_console_shows_the_first_lines(phantom):
    rows = check_cohort(read_cohort(phantom)).rows
    assert pairing_table(rows).row_count == len(rows)
    many = pairing_table(rows * 4)
    assert many.row_count == SHOWN
    assert f"{4 * len(rows) - SHOWN} more" in str(many.caption)


def test_check_leaves_pictures_and_the_table(phantom, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["check", str(phantom), "--out", str(tmp_path / "checked")])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "no faults" in printed
    assert {"overlays.png", "pairing.csv"} <= {path.name for path in (tmp_path / "checked").iterdir()}
