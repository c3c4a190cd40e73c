"""What a head reads, in one word."""

from itertools import permutations

import pytest
import yaml

from fewmask.core.errors import ConfigError
from fewmask.recipes.fewshot_settings import FewshotSettings
from fewmask.recipes.presets import build, parse_overrides
from fewmask.recipes.reading import Reading


@pytest.mark.parametrize("way", ["w", "w+", "pti", "encoder"])
@pytest.mark.parametrize("more", [(), ("image",), ("discriminator", "encoder", "unet", "image")])
def test_a_reading_is_written_as_it_is_read(way, more):
    for sources in permutations(("generator", *more[:2])):
        reading = Reading(sources, way)
        assert reading.text == f"{'+'.join(sources)}@{way}"
        assert Reading.parse(reading.text) == reading
        assert reading.generates


@pytest.mark.parametrize("text", ["encoder", "unet", "image", "discriminator", "encoder+unet+image"])
def test_without_the_generator_there_is_no_way(text):
    reading = Reading.parse(text)
    assert (reading.text, reading.way, reading.generates) == (text, None, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a head reads different ones of"),
        ("generater@w", "found 'generater@w'"),
        ("encoder+", "joined by +"),
        ("image+image", "different ones"),
        ("generator+generator@w", "different ones"),
        ("encoder unet", "joined by +"),
        ("generator", "needs a way to invert: @w, @w+, @pti, @encoder"),
        ("generator@", "needs a way"),
        ("generator@W+", "needs a way"),
        ("generator@w@w", "needs a way"),
        ("encoder@w", "the generator, and nothing else"),
        ("discriminator+image@pti", "the generator, and nothing else"),
        ("encoder@", "the generator, and nothing else"),
    ],
)
def test_other_words_are_refused(text, said):
    with pytest.raises(ValueError, match=r"reads|needs") as refused:
        Reading.parse(text)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("word", "where", "said"),
    [
        ("head.reads=[encoder@w]", "head.reads.0", "needs a way to invert"),
        ("head.reads=[image, stars]", "head.reads.1", "a head reads different ones of"),
        ("head.reads=[]", "head.reads", "at least"),
        ("head.reads=[image, image]", "head.reads", "twice"),
        ("head.reads=[image+generator@w, generator+image@w]", "", "twice, in whatever order"),
        ("{arms: [unet], head: {reads: [generator@w], support: labelled}}", "", "name heads in arms"),
        ("{arms: [unet, heads], head: {reads: [encoder]}, prepare: {size: [48, 64]}}", "", "draws squares"),
        ("{arms: [unet], prepare: {size: [48, 62]}}", "", "multiples of 8; found [48, 62]"),
        ("autoshot.reads=encoder", "", "autoshot.reads must name the generator"),
        ("autoshot.reads=generator", "autoshot.reads", "needs a way to invert"),
        ("arms=[heads, gan]", "arms.1", "'gan'"),
        ("prepare.dims=3", "", "set prepare.dims=2"),
        ("propagation.real=1", "propagation.real", "less than 1"),
        ("head.sources=[generator]", "head.sources", "there is no setting"),
    ],
)
def test_settings_say_what_is_wrong_and_where(word, where, said):
    given = yaml.safe_load(word) if word.startswith("{") else parse_overrides([word])
    with pytest.raises(ConfigError) as refused:
        build(FewshotSettings, [parse_overrides(["prepare.size=[16, 16]", "shots.unit=patient"]), given])
    problem = str(refused.value)
    assert where in problem
    assert said in problem


@pytest.mark.parametrize(
    "reads", ["encoder", "generator@pti", "generator@encoder", "generator+unet@w", "discriminator"]
)
def test_labelled_samples_need_heads_that_know_their_latents(tmp_path, reads):
    words = [f"head.support={tmp_path}", "head.reads=[generator@w]"]
    assert build(FewshotSettings, [parse_overrides(words)]).head.support == tmp_path
    words[1] = f"head.reads=[generator@w, {reads}]"
    with pytest.raises(ConfigError, match=r"head\.support holds slices that the generator drew") as refused:
        build(FewshotSettings, [parse_overrides(words)])
    assert f"found {reads}" in str(refused.value)


def asked(*words: str) -> FewshotSettings:
    return build(FewshotSettings, [parse_overrides(words)])


@pytest.mark.parametrize(
    ("words", "generator", "encoder"),
    [
        (["arms=[unet, mean teacher]"], False, False),
        (["arms=[empty]"], False, False),
        (["arms=[longer, mean teacher, propagation]"], False, False),
        (["arms=[auto-shot]"], True, False),
        (["arms=[heads]", "head.reads=[unet, image]"], False, False),
        (["arms=[heads]", "head.reads=[encoder]"], False, True),
        (["arms=[heads]", "head.reads=[discriminator]"], True, False),
        (["arms=[heads]", "head.reads=[image, generator+encoder@w]"], True, True),
        (["arms=[unet]", "head.reads=[encoder]"], False, False),
        (["arms=[unet]", "shots.choice=coverage"], False, True),
        (["arms=[heads]", "head.reads=[generator@w]", "head.support=labelled"], True, False),
        (["arms=[auto-shot]", "autoshot.reads=encoder+generator@w"], True, True),
    ],
)
def test_what_nobody_reads_is_not_needed(words, generator, encoder):
    settings = asked(*words)
    assert (settings.needs_generator, settings.needs_encoder) == (generator, encoder)


def test_slices_need_be_no_squares_where_nothing_draws_them():
    settings = asked("arms=[unet, mean teacher]", "prepare.size=[48, 64]")
    assert settings.prepare.size == (48, 64)


def test_the_head_of_auto_shot_is_trained_once():
    words = ["arms=[heads, auto-shot]", "autoshot.reads=generator@w"]
    found = asked(*words, "head.reads=[image, generator@w]").trained_readings
    assert [one.text for one in found] == ["image", "generator@w"]
    assert [one.text for one in asked(*words, "head.reads=[image]").readings] == ["image"]
    assert asked("arms=[unet]").trained_readings == ()
