import numpy as np
import pytest

from fewmask.core.errors import DataError
from fewmask.inversion.project import Inversion
from fewmask.inversion.residual import residual_gate


def _inversion(mse, perceptual):
    count = len(mse)
    empty = np.zeros((count, 1, 1), np.float32)
    return Inversion(empty, empty[..., None], np.asarray(mse, np.float32), np.asarray(perceptual, np.float32))


def test_the_gate_flags_what_training_images_do_not_show():
    train = _inversion(np.linspace(0.001, 0.01, 100), np.linspace(0.1, 1.0, 100))
    gate = residual_gate(train)
    assert gate.flags(train).sum() == 5
    unseen = _inversion([0.005, 0.02, 0.005, np.nan], [0.5, 0.5, 1.5, 0.5])
    assert gate.flags(unseen).tolist() == [False, True, True, True]


def test_too_few_images_make_no_gate():
    with pytest.raises(DataError, match="too few inversions"):
        residual_gate(_inversion([0.1] * 3, [0.1] * 3))
