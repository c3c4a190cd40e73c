"""The recipe synthetic: which arms, what the pairs come from, who labels, and what the page says of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from fewmask.cli import main
from fewmask.core.errors import ConfigError
from fewmask.core.run import Run
from fewmask.data.cohort import read_cohort
from fewmask.data.split import read_split
from fewmask.metrics.score import read_rows
from fewmask.recipes.presets import build, parse_overrides
from fewmask.recipes.settings import UNetSettings
from fewmask.recipes.synthetic import arms, learned_from
from fewmask.recipes.synthetic_settings import SyntheticSettings
from fewmask.recipes.taught import divided
from fewmask.report.content import read_report
from fewmask.synthesis.card_file import read_card
from fewmask.synthesis.factory import open_pairs
from fewmask.synthesis.sift import KEPT_CSV

MOMENT = (
    "threads=1",
    "prepare.size=[16, 16]",
    "phantom={patients: 10, size: 32, slices: 7}",
    "unet={widths: [4, 8], images: 16}",
    "gan={images: 32, channel_max: 8}",
    "inversion.steps=2",
    "head={width: 8, images: 16}",
    "encoder.images=32",
    "factory.pairs=12",
)


def asked(*words: str) -> SyntheticSettings:
    return build(SyntheticSettings, [parse_overrides(words)])


def ended(*words) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return stopped.value.code


def command(out: Path, *words) -> list:
    return ["run", "synthetic", "--preset", "tiny", "--out", out, *MOMENT, *words]


def test_ours_come_first_then_what_they_must_beat():
    keys = [arm.key for arm in arms(asked("factory.mix=[0.5, 0.8]"))]
    assert keys == [
        "pairs then real",
        "pairs mixed 0.5",
        "pairs mixed 0.8",
        "pairs",
        "unet",
        "mean teacher",
        "unet plain",
        "empty",
    ]
    seen = learned_from(asked(), 50, 7)
    assert (seen["pairs"], seen["mean teacher"]) == (50, 7)
    assert not {"unet", "unet plain", "empty"} & set(seen)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["head.reads=[encoder]"], "one interpreter"),
        (["head.reads=[generator+encoder@w]"], "one interpreter"),
        (["head.reads=[generator@w, generator@w+]"], "at most 1"),
        (["factory.mix=[0.5, 0.5]"], "twice"),
        (["factory.source=oracle", "shots.full=false"], "shots.full=true"),
        (["factory.source=oracle", "head.support=somewhere"], "a person labelled"),
        (["head={support: somewhere, reads: [generator@pti]}"], "@w or @w+"),
        (["prepare.size=[48, 48]"], "squares"),
        (["arms=[semantic pairs]", "gan.network=stylegan3-t"], "mask branch"),
        (["semantic.steps=[1, 1]"], "twice"),
    ],
)
def test_settings_that_make_no_factory_are_refused(words, told):
    with pytest.raises(ConfigError, match=told):
        asked(*words)


def test_a_budget_is_divided_and_never_exceeded():
    unet = UNetSettings(images=100, batch=8)
    for first in (0.01, 0.5, 0.99):
        before, after = divided(unet, first)
        assert before.images + after.images == 100
        assert min(before.images, after.images) >= 8
    assert divided(unet, 0.25)[0].images == 25


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("synthetic") / "run")
    assert ended(*command(run.folder)) == 0
    return run


def pairs_of(run: Run, count: int) -> Path:
    return run.step(f"pairs/k={count}/draw=0").pairs


def test_every_arm_is_scored_on_the_test_patients(done: Run):
    rows = read_rows(done.results_csv)
    few = {"unet", "head generator@w+", "pairs", "pairs then real", "pairs mixed 0.5"}
    assert {(row.arm, row.shots) for row in rows} == {
        *((arm, k) for arm in few for k in (1, 3)),
        ("unet", None),
        ("empty", 0),
    }


def test_pairs_are_a_cohort_that_names_no_patient(done: Run):
    split, _ = read_split(done.split_json)
    patients = [*split.train, *split.test]
    assert patients
    for count in (1, 3):
        folder = pairs_of(done, count)
        cohort = read_cohort(folder)
        assert len(cohort.labelled) == 12
        kept = (folder / KEPT_CSV).read_text().splitlines()
        assert len(kept) - 1 == 11  # the most uncertain tenth is left out
        told = "".join(
            path.read_text() for path in folder.glob("*.*") if path.suffix in (".json", ".csv", ".md")
        )
        assert not [patient for patient in patients if patient in told]


def test_shots_of_other_sizes_make_other_labels_of_the_same_images(done: Run):
    one, three = (open_pairs(pairs_of(done, count)) for count in (1, 3))
    np.testing.assert_array_equal(one.image(5), three.image(5))
    assert any((one.soft(n)[0] != three.soft(n)[0]).any() for n in range(12))


def test_every_set_has_a_card_and_the_page_tells_of_it(done: Run):
    card = read_card(pairs_of(done, 3))
    assert card is not None
    assert (card.drawn, card.kept) == (12, 11)
    assert card.copies is not None
    assert card.copies.proven
    assert card.uncertainty is not None
    assert card.frequencies is not None
    assert card.coverage is not None
    report = read_report(done.report_json)
    titles = [table.title for table in report.tables]
    assert titles[0] == "Pairs of the first draw"
    assert report.tables[0].rows[1][:3] == ("k = 3", "12", "11")
    assert "No pair is a copy of a training slice" in [check.name for check in report.checks]
    assert report.galleries[0].title == "Pairs"
    assert len(report.galleries[0].pictures) == 2


def test_more_pairs_in_shards_are_those_of_the_run(done: Run, tmp_path, capsys):
    out = tmp_path / "more"
    words = ["pairs", done.folder, "--out", out, "--count", 15, "--shots", 3]
    assert ended(*words, "--shard", "1/2") == 0
    assert "made when the other shards are done" in capsys.readouterr().out
    assert ended(*words, "--shard", "0/2") == 0
    assert "to learn from" in capsys.readouterr().out
    ours, more = open_pairs(pairs_of(done, 3)).records(), open_pairs(out).records()
    assert len(more) == 15
    assert {n: more[n] for n in ours} == ours
    card = read_card(out)
    assert card is not None
    assert card.drawn == 15
    assert card.copies is not None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--shard", "2/2"], "is no shard"),
        (["--shard", "one"], "is no shard"),
        (["--shots", 2], "no such draw"),
        (["--draw", 1], "no such draw"),
    ],
)
def test_pairs_that_the_run_cannot_draw_are_refused(done: Run, tmp_path, capsys, words, told):
    assert ended("pairs", done.folder, "--out", tmp_path / "more", *words) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "more").exists()


def test_pairs_need_a_run_of_synthetic_and_its_cohort(done: Run, phantom, tmp_path, capsys):
    assert ended("pairs", tmp_path, "--out", tmp_path / "more") == 2
    assert "finished run of `synthetic`" in capsys.readouterr().err
    assert ended("pairs", done.folder, "--cohort", phantom, "--out", tmp_path / "more") == 2
    assert "not the cohort that the run learned from" in capsys.readouterr().err


def test_an_oracle_is_for_the_phantom_alone(phantom, tmp_path, capsys):
    words = command(tmp_path / "run", "--cohort", phantom, "factory.source=oracle")
    assert ended(*words) == 2
    assert "in simulation only" in capsys.readouterr().err


def test_an_oracle_labels_generated_slices(tmp_path):
    run = Run(tmp_path / "run")
    words = ("factory.source=oracle", "arms=[pairs]", "factory.labels=vote", "factory.plausible_from=null")
    assert ended(*command(run.folder, *words)) == 0
    told = json.loads((run.step("interpreter/k=3/draw=0").inputs_json).read_text())
    assert "oracle" in told
    assert not list((run.folder / "steps" / "inversion").glob("w+/phantom*"))
    assert {row.arm for row in read_rows(run.results_csv)} == {"pairs", "unet"}


def test_a_generator_that_draws_masks_is_a_factory_and_a_segmenter(tmp_path):
    run = Run(tmp_path / "run")
    words = (
        "arms=[plain, mean teacher, semantic pairs, semantic pairs then real, semantic search]",
        "semantic={images: 32, encoder_images: 16, steps: [0, 2]}",
        "shots.counts=[3]",
    )
    assert ended(*command(run.folder, *words)) == 0
    rows = {(row.arm, row.shots) for row in read_rows(run.results_csv)}
    ours = {"semantic", "semantic then real", "semantic search 0", "semantic search 2"}
    ours |= {"unet plain", "mean teacher"}
    assert rows == {*((arm, 3) for arm in ours), ("unet", 3), ("unet", None)}
    pairs = open_pairs(run.step("semantic-pairs/k=3/draw=0").pairs)
    assert len(pairs.records()) == 12
    assert pairs.made_from["semantic"]["images"] == 32
    assert read_card(pairs.folder) is not None
    assert not (run.folder / "steps" / "pairs").exists()


def test_nothing_plausible_is_said_in_words(tmp_path, capsys):
    words = ("arms=[pairs]", "factory={plausible_from: 1, area: 1, centre: 0, pieces: 0}")
    assert ended(*command(tmp_path / "run", *words)) == 2
    assert "no pair is left" in capsys.readouterr().err
