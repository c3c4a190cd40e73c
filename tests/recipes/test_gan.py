"""The recipes without labels, end to end: a generator is trained, judged and kept; slices are inverted."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from fewmask.cli import main
from fewmask.core.run import Run
from fewmask.inversion.keep import read_inversion
from fewmask.synthesis.keep import read_generator


def command(*words) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("gan") / "run")
    assert command("run", "gan", "--preset", "tiny", "--out", run.folder, "threads=1") == 0
    return run


def weights(run: Run) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.folder.rglob("*.safetensors")}


def test_a_generator_is_trained_judged_and_kept(trained):
    kept = read_generator(trained.generator)
    assert kept.generator.resolution == 32
    assert kept.told["prepare"]["windows"] == ["wide"]
    assert kept.told["best"]["score"] < 0
    lines = [json.loads(line) for line in trained.step("gan").stats_jsonl.read_text().splitlines()]
    assert sum("frechet" in line for line in lines) == 4
    page = trained.report_html.read_text()
    for words in ("unseen real slices", "kept generator", "Fréchet", "nearest training slice", "collapse"):
        assert words in page


def test_the_same_command_does_nothing_twice(trained, capsys):
    before = weights(trained)
    assert command("run", "gan", "--preset", "tiny", "--out", trained.folder, "threads=1") == 0
    assert weights(trained) == before
    assert str(trained.generator) in capsys.readouterr().out


def test_unseen_slices_are_inverted_in_every_way(trained, tmp_path: Path, capsys):
    run = Run(tmp_path / "run")
    words = ["run", "invert", "--preset", "tiny", "--out", run.folder, "threads=1"]
    assert command(*words, f"generator={trained.generator}") == 0
    rows = list(csv.DictReader(run.residuals_csv.read_text().splitlines()))
    ways = ("encoder", "w", "w+", "w+noise", "pti")
    assert {row["way"] for row in rows} == set(ways)
    errors = {way: np.mean([float(row["mse"]) for row in rows if row["way"] == way]) for way in ways}
    assert errors["w+"] < errors["w"]
    assert errors["w+noise"] <= errors["w+"] + 0.01
    for way in ways:
        inversion = read_inversion(run.step(f"inversion/{way}/unseen").inversion)
        assert len(inversion.ws) == len(rows) / len(ways)
    seen = set(json.loads((trained.run_json).read_text())["cohort"])
    assert seen
    page = run.report_html.read_text()
    assert "Seconds per slice" in page
    assert "By pti" in page
    assert list(run.pictures.glob("pti-worst.png"))

    before = weights(run)
    assert command(*words, f"generator={trained.generator}") == 0
    assert weights(run) == before
    capsys.readouterr()


def test_fewshot_takes_a_ready_generator_of_the_same_split(trained, tmp_path: Path, capsys):
    words = ["run", "fewshot", "--preset", "tiny", "--cohort", trained.phantom, "--out", tmp_path / "run"]
    words += ["threads=1", "shots.counts=[1]", "inversion.steps=2", f"gan.ready={trained.generator}"]
    assert command(*words, "seed=1") == 2
    assert "it may have seen test patients" in capsys.readouterr().err
    assert command(*words) == 0
    assert not trained.step("gan").folder.samefile(Run(tmp_path / "run").step("gan").folder)
    assert not list(Run(tmp_path / "run").step("gan").folder.glob("*"))
    capsys.readouterr()


def test_what_cannot_be_is_said_in_words(trained, tmp_path: Path, capsys):
    words = ["run", "invert", "--preset", "tiny", "--out", tmp_path / "run", "threads=1"]
    assert command(*words) == 2
    assert "which generator?" in capsys.readouterr().err
    assert command(*words, "generator=nowhere") == 2
    assert "holds no generator" in capsys.readouterr().err
    wide = ["prepare.intensity=windows", "prepare.windows=[wide, lung]"]
    assert command(*words, f"generator={trained.generator}", *wide) == 2
    assert "other channels than the generator's" in capsys.readouterr().err
    few = ["run", "gan", "--preset", "tiny", "--out", tmp_path / "few", "threads=1"]
    assert command(*few, "phantom.patients=4", "phantom.slices=1") == 2
    assert "too few slices" in capsys.readouterr().err
    assert command(*few, "prepare.size=[48, 48]") == 2
    assert "the generator draws squares" in capsys.readouterr().err
    assert command(*few, "condition=site") == 2
    assert "cannot be conditioned on" in capsys.readouterr().err
