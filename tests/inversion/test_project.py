import copy

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.inversion.project import draw_cloud, nearest, project
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


def _images(generator, count):
    z = torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(5))
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
