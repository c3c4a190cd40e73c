"""What holds for every trained rival: killed it ends in the same bytes, and its answers stand alone."""

import numpy as np
import pytest
import torch

from fewmask.core.errors import RunError
from fewmask.core.run import Run
from fewmask.objectives.autoencoder import AutoencoderObjective, CoarseNoise
from fewmask.objectives.classifier import ClassifierObjective
from fewmask.objectives.diffusion import DiffusionObjective
from fewmask.synthesis.activation import ClassifierSettings, train_classifier
from fewmask.synthesis.autoencoder import AutoencoderSettings, train_autoencoder
from fewmask.synthesis.counterfactual import DiffusionSettings, Way, train_diffusion
from fewmask.training.launch import launch

RIVALS = {
    "classifier": (
        train_classifier,
        ClassifierSettings(images=64, batch=8, widths=(4, 8)),
        ClassifierObjective,
        {},
    ),
    "autoencoder": (
        train_autoencoder,
        AutoencoderSettings(images=64, batch=8, widths=(4, 8), code=0, noise=CoarseNoise()),
        AutoencoderObjective,
        {},
    ),
    "diffusion": (
        train_diffusion,
        DiffusionSettings(images=64, batch=8, widths=(4, 8)),
        DiffusionObjective,
        {"way": Way(steps=2)},
    ),
}


@pytest.fixture(params=RIVALS)
def rival(request):
    return RIVALS[request.param]


def trained(rival, folder, spots, seed=0):
    train, settings, _, more = rival
    step = Run.open(folder).step("rival")
    return train(spots.domains, settings, step, seed=seed, fabric=launch(threads=1), **more)


def test_killed_it_ends_in_the_same_bytes(rival, tmp_path, spots, monkeypatch):
    whole = trained(rival, tmp_path / "whole", spots)
    update = rival[2].update

    def dies(self, batch, images_seen, minimise):
        if images_seen >= 40:
            raise KeyboardInterrupt
        return update(self, batch, images_seen, minimise)

    monkeypatch.setattr(rival[2], "update", dies)
    with pytest.raises(KeyboardInterrupt):
        trained(rival, tmp_path / "killed", spots)
    monkeypatch.undo()
    resumed = trained(rival, tmp_path / "killed", spots)
    assert whole.fitted.resumed_from is None
    assert resumed.fitted.resumed_from is not None
    assert 0 < resumed.fitted.resumed_from <= 40
    for name, network in whole.networks.items():
        theirs = resumed.networks[name].state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in network.state_dict().items())


def test_answers_stand_alone_and_networks_are_frozen(rival, tmp_path, spots):
    method = trained(rival, tmp_path, spots)
    together = method(spots.test[:4, :, :27])
    alone = [method(spots.test[number : number + 1, :, :27]) for number in range(4)]
    assert together.images.shape == (4, 1, 27, 32)
    assert together.delta.shape == (4, 27, 32)
    assert together.delta.min() >= 0
    assert np.array_equal(together.delta, np.concatenate([one.delta for one in alone]))
    assert np.array_equal(together.images, np.concatenate([one.images for one in alone]))
    for network in method.networks.values():
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_another_training_in_the_same_folder(rival, tmp_path, spots):
    trained(rival, tmp_path, spots)
    assert trained(rival, tmp_path, spots).fitted.resumed_from == 64
    with pytest.raises(RunError, match="other settings"):
        trained(rival, tmp_path, spots, seed=1)
