"""Every recipe runs end to end with its preset `tiny`, and resumes without doing anything twice."""

import json
from pathlib import Path

import numpy as np
import pytest

from fewmask.cli import main
from fewmask.core.run import Run
from fewmask.metrics.score import read_rows
from fewmask.recipes.table import RECIPES

FLOOR = {
    "fewshot": {"unet": 0.6, "propagation": 0.65, "mean teacher": 0.5},
    "synthetic": {"unet": 0.6, "pairs mixed 0.5": 0.3},
}
"""Least mean Dice from three slices, where a preset is to reach any; an empty mask has 0.08."""

SEGMENTING = [name for name, recipe in RECIPES.items() if recipe.arms]


def read_settings(run: Run):
    record = json.loads(run.run_json.read_text())
    return RECIPES[record["recipe"]].settings.model_validate(record["settings"])


def command(*words) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


@pytest.mark.timeout(900)  # under a minute on a machine of its own
@pytest.mark.parametrize("recipe", SEGMENTING)
def test_tiny_end_to_end(recipe, tmp_path: Path, capsys):
    run = Run(tmp_path / "run")
    words = ["run", recipe, "--preset", "tiny", "--out", run.folder, "threads=1"]
    assert command(*words) == 0
    printed = capsys.readouterr().out
    assert str(run.report_html) in printed

    rows = read_rows(run.results_csv)
    arms = {(row.arm, row.shots) for row in rows}
    asked = RECIPES[recipe].arms(read_settings(run))
    assert {(arm.key, k) for arm in asked if arm.kind != "trivial" for k in (1, 3)} <= arms
    assert all(0 <= row.dice <= 1 and row.ceiling is not None and row.assd_mm >= 0 for row in rows)
    for arm, least in FLOOR.get(recipe, {}).items():
        reached = np.mean([row.dice for row in rows if (row.arm, row.shots) == (arm, 3)])
        assert reached >= least, f"{arm}: Dice {reached:.3f}"
    test = set(json.loads(run.split_json.read_text())["test"])
    assert {row.patient for row in rows} == test

    record = json.loads(run.run_json.read_text())
    assert record["recipe"] == recipe
    assert record["settings"]["seed"] == 0
    assert {"torch", "fewmask", "python"} <= set(record["versions"])
    page = run.report_html.read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page

    before = {path: path.read_bytes() for path in run.folder.rglob("*.safetensors")}
    csv = run.results_csv.read_bytes()
    assert command(*words) == 0
    assert run.results_csv.read_bytes() == csv
    assert {path: path.read_bytes() for path in run.folder.rglob("*.safetensors")} == before

    run.report_html.unlink()
    assert command("report", run.folder) == 0
    assert run.report_html.exists()


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path, capsys):
    words = [
        "run",
        "supervised",
        "--preset",
        "tiny",
        "--out",
        tmp_path / "run",
        "threads=1",
        "unet.images=16",
    ]
    few = ["shots.counts=[1]", "shots.full=false"]
    assert command(*words, *few) == 0
    assert command(*words, *few, "unet.learning_rate=0.01") == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", SEGMENTING)
def test_dry_run_writes_nothing(recipe, tmp_path: Path, capsys):
    assert (
        command("run", recipe, "--preset", "tiny", "--out", tmp_path / "run", "--dry-run", "threads=1") == 0
    )
    assert "minutes" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_dry_run_tells_who_would_be_tested(phantom, capsys):
    assert (
        command("run", "supervised", "--preset", "tiny", "--cohort", phantom, "--dry-run", "threads=1") == 0
    )
    printed = capsys.readouterr().out
    assert "10 cases, 10 with masks" in printed
    assert "7 train, 0 validation, 3 test" in printed


@pytest.mark.parametrize("recipe", RECIPES)
def test_settings_and_presets_are_listed(recipe, capsys):
    assert command("run", recipe, "--settings") == 0
    assert "prepare.size" in capsys.readouterr().out
    assert command("run", recipe, "--preset", "list") == 0
    assert "tiny" in capsys.readouterr().out
