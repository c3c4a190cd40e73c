"""Slices that teach a generator nothing are refused before a training begins."""

import numpy as np
import pytest

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.seed import stream
from fewmask.synthesis.slices import fingerprint, refuse_slices


def slices(count=20, size=16):
    return stream(0, "slices").uniform(-1, 1, (count, 1, size, size)).astype(np.float16)


def test_good_slices_of_any_type_pass():
    refuse_slices(slices(), None)
    refuse_slices(slices() * np.float16(1.005), None)
    refuse_slices(stream(0, "bytes").integers(0, 255, (20, 3, 32, 32), dtype=np.uint8), (2 / 255, -1.0))
    refuse_slices(stream(0, "words").integers(0, 65535, (20, 1, 16, 16), dtype=np.uint16), (2 / 65535, -1.0))


def test_three_slices_are_too_few():
    with pytest.raises(ConfigError, match="too few slices") as told:
        refuse_slices(slices(3), None)
    assert "found: 3" in str(told.value)


@pytest.mark.parametrize("shape", [(20, 1, 16, 8), (20, 1, 48, 48), (20, 1, 8, 8), (20, 16, 16)])
def test_sides_must_be_equal_powers_of_two(shape):
    with pytest.raises(ConfigError, match=r"square|four axes"):
        refuse_slices(np.zeros(shape, np.float32), None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_found_with_their_slice(value):
    images = slices()
    images[7, 0, 3, 3] = value
    with pytest.raises(DataError, match="no numbers") as told:
        refuse_slices(images, None)
    assert "slice 7" in str(told.value)
    assert "1 of 256" in str(told.value)


def test_unscaled_slices_are_refused():
    with pytest.raises(DataError, match="not scaled") as told:
        refuse_slices(slices() * 100, None, "held-out images")
    assert "held-out images" in str(told.value)


def test_slices_of_one_grey_are_refused_when_they_are_most():
    images = slices()
    images[:9] = -1
    refuse_slices(images, None)
    images[:11] = 0.5
    with pytest.raises(DataError, match="one grey each") as told:
        refuse_slices(images, None)
    assert "11 of 20" in str(told.value)


def test_copies_of_one_slice_are_refused():
    with pytest.raises(DataError, match="all slices are the same"):
        refuse_slices(np.repeat(slices(1), 20, axis=0), None)


def test_a_fingerprint_tells_slices_apart():
    images = slices()
    assert fingerprint(images) == fingerprint(images.copy())
    images[3, 0, 0, 0] += 0.5
    assert fingerprint(images) != fingerprint(slices())
