import numpy as np
import pytest
import torch

from fewmask.core.run import Run
from fewmask.data.batches import ArraySource, Stream
from fewmask.inversion.encoder import encode, fit_encoder
from fewmask.inversion.project import draw_cloud, project
from fewmask.networks.encoder import LatentEncoder
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.objectives.perceptual import DiscriminatorDistance
from fewmask.training.launch import launch


def _seeded(network, seed):
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=chance) * parameter.std())
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def generator():
    return _seeded(Generator(8, 8, 16, 1, channel_base=128, channel_max=8, mapping_layers=2), 0)


@pytest.fixture(scope="module")
def discriminator():
    return _seeded(Discriminator(16, 1, channel_base=128, channel_max=8), 1)


@pytest.fixture(scope="module")
def images(generator):
    z = torch.randn(12, generator.z_dim, generator=torch.Generator().manual_seed(5))
    return generator.synthesis(generator.mapping(z), noise="constant").numpy()


def _fit(generator, discriminator, images, folder, total=480):
    return fit_encoder(
        generator,
        discriminator,
        Stream(ArraySource(images), 4, seed=0, name="unlabelled"),
        Run.open(folder).step("encoder"),
        perceptual=DiscriminatorDistance(discriminator),
        images=total,
        seed=0,
        fabric=launch(threads=1),
        hidden=16,
    )


def test_an_untrained_encoder_says_the_same_latent_for_all_layers(generator, discriminator, images):
    centre = draw_cloud(generator, 64, seed=0).mean
    encoder = LatentEncoder(discriminator, generator.num_ws, centre, hidden=16)
    encoder.initialise(torch.Generator().manual_seed(0))
    ws = encoder(torch.from_numpy(images[:3]))
    assert ws.shape == (3, generator.num_ws, generator.w_dim)
    assert torch.equal(ws[:, 0], ws[:, -1])
    assert not any(name.startswith("_trunk") for name in encoder.state_dict())
    alone = torch.cat([encoder(torch.from_numpy(images[n : n + 1])) for n in range(3)])
    assert torch.allclose(ws, alone, atol=1e-5)


def test_an_encoder_learns_to_invert_and_helps_a_projection(generator, discriminator, images, tmp_path):
    distance = DiscriminatorDistance(discriminator)
    encoder = _fit(generator, discriminator, images, tmp_path)
    found = encode(encoder, generator, images, perceptual=distance, batch_size=5)
    centre = np.broadcast_to(draw_cloud(generator, 256, seed=0).mean.numpy(), found.ws.shape)
    mean = project(generator, images, steps=0, perceptual=distance, seed=0, start=centre)
    assert found.mse.mean() < 0.5 * mean.mse.mean()
    better = project(generator, images, steps=15, perceptual=distance, seed=0, start=found.ws, noise_factor=0)
    assert better.mse.mean() < found.mse.mean()


def test_an_interrupted_training_is_taken_up(generator, discriminator, images, tmp_path):
    _fit(generator, discriminator, images, tmp_path, total=8)
    resumed = _fit(generator, discriminator, images, tmp_path, total=8)
    whole = _fit(generator, discriminator, images, tmp_path / "other", total=8)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name])
