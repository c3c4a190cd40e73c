"""Planted copies are found, and images of other patients are not called copies."""

import numpy as np
import pytest
from scipy import ndimage

from fewmask.core.errors import ShapeError
from fewmask.core.seed import stream
from fewmask.metrics.memorisation import CopyDetector, memorisation, nearest_shifted, too_near

SIZE = 36


def patients(name, count, size=SIZE):
    """Images that share an anatomy, each with its own large and small deviations from it."""

    def smooth(chance, sigma):
        field = ndimage.gaussian_filter(chance.normal(size=(size, size)), sigma, mode="wrap")
        return field / field.std()

    shared = smooth(stream(0, "anatomy"), 4)
    found = []
    for number in range(count):
        chance = stream(0, name, number)
        found.append(0.3 * shared + 0.15 * smooth(chance, 3) + 0.08 * smooth(chance, 1))
    return np.clip(found, -1, 1)[:, None].astype(np.float32)


def embed(images):
    """Edges rather than brightness, at a quarter of the size."""
    small = images[:, 0].reshape(len(images), SIZE // 4, 4, SIZE // 4, 4).mean(axis=(2, 4))
    return np.diff(small, axis=1).reshape(len(images), -1)


TRAIN, HELD_OUT, FRESH = patients("train", 120), patients("held out", 100), patients("fresh", 200)
NOISE = stream(0, "noise").normal(size=TRAIN.shape)
PLANTED = {
    "identical": TRAIN,
    "noisy": TRAIN + 0.05 * NOISE,
    "very noisy": TRAIN + 0.1 * NOISE,
    "shifted by 1": np.roll(TRAIN, (1, 1), axis=(2, 3)),
    "shifted by 2": np.roll(TRAIN, (-2, 2), axis=(2, 3)),
    "brighter": TRAIN + 0.2,
    "less contrast": 0.7 * TRAIN - 0.1,
    "blurred": ndimage.gaussian_filter(TRAIN, (0, 0, 0.7, 0.7)),
    "flipped": TRAIN[..., ::-1],
    "all of it": np.roll(0.8 * TRAIN[..., ::-1] + 0.1, (2, -1), axis=(2, 3)) + 0.05 * NOISE,
}


@pytest.fixture(scope="module")
def detector():
    return CopyDetector.of(TRAIN, HELD_OUT, embed=embed, mirror=True)


@pytest.mark.parametrize("how", PLANTED)
def test_planted_copies_are_found_with_their_originals(detector, how):
    found = memorisation(detector, [PLANTED[how][:50], PLANTED[how][50:]])
    assert found.count == 120
    assert len(found.copies) >= 0.99 * 120
    assert (found.nearest["fine"].row == np.arange(120)).mean() >= 0.99


def test_planted_copies_are_found_by_pixels_alone():
    detector = CopyDetector.of(TRAIN, HELD_OUT, mirror=True)
    assert set(detector.thresholds) == {"fine", "coarse"}
    planted = np.concatenate([PLANTED["very noisy"][:60], PLANTED["all of it"][60:]])
    assert len(memorisation(detector, [planted]).copies) >= 0.99 * 120


def test_other_patients_are_no_copies(detector):
    found = memorisation(detector, [FRESH])
    assert len(found.copies) <= 0.01 * len(FRESH)
    assert found.held_out_copies <= 0.01
    told = found.numbers()
    assert told["ratio_fine"] == pytest.approx(1, abs=0.1)
    assert told["ratio_embedding"] == pytest.approx(1, abs=0.1)
    assert told["copies"] == len(found.copies)


def test_copies_among_new_images_are_named(detector):
    mixed = np.concatenate([FRESH[:5], TRAIN[7:8], FRESH[5:8], TRAIN[3:4]])
    found = memorisation(detector, [mixed])
    assert found.copies == (5, 9)
    assert found.nearest["coarse"].row[[5, 9]].tolist() == [7, 3]


def test_flips_are_copies_only_where_the_training_was_mirrored():
    detector = CopyDetector.of(TRAIN, HELD_OUT)
    assert not memorisation(detector, [PLANTED["flipped"]]).copies


def test_a_larger_shift_is_tolerated_only_on_demand(detector):
    far = np.roll(TRAIN[:40], 4, axis=3)
    assert len(memorisation(detector, [far]).copies) < 20
    wide = CopyDetector.of(TRAIN, HELD_OUT, shift=4)
    assert len(memorisation(wide, [far]).copies) == 40


def test_the_share_of_false_alarms_is_kept():
    near = np.concatenate([TRAIN[:10] + 0.02 * NOISE[:10], HELD_OUT[:90]])
    # a tenth of the "held-out" images are copies themselves: the threshold goes below them
    strict = CopyDetector.of(TRAIN, near, false_alarms=0.02)
    assert memorisation(strict, [TRAIN[:1]]).held_out_copies <= 0.02
    assert len(memorisation(strict, [FRESH]).copies) == 0


def test_distances_by_hand():
    chance = stream(0, "hand")
    images = chance.normal(size=(3, 2, 12, 12))
    found = nearest_shifted(images, np.roll(images, 1, axis=0)[..., ::-1], side=8, shift=2, mirror=True)
    assert found.row.tolist() == [1, 2, 0]
    assert found.distance == pytest.approx(0, abs=2e-3)
    plain = nearest_shifted(images[:1], images[1:2], side=8, shift=0).distance[0]
    a, b = ((one - one.mean()) / one.std() for one in images[:2])
    assert plain == pytest.approx(np.sqrt(((a - b) ** 2).mean()), rel=1e-5)
    flat = nearest_shifted(np.zeros((1, 1, 8, 8)), np.full((1, 1, 8, 8), 0.5), side=8).distance
    assert flat == pytest.approx(0)
    assert too_near(np.arange(21.0)) == pytest.approx(0.75)


def test_what_cannot_be_compared_is_refused(detector):
    with pytest.raises(ShapeError, match="too few"):
        CopyDetector.of(TRAIN, HELD_OUT[:5])
    with pytest.raises(ShapeError, match="compared"):
        detector.nearest(np.zeros((1, 2, SIZE, SIZE)))
    with pytest.raises(ShapeError, match="no generated"):
        memorisation(detector, [])
