"""The encoder that learns a run's slices without labels: whose slices, kept, and what it gives."""

import numpy as np
import pytest

from fewmask.core.errors import RunError
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
    slices = unlabelled_slices(ground, 60)
    first = learn_encoder(ground, slices, 32)
    step = ground.run.step("self-supervised")
    lines = step.stats_jsonl.read_text()
    again = learn_encoder(ground, slices, 32)
    assert network_key(again) == network_key(first)
    assert step.stats_jsonl.read_text() == lines
    assert not any(parameter.requires_grad for parameter in again.parameters())
    with pytest.raises(RunError, match="other settings"):
        learn_encoder(ground, slices, 64)
    with pytest.raises(RunError, match="other settings"):
        learn_encoder(ground, slices[1:], 32)


def test_every_slice_of_a_case_has_its_place(ground, monkeypatch):
    encoder = learn_encoder(ground, unlabelled_slices(ground, 60), 32)
    embed = embedded(ground, encoder)
    case, other = ground.training_cases[:2]
    found = embed(case)
    assert len(found) == 2
    np.testing.assert_array_equal(embed(case), found)
    assert np.abs(embed(other) - found).max() > 1e-6
    monkeypatch.setattr(embedding, "vectors", lambda network, images: images)
    assert embed(case).dtype == np.float32  # the slices themselves, as they are kept, are what is looked at
