"""The recipes without labels, end to end: a generator is trained, judged and kept; slices are inverted."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fewmask.cli import main
from fewmask.core.run import Run
from fewmask.inversion.keep import read_inversion
from fewmask.recipes.record import patient_key
from fewmask.report.content import read_report
from fewmask.synthesis.keep import read_generator, write_generator


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
    checks = {check.name: check for check in read_report(trained.report_json).checks}
    assert checks["Generated slices are nearly as good as unseen real ones"].outcome == "failed"
    assert len(kept.told["seen"]) == 8


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
    ways = ("encoder", "encoder+w+", "w", "w+", "w+noise", "pti")
    assert {row["way"] for row in rows} == set(ways)
    errors = {way: np.mean([float(row["mse"]) for row in rows if row["way"] == way]) for way in ways}
    assert errors["w+"] < errors["w"]
    # eight steps in a young generator: how they end differs by 0.01 between processors
    assert errors["w+noise"] <= errors["w+"] + 0.02
    for way in ways:
        inversion = read_inversion(run.step(f"inversion/{way}/unseen").inversion)
        assert len(inversion.ws) == len(rows) / len(ways)
    kept = set(read_generator(trained.generator).told["seen"])
    assert not kept & {patient_key(row["patient"]) for row in rows}
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
    assert "has learned from patients whom this run tests on" in capsys.readouterr().err
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
    few[few.index("--out") + 1] = tmp_path / "more"
    assert command(*few, "condition=site") == 2
    assert "cannot be conditioned on" in capsys.readouterr().err
    assert command(*few, "gan.freeze_d=2") == 2
    assert "it needs gan.start" in capsys.readouterr().err
    assert command(*few, "gan.parts=4") == 2
    assert "a minibatch cannot be divided so" in capsys.readouterr().err
    assert command(*few, f"gan.start={trained.folder}", "prepare.size=[64, 64]") == 2
    assert "Set prepare.size=[32, 32]" in capsys.readouterr().err
    assert command(*few, f"gan.start={trained.folder}", "gan.freeze_d=9") == 2
    assert "more blocks to freeze" in capsys.readouterr().err


def test_a_start_hands_its_past_on(trained, tmp_path: Path, capsys):
    run = Run(tmp_path / "run")
    words = ["run", "gan", "--preset", "tiny", "--out", run.folder, "threads=1", "seed=3", "gan.images=32"]
    words += ["quality.images=0", f"gan.start={trained.folder}", "gan.freeze_d=1"]
    assert command(*words) == 0
    told, before = (read_generator(each.generator).told for each in (run, trained))
    assert set(before["seen"]) <= set(told["seen"])
    assert told["start"]["seed"] == 0
    assert "Not judged" in run.report_html.read_text()
    capsys.readouterr()


def test_a_cohort_that_the_generator_learned_whole_is_refused(trained, tmp_path: Path, capsys):
    told = read_generator(trained.generator)
    everybody = sorted(patient_key(f"p{number:03d}") for number in range(12))
    write_generator(tmp_path / "all", replace(told, told={**told.told, "seen": everybody}))
    words = ["run", "invert", "--preset", "tiny", "--out", tmp_path / "run", "threads=1"]
    assert command(*words, f"generator={tmp_path / 'all'}") == 2
    assert "has learned from every patient" in capsys.readouterr().err
