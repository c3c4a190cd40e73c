"""STAPLE through SimpleITK."""

import numpy as np
import pytest

from fewmask.consensus.staple import staple


def _square(low: int, high: int) -> np.ndarray:
    mask = np.zeros((1, 20, 20), bool)
    mask[0, low:high, low:high] = True
    return mask


def test_the_careless_reader_is_found_out():
    good, careless = _square(5, 15), _square(5, 9)
    found = staple([good, good, careless])
    assert (found.mask == good).all()
    assert found.sensitivity[0] == pytest.approx(1.0, abs=1e-3)
    assert found.sensitivity[2] == pytest.approx(16 / 100, abs=1e-3)
    assert found.specificity == pytest.approx((1.0, 1.0, 1.0), abs=1e-3)


def test_a_generous_reader_has_a_low_specificity():
    good, generous = _square(5, 15), _square(2, 18)
    found = staple([good, good, generous])
    assert (found.mask == good).all()
    assert found.specificity[2] == pytest.approx(1 - 156 / 300, abs=1e-2)
    assert found.probability.shape == good.shape


def test_edges_of_staple():
    nothing, full, some = np.zeros((1, 4, 4), bool), np.ones((1, 4, 4), bool), _square(5, 15)
    assert not staple([nothing, nothing]).mask.any()
    assert staple([nothing, nothing]).sensitivity == (1.0, 1.0)
    assert staple([full, full]).mask.all()
    assert (staple([some]).mask == some).all()
    assert not staple([some, np.zeros_like(some), np.zeros_like(some)]).mask.any()
