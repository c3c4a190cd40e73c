"""Run folders and their steps."""

from pathlib import Path

import pytest

from fewmask.core.errors import RunError
from fewmask.core.run import Run


def test_a_step_is_done_when_it_says_so(tmp_path: Path) -> None:
    step = Run.open(tmp_path / "run").step("unet/k=1")
    inputs = {"images": 100, "seed": 0}
    assert step.result(inputs) is None
    step.finish({"seconds": 3.0})
    assert step.result(inputs) == {"seconds": 3.0}


def test_a_step_made_with_other_settings_is_refused(tmp_path: Path) -> None:
    step = Run.open(tmp_path).step("gan")
    step.claim({"images": 100, "seed": 0})
    step.finish({})
    with pytest.raises(RunError, match=r"other settings \(images\)") as caught:
        step.result({"images": 200, "seed": 0})
    assert "images=100" in str(caught.value)
    assert "--out" in str(caught.value)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RunError):
        Run.open(tmp_path / "taken" / "run")


def test_a_step_that_holds_no_work_may_begin_anew(tmp_path: Path) -> None:
    """A run that failed on bad data is repeated in the same folder once the data are mended."""
    step = Run.open(tmp_path).step("unet")
    step.claim({"data": "faulty"})
    step.claim({"data": "mended"})
    step.checkpoint(800).folder.mkdir(parents=True)
    with pytest.raises(RunError, match=r"other settings \(data\)"):
        step.claim({"data": "changed again"})


def test_of_nested_settings_only_those_that_differ_are_named(tmp_path: Path) -> None:
    step = Run.open(tmp_path).step("gan")
    many = {f"setting{n}": n for n in range(20)}
    step.claim({"design": {"network": {"widths": [8, 16], "kind": "a"}, "batch": 8}, "old": {}, "many": many})
    step.finish({})
    with pytest.raises(RunError) as caught:
        step.claim({"design": {"network": {"widths": [8, 16], "kind": "b"}, "batch": 8}, "many": many})
    told = str(caught.value)
    assert "other settings (design.network.kind, old)" in told
    assert "found: design.network.kind='a'; old={}" in told
    assert "expected: design.network.kind='b'; no old" in told
    assert "batch" not in told
    with pytest.raises(RunError) as caught:
        step.claim({"old": {}, "design": {"x": "y" * 999}, "many": dict.fromkeys(many, -1)})
    told = str(caught.value)
    assert "many.setting4, 16 more)" in told
    assert len(told) < 1200
