"""Failure checks that follow from the scores."""

from dataclasses import replace

from fewmask.report.checks import score_checks


def by_name(rows, report):
    return {check.name: check for check in score_checks(rows, report)}


def test_a_sound_run_passes(make_rows, make_report):
    rows = make_rows()
    assert [check.outcome for check in score_checks(rows, make_report(rows))] == ["passed"] * 5


def test_faults_are_found(make_rows, make_report):
    rows = make_rows({("head", 3): 0.8}, patients=4, draws=2, classes=("nodule",))
    shifted = [
        replace(row, dice=row.dice - 0.1 * row.draw, ceiling=0.85, empty_accuracy=0.999) for row in rows
    ]
    lost = [replace(r, outcome="missed", dice=0.0) if r.draw == 0 else r for r in shifted]
    found = by_name(lost, make_report(rows))
    assert found["Enough test patients"].outcome == "failed"
    assert found["No collapse to the background"].outcome == "failed"
    assert "50 %" in found["No collapse to the background"].found
    assert found["Little depends on the draw of shots"].outcome == "warning"
    assert "99.9 %" in found["Pixel accuracy of the empty mask"].found
    assert found["The model's grid keeps the structures"].outcome == "warning"


def test_what_was_not_measured_is_not_passed(make_rows, make_report):
    rows = [replace(row, ceiling=None) for row in make_rows(draws=1)]
    found = by_name(rows, make_report(rows))
    assert found["The model's grid keeps the structures"].outcome == "not run"
    assert found["Little depends on the draw of shots"].outcome == "not run"
    assert score_checks([], make_report(rows)) == ()
