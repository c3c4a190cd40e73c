"""The page tells of a departure only where the run made it."""

import pytest

from fewmask.recipes.deviations import deviations, factory_deviations
from fewmask.recipes.fewshot_settings import FewshotSettings
from fewmask.recipes.presets import build, parse_overrides
from fewmask.recipes.synthetic_settings import SyntheticSettings

COPIES, SIZE, PTI = "labelled slices", "size of the head", "pivotal tuning (PTI)"
DISTANCE, BUDGET = "perceptual distance", "budget of propagation"


@pytest.mark.parametrize(
    ("words", "generator", "names"),
    [
        ([], "stylegan2", ["generator", COPIES, DISTANCE, SIZE, BUDGET]),
        (["arms=[unet]"], None, []),
        (["arms=[propagation]"], None, [BUDGET]),
        (["arms=[heads]", "head.reads=[generator@pti]", "inversion.copies=0"], "stylegan3-t",
         [DISTANCE, PTI, SIZE]),
        (["arms=[heads]", "head.reads=[image]", "shots.counts=[1, 3]"], None, []),
        (["arms=[heads]", "head={reads: [image], size: L}", "shots.counts=[5, 8]"], None, []),
        (["arms=[heads]", "head={reads: [image], size: L}", "shots.counts=[1, 8]"], None, [SIZE]),
        (["arms=[heads]", "head={reads: [image], size: mlp}", "shots.counts=[1]"], None, [SIZE]),
    ],
)  # fmt: skip
def test_only_what_was_done_otherwise_is_told(words, generator, names):
    settings = build(FewshotSettings, [parse_overrides(words)])
    assert [one.what for one in deviations(settings, generator)] == names


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            [],
            {
                "generator",
                "labelled slices of the ensemble",
                "classifiers",
                "who learns from pairs",
                "uncertain pairs",
            },
        ),
        (["arms=[unet, plain]"], set()),
        (
            ["arms=[interpreter]", "gan.ready=somewhere", "factory.drop=0"],
            {"labelled slices of the ensemble", "classifiers"},
        ),
        (
            ["arms=[semantic search]", "gan.ready=somewhere"],
            {"SemanticGAN's training", "SemanticGAN's encoder"},
        ),
        (
            ["arms=[semantic pairs]", "gan.ready=somewhere", "semantic.encoder_images=0"],
            {"SemanticGAN's training", "who learns from pairs"},
        ),
    ],
)
def test_a_factory_tells_its_own(words, told):
    settings = build(SyntheticSettings, [parse_overrides(words)])
    assert {one.what for one in factory_deviations(settings)} == told
