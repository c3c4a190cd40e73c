"""Run folders and their steps."""

from pathlib import Path

import pytest

from fewmask.core.errors import RunError
from fewmask.core.run import Run


def test_a_step_is_done_when_it_says_so(tmp_path: Path) -> None:
    step = Run.open(tmp_path / "run").step("unet/k=1")
    inputs = {"images": 100, "seed": 0}
    assert step.result(inputs) is None
    step.finish(inputs, {"seconds": 3.0})
    assert step.result(inputs) == {"seconds": 3.0}


def test_a_step_made_with_other_settings_is_refused(tmp_path: Path) -> None:
    step = Run.open(tmp_path).step("gan")
    step.finish({"images": 100, "seed": 0}, {})
    with pytest.raises(RunError, match=r"other settings \(images\)") as caught:
        step.result({"images": 200, "seed": 0})
    assert "images=100" in str(caught.value)
    assert "--out" in str(caught.value)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RunError):
        Run.open(tmp_path / "taken" / "run")
