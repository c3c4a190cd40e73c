"""A report goes to JSON and back unchanged."""

import pytest

from fewmask.core.errors import RunError
from fewmask.core.volume import Grid
from fewmask.data.case import Case, Cohort
from fewmask.report.content import Picture, Report, expert_minutes, read_report, write_report
from fewmask.report.datacard import data_card


def test_round_trip(tmp_path, make_rows, make_report):
    report = make_report(make_rows())
    path = write_report(tmp_path / "report.json", report)
    assert read_report(path) == report or read_report(path).to_json() == report.to_json()
    assert read_report(path).arms == report.arms
    assert read_report(path).data.shapes == report.data.shapes


def test_damaged_reports_are_errors(tmp_path, make_rows, make_report):
    value = make_report(make_rows()).to_json()
    value["data"]["patients"] = "many"
    with pytest.raises(RunError, match=r"(?s)here: does not hold a report.*data\.patients"):
        Report.from_json(value, where="here")
    with pytest.raises(RunError, match="not readable JSON"):
        read_report(tmp_path / "absent.json")


def test_expert_minutes():
    assert expert_minutes(organ_slices=8) == 24
    assert expert_minutes(lesion_slices=3, image_labels=60) == pytest.approx(11)


def test_pictures(tmp_path):
    picture = Picture.of_file(tmp_path / "pictures" / "a.png", tmp_path, "a case", "the caption")
    assert (picture.path, picture.alt, picture.caption) == ("pictures/a.png", "a case", "the caption")
    assert Picture.of_png(b"png", "x").png == "cG5n"


def test_data_card(tmp_path):
    cases = tuple(Case(f"c{i}", f"p{i // 2}", {}, tags={"site": "Ghent"} if i < 2 else {}) for i in range(4))
    cohort = Cohort("set", tmp_path, cases, {"lung": 1}, ("ct",))
    grids = {
        f"c{i}": Grid((10 + i, 20, 30), [[i + 1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
        for i in range(3)
    }
    card = data_card(cohort, grids, parts={"train": ["p0"], "test": ["p1"]}, notes=["licence CC BY"])
    assert (card.patients, card.cases, card.slices) == (2, 4, 33)
    assert card.sites == {"Ghent": 1, "unknown": 1}
    assert card.parts == {"train": 1, "test": 1}
    assert card.shapes == ((10, 20, 30), (12, 20, 30))
    assert card.spacings_mm == ((3, 2, 1), (3, 2, 3))
    assert card.notes == ("licence CC BY",)
    assert data_card(cohort, {}, parts={}, site_tag="scanner").sites == {}
