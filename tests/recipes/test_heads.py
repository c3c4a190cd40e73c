"""Heads: what each reads and learns from, what is inverted once, and that each is trained and scored."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewmask.core.errors import RunError
from fewmask.recipes import latents
from fewmask.recipes.arms import UNET, place, train_unet
from fewmask.recipes.embedding import PER_PATIENT, unlabelled_slices
from fewmask.recipes.heads import Heads, head_arm, support_checks
from fewmask.recipes.reading import Reading
from fewmask.recipes.stage import every_draw
from fewmask.segmenter.fit import weights_sha256
from fewmask.synthesis.features import EncoderFeatures, UNetFeatures
from fewmask.synthesis.pixelhead import predict_head

EVERY = (
    "generator@w+",
    "generator+discriminator+image@w",
    "generator@pti",
    "generator@encoder",
    "discriminator",
    "encoder",
    "unet",
    "image",
    "encoder+unet+image",
)


def logged(stage, text: str, count: int) -> list[dict[str, float]]:
    step = stage.run.step(place(f"head {text}", count, 0))
    return [json.loads(line) for line in step.stats_jsonl.read_text().splitlines()]


@pytest.mark.parametrize("text", EVERY)
def test_every_reading_is_trained_and_scored(with_generator: Heads, text):
    heads, reading = with_generator, Reading.parse(text)
    few, items = next(every_draw(heads.stage))
    rows = head_arm(heads, reading, few, items)
    assert {(row.arm, row.shots, row.draw) for row in rows} == {(f"head {text}", 1, 0)}
    asked = {(case.name, name) for case in heads.stage.test_cases for name in heads.stage.cohort.classes}
    assert {(row.case, row.class_name) for row in rows} == asked
    assert logged(heads.stage, text, 1)[-1]["images"] == heads.settings.head.images
    copies = heads.settings.inversion.copies + 1 if reading.generates else 1
    shots = heads.support(reading, items)
    assert len(shots.images) == len(shots.masks) == copies
    assert (shots.ws is not None) == reading.generates


def test_a_head_learns_what_the_slices_show(few_shot, tmp_path):
    stage, settings = few_shot(tmp_path / "run", "head.images=160", "head.width=16")
    heads = Heads(stage, settings, unlabelled_slices(stage.ground, 60), None)
    few, items = list(every_draw(stage))[-1]
    heads.train(Reading.parse("image"), few, items)
    numbers = logged(stage, "image", few.count)
    assert numbers[-1]["cross_entropy"] < 0.85 * numbers[0]["cross_entropy"]


def test_more_shots_of_a_draw_invert_only_what_is_new(heads: Heads, monkeypatch):
    reading, inverted = Reading.parse("generator@w+"), []
    project = latents.project

    def counted(generator, images, **how):
        inverted.append(len(images))
        return project(generator, images, **how)

    monkeypatch.setattr(latents, "project", counted)
    draws = {few.count: (few, items) for few, items in every_draw(heads.stage)}
    copies = heads.settings.inversion.copies + 1
    one = heads.support(reading, draws[1][1])
    assert sum(inverted) == copies
    three = heads.support(reading, draws[3][1])
    assert sum(inverted) == 3 * copies
    for name in ("images", "masks", "ws"):
        np.testing.assert_array_equal(getattr(three, name)[:copies], getattr(one, name))
    heads.support(Reading.parse("generator+image@w+"), draws[3][1])
    assert sum(inverted) == 3 * copies  # another head with the same way


def test_statistics_come_from_slices_whose_latents_are_known(heads: Heads, monkeypatch):
    few, items = next(every_draw(heads.stage))

    def refused(*_, **__):
        raise AssertionError("the other way to take statistics")

    monkeypatch.setattr("fewmask.recipes.heads.channel_statistics", refused)
    reading = Reading.parse("generator+image@w")
    stack = heads.stack(reading, few, items)
    image, ws = heads.unlabelled[:1], np.zeros((1, heads.gan.generator.num_ws, heads.gan.generator.w_dim))
    maps = stack.maps(torch.from_numpy(np.float32(image)), torch.from_numpy(np.float32(ws)))
    assert len(heads.statistics(reading, stack).mean) == sum(one.shape[1] for one in maps)
    monkeypatch.undo()

    monkeypatch.setattr("fewmask.recipes.heads.sampled_statistics", refused)
    reading = Reading.parse("image")
    found = heads.statistics(reading, heads.stack(reading, few, items))
    flat = np.asarray(heads.unlabelled, dtype=np.float32)
    assert float(found.mean[0]) == pytest.approx(float(flat.mean()), abs=1e-4)


def test_the_unet_that_is_read_learned_from_the_same_slices(heads: Heads):
    reading, seen = Reading.parse("unet"), set()
    for few, items in every_draw(heads.stage):
        stack = heads.stack(reading, few, items)
        unet = train_unet(heads.stage, items, arm=UNET, shots=few.count, draw=few.draw)
        source = stack.sources[0]
        assert isinstance(source, UNetFeatures)
        assert weights_sha256(source.unet) == weights_sha256(unet.network)
        seen.add(weights_sha256(unet.network))
    assert len(seen) == 2


def test_the_encoder_that_chose_the_slices_is_the_one_that_is_read(few_shot, tmp_path):
    words = ("shots.choice=coverage", "gan.slices_per_patient=1")
    stage, settings = few_shot(tmp_path / "run", *words)
    step = stage.run.step("self-supervised")
    before = step.stats_jsonl.read_text()
    fewer = unlabelled_slices(stage.ground, settings.gan.slices_per_patient)
    assert len(fewer) < len(unlabelled_slices(stage.ground, PER_PATIENT))
    stack = Heads(stage, settings, fewer, None).stack(Reading.parse("encoder"))
    assert isinstance(stack.sources[0], EncoderFeatures)
    assert step.stats_jsonl.read_text() == before


def test_other_heads_in_the_same_folder_are_refused(few_shot, tmp_path):
    reading = Reading.parse("image")
    for words in ([], ["head.width=12"], ["head.class_weights=true"], ["head.members=2"]):
        stage, settings = few_shot(tmp_path / "run", *words)
        heads = Heads(stage, settings, unlabelled_slices(stage.ground, 60), None)
        few, items = next(every_draw(stage))
        if not words:
            rows = head_arm(heads, reading, few, items)
            assert head_arm(heads, reading, few, items) == rows
            continue
        with pytest.raises(RunError, match=r"was made with other settings \(head\."):
            head_arm(heads, reading, few, items)
        with pytest.raises(RunError, match="was made with other settings"):
            heads.train(reading, few, items)


def copied(heads: Heads, few_shot, *words: str, key=None) -> Heads:
    """The same heads in the same folder, with other settings or another generator."""
    stage, settings = few_shot(heads.stage.run.folder, *words)
    gan = heads.gan if key is None else replace(heads.gan, key=key)
    return Heads(stage, settings, heads.unlabelled, gan)


def test_a_head_depends_on_the_generator_and_not_on_where_it_lies(heads: Heads, few_shot):
    reading, ready = Reading.parse("generator@w"), {"ready": "abc", "discriminator": "def"}
    here = copied(heads, few_shot, "gan.ready=here", key=ready).made_from(reading)
    assert copied(heads, few_shot, "gan.ready=there", key=ready).made_from(reading) == here
    other = copied(heads, few_shot, "gan.ready=here", key=ready | {"ready": "xyz"})
    assert other.made_from(reading) != here
    alone = Reading.parse("image")
    assert other.made_from(alone) == heads.made_from(alone)
    discriminator = Reading.parse("discriminator")
    assert other.made_from(discriminator)["generator"] == other.generator_key()


def test_a_head_depends_on_flips_and_not_on_following_it(heads: Heads, few_shot):
    for text in ("image", "generator@w", "unet"):
        reading = Reading.parse(text)
        told = heads.made_from(reading)
        assert copied(heads, few_shot, "unet.flips=[x]").made_from(reading) != told
        assert copied(heads, few_shot, "unet.follow=true").made_from(reading) == told


@pytest.mark.parametrize("unit", ["slice", "patient"])
def test_a_slice_has_the_same_copies_wherever_it_is_drawn(few_shot, with_generator, tmp_path, unit):
    stage, settings = few_shot(tmp_path / "run", f"shots.unit={unit}")
    heads = Heads(stage, settings, with_generator.unlabelled, with_generator.gan)
    reading, copies = Reading.parse("generator@w"), settings.inversion.copies + 1
    every, seen = list(every_draw(stage)), []
    for _, items in every:
        for some in (items, items.take(items.refs[::-1])):
            images, _ = heads.copies(reading, some)
            seen.append(dict(zip(some.refs, np.split(images, len(images) // copies), strict=True)))
    for found in seen:
        for ref, images in found.items():
            np.testing.assert_array_equal(images, seen[-1][ref])
    first, second = list(seen[-1].values())[:2]
    assert np.abs(first[1:] - first[:1]).max() > 0.01
    assert np.abs(first - second).max() > 0.01
    heads.inversion(reading, every[-1][1])
    kept = {path.name for path in stage.run.step("inversion/w").folder.iterdir()}
    assert kept == {f"{ref.case}-z{ref.z}" for ref in every[-1][1].refs}


def test_test_slices_are_answered_case_by_case(heads: Heads, monkeypatch):
    counts, predict = [], predict_head

    def counted(members, stack, images, ws=None):
        counts.append(len(images))
        return predict(members, stack, images, ws)

    monkeypatch.setattr("fewmask.recipes.heads.predict_head", counted)
    few, items = next(every_draw(heads.stage))
    head_arm(heads, Reading.parse("generator@w"), few, items)
    assert counts == [len(heads.tested.rows_of[case.name]) for case in heads.stage.test_cases]
    assert len(counts) > 1


@pytest.mark.parametrize(
    ("words", "ways"),
    [
        (["arms=[propagation]"], 0),
        (["arms=[heads]", "head.reads=[generator@w, image+generator@w, generator@w+, image]"], 2),
        (["arms=[auto-shot]", "autoshot.reads=generator@w"], 1),
        (["arms=[heads, auto-shot]", "head.reads=[image]", "autoshot.reads=generator@w"], 1),
    ],
)
def test_only_what_a_head_reads_is_checked(with_generator, few_shot, tmp_path, words, ways):
    stage, settings = few_shot(tmp_path / "run", *words)
    checks = support_checks(Heads(stage, settings, with_generator.unlabelled, with_generator.gan))
    assert len(checks) == ways
    assert stage.run.folder.joinpath("steps", "inversion").exists() == bool(ways)
