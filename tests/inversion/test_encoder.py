import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, DataError, RunError, ShapeError
from fewmask.core.run import Run
from fewmask.data.batches import ArraySource, Stream
from fewmask.inversion import encoder as inversion_encoder
from fewmask.inversion.encoder import encode, fit_encoder
from fewmask.inversion.project import draw_cloud, project
from fewmask.networks import stylegan3
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.objectives.perceptual import DiscriminatorDistance, StructureDistance
from fewmask.training.launch import launch


def _seeded(build, seed):
    """A network whose weights and buffers are the same whatever was drawn before, in this file or another."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build()
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=chance) * parameter.std())
    return network.eval().requires_grad_(False)


def _drawn(generator, count=12, label=None):
    z = torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return generator.synthesis(generator.mapping(z, label), noise="constant").numpy()


@pytest.fixture(autouse=True)
def _few_latents(monkeypatch):
    monkeypatch.setattr(inversion_encoder, "CLOUD", 64)


@pytest.fixture(scope="module")
def generator():
    return _seeded(lambda: Generator(8, 8, 16, 1, channel_base=128, channel_max=8, mapping_layers=2), 0)


@pytest.fixture(scope="module")
def distance():
    return DiscriminatorDistance(_seeded(lambda: Discriminator(16, 1, channel_base=128, channel_max=8), 1))


@pytest.fixture(scope="module")
def images(generator):
    return _drawn(generator)


def _fit(generator, images, folder, total=8, perceptual=None, kind=Stream, **how):
    return fit_encoder(
        generator,
        kind(ArraySource(images), 4, seed=0, name="unlabelled"),
        Run.open(folder).step("encoder"),
        perceptual=perceptual,
        images=total,
        seed=0,
        fabric=launch(threads=1),
        **{"width": 8, **how},
    )


def test_an_encoder_learns_to_invert_and_helps_a_projection(generator, distance, images, tmp_path):
    encoder = _fit(generator, images, tmp_path, 120, distance, learning_rate=4e-3)
    found = encode(encoder, generator, images, perceptual=distance, batch_size=5)
    once = encode(encoder, generator, images, perceptual=distance, passes=1)
    centre = np.broadcast_to(draw_cloud(generator, 256, seed=0).mean.numpy(), found.ws.shape)
    mean = project(generator, images, steps=0, perceptual=distance, seed=0, start=centre)
    assert found.mse.mean() < once.mse.mean() < mean.mse.mean()
    assert found.mse.mean() < 0.5 * mean.mse.mean()
    better = project(generator, images, steps=15, perceptual=distance, seed=0, start=found.ws, noise_factor=0)
    assert better.mse.mean() < found.mse.mean()


class Dying(Stream):
    """Batches until the power fails."""

    def at(self, images_seen, **where):
        if images_seen >= 16:
            raise KeyboardInterrupt
        return super().at(images_seen, **where)


def test_an_interrupted_training_ends_in_the_same_weights(generator, distance, images, tmp_path):
    whole = _fit(generator, images, tmp_path / "whole", 32, distance).state_dict()
    with pytest.raises(KeyboardInterrupt):
        _fit(generator, images, tmp_path / "parts", 32, distance, kind=Dying)
    resumed = _fit(generator, images, tmp_path / "parts", 32, distance).state_dict()
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())


def test_a_folder_of_another_encoder_is_refused(generator, images, tmp_path):
    _fit(generator, images, tmp_path, 4)
    with pytest.raises(RunError, match="other settings \\(passes"):
        _fit(generator, images, tmp_path, 4, passes=1)


def test_one_style_for_all_layers_in_w(generator, images, tmp_path):
    encoder = _fit(generator, images, tmp_path, 16, space="w", learning_rate=0.02)
    ws = encode(encoder, generator, images, perceptual=StructureDistance()).ws
    assert np.array_equal(ws, np.broadcast_to(ws[:, :1], ws.shape))
    assert not np.allclose(ws[0], ws[1], atol=1e-4)


def test_stylegan3_keeps_its_frame_and_classes_need_no_label(tmp_path):
    torch.manual_seed(0)
    sizes = {"channel_base": 128, "channel_max": 8, "num_layers": 6}
    generator = stylegan3.Generator(8, 8, 16, 2, classes=2, **sizes).eval()
    images = _drawn(generator, 8, torch.eye(2).repeat(4, 1))
    encoder = _fit(generator, images, tmp_path, 16, learning_rate=0.02)
    ws = encode(encoder, generator, images, perceptual=StructureDistance()).ws
    assert np.array_equal(ws[:, 0], np.broadcast_to(encoder.centre.numpy(), ws[:, 0].shape))
    assert not np.allclose(ws[:, 1], ws[:, 0], atol=1e-4)
    assert all(p.requires_grad and p.grad is None for p in generator.parameters())


def test_images_that_the_generator_cannot_draw_are_refused(generator, distance, images, tmp_path):
    with pytest.raises(ShapeError, match="cannot come from this generator"):
        _fit(generator, np.zeros((4, 3, 16, 16), np.float32), tmp_path)
    encoder = _fit(generator, images, tmp_path, 4)
    with pytest.raises(ShapeError, match="cannot come from this generator"):
        encode(encoder, generator, images[..., :8], perceptual=distance)
    with pytest.raises(DataError, match="not numbers"):
        encode(encoder, generator, np.full_like(images, np.nan), perceptual=distance)


def test_no_pass_and_no_batch_are_refused(generator, distance, images, tmp_path):
    with pytest.raises(ConfigError, match="at least once"):
        _fit(generator, images, tmp_path, passes=0)
    encoder = _fit(generator, images, tmp_path, 4)
    with pytest.raises(ConfigError, match="at least once"):
        encode(encoder, generator, images, perceptual=distance, passes=0)
    with pytest.raises(ConfigError, match="at least one image"):
        encode(encoder, generator, images, perceptual=distance, batch_size=0)
