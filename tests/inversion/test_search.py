"""The search for an image's latents and mask: it comes closer, from an encoder or the mean, and resumes."""

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError, DataError, RunError, ShapeError
from fewmask.core.run import Run, Step
from fewmask.data.batches import ArraySource, Stream
from fewmask.inversion import encoder as inversion_encoder
from fewmask.inversion.encoder import encode
from fewmask.inversion.project import draw_styles
from fewmask.inversion.search import MEAN_OF, probabilities_of, search
from fewmask.inversion.semanticencoder import fit_semantic_encoder
from fewmask.networks.semanticgan import SemanticGenerator
from fewmask.networks.stylegan2 import Discriminator
from fewmask.objectives.perceptual import DiscriminatorDistance
from fewmask.objectives.semanticgan import FROM_MEAN, SearchWeights
from fewmask.training.launch import launch

SIZES = {"channel_base": 128, "channel_max": 8}


def _seeded(build, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build()
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.data = torch.randn_like(parameter) * parameter.std()
    return network.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def _few_latents(monkeypatch):
    monkeypatch.setattr(inversion_encoder, "CLOUD", 64)


@pytest.fixture(scope="module")
def generator():
    return _seeded(lambda: SemanticGenerator(8, 8, 16, 1, 3, mapping_layers=2, **SIZES), 0)


@pytest.fixture(scope="module")
def distance():
    return DiscriminatorDistance(_seeded(lambda: Discriminator(16, 1, **SIZES), 1), layers=2)


@pytest.fixture(scope="module")
def pairs(generator):
    """Five images with masks, as the generator draws them."""
    z = torch.randn(5, 8, generator=torch.Generator().manual_seed(5))
    image, logits = generator.pair(generator.mapping(z), "constant")
    return image.numpy(), logits.argmax(dim=1).numpy().astype(np.uint8)


def _fit(generator, distance, pairs, folder, *, masks=None, total=24, kind=Stream, **how):
    images, drawn = pairs
    return fit_semantic_encoder(
        generator,
        kind(ArraySource(images), 4, seed=0, name="unlabelled"),
        Stream(ArraySource(images, drawn if masks is None else masks), 4, seed=0, name="labelled"),
        Run.open(folder).step("encoder"),
        perceptual=distance,
        images=total,
        seed=0,
        fabric=launch(threads=1),
        **{"width": 8, **how},
    )


@pytest.fixture(scope="module")
def encoder(generator, distance, pairs, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inversion_encoder, "CLOUD", 64)
        return _fit(generator, distance, pairs, tmp_path_factory.mktemp("run"), total=100, learning_rate=5e-3)


def test_without_a_step_it_is_what_the_encoder_says(generator, distance, pairs, encoder):
    images, masks = pairs
    found = search(generator, images, perceptual=distance, seed=0, steps=0, encoder=encoder)
    said = encode(encoder, generator, images, perceptual=distance)
    assert np.allclose(found.inversion.ws, said.ws, atol=1e-6)
    assert found.inversion.noise == ()
    assert found.probabilities.shape == (5, 3, 16, 16)
    assert np.allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    middle = search(generator, images, perceptual=distance, seed=0, steps=0)
    wanted = draw_styles(generator, MEAN_OF, seed=0).mean(dim=0).numpy()
    assert np.allclose(middle.inversion.ws, wanted, atol=1e-6)
    agree = [np.mean(one.probabilities.argmax(axis=1) == masks) for one in (found, middle)]
    assert agree[0] > agree[1], "the encoder knows something of the images"


def test_a_search_comes_closer_and_moves_the_noise(generator, distance, pairs, encoder):
    images, _ = pairs
    for start in (encoder, None):
        before, after = (
            search(generator, images, perceptual=distance, seed=0, steps=n, encoder=start, batch_size=3)
            for n in (0, 60)
        )
        assert (after.inversion.perceptual < before.inversion.perceptual).all()
        assert after.inversion.perceptual.mean() < 0.7 * before.inversion.perceptual.mean()
        assert [one.shape for one in after.inversion.noise] == [
            (5, 1, size, size) for size in generator.synthesis.noise_sizes
        ]
        for noise in after.inversion.noise:
            assert np.allclose(noise.std(axis=(1, 2, 3)), 1, atol=1e-2)
        again = probabilities_of(generator, after.inversion, batch_size=2)
        assert np.allclose(again, after.probabilities, atol=1e-4)


def test_an_image_does_not_depend_on_its_batch(generator, distance, pairs):
    images, _ = pairs
    wanted = search(generator, images, perceptual=distance, seed=0, steps=6).inversion
    alone = search(generator, images[3:4], perceptual=distance, seed=0, steps=6).inversion
    assert np.allclose(wanted.ws[3], alone.ws[0], atol=1e-4)
    assert np.allclose(wanted.noise[2][3], alone.noise[2][0], atol=1e-4)


def test_anchors_hold_the_latents_back(generator, distance, pairs, encoder):
    images, _ = pairs
    start = search(generator, images, perceptual=distance, seed=0, steps=0, encoder=encoder).inversion.ws
    far = []
    for weight in (0.0, 100.0):
        how = SearchWeights(start=weight)
        found = search(generator, images, perceptual=distance, seed=0, steps=15, encoder=encoder, weights=how)
        far.append(np.square(found.inversion.ws - start).mean())
    assert far[1] < 0.5 * far[0]
    assert SearchWeights() != FROM_MEAN
    loose, tight = (
        search(generator, images, perceptual=distance, seed=0, steps=15, weights=SearchWeights(mean=weight))
        for weight in (0.0, 100.0)
    )
    middle = draw_styles(generator, MEAN_OF, seed=0).mean(dim=0).numpy()
    assert np.square(tight.inversion.ws - middle).mean() < 0.5 * np.square(loose.inversion.ws - middle).mean()


class KilledError(Exception):
    """The power fails."""


def test_a_cut_search_ends_in_the_same_bytes(generator, distance, pairs, encoder, tmp_path):
    def run(folder, on_progress=None, **more):
        how = {"steps": 9, "encoder": encoder, "batch_size": 3, "save_every": 2, **more}
        step = Step(tmp_path / folder)
        return search(
            generator, pairs[0], perceptual=distance, seed=0, step=step, on_progress=on_progress, **how
        )

    whole = run("whole")

    def die(done, total):
        if done > 3 * 9 + 2 * 5:
            raise KilledError

    with pytest.raises(KilledError):
        run("cut", on_progress=die)
    resumed = run("cut")
    for name in ("ws", "images", "mse", "perceptual", "ms_ssim"):
        assert np.array_equal(getattr(resumed.inversion, name), getattr(whole.inversion, name))
    assert all(
        np.array_equal(a, b) for a, b in zip(resumed.inversion.noise, whole.inversion.noise, strict=True)
    )
    assert np.array_equal(resumed.probabilities, whole.probabilities)
    with pytest.raises(RunError, match="other settings"):
        run("cut", encoder=None)


class Dying(Stream):
    """Batches until the power fails."""

    def at(self, images_seen, **where):
        if images_seen >= 12:
            raise KeyboardInterrupt
        return super().at(images_seen, **where)


def test_an_interrupted_encoder_ends_in_the_same_weights(generator, distance, pairs, tmp_path):
    whole = _fit(generator, distance, pairs, tmp_path / "whole").state_dict()
    with pytest.raises(KeyboardInterrupt):
        _fit(generator, distance, pairs, tmp_path / "parts", kind=Dying)
    resumed = _fit(generator, distance, pairs, tmp_path / "parts").state_dict()
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())
    with pytest.raises(RunError, match="labelled"):
        _fit(generator, distance, pairs, tmp_path / "parts", masks=2 - pairs[1])


def test_senseless_searches_are_refused(generator, distance, pairs, encoder):
    images, _ = pairs
    how = {"perceptual": distance, "seed": 0}
    with pytest.raises(ShapeError, match="cannot come from this generator"):
        search(generator, images[..., :8], **how)
    with pytest.raises(DataError, match="not numbers"):
        search(generator, np.full_like(images, np.nan), **how)
    with pytest.raises(ConfigError, match="steps"):
        search(generator, images, steps=-1, **how)
    with pytest.raises(ConfigError, match="at least once"):
        search(generator, images, encoder=encoder, passes=0, **how)
