import copy

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, DataError, RunError, ShapeError
from fewmask.core.run import Step
from fewmask.inversion.keep import write_inversion
from fewmask.inversion.noise import noise_correlation
from fewmask.inversion.project import draw_cloud, nearest, project
from fewmask.inversion.resume import clear_parts
from fewmask.networks.generator import ImageGenerator, Synthesis
from fewmask.networks.mapping import MappingNetwork
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.objectives.perceptual import DiscriminatorDistance, StructureDistance, SumOfDistances


def _seeded(network, seed):
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.endswith(("bias", "noise_strength")):
                parameter.copy_(torch.randn(parameter.shape, generator=chance) * parameter.std())
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def generator():
    return _seeded(Generator(8, 8, 16, 1, channel_base=128, channel_max=8, mapping_layers=2), 0)


@pytest.fixture(scope="module")
def distance():
    discriminator = _seeded(Discriminator(16, 1, channel_base=128, channel_max=8), 1)
    return SumOfDistances([(1.0, DiscriminatorDistance(discriminator, layers=2)), (0.1, StructureDistance())])


def _chance(seed):
    return torch.Generator().manual_seed(seed)


def _images(generator, count):
    z = torch.randn(count, generator.z_dim, generator=_chance(5))
    return generator.synthesis(generator.mapping(z), noise="constant").numpy()


@pytest.mark.parametrize("space", ["w", "w+"])
def test_projection_comes_closer(generator, distance, space):
    images = _images(generator, 3)
    before = project(generator, images, space=space, steps=0, perceptual=distance, seed=0)
    after = project(generator, images, space=space, steps=60, perceptual=distance, seed=0, learning_rate=0.05)
    assert (after.mse + after.perceptual < before.mse + before.perceptual).all()
    assert after.mse.mean() < 0.5 * before.mse.mean()
    assert after.ws.shape == (3, generator.num_ws, generator.w_dim)
    same_for_all_layers = bool(np.ptp(after.ws, axis=1).max() == 0)
    assert same_for_all_layers is (space == "w")
    again = generator.synthesis(torch.from_numpy(after.ws), noise="constant").numpy()
    assert np.allclose(again, after.images, atol=1e-6)
    assert np.allclose(((again - images) ** 2).mean(axis=(1, 2, 3)), after.mse, atol=1e-6)


def test_an_image_does_not_depend_on_its_batch(generator, distance):
    images = _images(generator, 3)
    wanted = project(generator, images, steps=8, perceptual=distance, seed=0, batch_size=3, candidates=20)
    alone = project(generator, images[2:], steps=8, perceptual=distance, seed=0, batch_size=1, candidates=20)
    assert np.allclose(wanted.ws[2:], alone.ws, atol=1e-4)


def test_the_same_seed_gives_the_same_latents_and_another_does_not(generator, distance):
    images = _images(generator, 2)
    ws = [
        project(generator, images, steps=5, perceptual=distance, seed=seed, candidates=20).ws
        for seed in (0, 0, 1)
    ]
    assert np.array_equal(ws[0], ws[1])
    assert not np.array_equal(ws[0], ws[2])


def test_weights_are_left_alone_and_get_no_gradient(generator, distance):
    network = copy.deepcopy(generator).requires_grad_(True)
    project(network, _images(generator, 1), steps=2, perceptual=distance, seed=0, candidates=0)
    assert all(parameter.grad is None for parameter in network.parameters())
    for a, b in zip(network.parameters(), generator.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_start_is_taken_up(generator, distance):
    images = _images(generator, 2)
    start = np.full((2, generator.num_ws, generator.w_dim), 0.25, np.float32)
    found = project(generator, images, steps=0, perceptual=distance, seed=0, start=start)
    assert np.array_equal(found.ws, start)


def test_the_penalty_keeps_latents_near_the_mean(generator, distance):
    images = _images(generator, 2) * 2 - 0.5
    mean = draw_cloud(generator, 256, seed=0).mean.numpy()
    far = [
        np.square(
            project(
                generator, images, steps=30, perceptual=distance, seed=0, candidates=0, mean_penalty=weight
            ).ws
            - mean
        ).sum()
        for weight in (0.0, 10.0)
    ]
    assert far[1] < far[0]


def test_nearest_finds_a_candidate_itself(generator):
    cloud = draw_cloud(generator, 40, seed=3)
    ws = cloud.w[7:9].unsqueeze(1).expand(-1, generator.num_ws, -1)
    image = generator.synthesis(ws, noise="constant")
    assert torch.equal(nearest(cloud, image)[:, 0], cloud.w[7:9])


def test_progress_ends_at_the_total(generator, distance):
    seen = []
    project(
        generator,
        _images(generator, 3),
        steps=2,
        perceptual=distance,
        seed=0,
        batch_size=2,
        candidates=0,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (6, 6)
    assert seen == sorted(seen)


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 3, 16, 16), (16, 16), (0, 1, 16, 16)])
def test_images_of_another_shape_are_refused(generator, distance, shape):
    with pytest.raises(ShapeError, match="cannot come from this generator"):
        project(generator, np.zeros(shape, np.float32), steps=1, perceptual=distance, seed=0)


def test_a_start_of_another_shape_is_refused(generator, distance):
    with pytest.raises(ShapeError, match="start from"):
        project(
            generator,
            np.zeros((1, 1, 16, 16), np.float32),
            steps=1,
            perceptual=distance,
            seed=0,
            start=np.zeros((1, 2, 8), np.float32),
        )


def test_senseless_settings_are_refused(generator, distance):
    with pytest.raises(ConfigError, match="steps >= 0"):
        project(generator, np.zeros((1, 1, 16, 16), np.float32), steps=-1, perceptual=distance, seed=0)


def test_noise_maps_take_up_what_latents_cannot_say_and_stay_noise(generator, distance):
    noisy = copy.deepcopy(generator)
    for name, parameter in noisy.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.3)
    images = _images(noisy, 2) + 0.2 * torch.randn(2, 1, 16, 16, generator=_chance(9)).numpy()
    how = {"steps": 50, "perceptual": distance, "seed": 0, "candidates": 0}
    found = {w: project(noisy, images, noise="optimised", noise_weight=w, **how) for w in (0.0, 1e5)}
    assert [noise.shape for noise in found[0].noise] == [(2, 1, s, s) for s in noisy.synthesis.noise_sizes]
    correlation = {w: noise_correlation([torch.from_numpy(n) for n in f.noise]) for w, f in found.items()}
    assert (correlation[1e5] < 0.1 * correlation[0]).all()
    for noise in found[1e5].noise:
        assert np.allclose(noise.mean(axis=(1, 2, 3)), 0, atol=1e-5)
        assert np.allclose(noise.var(axis=(1, 2, 3)), 1, atol=1e-3)
    assert found[0].mse.mean() < project(noisy, images, **how).mse.mean()
    maps = [torch.from_numpy(noise) for noise in found[1e5].noise]
    again = noisy.synthesis(torch.from_numpy(found[1e5].ws), noise=maps).numpy()
    assert np.allclose(again, found[1e5].images, atol=1e-6)
    alone = project(noisy, images[1:], noise="optimised", **{**how, "steps": 5})
    pair = project(noisy, images, noise="optimised", **{**how, "steps": 5})
    assert np.allclose(alone.noise[-1], pair.noise[-1][1:], atol=1e-3)


class _FramedSynthesis(Synthesis):
    """Shifts a picture, which later styles draw, by its first style; no noise inputs."""

    num_ws, frame_ws = 3, 1

    def __init__(self):
        super().__init__()
        self.draw = torch.nn.Linear(8, 256)

    def trace(self, ws, noise):
        picture = self.draw(ws[:, 1:].mean(dim=1)).reshape(-1, 1, 16, 16)
        return [], picture + ws[:, :1].mean(dim=2)[:, :, None, None]


class _FramedGenerator(ImageGenerator):
    z_dim = w_dim = 8
    num_ws, resolution, channels, classes = 3, 16, 1, 0

    def __init__(self):
        super().__init__()
        self.mapping = MappingNetwork(8, 8, layers=1, num_ws=3)
        self.synthesis = _FramedSynthesis()


@pytest.mark.parametrize("space", ["w", "w+"])
def test_the_frame_stays_where_the_mean_latent_puts_it(distance, space):
    framed = _seeded(_FramedGenerator(), 3)
    images = _images(framed, 2) + 0.5
    mean = draw_cloud(framed, 1000, seed=0).mean.numpy()
    how = {"space": space, "steps": 10, "perceptual": distance, "seed": 0}
    frozen = project(framed, images, noise="optimised", **how)
    assert frozen.noise == ()
    assert np.allclose(frozen.ws[:, 0], mean)
    assert not np.allclose(frozen.ws[:, 1], mean, atol=1e-2)
    free = project(framed, images, frame="free", **how)
    assert not np.allclose(free.ws[:, 0], mean, atol=1e-2)
    again = framed.synthesis(torch.from_numpy(frozen.ws), noise="constant").numpy()
    assert np.allclose(again, frozen.images, atol=1e-6)
    inside = project(framed, images, **how, start=frozen.ws)
    assert np.allclose(inside.ws[:, 0], mean)


def test_a_conditional_generator_is_projected_too(distance):
    conditional = _seeded(
        Generator(8, 8, 16, 1, channel_base=128, channel_max=8, mapping_layers=2, classes=3), 0
    )
    images = conditional(torch.randn(2, 8, generator=_chance(1)), torch.eye(3)[:2], noise="constant").numpy()
    found = project(conditional, images, steps=5, perceptual=distance, seed=0)
    assert found.ws.shape == (2, conditional.num_ws, 8)


def test_a_projection_goes_on_where_it_died(generator, distance, tmp_path):
    images = _images(generator, 5)
    how = {"steps": 9, "perceptual": distance, "seed": 0, "candidates": 20, "batch_size": 2, "save_every": 2}
    whole = project(generator, images, noise="optimised", **how)
    step = Step(tmp_path / "invert")
    for die_after in (6, 14, 15, 37, 41):  # image-steps done: in a batch, and right at its end
        with pytest.raises(KeyboardInterrupt):
            project(generator, images, noise="optimised", step=step, on_progress=_die(die_after), **how)
    seen = []
    resumed = project(
        generator, images, noise="optimised", step=step, on_progress=lambda d, _: seen.append(d), **how
    )
    assert seen[:2] == [18, 36]  # finished batches are not done again
    for name in ("ws", "images", "mse", "perceptual", "ms_ssim"):
        assert np.array_equal(getattr(whole, name), getattr(resumed, name))
    assert all(np.array_equal(a, b) for a, b in zip(whole.noise, resumed.noise, strict=True))
    assert not list(tmp_path.rglob("state.safetensors"))
    with pytest.raises(RunError, match="other settings"):
        project(generator, images * 0.5, noise="optimised", step=step, **how)
    write_inversion(step.inversion, resumed)
    clear_parts(step)
    assert list(step.folder.iterdir()) == [step.inversion]


def _die(after):
    def report(done, total):
        if done >= after:
            raise KeyboardInterrupt

    return report


def test_holes_in_images_or_latents_are_told(generator, distance):
    images = _images(generator, 3)
    images[1, 0, 2, 3] = np.nan
    with pytest.raises(DataError, match="1 of 3 images") as caught:
        project(generator, images, steps=1, perceptual=distance, seed=0)
    assert "image 1, counted from 0" in str(caught.value)
    start = np.full((3, generator.num_ws, generator.w_dim), np.inf, np.float32)
    with pytest.raises(DataError, match="3 of 3 latents"):
        project(generator, _images(generator, 3), steps=1, perceptual=distance, seed=0, start=start)


def test_a_constant_image_is_projected_without_trouble(generator, distance):
    found = project(generator, np.full((1, 1, 16, 16), -1.0), steps=5, perceptual=distance, seed=0)
    assert np.isfinite([*found.mse, *found.perceptual, *found.ms_ssim]).all()
