"""The rivals that learn nothing."""

import numpy as np
import pytest

from fewmask.core.errors import ShapeError
from fewmask.synthesis.trivial import Brightness, EmptyMask, WholeBody


def test_nothing_and_everything(spots):
    assert not EmptyMask()(spots.test).delta.any()
    body = WholeBody(lambda images: images[:, 0] > 0)(spots.test)
    assert body.delta.dtype == np.float32
    assert np.array_equal(body.delta, spots.test[:, 0] > 0)
    assert body.images is spots.test
    assert spots.auroc(EmptyMask()(spots.test).delta) == 0.5


def test_brightness_by_hand():
    healthy = np.array([[[[0.0, 0.2]], [[-1.0, 1.0]]], [[[0.2, 0.2]], [[-1.0, 0.0]]]], np.float32)
    image = np.array([[[[0.5, 0.0]], [[-0.5, 0.9]]]], np.float32)
    found = Brightness.of(healthy)(image)
    assert np.allclose(found.images, [[[[0.1, 0.0]], [[-1.0, 0.5]]]])
    assert np.allclose(found.delta, [[[(0.4 + 0.5) / 2, (0 + 0.4) / 2]]])
    anywhere = Brightness.anywhere(healthy)(image)
    assert np.allclose(anywhere.delta, [[[(0.35 + 0) / 2, (0 + 1.15) / 2]]])


def test_bright_spots_are_bright(spots):
    method = Brightness.of(spots.domains.healthy)
    assert spots.auroc(method(spots.test).delta) > 0.85


def test_slices_of_another_size(spots):
    with pytest.raises(ShapeError, match="do not fit"):
        Brightness.of(spots.domains.healthy)(spots.test[:, :, 1:])
    with pytest.raises(ShapeError, match="do not fit"):
        Brightness.anywhere(spots.domains.healthy)(np.repeat(spots.test, 2, axis=1))
