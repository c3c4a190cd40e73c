import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, DataError, RunError, ShapeError
from fewmask.core.run import Step
from fewmask.inversion.project import project
from fewmask.inversion.pti import tune_each, tune_together
from fewmask.inversion.tuning import PATIENCE, Locality, Tuning, TuningRates
from fewmask.networks import stylegan2, stylegan3
from fewmask.objectives.perceptual import DiscriminatorDistance, StructureDistance

RATE = 3e-3
"""Ten times the published rate, for few updates."""


def _chance(seed):
    return torch.Generator().manual_seed(seed)


def _seeded(network, seed):
    chance = _chance(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.endswith(("bias", "noise_strength")):
                parameter.copy_(torch.randn(parameter.shape, generator=chance) * parameter.std())
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def generator():
    return _seeded(stylegan2.Generator(8, 8, 16, 1, channel_base=128, channel_max=8, mapping_layers=2), 0)


@pytest.fixture(scope="module")
def distance():
    return DiscriminatorDistance(
        _seeded(stylegan2.Discriminator(16, 1, channel_base=128, channel_max=8), 1), layers=2
    )


@pytest.fixture(scope="module")
def images(generator):
    z = torch.randn(5, 8, generator=_chance(5))
    made = generator.synthesis(generator.mapping(z), noise="constant").numpy()
    return made + 0.3 * torch.randn(made.shape, generator=_chance(6)).numpy()


@pytest.fixture(scope="module")
def pivot(generator, images, distance):
    return project(generator, images, space="w", steps=10, perceptual=distance, seed=0, candidates=20)


def _weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_each_image_gets_closer_by_a_generator_of_its_own(generator, images, pivot, distance, tmp_path):
    before = _weights(generator)
    found = tune_each(
        generator,
        images[:3],
        _rows(pivot, 3),
        perceptual=distance,
        seed=0,
        steps=30,
        learning_rate=RATE,
        keep_weights=True,
        step=Step(tmp_path / "each"),
    )
    assert (found.inversion.mse + found.inversion.perceptual < pivot.mse[:3] + pivot.perceptual[:3]).all()
    assert np.array_equal(found.inversion.ws, pivot.ws[:3])
    assert found.updates.tolist() == [30, 30, 30]
    for n in range(3):
        tuned = found.generator(generator, n)
        again = tuned.synthesis(torch.from_numpy(pivot.ws[n : n + 1]), noise="constant").numpy()
        assert np.allclose(again[0], found.inversion.images[n], atol=1e-6)
        _only_synthesis_weights_moved(before, _weights(tuned))
    assert all(torch.equal(before[name], value) for name, value in _weights(generator).items())


def _rows(inversion, count):
    return type(inversion)(
        *(getattr(inversion, name)[:count] for name in ("ws", "images", "mse", "perceptual", "ms_ssim"))
    )


def _only_synthesis_weights_moved(before, after):
    for name, value in after.items():
        held = name.startswith("mapping.") or name.endswith(("noise_const", "magnitude_ema"))
        held = held or name.startswith("synthesis.input.affine") or "freqs" in name or "phases" in name
        held = held or name.endswith(("transform", "kernel", "taps")) or "filter" in name
        assert torch.equal(before[name], value) is held, name


def test_an_image_s_tuning_does_not_depend_on_the_others(generator, images, pivot, distance):
    how = {"perceptual": distance, "seed": 0, "steps": 5, "learning_rate": RATE, "locality": Locality()}
    both = tune_each(generator, images[:2], _rows(pivot, 2), **how)
    swapped = type(pivot)(
        *(getattr(_rows(pivot, 2), k)[::-1] for k in ("ws", "images", "mse", "perceptual", "ms_ssim"))
    )
    other = tune_each(generator, images[:2][::-1], swapped, **how)
    assert np.array_equal(both.inversion.images, other.inversion.images[::-1])


def test_one_generator_for_all_images(generator, images, pivot, distance, tmp_path):
    before, step = _weights(generator), Step(tmp_path / "together")
    how = {"perceptual": distance, "seed": 0, "steps": 40, "learning_rate": RATE, "batch_size": 2}
    seen = []
    found = tune_together(
        generator, images, pivot, **how, step=step, on_progress=lambda *told: seen.append(told)
    )
    assert found.inversion.mse.mean() < 0.9 * pivot.mse.mean()
    assert found.updates == 40
    assert seen[-1] == (40, 40)
    again = found.generator.synthesis(torch.from_numpy(pivot.ws), noise="constant").numpy()
    assert np.allclose(again, found.inversion.images, atol=1e-6)
    _only_synthesis_weights_moved(before, _weights(found.generator))
    kept = tune_together(generator, images, pivot, **how, step=step)
    for name, value in _weights(found.generator).items():
        assert torch.equal(value, _weights(kept.generator)[name])
    assert not any(weight.requires_grad for weight in kept.generator.parameters())


def test_stylegan3_keeps_its_frame_and_its_magnitudes(distance):
    small = {"channel_base": 128, "channel_max": 8, "mapping_layers": 1, "num_layers": 4}
    framed = _seeded(stylegan3.Generator(8, 8, 16, 1, **small), 2)
    before = _weights(framed)
    images = framed(torch.randn(2, 8, generator=_chance(0)), noise="constant").numpy() + 0.2
    pivot = project(framed, images, steps=2, perceptual=distance, seed=0, candidates=0)
    found = tune_together(
        framed, images, pivot, perceptual=distance, seed=0, steps=3, learning_rate=RATE, locality=Locality()
    )
    _only_synthesis_weights_moved(before, _weights(found.generator))


def test_locality_keeps_the_generator_nearer_to_what_it_was(generator, images, pivot, distance):
    z = torch.randn(16, 8, generator=_chance(3))
    ws = generator.mapping(z)
    was = generator.synthesis(ws, noise="constant")
    drift = []
    for locality in (None, Locality(distance=3.0, pixel_weight=30.0, perceptual_weight=0.0)):
        found = tune_together(
            generator,
            images,
            pivot,
            perceptual=distance,
            seed=0,
            steps=40,
            learning_rate=RATE,
            locality=locality,
        )
        with torch.no_grad():
            drift.append(float((found.generator.synthesis(ws, noise="constant") - was).square().mean()))
    assert drift[1] < 0.8 * drift[0]


def _tuning(generator, images, pivot, *, rate, lpips, steps=10_000):
    rates = TuningRates(steps, rate, 1.0, 1.0, None)
    return Tuning(
        type(generator)(8, 8, 16, 1, channel_base=128, channel_max=8, mapping_layers=2).eval(),
        generator,
        rates,
        StructureDistance(),
        torch.from_numpy(images),
        torch.from_numpy(pivot.ws),
        seed=0,
        lpips=lpips,
    )


def test_a_tuning_ends_where_updates_gain_nothing(generator, images, pivot):
    tuning = _tuning(generator, images, pivot, rate=0.0, lpips=False)
    while not tuning.ended:
        tuning.advance(range(5))
    assert tuning.step == PATIENCE + 1


def test_with_lpips_it_ends_at_the_published_value(generator, images, pivot):
    tuning = _tuning(generator, images, pivot, rate=0.0, lpips=True, steps=PATIENCE + 9)
    while not tuning.ended:
        tuning.advance(range(5))
    assert tuning.step == PATIENCE + 9  # far from 0.06: all updates are made
    with torch.no_grad():
        drawn = tuning.tuned.synthesis(tuning.pivots, noise="constant").numpy()
    met = _tuning(generator, drawn, pivot, rate=0.0, lpips=True)
    met.tuned.load_state_dict(tuning.tuned.state_dict())
    assert not met.ended  # no image was looked at yet
    met.advance(range(5))
    assert met.ended


@pytest.mark.parametrize("tune", [tune_each, tune_together])
def test_a_tuning_goes_on_where_it_died(generator, images, pivot, distance, tmp_path, tune, monkeypatch):
    how = {"perceptual": distance, "seed": 0, "steps": 7, "learning_rate": RATE, "locality": Locality()}
    how |= {"batch_size": 2} if tune is tune_together else {"keep_weights": True}
    names = {"save_every": 2, **how}
    whole = tune(generator, images, pivot, step=Step(tmp_path / "whole"), **names)
    step, advance, left = Step(tmp_path / "died"), Tuning.advance, [0]

    def die(self, rows):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        advance(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Tuning, "advance", die)
        for lives in (3, 3, 2):
            left[0] = lives
            with pytest.raises(KeyboardInterrupt):
                tune(generator, images, pivot, step=step, **names)
    resumed = tune(generator, images, pivot, step=step, **names)
    for name in ("ws", "images", "mse", "perceptual", "ms_ssim"):
        assert np.array_equal(getattr(whole.inversion, name), getattr(resumed.inversion, name))
    files = sorted((tmp_path / "whole").rglob("*.safetensors"))
    assert len(files) == (10 if tune is tune_each else 2)
    for file in files:
        assert file.read_bytes() == (step.folder / file.relative_to(tmp_path / "whole")).read_bytes()
    with pytest.raises(RunError, match="other settings"):
        tune(generator, images, pivot, step=step, **{**names, "learning_rate": 1e-4})


def test_senseless_tunings_are_refused(generator, images, pivot, distance):
    how = {"perceptual": distance, "seed": 0, "steps": 1}
    with pytest.raises(ConfigError, match="need a step"):
        tune_each(generator, images, pivot, keep_weights=True, **how)
    with pytest.raises(ConfigError, match="not kept"):
        tune_each(generator, images, pivot, **how).generator(generator, 0)
    with pytest.raises(ShapeError, match="the pivots do not fit"):
        tune_together(generator, images[:2], pivot, **how)
    with pytest.raises(ConfigError, match="steps >= 0"):
        tune_together(generator, images, pivot, **{**how, "steps": -1})
    with pytest.raises(DataError, match="not numbers"):
        tune_together(generator, images * np.float32(np.nan), pivot, **how)
    noisy = project(
        generator, images[:1], noise="optimised", steps=1, perceptual=distance, seed=0, candidates=0
    )
    with pytest.raises(ConfigError, match="constant noise"):
        tune_each(generator, images[:1], noisy, **how)
