"""How far two sets of images are apart, measured on one vector per image: Frechet and kernel distance.

Both are for vectors (N, D) of any encoder and compute in float64. The Frechet distance of two samples of the
same kind is not 0 but of the order of D / N: compare only values of the same number of samples, and read them
against the distance between two samples of real images of that size. The kernel distance has no such bias.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def frechet(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Frechet distance of the Gaussians fitted to vectors (N, D) and (M, D) (Heusel et al. 2017, equation 6).

    In squared units of the vectors, at least 0. Any N, M of at least 2 will do, also below D.
    """
    first, second = _samples(a), _samples(b)
    return frechet_of_gaussians(
        first.mean(axis=0), _covariance(first), second.mean(axis=0), _covariance(second)
    )


def frechet_of_gaussians(mean_a: Float, covariance_a: Float, mean_b: Float, covariance_b: Float) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2); means (D,), covariances (D, D).

    The square root is of a symmetric matrix, by its eigenvalues: that of S_a S_b, which is usually taken, is
    unstable when the covariances are singular.
    """
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    middle = root @ covariance_b @ root
    common = np.sqrt(np.linalg.eigvalsh((middle + middle.T) / 2).clip(min=0.0)).sum()
    apart = ((mean_a - mean_b) ** 2).sum()
    return max(float(apart + np.trace(covariance_a) + np.trace(covariance_b) - 2 * common), 0.0)


@dataclass(frozen=True)
class KernelDistance:
    """A squared maximum mean discrepancy and its standard error."""

    value: float
    """Unbiased, hence around 0 (and as often below) for two samples of the same kind."""
    error: float
    """Standard error over disjoint blocks; an upper estimate, since `value` also uses pairs across blocks."""


def kernel(a: NDArray[np.floating], b: NDArray[np.floating], *, blocks: int = 8) -> KernelDistance:
    """Kernel distance with k(x, y) = (x.y / D + 1)^3 (Binkowski et al. 2018, section 4 and equation 4).

    Args:
        a: vectors (N, D), N at least 4.
        b: vectors (M, D), M at least 4.
        blocks: in how many blocks of rows the standard error is measured; fewer where a block would hold less
            than two vectors.
    """
    first, second = _samples(a), _samples(b)
    within_a, within_b, across = _cubic(first, first), _cubic(second, second), _cubic(first, second)
    blocks = max(min(blocks, len(first) // 2, len(second) // 2), 2)
    cuts = zip(
        np.array_split(np.arange(len(first)), blocks),
        np.array_split(np.arange(len(second)), blocks),
        strict=True,
    )
    parts = [
        _discrepancy(within_a[np.ix_(i, i)], within_b[np.ix_(j, j)], across[np.ix_(i, j)]) for i, j in cuts
    ]
    error = float(np.std(parts, ddof=1) / np.sqrt(blocks))
    return KernelDistance(_discrepancy(within_a, within_b, across), error)


@dataclass(frozen=True, eq=False)
class Whitening:
    """A map of vectors (N, D) to (N, K): the K strongest directions of a sample, each of variance 1."""

    centre: Float
    """(D,)."""
    matrix: Float
    """(D, K)."""

    def __call__(self, vectors: NDArray[np.floating]) -> Float:
        """(N, D) -> (N, K) in standard deviations of the sample."""
        return (_samples(vectors) - self.centre) @ self.matrix


def whitening(vectors: NDArray[np.floating], most: int) -> Whitening:
    """Directions of (N, D) by its singular values; at most `most` of them, and fewer where N has none left.

    Distances in whitened vectors count every way in which real images differ alike, however faint.
    """
    values = _samples(vectors)
    centre = values.mean(axis=0)
    _, strength, directions = np.linalg.svd(values - centre, full_matrices=False)
    kept = min(most, int((strength > 1e-6 * max(strength[0], 1e-12)).sum()))
    deviation = strength[:kept] / np.sqrt(len(values) - 1)
    return Whitening(centre, directions[:kept].T / deviation)


def _discrepancy(within_a: Float, within_b: Float, across: Float) -> float:
    """Equation 4: means over pairs of different vectors, minus twice the mean over pairs from both sides."""
    n, m = len(within_a), len(within_b)
    own = (within_a.sum() - np.trace(within_a)) / (n * (n - 1))
    other = (within_b.sum() - np.trace(within_b)) / (m * (m - 1))
    return float(own + other - 2 * across.mean())


def _cubic(a: Float, b: Float) -> Float:
    return np.asarray((a @ b.T / a.shape[1] + 1.0) ** 3)


def _covariance(vectors: Float) -> Float:
    return np.cov(vectors, rowvar=False).reshape(vectors.shape[1], -1)


def _samples(vectors: NDArray[np.floating]) -> Float:
    """(N, D) in float64."""
    values = np.asarray(vectors, dtype=np.float64)
    assert values.ndim == 2, f"vectors are (N, D), not {values.shape}"
    return values
