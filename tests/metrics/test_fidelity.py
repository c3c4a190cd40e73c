"""Copies and collapse are told apart from new and varied images."""

import numpy as np
import pytest

from fewmask.core.seed import stream
from fewmask.metrics.fidelity import nearest, novelty


def images(name: str, count: int = 40) -> np.ndarray:
    return stream(0, "fidelity", name).normal(0, 0.4, (count, 1, 8, 8))


def test_distances_by_hand():
    a, b = np.zeros((1, 4)), np.array([[1.0, 1, 1, 1], [0, 0, 0, 2]])
    assert nearest(a, b) == pytest.approx([1.0])


def test_new_images_are_neither_copies_nor_collapsed():
    found = novelty(images("made"), images("train"), images("held out"))
    assert found.copying == pytest.approx(1, abs=0.1)
    assert found.variety == pytest.approx(1, abs=0.1)


def test_planted_copies_are_found():
    train = images("train")
    found = novelty(train[:20] + 0.01 * images("noise", 20), train, images("held out"))
    assert found.copying < 0.1


def test_a_collapsed_generator_is_found():
    one = np.repeat(images("made", 1), 20, axis=0) + 0.01 * images("noise", 20)
    assert novelty(one, images("train"), images("held out")).variety < 0.1
