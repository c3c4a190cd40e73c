"""The encoder that learns a run's slices without labels: whose slices, kept, and what it gives."""

from dataclasses import replace

import numpy as np
import pytest

from fewmask.core.errors import RunError
from fewmask.data import slices
from fewmask.data.case_voxels import read_images
from fewmask.inversion.resume import network_key
from fewmask.recipes import embedding
from fewmask.recipes.embedding import embedded, learn_encoder, unlabelled_slices


@pytest.fixture
def ground(few_shot, tmp_path):
    return few_shot(tmp_path / "run")[0].ground


def test_only_training_patients_are_learned_and_few_of_each(ground):
    training = len({case.patient for case in ground.training_cases})
    assert training == len(ground.split.train) < len({case.patient for case in ground.cohort.cases})
    assert len(unlabelled_slices(ground, 1)) == training
    every = unlabelled_slices(ground, 60)
    assert len(every) == 2 * training
    assert every.shape[1:] == (1, 16, 16)
    assert np.abs(every).max() <= 1


def test_it_is_learned_once(ground, monkeypatch):
    every = unlabelled_slices(ground, 60)
    first = learn_encoder(ground, every, 32)
    step = ground.run.step("self-supervised")
    lines = step.stats_jsonl.read_text()
    again = learn_encoder(ground, every, 32)
    assert network_key(again) == network_key(first)
    assert step.stats_jsonl.read_text() == lines
    assert not any(parameter.requires_grad for parameter in again.parameters())
    with pytest.raises(RunError, match="other settings"):
        learn_encoder(ground, every, 64)
    with pytest.raises(RunError, match="other settings"):
        learn_encoder(ground, every[1:], 32)


def test_what_is_learned_is_not_copied_in_32_bits(ground, monkeypatch):
    seen = []
    monkeypatch.setattr(embedding, "fit_embedding", lambda images, *_, **__: seen.append(images) or Encoder())
    every = unlabelled_slices(ground, 60)
    learn_encoder(ground, every, 32)
    assert every.dtype == np.float16
    assert seen[0] is every


class Encoder:
    def to(self, device):
        return self


def test_every_slice_with_content_has_its_place(ground, monkeypatch):
    encoder = learn_encoder(ground, unlabelled_slices(ground, 60), 32)
    embed = embedded(ground, encoder)
    case, other = ground.training_cases[:2]
    numbers, found = embed(case)
    assert numbers == [0, 1]
    assert len(found) == 2
    np.testing.assert_array_equal(embed(case)[1], found)
    assert np.abs(embed(other)[1] - found).max() > 1e-6
    monkeypatch.setattr(embedding, "vectors", lambda network, images: images)
    assert embed(case)[1].dtype == np.float32  # the slices as they are kept, and not rounded, are looked at


def test_an_empty_slice_is_not_looked_at(ground, monkeypatch):
    case = ground.training_cases[0]
    scan = read_images(case)
    half = {}
    for name, image in scan.items():
        voxels = image.voxels.copy()
        voxels[1] = voxels.min()
        half[name] = replace(image, voxels=voxels)
    monkeypatch.setattr(slices, "read_images", lambda _: half)
    monkeypatch.setattr(embedding, "vectors", lambda network, images: images)
    numbers, found = embedded(ground, None)(case)
    assert numbers == [0]
    assert found.shape == (1, 1, 16, 16)
