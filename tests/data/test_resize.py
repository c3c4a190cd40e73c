import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmask.core.volume import IGNORE
from fewmask.data.resize import operator, resize_labels, resize_plane, resize_probabilities, resize_slices

SIZES = st.integers(1, 40)


@given(SIZES, SIZES)
@settings(max_examples=60, deadline=None)
def test_operator_averages_and_stays_on_the_grid(source, target):
    matrix = operator(source, target)
    assert matrix.shape == (target, source)
    assert np.allclose(matrix.sum(axis=1), 1, atol=1e-6)
    assert matrix.data.min() > 0
    # A ramp in physical position stays the same ramp: exactly when enlarging (but for the clamped ends) and
    # for whole factors, within an eighth of a source voxel otherwise; its mean never moves.
    ramp = (np.arange(source, dtype=np.float32) + 0.5) / source
    wanted = np.clip((np.arange(target) + 0.5) / target, ramp[0], ramp[-1])
    exact = target >= source or source % target == 0
    assert np.abs(matrix @ ramp - wanted).max() <= (0 if exact else 0.125 / source) + 1e-5
    assert np.mean(matrix @ ramp) == pytest.approx(0.5, abs=1e-5)


def test_shrinking_is_the_mean_of_the_covered_area():
    plane = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert np.allclose(resize_plane(plane, (2, 3)), plane.reshape(2, 2, 3, 2).mean(axis=(1, 3)))
    assert np.allclose(operator(5, 2).toarray(), [[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]])


def test_resize_slices_equals_one_matrix_per_axis():
    volume = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7) ** 1.5
    out = np.empty((3, 9, 4), dtype=np.float32)
    resize_slices(lambda z: volume[z].copy(), (5, 6, 7), out)
    matrices = [operator(a, b).toarray() for a, b in zip((5, 6, 7), (3, 9, 4), strict=True)]
    assert np.allclose(out, np.einsum("zyx,az,by,cx->abc", volume, *matrices), rtol=1e-5)


def test_labels_take_the_largest_share_and_keep_ignore():
    labels = np.array(
        [[[7, 7, 0, 0], [7, 3, 0, IGNORE], [0, 0, IGNORE, IGNORE], [0, 0, 9, 0]]], dtype=np.uint8
    )
    assert resize_labels(labels, (1, 2, 2)).tolist() == [[[7, 0], [0, IGNORE]]]


def test_on_a_tie_background_loses_and_can_be_made_to_weigh_less():
    labels = np.array([[[1, 1, 0, 0, 0]]], dtype=np.uint8)
    assert resize_labels(labels[..., :4], (1, 1, 1)).item() == 1
    assert resize_labels(labels, (1, 1, 1)).item() == 0
    assert resize_labels(labels, (1, 1, 1), background=0.5).item() == 1


def test_probabilities_agree_with_one_hot_labels():
    labels = (np.indices((4, 8, 8)).sum(axis=0) // 4 % 3).astype(np.uint8)
    one_hot = np.stack([labels == k for k in range(3)]).astype(np.float32)
    out = resize_probabilities(one_hot, (6, 13, 16), [0, 1, 2])
    assert (out == resize_labels(labels, (6, 13, 16))).mean() > 0.95  # ties only
    renamed = resize_probabilities(one_hot, (6, 13, 16), [0, 5, 255])
    assert np.array_equal(renamed, np.array([0, 5, 255], dtype=np.uint8)[out])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_probabilities_of_any_float_type(dtype):
    probabilities = np.array([0.4, 0.6], dtype=dtype).reshape(2, 1, 1, 1)
    assert resize_probabilities(probabilities, (2, 3, 3), [0, 4]).tolist() == [[[4] * 3] * 3] * 2
