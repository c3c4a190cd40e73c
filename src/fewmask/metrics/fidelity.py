"""Are generated images new, and do they differ from one another? Plain pixel distances, no network."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Novelty:
    """Root mean square distances per pixel, medians over images, in units of the images' [-1, 1] range."""

    generated_to_training: float
    """From a generated image to the nearest training image."""
    held_out_to_training: float
    """From a real image that was not trained on to the nearest training image: what new looks like."""
    generated_spread: float
    """Between two generated images."""
    real_spread: float
    """Between two training images."""

    @property
    def copying(self) -> float:
        """generated_to_training / held_out_to_training: far below 1 when training images are repeated."""
        return self.generated_to_training / max(self.held_out_to_training, 1e-12)

    @property
    def variety(self) -> float:
        """generated_spread / real_spread: near 0 when the generator has collapsed."""
        return self.generated_spread / max(self.real_spread, 1e-12)


def novelty(
    generated: NDArray[np.floating], training: NDArray[np.floating], held_out: NDArray[np.floating]
) -> Novelty:
    """Compare generated, training and held-out images, each (N, C, H, W) of one size, N at least 2."""
    made, seen, new = (_flat(images) for images in (generated, training, held_out))
    return Novelty(
        float(np.median(nearest(made, seen))),
        float(np.median(nearest(new, seen))),
        float(np.median(_pairs(made))),
        float(np.median(_pairs(seen))),
    )


def nearest(images: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square distance of each image (N, D) to the nearest of `others` (M, D); (N,)."""
    return np.asarray(_distances(images, others).min(axis=1))


def _flat(images: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(images, dtype=np.float64).reshape(len(images), -1)


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2.0 * a @ b.T
    return np.asarray(np.sqrt(squares.clip(min=0.0) / a.shape[1]))


def _pairs(images: NDArray[np.float64]) -> NDArray[np.float64]:
    upper = np.triu_indices(len(images), k=1)
    return np.asarray(_distances(images, images)[upper])
