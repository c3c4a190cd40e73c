"""Residuals of autoencoders that know healthy slices only."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fewmask.core.run import Run
from fewmask.objectives.autoencoder import CoarseNoise
from fewmask.synthesis.autoencoder import DENOISER, AutoencoderSettings, train_autoencoder
from fewmask.synthesis.healthy import Domains
from fewmask.training.launch import launch

PLAIN = AutoencoderSettings(images=2400, widths=(8, 16, 16), code=2, lr=4e-3)
NOISY = replace(DENOISER, images=1120, widths=(8, 16, 16), noise=CoarseNoise(cell=4), lr=4e-3)


def trained(folder, domains, settings):
    return train_autoencoder(
        domains, settings, Run.open(folder).step("autoencoder"), seed=0, fabric=launch(threads=1)
    )


@pytest.mark.parametrize(("settings", "floor"), [(PLAIN, 0.8), (NOISY, 0.85)], ids=["code", "denoiser"])
def test_spots_are_not_drawn(tmp_path, spots, settings, floor):
    method = trained(tmp_path, spots.domains, settings)
    found = method(spots.test)
    assert spots.auroc(found.delta) > floor
    assert found.images[:, 0][spots.mask].mean() < spots.test[:, 0][spots.mask].mean() - 0.1
    assert np.allclose(found.delta, np.abs(spots.test - found.images).mean(axis=1), atol=1e-6)
    assert method(spots.well).delta.mean() < found.delta[spots.mask].mean() / 2


@pytest.mark.parametrize("dense", [False, True])
def test_diseased_slices_are_not_looked_at(tmp_path, spots, dense):
    settings = replace(PLAIN, images=32, widths=(4, 8), dense=dense)
    nothing = Domains(np.full_like(spots.domains.diseased, np.nan), spots.domains.healthy)
    seen = [
        trained(tmp_path / str(n), domains, settings) for n, domains in enumerate((spots.domains, nothing))
    ]
    ours, theirs = (method.networks["network"].state_dict() for method in seen)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
