"""Segmenters small enough for a test: one trained by nobody, that thresholds."""

import numpy as np
import pytest
import torch
from torch import nn

from fewmask.core.volume import Volume
from fewmask.data.prepare import Preparation
from fewmask.segmenter.model import Design, Segmenter


class Threshold(nn.Module):
    """Logits of background and one class: positive voxels of the first channel belong to the class."""

    def __init__(self, sharpness=50.0):
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(sharpness))

    def forward(self, image):
        return torch.cat([-image[:, :1], image[:, :1]], dim=1) * self.sharpness


@pytest.fixture
def threshold():
    """A segmenter of positive prepared voxels, label 7; takes settings of `Design` and `Preparation`."""

    def make(*, patch=(16, 16), channels=None, sharpness=50.0, preparation=None, **design):
        axes = "slices" if len(patch) == 2 else "volume"
        how = {"channels": channels or {"image": ((0.0, 2.0),)}, "axes": axes, "square": False}
        made = Design(
            classes={"bright": 7},
            preparation=Preparation(**{**how, **(preparation or {})}),
            patch=patch,
            widths=(4, 8),
            **design,
        )
        return Segmenter(Threshold(sharpness).eval(), made)

    return make


@pytest.fixture
def oblique():
    """A volume of -1 and 1 on an oblique, anisotropic grid, and where it is positive."""
    chance = np.random.Generator(np.random.PCG64(0))
    inside = chance.random((5, 21, 34)) > 0.6
    a, b = 0.3, -0.2
    turn_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn_z @ turn_x @ np.diag([0.8, -0.9, 3.0])
    affine[:3, 3] = (-40, 12, 300)
    return Volume(np.where(inside, 1.0, -1.0).astype(np.float32), affine), inside
