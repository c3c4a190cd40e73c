"""A small phantom cohort that tests may copy and damage, and the smallest few-shot run on it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fewmask.core.run import Run
from fewmask.data.phantom import write_phantom
from fewmask.recipes.embedding import unlabelled_slices
from fewmask.recipes.fewshot_settings import FewshotSettings
from fewmask.recipes.generator import learn_generator
from fewmask.recipes.ground import open_ground
from fewmask.recipes.heads import Heads
from fewmask.recipes.presets import build, parse_overrides, read_preset
from fewmask.recipes.stage import Stage, open_stage
from fewmask.synthesis.generator import Slices

SMALL = (
    "threads=1",
    "prepare.size=[16, 16]",
    "split.test=0.2",
    "unet.widths=[4, 8]",
    "unet.images=16",
    "unet.follow=false",
    "gan.images=32",
    "gan.channel_max=8",
    "inversion.steps=2",
    "inversion.pti_steps=2",
    "inversion.encoder_images=8",
    "head.width=8",
    "head.images=16",
    "autoshot.samples=20",
    "encoder.images=32",
)
"""Settings on top of the preset `tiny`: every training takes a moment, and no score means anything."""


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """Ten patients, two slices of 32 pixels each; never changed."""
    return write_phantom(tmp_path_factory.mktemp("phantom") / "torso", patients=10, size=32, slices=2)


@pytest.fixture
def cohort(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom that a test may damage."""
    return Path(shutil.copytree(phantom, tmp_path / "cohort"))


@pytest.fixture(scope="session")
def few_shot(phantom: Path, tmp_path_factory):
    """Opens a small few-shot run in a folder: `few_shot(folder, "key=value", ...)`.

    The cohort is read and checked once, so only settings of the method can be other ones.
    """
    tiny = read_preset("fewshot", "tiny").settings
    ground = open_ground(
        build(FewshotSettings, [tiny, parse_overrides(SMALL)]),
        phantom,
        Run.open(tmp_path_factory.mktemp("ground")),
    )

    def open_run(folder: Path, *words: str) -> tuple[Stage, FewshotSettings]:
        settings = build(FewshotSettings, [tiny, parse_overrides([*SMALL, *words])])
        assert (settings.prepare, settings.split) == (ground.settings.prepare, ground.settings.split)
        return open_stage(settings, replace(ground, settings=settings, run=Run.open(folder))), settings

    return open_run


@pytest.fixture(scope="session")
def with_generator(few_shot, tmp_path_factory):
    """A run with its generator trained, once for all tests: `Heads`, which know stage and settings."""
    stage, settings = few_shot(tmp_path_factory.mktemp("heads") / "run")
    slices = unlabelled_slices(stage.ground, 60)
    return Heads(stage, settings, slices, learn_generator(stage.ground, settings.gan, Slices(slices)))


@pytest.fixture
def heads(with_generator, few_shot, tmp_path: Path) -> Heads:
    """The same generator in a folder of this test's own."""
    stage, settings = few_shot(tmp_path / "run")
    return Heads(stage, settings, with_generator.unlabelled, with_generator.gan)
