import numpy as np
import pytest

from fewmask.core.seed import stream
from fewmask.data.phantom_readers import Reader, draw_readers, read_as

SPACING = (5.0, 1.0, 1.0)


def truth():
    labels = np.zeros((6, 60, 60), np.uint8)
    labels[:, 5:55, 5:55] = 1
    for z, y, x in ((1, 15, 15), (1, 40, 40), (4, 15, 40), (4, 40, 15)):
        labels[z, y - 4 : y + 5, x - 4 : x + 5] = 4
    return labels


def test_a_perfect_reader_draws_the_truth():
    drawn = read_as(Reader(0, 0, 0), truth(), SPACING, nodule=4, chance=stream(0, "r"))
    assert np.array_equal(drawn, truth())


def test_missed_nodules_become_what_surrounds_them():
    drawn = read_as(Reader(0, 0, 1), truth(), SPACING, nodule=4, chance=stream(0, "r"))
    assert np.array_equal(drawn, np.where(truth() == 4, 1, truth()))
    half = read_as(Reader(0, 0, 0.5), truth(), SPACING, nodule=4, chance=stream(0, "r"))
    assert 0 < (half == 4).sum() < (truth() == 4).sum()
    kept = read_as(Reader(0, 0, 1), truth(), SPACING, nodule=None, chance=stream(0, "r"))
    assert (kept == 4).any()


@pytest.mark.parametrize(("bias", "low", "high"), [(2.0, 1.3, 2.2), (-2.0, 0.2, 0.8)])
def test_bias_moves_the_boundary(bias, low, high):
    drawn = read_as(Reader(bias, 0, 0), truth(), SPACING, nodule=4, chance=stream(0, "r"))
    assert low < (drawn == 4).sum() / (truth() == 4).sum() < high


def test_jitter_is_as_large_as_said_and_differs_between_slices():
    drawn = read_as(Reader(0, 1.5, 0), truth(), SPACING, nodule=4, chance=stream(0, "r"))
    edges = np.array([[np.flatnonzero(row)[0] for row in plane[15:45]] for plane in drawn > 0]) - 5
    assert 0.7 < edges.std() < 2.5
    assert abs(edges.mean()) < 1
    assert not np.array_equal(edges[0], edges[1])


def test_readers_differ_but_are_the_same_again():
    readers = draw_readers(3, 4, pixel_mm=1.0)
    assert readers == draw_readers(3, 4, pixel_mm=1.0)
    assert len({reader.miss for reader in readers}) == 4
    assert all(0.05 <= reader.miss <= 0.3 and reader.jitter_mm >= 0.8 for reader in readers)
