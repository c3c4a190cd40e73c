"""The judge of generated images: its figures move the right way for known faults, on textures made here."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.core.run import Run
from fewmask.core.seed import integer, stream
from fewmask.networks.stylegan2 import Generator
from fewmask.synthesis.quality import Judge, draw_batches, fit_embedding, small
from fewmask.training.launch import launch


def textures(name: str, count: int, size: int = 16) -> np.ndarray:
    """Smooth random fields with a blob somewhere near the middle, in [-1, 1]."""
    chance = stream(0, "quality", name)
    field = ndimage.gaussian_filter(chance.normal(size=(count, 1, size, size)), (0, 0, 1, 1)) * 0.8
    y, x = np.mgrid[:size, :size]
    place = size / 2 + chance.normal(0, size / 10, (count, 2, 1, 1))
    blob = np.exp(-((y - place[:, 0]) ** 2 + (x - place[:, 1]) ** 2) / (size / 3) ** 2)
    return np.asarray((field + blob[:, None] - 0.3).clip(-1, 1), dtype=np.float32)


def fitted(folder, images_seen=640):
    return fit_embedding(
        textures("training", 96),
        Run.open(folder).step("embedding"),
        images_seen=images_seen,
        seed=0,
        fabric=launch(threads=1),
        batch=32,
        dim=16,
    )


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    encoder = fitted(tmp_path_factory.mktemp("quality"))
    return Judge.of(encoder, textures("training", 96), textures("held out", 96))


@pytest.fixture(scope="module")
def good():
    return textures("good", 96)


def curve(judge, versions, name):
    return [getattr(judge.judge_images(images), name) for images in versions]


def rises(values):
    return all(a < b for a, b in pairwise(values))


def test_good_images_reach_the_floor(judge, good):
    found, floor = judge.judge_images(good), judge.floor()
    assert found.count == floor.count == 96
    assert found.frechet == pytest.approx(floor.frechet, rel=0.25)
    assert abs(found.kernel) < 5 * found.kernel_error
    assert min(found.precision, found.recall, floor.precision) > 0.5
    assert found.diversity == pytest.approx(1, abs=0.1)
    assert found.copying == pytest.approx(1, abs=0.2)
    assert found.copying_pixels == pytest.approx(1, abs=0.2)
    assert found.copies < 0.1
    assert found.score == -found.frechet
    assert found.numbers()["kernel"] == found.kernel


@pytest.mark.parametrize("figure", ["frechet", "kernel"])
def test_distances_rise_with_every_fault(judge, good, figure):
    chance = stream(0, "quality", "noise")
    noise = chance.normal(size=good.shape)
    versions = {
        "blur": [ndimage.gaussian_filter(good, (0, 0, s, s)) for s in (0.2, 0.7, 1.2, 2)],
        "noise": [(good + s * noise).clip(-1, 1) for s in (0, 0.1, 0.2, 0.4)],
        "contrast": [good * s for s in (1, 0.75, 0.5, 0.25)],
        "modes": [np.resize(good[:n], good.shape) for n in (96, 24, 8, 2)],
        "shift": [np.roll(good, s, axis=3) for s in (0, 2, 4, 8)],
    }
    for name, images in versions.items():
        assert rises(curve(judge, images, figure)), (name, curve(judge, images, figure))


def test_dropped_modes_cost_recall_and_diversity(judge, good):
    versions = [np.resize(good[:n], good.shape) for n in (2, 8, 32, 96)]
    assert rises(curve(judge, versions, "diversity"))
    recall = curve(judge, versions, "recall")
    assert recall[0] < 0.1 < 0.5 < recall[-1]
    assert min(curve(judge, versions[1:], "precision")) > 0.5  # of two images it can only be 0, 1/2 or 1


def test_copies_are_told(judge, good):
    training = textures("training", 96)
    chance = stream(0, "quality", "copies")
    copies = (training + chance.normal(0, 0.01, training.shape)).astype(np.float32)
    found = judge.judge_images(copies)
    assert found.copies > 0.95
    assert found.copying_pixels < 0.1
    half = judge.judge_images(np.concatenate([copies[:48], good[:48]]))
    assert half.copies == pytest.approx(0.5, abs=0.1)


def test_without_held_out_images_the_halves_are_compared(judge):
    alone = Judge.of(judge.seer.encoder, textures("training", 96))
    assert alone.floor().count == alone.judge_images(textures("good", 96)).count == 48
    assert alone.judge_images(textures("good", 96)).copies < 0.1


def _generator(classes=0):
    torch.manual_seed(integer(0, "generator"))
    return Generator(8, 8, 16, 1, classes=classes, channel_base=128, channel_max=8, mapping_layers=2).eval()


def test_a_generator_is_judged_from_fixed_latents(judge):
    generator = _generator()
    images, again = (np.concatenate(list(draw_batches(generator, 40, seed=3, batch=n))) for n in (32, 7))
    assert images.shape == (40, 1, 16, 16)
    assert np.abs(images).max() <= 1
    assert np.allclose(images, again, atol=1e-5)
    torch.manual_seed(1)
    first = judge.judge(generator, count=40, seed=3)
    torch.manual_seed(2)
    assert judge.judge(generator, count=40, seed=3) == first
    assert first.count == 40
    assert first.frechet > 2 * judge.floor(40).frechet


def test_a_conditional_generator_needs_labels(judge):
    generator = _generator(classes=2)
    with pytest.raises(ConfigError, match="labels"):
        judge.judge(generator)
    assert judge.judge(generator, count=16, labels=torch.eye(2)).count == 16


def test_an_interrupted_training_is_taken_up(tmp_path):
    fitted(tmp_path / "one", images_seen=32)
    resumed = fitted(tmp_path / "one", images_seen=32).state_dict()
    for name, weight in fitted(tmp_path / "other", images_seen=32).state_dict().items():
        assert torch.equal(weight, resumed[name])


def test_images_that_cannot_be_judged(judge):
    with pytest.raises(ShapeError, match="too few"):
        judge.judge_images(textures("few", 3))
    with pytest.raises(ShapeError, match="too few"):
        Judge.of(judge.seer.encoder, textures("training", 12))
    with pytest.raises(ShapeError, match="cannot be judged"):
        judge.judge_images(textures("large", 16, size=32))


def test_large_images_are_compared_small():
    image = np.arange(2 * 1 * 130 * 130, dtype=np.float32).reshape(2, 1, 130, 130) / 1e4
    assert small(image).shape == (2, 43 * 43)
    assert small(image)[1, 0] == pytest.approx(image[1, 0, :3, :3].mean(), rel=1e-6)
    assert small(image[:, :, :64, :64]) == pytest.approx(image[:, :, :64, :64].reshape(2, -1))
    assert small(image[:0]).shape == (0, 43 * 43)
