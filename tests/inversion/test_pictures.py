import numpy as np
import pytest

from fewmask.core.errors import ShapeError
from fewmask.inversion.pictures import comparison
from fewmask.inversion.project import Inversion


def _inversion(images):
    nothing = np.zeros(len(images), np.float32)
    return Inversion(np.zeros((len(images), 1, 1), np.float32), images, nothing, nothing, nothing)


def test_the_difference_is_grey_where_images_agree_and_signed_elsewhere():
    original = np.zeros((2, 3, 4, 4), np.float32)
    made = original.copy()
    made[0, 1, 0] = 0.1
    made[0, 1, 1] = -0.1
    made[1, 1, 0] = 3.0
    rows = comparison(original, _inversion(made), channel=1, scale=0.2)
    assert rows.shape == (2, 3, 4, 4)
    assert np.allclose(rows[0, 2, 0], 0.5)
    assert np.allclose(rows[0, 2, 1], -0.5)
    assert (rows[0, 2, 2:] == 0).all()
    assert (rows[1, 1:, 0] == 1).all()  # beyond white
    assert (comparison(original, _inversion(made), channel=0) == 0).all()


def test_other_images_are_refused():
    with pytest.raises(ShapeError, match="not the images"):
        comparison(np.zeros((1, 1, 4, 4)), _inversion(np.zeros((2, 1, 4, 4), np.float32)))
