"""Are generated images new and varied? Distances to training images, between images, and shared regions.

Images or their embeddings: all that is asked of them is one row per image.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ShapeError
from fewmask.core.seed import stream

DRAWS = 4
"""A coverage is a mean over so many draws of which images are compared."""


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


@dataclass(frozen=True)
class Overlap:
    """How far two sets of images cover each other, each in [0, 1]."""

    precision: float
    """Share of generated images that lie where real images are."""
    recall: float
    """Share of real images that lie where generated images are."""


def overlap(real: NDArray[np.floating], generated: NDArray[np.floating], *, neighbours: int = 3) -> Overlap:
    """Improved precision and recall (Kynkaanniemi et al. 2019, equations 1-2).

    A set's region is the union of balls about its vectors, each as large as the distance to the third nearest
    other vector of the set. Give as many real as generated vectors, (N, D), N above `neighbours`.
    """
    first, second = _flat(real), _flat(generated)
    across = _distances(first, second)
    return Overlap(
        float((across <= _reach(first, neighbours)[:, None]).any(axis=0).mean()),
        float((across <= _reach(second, neighbours)[None]).any(axis=1).mean()),
    )


@dataclass(frozen=True)
class Coverage:
    """How much of unseen real images generated ones cover: recall and precision of `overlap`, 0-1.

    covered: share of the held-out real images that lie where generated images are; inside: share of the
    generated images that lie where held-out ones are; real_covered: the share that as many training images
    cover, which is what a perfect generator would get, None where it was not asked for; images: of each set,
    in one draw.
    """

    covered: float
    inside: float
    real_covered: float | None
    images: int


def coverage(
    held_out: NDArray[np.floating],
    generated: NDArray[np.floating],
    training: NDArray[np.floating] | None = None,
    *,
    neighbours: int = 3,
    seed: int = 0,
) -> Coverage:
    """Share of held-out real images that generated ones cover (Kynkaanniemi et al. 2019, recall).

    Args:
        held_out: (H, D) embeddings of real images of patients that the generator never saw.
        generated: (N, D) those of generated images.
        training: (M, D) those of the training images, for the line to read the figure beside.
        neighbours: as in `overlap`.
        seed: of the choice of images: as many of each set as the smallest has, mean over `DRAWS` draws.

    Raises:
        ShapeError: a set of no more than `neighbours` images, or vectors of different lengths.
    """
    sets = [_flat(one) for one in (held_out, generated, training) if one is not None]
    count = min(len(one) for one in sets)
    if count <= neighbours or len({one.shape[1] for one in sets}) > 1:
        raise ShapeError(
            "coverage cannot be told of these images",
            found=", ".join(f"{one.shape}" for one in sets),
            expected=f"more than {neighbours} vectors in each set, all of one length",
        )
    found = []
    for draw in range(DRAWS):
        chance = stream(seed, "coverage", draw)
        new, made, *seen = (one[chance.permutation(len(one))[:count]] for one in sets)
        shared = overlap(new, made, neighbours=neighbours)
        real = [overlap(new, one, neighbours=neighbours).recall for one in seen]
        found.append((shared.recall, shared.precision, *real))
    covered, inside, *real_covered = np.mean(found, axis=0).tolist()
    return Coverage(covered, inside, real_covered[0] if real_covered else None, count)


def nearest(images: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square distance of each image (N, D) to the nearest of `others` (M, D); (N,)."""
    return np.asarray(_distances(images, others).min(axis=1))


def nearest_other(images: NDArray[np.floating]) -> NDArray[np.float64]:
    """Root mean square distance of each image (N, ...) to the nearest other image of the set; (N,)."""
    return _reach(_flat(images), 1)


def spread(images: NDArray[np.floating]) -> float:
    """Mean root mean square distance between two different images of a set (N, ...), N at least 2."""
    return float(_pairs(_flat(images)).mean())


def texture(images: NDArray[np.floating]) -> NDArray[np.float64]:
    """How sharp, grainy and bright images (N, C, H, W) are, whatever they show: (N, C x (levels + 2)).

    Per channel the logarithm of the root mean square of what each halving of the size takes away (details of
    1, 2, 4, ... pixels, down to 4 pixels a side), then of what is left, then the mean. An encoder learns to
    overlook these; blurred or noisy generators differ in them first.
    """
    values = np.asarray(images, dtype=np.float64)
    mean = values.mean(axis=(2, 3))
    found = []
    while min(values.shape[2:]) >= 8:
        even = values[:, :, : values.shape[2] // 2 * 2, : values.shape[3] // 2 * 2]
        blocks = even.reshape(*even.shape[:2], even.shape[2] // 2, 2, even.shape[3] // 2, 2)
        values = blocks.mean(axis=(3, 5))
        found.append((blocks - values[:, :, :, None, :, None]).reshape(even.shape))
    found.append(values - mean[:, :, None, None])
    logs = [np.log(np.sqrt((one**2).mean(axis=(2, 3))) + 1e-3) for one in found]
    return np.concatenate([*logs, mean], axis=1)


def _reach(vectors: NDArray[np.float64], neighbours: int) -> NDArray[np.float64]:
    """Distance of each vector (N, D) to its nearest, second nearest ... other vector; (N,)."""
    distances = _distances(vectors, vectors)
    np.fill_diagonal(distances, np.inf)
    which = min(neighbours, len(vectors) - 1) - 1
    return np.asarray(np.partition(distances, which, axis=1)[:, which])


def _flat(images: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(images, dtype=np.float64).reshape(len(images), -1)


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2.0 * a @ b.T
    return np.asarray(np.sqrt(squares.clip(min=0.0) / a.shape[1]))


def _pairs(images: NDArray[np.float64]) -> NDArray[np.float64]:
    upper = np.triu_indices(len(images), k=1)
    return np.asarray(_distances(images, images)[upper])
