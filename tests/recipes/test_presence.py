"""Image-level labels of rare classes: where they come from, what they do to a generator and to its pairs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fewmask.cli import main
from fewmask.core.errors import ConfigError
from fewmask.core.run import Run
from fewmask.data.case import Case
from fewmask.data.phantom import write_phantom
from fewmask.data.slices import prepare_slices
from fewmask.recipes.deviations import factory_deviations
from fewmask.recipes.factory import told_of
from fewmask.recipes.fewshot_settings import FewshotSettings
from fewmask.recipes.ground import Ground, open_ground
from fewmask.recipes.presence import (
    balanced,
    held_out_slices,
    label_rows,
    learned_slices,
    one_hot,
    presence_words,
    shown_in,
    told_of_presence,
    training_set,
    values_of,
)
from fewmask.recipes.presets import build, parse_overrides, read_preset
from fewmask.recipes.semantic import gan_told
from fewmask.recipes.settings import GANRunSettings, GANSettings
from fewmask.recipes.synthetic_settings import SyntheticSettings
from fewmask.report.content import read_report
from fewmask.synthesis.card_file import read_card
from fewmask.synthesis.factory import open_pairs
from fewmask.synthesis.keep import read_generator
from fewmask.synthesis.pairs import class_centres, numbered_label, numbered_styles

BY_MASKS = GANSettings(presence="masks", balance=True, conditional=True)


def ended(*words) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return stopped.value.code


def ground_of(tmp_path: Path, *words: str, volumes: bool = True, **phantom) -> Ground:
    wanted = {"patients": 8, "size": 32, "slices": 6, **phantom}
    folder = write_phantom(tmp_path / "torso", volumes=volumes, **wanted)
    tiny = read_preset("gan", "tiny").settings
    small = parse_overrides(["threads=1", "prepare.size=[16, 16]", "split.test=0.25", *words])
    return open_ground(build(GANRunSettings, [tiny, small]), folder, Run.open(tmp_path / "run"))


@pytest.fixture(scope="module")
def by_masks(tmp_path_factory) -> Ground:
    return ground_of(tmp_path_factory.mktemp("masks"), "cohort.lesions=[nodule]")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Ground:
    return ground_of(tmp_path_factory.mktemp("pictures"), volumes=False, slices=2)


# --- where the labels come from ---


def test_masks_tell_of_every_slice_whether_it_shows_a_lesion(by_masks: Ground):
    slices = training_set(by_masks, BY_MASKS)
    shown = shown_in(by_masks, "masks", slices)
    nodule = by_masks.cohort.classes["nodule"]
    assert slices.masks is not None
    np.testing.assert_array_equal(shown, [(mask == nodule).any() for mask in slices.masks])
    assert 0 < shown.sum() < len(shown)
    np.testing.assert_array_equal(slices.images, training_set(by_masks, GANSettings()).images)


def test_without_lesions_any_class_counts_and_all_alike_is_refused(tmp_path):
    ground = ground_of(tmp_path, patients=4, slices=2)
    with pytest.raises(ConfigError, match="are alike") as told:
        learned_slices(ground, BY_MASKS, training_set(ground, BY_MASKS))
    assert "cohort.lesions" in str(told.value)
    unknown = ground_of(tmp_path, "cohort.lesions=[tumour]", patients=4, slices=2)
    with pytest.raises(ConfigError, match="do not have"):
        training_set(unknown, BY_MASKS)


def test_masks_of_some_are_not_enough(tmp_path):
    ground = ground_of(tmp_path, patients=4, slices=2, labelled=2)
    with pytest.raises(ConfigError, match="only where there is one"):
        training_set(ground, BY_MASKS)


def test_a_tag_tells_of_pictures_and_not_of_volumes(pictures: Ground, by_masks: Ground):
    gan = GANSettings(presence="state=diseased", balance=True)
    slices = training_set(pictures, gan)
    states = {case.name: case.tags["state"] for case in pictures.cohort.cases}
    expected = [states[ref.case] == "diseased" for ref in slices.refs]
    np.testing.assert_array_equal(shown_in(pictures, "state=diseased", slices), expected)
    np.testing.assert_array_equal(shown_in(pictures, "state=healthy", slices), ~np.array(expected))
    with pytest.raises(ConfigError, match="of whole cases"):
        shown_in(by_masks, "state=diseased", training_set(by_masks, gan))


def cases(*values: str) -> list[Case]:
    return [Case(str(n), str(n), {}, (), {"state": v} if v else {}) for n, v in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "present", "told"),
    [
        (("a", "", "b"), "a", "does not tell what is present"),
        (("a", "a"), "a", "does not tell what is present"),
        (("a", "b", "c"), "a", "does not tell what is present"),
        (("healthy", "ill"), None, "which value"),
        (("healthy", "ill"), "Ill", "which value"),
    ],
)
def test_a_tag_that_cannot_be_understood_is_refused(values, present, told):
    with pytest.raises(ConfigError, match=told):
        values_of(cases(*values), "state", present)


def test_usual_values_need_no_explanation_and_others_one():
    assert values_of(cases("1", "0", "1"), "state", None) == ("0", "1")
    assert values_of(cases("Yes", "no"), "state", None) == ("no", "Yes")
    assert values_of(cases("1", "0"), "state", "0") == ("1", "0")
    assert values_of(cases("ill", "healthy"), "state", "ill") == ("healthy", "ill")


# --- what a generator sees of them ---


def test_slices_with_and_without_are_shown_equally_often(by_masks: Ground):
    gan = GANSettings(presence="masks", balance=True)
    given = learned_slices(by_masks, gan, training_set(by_masks, gan))
    shown = shown_in(by_masks, "masks", training_set(by_masks, gan))
    assert shown.mean() < 0.45
    assert given.weights is not None
    assert given.weights[shown].sum() == pytest.approx(0.5)
    assert given.weights[~shown].sum() == pytest.approx(0.5)
    stream = given.stream(8, seed=0, name="gan")
    drawn = np.concatenate([stream.at(8 * n).index for n in range(250)])
    assert shown[drawn].mean() == pytest.approx(0.5, abs=0.03)
    assert set(drawn[shown[drawn]]) == set(np.flatnonzero(shown))
    assert given.labels is None


def test_a_generator_that_is_told_gets_labels_of_known_meaning(by_masks: Ground):
    gan = GANSettings(presence="masks", conditional=True)
    slices = training_set(by_masks, gan)
    given = learned_slices(by_masks, gan, slices)
    assert given.weights is None
    assert given.labels is not None
    np.testing.assert_array_equal(given.labels[:, 1] == 1, shown_in(by_masks, "masks", slices))
    told = told_of_presence(by_masks, gan)
    assert told == {"by": {"masks": ["nodule"]}, "balance": False, "classes": ["absent", "present"]}
    assert "any of nodule" in presence_words(told, 7)
    assert told_of_presence(by_masks, GANSettings()) is None


def test_held_out_slices_have_labels_where_tags_tell_and_never_by_masks(pictures: Ground, by_masks: Ground):
    held_out = [case for case in pictures.cohort.cases if case.patient in pictures.split.test]
    slices = prepare_slices(held_out, pictures.cohort, pictures.preparation, masks=False)
    tag = GANSettings(presence="state=diseased", conditional=True)
    seen = held_out_slices(pictures, tag, slices)
    assert seen is not None
    states = {case.name: case.tags["state"] for case in held_out}
    np.testing.assert_array_equal(seen.labels[:, 1], [states[r.case] == "diseased" for r in slices.refs])
    assert held_out_slices(by_masks, BY_MASKS, slices) is None
    assert held_out_slices(by_masks, GANSettings(presence="masks", balance=True), slices).labels is None


def test_weights_and_labels_by_hand():
    shown = np.array([True, False, False, False])
    np.testing.assert_allclose(balanced(shown), [1 / 2, 1 / 6, 1 / 6, 1 / 6])
    np.testing.assert_array_equal(one_hot(shown)[:2], [[0, 1], [1, 0]])
    assert label_rows(0.25)[:, 1].mean().item() == 0.25
    assert label_rows(0.0)[:, 1].sum() == 0
    assert label_rows(1.0)[:, 1].sum() == 1000


# --- settings ---


@pytest.mark.parametrize(
    ("kind", "words", "told"),
    [
        (GANRunSettings, ["gan.balance=true"], "set gan.presence and at least one"),
        (GANRunSettings, ["gan.conditional=true"], "set gan.presence and at least one"),
        (GANRunSettings, ["gan.presence=masks"], "set gan.presence and at least one"),
        (GANRunSettings, ["gan={presence: masks, balance: true}", "condition=site"], "one kind of classes"),
        (FewshotSettings, ["gan={presence: masks, balance: true}"], "takes no image-level labels"),
        (SyntheticSettings, ["factory.present=0.3"], "needs gan.conditional=true"),
        (SyntheticSettings, ["gan={presence: masks, conditional: true}", "head.support=x",
                             "head.reads=[generator@w]"], "without classes"),
    ],
)  # fmt: skip
def test_settings_without_effect_are_refused(kind, words, told):
    with pytest.raises(ConfigError, match=told):
        build(kind, [parse_overrides(words)])


def test_runs_without_it_depend_on_what_they_did_before():
    plain = build(SyntheticSettings, [])
    assert build(SyntheticSettings, [plain.model_dump(mode="json")]) == plain  # as a run's record is read
    assert not {"presence", "balance", "conditional"} & set(gan_told(plain.gan))
    assert "present" not in told_of(plain)
    asked = build(SyntheticSettings, [{"gan": {"presence": "masks", "conditional": True}}])
    assert gan_told(asked.gan)["presence"] == "masks"
    assert told_of(asked)["present"] == 0.5
    assert not [one for one in factory_deviations(plain) if one.what == "labels of the generator"]
    (told,) = [one for one in factory_deviations(asked) if one.what == "labels of the generator"]
    assert "the masks of all training patients" in told.ours


# --- whole runs ---

TOLD = ("gan.presence=masks", "gan.balance=true", "gan.conditional=true")
MOMENT = (
    "threads=1", "prepare.size=[16, 16]", "phantom={patients: 10, size: 32, slices: 5}", "split.test=0.3",
    "cohort.lesions=[nodule]", "gan.images=32", "gan.channel_max=8",
)  # fmt: skip
FACTORY = (
    "unet={widths: [4, 8], images: 16}", "inversion.steps=2", "head={width: 8, images: 16}",
    "encoder.images=32", "arms=[pairs, semantic pairs]", "shots={counts: [3], full: false}",
    "factory={pairs: 6, drop: 0, plausible_from: null, image_format: nifti}",
    "semantic={images: 16, encoder_images: 8, steps: [0]}",
)  # fmt: skip


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("gan") / "run")
    words = ["--preset", "tiny", "--out", run.folder, *MOMENT, *TOLD, "quality.images=0"]
    assert ended("run", "gan", *words) == 0
    return run


def synthetic(out: Path, generator: Run, *words) -> list:
    ready = [f"gan.ready={generator.generator}", "--cohort", generator.phantom]
    return ["run", "synthetic", "--preset", "tiny", "--out", out, *MOMENT, *FACTORY, *ready, *words]


def test_a_kept_generator_tells_what_its_classes_mean(generator: Run):
    kept = read_generator(generator.generator)
    assert kept.generator.classes == 2
    assert kept.told["presence"]["classes"] == ["absent", "present"]
    assert kept.told["presence"]["by"] == {"masks": ["nodule"]}
    assert "image-level label from the masks of all training patients" in generator.report_html.read_text()


@pytest.fixture(scope="module")
def factory(generator: Run, tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("factory") / "run")
    assert ended(*synthetic(run.folder, generator, *TOLD, "factory.present=0.6")) == 0
    return run


def test_a_ready_generator_draws_each_pair_with_or_without_by_its_number(generator: Run, factory: Run):
    pairs = open_pairs(factory.step("pairs/k=3/draw=0").pairs)
    network, rows = read_generator(generator.generator).generator, label_rows(0.6)
    how = {"truncation": 0.7, "truncated_layers": None, "centres": class_centres(network)}
    chosen = set()
    for n in range(6):
        label = numbered_label(rows, 0, n)
        chosen.add(int(label.argmax()))
        for row, close in ((label, True), (1 - label, False)):
            with torch.no_grad():
                ws = numbered_styles(network, 0, n, labels=row, **how)
                image = network.synthesis(ws, noise="constant").clamp(-1, 1)[0].numpy()
            assert np.allclose(image, pairs.image(n), atol=1e-3) == close
    assert chosen == {0, 1}
    assert pairs.made_from["factory"]["present"] == 0.6
    assert pairs.made_from["presence"]["classes"] == ["absent", "present"]


def test_card_ledger_and_deviations_tell_what_was_known(factory: Run):
    card = read_card(factory.step("pairs/k=3/draw=0").pairs)
    assert card is not None
    assert [row.class_name for row in card.frequencies] == ["left_lung", "right_lung", "heart", "nodule"]
    report = read_report(factory.report_json)
    lines = {line.arm: line for line in report.ledger}
    slices = lines["pairs"].unlabelled
    assert (lines["pairs"].image_labels, lines["unet"].image_labels) == (slices, 0)
    assert lines["pairs"].expert_minutes == pytest.approx(lines["unet"].expert_minutes + slices * 5 / 60)
    assert lines["semantic"].image_labels == slices
    assert "5 seconds per label of a whole image" in report.minutes_rule
    assert "labels of the generator" in {one.what for one in report.deviations}


def test_a_ready_generator_that_was_told_otherwise_is_refused(generator: Run, tmp_path, capsys):
    for words in ((), ("gan.presence=masks", "gan.conditional=true")):
        assert ended(*synthetic(tmp_path / f"run{len(words)}", generator, *words)) == 2
        assert "was told something else of its slices" in capsys.readouterr().err
    words = ["run", "fewshot", "--preset", "tiny", "--out", tmp_path / "fewshot", *MOMENT]
    assert ended(*words, "--cohort", generator.phantom, f"gan.ready={generator.generator}") == 2
    assert "was told something else of its slices" in capsys.readouterr().err


def test_a_factory_trains_its_own_generator_and_draws_the_same_pairs_in_shards(tmp_path, capsys):
    run = Run(tmp_path / "run")
    words = ["run", "synthetic", "--preset", "tiny", "--out", run.folder, *MOMENT, *FACTORY, *TOLD]
    assert ended(*words, "arms=[pairs]") == 0
    told = json.loads(run.step("gan").inputs_json.read_text())
    assert told["labels"] is not None
    assert told["weights"] is not None
    for shard in ("1/2", "0/2"):
        more = ["pairs", run.folder, "--out", tmp_path / "more", "--count", 7, "--shots", 3]
        assert ended(*more, "--shard", shard) == 0
    ours = open_pairs(run.step("pairs/k=3/draw=0").pairs).records()
    theirs = open_pairs(tmp_path / "more").records()
    assert {n: theirs[n] for n in ours} == ours
    capsys.readouterr()
