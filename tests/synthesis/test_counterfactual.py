"""Diffusion: the way to noise and back by known noise, and healthy images of slices with a spot."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.core.run import Run
from fewmask.networks.diffusion import Denoiser
from fewmask.objectives.diffusion import Noising
from fewmask.synthesis.counterfactual import (
    Counterfactual,
    DiffusionSettings,
    Way,
    ddim_step,
    decode,
    encode,
    guided,
    train_diffusion,
)
from fewmask.training.launch import launch

KEPT = Noising().kept()


def gaussian(mean, deviation=0.3):
    """The true noise in images whose pixels are N(mean, deviation^2)."""

    def noise(x, level):
        a = float(KEPT[level])
        return (1 - a) ** 0.5 * (x - a**0.5 * mean) / (a * deviation**2 + 1 - a)

    return noise


def images():
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.4


@pytest.mark.parametrize(("steps", "error"), [(25, 0.09), (100, 0.02), (500, 0.004)])
def test_an_image_comes_back_by_true_noise(steps, error):
    """The way back misses by what the steps leave out: it falls with their number."""
    levels, x = Way(depth=0.5, steps=steps).levels(1000), images()
    far = encode(x, gaussian(0.4), KEPT, levels)
    assert (far - x).abs().mean() > 0.1
    assert (decode(far, gaussian(0.4), KEPT, levels) - x).square().mean().sqrt() < error


def test_other_noise_makes_it_another_kind():
    """All the way to noise and back as N(-0.4, 0.3): the mean moves over, what is special stays."""
    levels, x = Way(depth=1.0, steps=500).levels(1000), images()
    far = encode(x, gaussian(0.4), KEPT, levels)
    assert float(far.std()) == pytest.approx(1, abs=0.1)
    assert torch.allclose(decode(far, gaussian(-0.4), KEPT, levels), x - 0.8, atol=0.05)


def test_a_step_keeps_the_image_and_the_noise():
    image, noise = images(), torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    at = [0.8**0.5 * image + 0.2**0.5 * noise, 0.3**0.5 * image + 0.7**0.5 * noise]
    assert torch.allclose(ddim_step(at[0], noise, 0.8, 0.3), at[1], atol=1e-6)
    assert torch.allclose(ddim_step(at[1], noise, 0.3, 1.0), image, atol=1e-6)


def test_guidance_by_hand():
    without, towards = torch.tensor([1.0]), torch.tensor([3.0])
    assert [float(guided(without, towards, g)) for g in (0.0, 1.0, 2.5)] == [1.0, 3.0, 6.0]


def test_levels_of_a_way():
    assert Way(depth=0.5, steps=4).levels(1000) == [0, 125, 250, 375, 500]
    assert Way(depth=0.01, steps=50).levels(100) == [0, 1]


def test_a_network_that_finds_no_noise_changes_nothing():
    method, image = Counterfactual(Denoiser(1, widths=(4, 8)), Noising(), Way(steps=5)), images()
    assert torch.allclose(method.there_and_back(image), image, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"depth": 0.0}, {"depth": 1.1}, {"steps": 0}, {"guidance": -1.0}])
def test_a_way_out_of_range(wrong):
    with pytest.raises(ConfigError, match="out of range"):
        Way(**wrong)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, spots):
    settings = DiffusionSettings(images=1600, widths=(16, 24), average=300, lr=2e-3)
    step = Run.open(tmp_path_factory.mktemp("counterfactual")).step("diffusion")
    way = Way(depth=0.3, steps=6, guidance=2.0)
    return train_diffusion(spots.domains, settings, step, seed=0, fabric=launch(threads=1), way=way)


def test_spots_become_healthy(trained, spots):
    found = trained(spots.test)
    assert spots.auroc(found.delta) > 0.8
    assert np.allclose(found.delta, np.abs(spots.test - found.images).mean(axis=1), atol=1e-6)
    assert np.abs(found.images).max() <= 1


def test_without_guidance_the_image_comes_back(trained, spots):
    plain = replace(trained.generator, way=replace(trained.generator.way, guidance=0.0))
    back = replace(trained, generator=plain)
    assert np.sqrt(np.square(back(spots.well).images - spots.well).mean()) < 0.1
    assert trained(spots.test).delta[spots.mask].mean() > 1.3 * back(spots.test).delta[spots.mask].mean()
