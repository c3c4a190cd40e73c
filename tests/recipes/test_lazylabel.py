"""Masks from labels of whole images, end to end: every method, what must be beaten, and wrong input."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fewmask.cli import main
from fewmask.core.run import Run
from fewmask.data.phantom import write_phantom
from fewmask.metrics.score import read_rows
from fewmask.recipes.healers import methods
from fewmask.recipes.lazylabel_settings import LazylabelSettings
from fewmask.recipes.lazyplan import as_published, healer_works
from fewmask.recipes.presets import build
from fewmask.report.content import read_report

SHORT = (
    "threads=1",
    "document.images=16",
    "cyclegan.images=16",
    "mask_head.images=16",
    "vagan.images=8",
    "fixed_point.images=16",
    "classifier.images=32",
    "autoencoder.images=32",
)
"""On top of the preset tiny: every training takes a moment, and its scores mean nothing."""


def command(*words) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("lazy") / "run")
    assert command("run", "lazylabel", "--preset", "tiny", "--out", run.folder, *SHORT) == 0
    return run


@pytest.mark.timeout(900)  # under a minute on a machine of its own
def test_tiny_finds_opacities_from_image_labels(tmp_path: Path, capsys):
    run = Run(tmp_path / "run")
    assert command("run", "lazylabel", "--preset", "tiny", "--out", run.folder, "threads=1") == 0
    assert "brightness" in capsys.readouterr().out
    rows = read_rows(run.results_csv)
    ill = [row for row in rows if row.reference_ml > 0]
    reached = {arm: np.mean([row.dice for row in ill if row.arm == arm]) for arm in {row.arm for row in ill}}
    assert reached["empty"] == 0
    assert reached["intensity here"] > 0.05
    assert reached["vagan"] > 0.05, reached


def test_every_method_and_what_it_must_beat_is_on_the_page(short):
    report = read_report(short.report_json)
    kinds = {arm.key: arm.kind for arm in report.arms}
    assert kinds["document by the rule"] == kinds["cyclegan"] == kinds["mask head"] == "ours"
    assert kinds["cam"] == kinds["intensity"] == kinds["intensity here"] == "baseline"
    assert kinds["empty"] == kinds["body"] == "trivial"
    assert {row.arm for row in read_rows(short.results_csv)} == set(kinds)
    page = short.report_html.read_text()
    for words in ("AUPRC, pixels", "false-positive area", "acc_mse_binary", "Left out", "mean intensity"):
        assert words in page
    table = next(one for one in report.tables if one.title == "Maps")
    column = table.columns.index("acc_mse_binary")
    shown = {row[0]: row[column] for row in table.rows}
    share = {row[0]: row[table.columns.index("prevalence")] for row in table.rows}["empty mask"]
    right, wrong = (float(text.split("%")[0]) for text in (shown["empty mask"], share))
    assert right + wrong == pytest.approx(100, abs=0.11), "the empty mask's accuracy is what is not diseased"
    given = {line.arm: line.image_labels for line in report.ledger}
    assert given["cam"] > given["autoencoder"] > given["empty"] == 0


def test_the_documents_rule_marks_healthy_slices(short):
    table = next(one for one in read_report(short.report_json).tables if one.title == "Maps")
    area = {
        row[0]: float(row[table.columns.index("false-positive area")].split("%")[0]) for row in table.rows
    }
    assert area["CycleGAN, the document's rule"] > area["CycleGAN"]
    assert area["empty mask"] == 0 < area["all of the body"]


def test_the_same_command_trains_nothing_twice(short, capsys):
    before = {path: path.stat().st_mtime_ns for path in short.folder.rglob("*.safetensors")}
    assert command("run", "lazylabel", "--preset", "tiny", "--out", short.folder, *SHORT) == 0
    assert before == {path: path.stat().st_mtime_ns for path in short.folder.rglob("*.safetensors")}


def test_pictures_with_tags_and_boxes_need_no_masks(tmp_path: Path):
    cohort = write_phantom(
        tmp_path / "films", patients=24, size=32, slices=1, volumes=False, lesions=("opacity",),
        classes={"opacity": 1},
    )  # fmt: skip
    shutil.rmtree(cohort / "masks")
    rows = list(csv.DictReader((cohort / "index.csv").read_text().splitlines()))
    ill = [row["file"] for row in rows if row["state"] == "diseased"]
    lines = ["file,x,y,w,h", *(f"{Path(name).name},8,8,10,9" for name in ill)]
    (cohort / "boxes.csv").write_text("\n".join(lines) + "\n")
    run = Run(tmp_path / "run")
    words = ["--cohort", cohort, "--out", run.folder, "domains.tag=state", "boxes=boxes.csv", "arms=[cam]"]
    words += ["prepare.size=[32, 32]", "prepare.intensity=film", "classifier.images=32", "threads=1"]
    assert command("run", "lazylabel", *words) == 0
    report = read_report(run.report_json)
    table = next(one for one in report.tables if one.title == "Maps")
    assert "pointing" in table.columns
    assert "AUPRC, pixels" not in table.columns
    assert read_rows(run.results_csv) == []
    assert any("no masks of test patients" in sentence.text for sentence in report.remarks)
    assert set(json.loads(run.split_json.read_text())) >= {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["phantom.classes=[opacity, heart]"], "the masks show several"),
        (["domains.tag=colour"], "colour"),
        (["split.validation=0"], "split.validation"),
        (["phantom.lesion=nodule", "phantom.classes=[opacity]"], "the diseased domain is empty"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(words, said, tmp_path: Path, capsys):
    run = ["run", "lazylabel", "--preset", "tiny", "--out", tmp_path / "run", *SHORT, *words]
    assert command(*run) == 2
    assert said in capsys.readouterr().err


def test_the_plan_times_every_training():
    small = {
        "prepare": {"size": (32, 32)},
        "arms": ("cam", "cyclegan"),
        "cyclegan": {"width": 8, "blocks": 1},
    }
    works = healer_works(build(LazylabelSettings, [small]))
    assert [(work.what, work.times, work.images) for work in works] == [
        ("CycleGAN", 1, 20_000),
        ("class activation map", 1, 20_000),
    ]
    assert all(work.rate() > 0 for work in works)


def test_the_plan_knows_that_vagans_critic_learns_most_at_first():
    settings = build(LazylabelSettings, [{"vagan": {"images": 8000, "batch": 8, "warm_up": 25}}])
    by_group = {method.group: method for method in methods(settings)}
    # The short training: 4 updates of 100 critic steps; the whole: 25 and 9.75 of 100, and 965.25 of 5.
    mean = (34.75 * 100 + 965.25 * 5) / 1000
    assert as_published(settings, by_group["vagan"]) == pytest.approx(100 / mean, rel=0.01)
    assert as_published(settings, by_group["classifier"]) == 1.0
