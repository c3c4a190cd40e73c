"""The empty mask is scored like any arm."""

from pathlib import Path

import pytest

from fewmask.core.run import Run
from fewmask.data.cohort import read_case_mask
from fewmask.data.io import read_mask
from fewmask.recipes.arms import place
from fewmask.recipes.controls import empty_arm
from fewmask.recipes.ground import open_ground
from fewmask.recipes.presets import build, read_preset
from fewmask.recipes.settings import SupervisedSettings
from fewmask.recipes.stage import open_stage
from fewmask.report.content import EMPTY_ARM


@pytest.fixture
def stage(phantom: Path, tmp_path: Path):
    settings = build(SupervisedSettings, [read_preset("supervised", "tiny").settings, {"threads": 1}])
    return open_stage(settings, open_ground(settings, phantom, Run.open(tmp_path / "run")))


def test_the_empty_mask_is_scored_like_any_arm(stage, monkeypatch):
    rows = empty_arm(stage)
    assert {(row.arm, row.shots, row.draw) for row in rows} == {(EMPTY_ARM.key, 0, 0)}
    assert {row.case for row in rows} == {case.name for case in stage.test_cases}
    for row in rows:
        case = stage.cohort.case(row.case)
        there = bool(
            (read_case_mask(case, stage.cohort).voxels == stage.cohort.classes[row.class_name]).any()
        )
        assert (row.dice, row.slice_dice, row.outcome) == (
            (0.0, 0.0, "missed") if there else (1.0, 1.0, "true_negative")
        )
        assert row.ceiling is not None
        assert row.predicted_ml == 0
    folder = stage.run.cases(place(EMPTY_ARM.key, 0, 0))
    masks = sorted(folder.rglob("*.nii.gz"))
    assert len(masks) == len(stage.test_cases)
    assert not read_mask(masks[0]).voxels.any()

    monkeypatch.setattr("fewmask.recipes.controls.score_masks", None)
    assert empty_arm(stage) == rows  # kept: nothing is scored again
