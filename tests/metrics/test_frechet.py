"""Distances of two samples: closed forms, invariances, and what they do with few samples."""

import numpy as np
import pytest

from fewmask.core.seed import stream
from fewmask.metrics.frechet import frechet, frechet_of_gaussians, kernel, whitening


def sample(name: str, count: int, dim: int) -> np.ndarray:
    return stream(0, "frechet", name).normal(size=(count, dim))


def turn(dim: int) -> np.ndarray:
    return np.linalg.qr(sample("turn", dim, dim))[0]


def test_gaussians_with_a_closed_form():
    # commuting covariances: |m|^2 + sum (s_a - s_b)^2 over the standard deviations
    a, b = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 1.0])
    mean = np.array([1.0, -2.0, 0.5])
    q = turn(3)
    found = frechet_of_gaussians(np.zeros(3), q @ np.diag(a**2) @ q.T, mean, q @ np.diag(b**2) @ q.T)
    assert found == pytest.approx((mean**2).sum() + ((a - b) ** 2).sum(), rel=1e-7)


def test_two_dimensions_that_do_not_commute():
    # in two dimensions tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)), M = S_a S_b
    a, b = np.array([[2.0, 0.8], [0.8, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])
    product = a @ b
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    zero = np.zeros(2)
    assert frechet_of_gaussians(zero, a, zero, b) == pytest.approx(np.trace(a) + np.trace(b) - 2 * root)


def test_one_coordinate_is_a_difference_of_means_and_deviations():
    a, b = sample("a", 50, 1), 3 * sample("b", 40, 1) + 2
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("count", [5, 200])  # 5: fewer samples than coordinates, singular covariances
def test_equal_samples_symmetry_turns_and_shifts(count):
    a, b = sample("a", count, 16), 1.5 * sample("b", count, 16)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-6)
    assert frechet(a @ turn(16) + 7, b @ turn(16) + 7) == pytest.approx(frechet(a, b), rel=1e-6)
    assert frechet(3 * a, 3 * b) == pytest.approx(9 * frechet(a, b), rel=1e-6)
    assert frechet(a, b[::-1].astype(np.float32)) == pytest.approx(frechet(a, b), rel=1e-5)


def test_the_same_kind_is_not_zero_with_few_samples_hence_the_floor():
    few, many = (frechet(sample("a", n, 16), sample("b", n, 16)) for n in (40, 640))
    assert few > 8 * many


def _by_loops(a, b):
    n, m, d = len(a), len(b), a.shape[1]

    def k(x, y):
        return (float(x @ y) / d + 1) ** 3

    own = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    other = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return own + other - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


def test_kernel_distance_by_loops_and_for_turned_samples():
    a, b = sample("a", 9, 4), sample("b", 7, 4) + 0.5
    assert kernel(a, b).value == pytest.approx(_by_loops(a, b))
    assert kernel(a @ turn(4), b @ turn(4)).value == pytest.approx(kernel(a, b).value)


def test_kernel_distance_is_unbiased_and_knows_its_error():
    same = [kernel(sample(f"a{n}", 24, 8), sample(f"b{n}", 24, 8)) for n in range(300)]
    values = np.array([one.value for one in same])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
    assert (values < 0).any()
    errors = np.array([one.error for one in same])
    assert 0.8 < errors.mean() / values.std() < 3
    # what the mean of a cubic kernel is for a shifted Gaussian grows with the shift
    shifted = [kernel(sample("a", 200, 8), sample("b", 200, 8) + s).value for s in (0.0, 0.3, 0.6)]
    assert shifted[0] < shifted[1] < shifted[2]


def test_whitened_vectors_have_unit_covariance_and_count_faint_directions():
    a = sample("a", 80, 6) * np.array([100, 10, 1, 0.1, 0.0, 0.0]) + 5
    white = whitening(a, 6)
    assert white.matrix.shape == (6, 4)  # two coordinates never change
    assert np.cov(white(a), rowvar=False) == pytest.approx(np.eye(4), abs=1e-8)
    assert white(a).mean(axis=0) == pytest.approx(0, abs=1e-8)
    assert whitening(a, 2).matrix == pytest.approx(white.matrix[:, :2])
    assert whitening(np.ones((8, 3)), 3)(np.zeros((2, 3))).shape == (2, 0)
