"""Presets, YAML files and key=value words become settings; slips get hints."""

from pathlib import Path

import pytest

from fewmask.core.errors import ConfigError
from fewmask.recipes.fewshot_settings import FewshotSettings
from fewmask.recipes.generator import design_of
from fewmask.recipes.presets import build, keys, parse_overrides, preset_names, read_config, read_preset
from fewmask.recipes.settings import GANRunSettings, SupervisedSettings
from fewmask.recipes.table import RECIPES, recipe_named

ALL = [(recipe, name) for recipe in RECIPES for name in preset_names(recipe)]


@pytest.mark.parametrize(("recipe", "name"), ALL)
def test_every_preset_is_valid_and_says_what_it_is_for(recipe, name):
    preset = read_preset(recipe, name)
    build(RECIPES[recipe].settings, [preset.settings])
    assert preset.purpose
    assert preset.hours
    assert preset.expected
    assert preset.command.startswith("fewmask ")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_has_the_preset_tiny(recipe):
    assert "tiny" in preset_names(recipe)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_setting_has_a_doc_line(recipe):
    assert not [key for key, _, doc in keys(RECIPES[recipe].settings) if not doc]


@pytest.mark.parametrize(("size", "batch", "gamma"), [(128, 32, 0.1024), (256, 16, 0.8192), (512, 8, 6.5536)])
def test_the_published_presets_follow_the_published_rules(size, batch, gamma):
    settings = build(GANRunSettings, [read_preset("gan", f"published-{size}").settings])
    design = design_of(settings.gan)
    assert settings.prepare.size == (size, size)
    assert design.batch == batch == min(4096 // size, 32)
    assert design.gamma(size) == pytest.approx(gamma)
    assert design.channel_base == (16384 if size < 512 else 32768)
    assert (design.channel_max, design.latent, design.mapping_layers) == (512, 512, 2)
    assert (design.path_length_weight, design.ada_images) == (2, 500_000)


def test_words_go_on_top_of_a_file_on_top_of_a_preset(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("unet: {images: 500, batch: 4}\n")
    layers = [
        read_preset("supervised", "tiny").settings,
        read_config(tmp_path / "mine.yaml"),
        parse_overrides(["unet.images=600", "shots.counts=[2]", "cohort.classes={a: 1, b: 2}"]),
    ]
    settings = build(SupervisedSettings, layers)
    assert (settings.unet.images, settings.unet.batch, settings.unet.widths) == (600, 4, (8, 16, 32))
    assert settings.shots.counts == (2,)
    assert settings.cohort.classes == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("unet.imges=5", "'unet.images'"),
        ("unt.images=5", "'unet'"),
        ("gan.r1gamma=5", "'gan.r1_gamma'"),
        ("thread=2", "'threads'"),
    ],
)
def test_an_unknown_key_says_did_you_mean(word, hint):
    with pytest.raises(ConfigError, match="did you mean") as caught:
        build(FewshotSettings, [parse_overrides([word])])
    assert hint in str(caught.value)


def test_all_faults_at_once():
    with pytest.raises(ConfigError) as caught:
        build(FewshotSettings, [parse_overrides(["unet.images=0", "nonsense=1", "gan.batch=soon"])])
    text = str(caught.value)
    assert "unet.images" in text
    assert "nonsense" in text
    assert "gan.batch" in text


def test_unknown_names_list_those_that_exist(tmp_path: Path):
    with pytest.raises(ConfigError, match="supervised, fewshot"):
        recipe_named("fewshots")
    with pytest.raises(ConfigError, match="did you mean 'tiny'"):
        read_preset("fewshot", "tinny")
    with pytest.raises(ConfigError, match="key=value"):
        parse_overrides(["unet.images"])
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not YAML"):
        read_config(tmp_path / "bad.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("kind", "words", "said"),
    [
        (SupervisedSettings, ["prepare.dims=3"], "shots.unit=patient"),
        (SupervisedSettings, ["shots.counts=[1, 1]"], "different numbers"),
        (SupervisedSettings, ["prepare.windows=[lungs]"], "'lung'"),
        (FewshotSettings, ["prepare.size=[64, 32]"], "squares"),
        (FewshotSettings, ["propagation={real: 0.5, warped: 0.5}"], "leave room"),
        (FewshotSettings, ["prepare.size=[48, 48]"], "squares"),
        (FewshotSettings, ["prepare.dims=3", "shots.unit=patient"], "slices"),
    ],
)
def test_settings_that_contradict_one_another(kind, words, said):
    with pytest.raises(ConfigError) as caught:
        build(kind, [parse_overrides(words)])
    assert said in str(caught.value)
