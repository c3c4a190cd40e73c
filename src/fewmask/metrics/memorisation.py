"""Does a generator hand out its training images? Every image's nearest one, and which are copies of it.

What "near" means is told by real images of other patients: no generated image has a reason to be nearer to a
training image than they are. There are two distances. The one by pixels does not mind what a copier may do to
an image without making it a new one: shifts by a few pixels, another brightness or contrast, noise, and a
flip where the training was mirrored. The other is taken between embeddings. `metrics.fidelity` tells of whole
sets by plain distances; here single copies are found.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ShapeError

Images = NDArray[np.floating]
Embed = Callable[[Images], NDArray[np.floating]]
"""Images (N, C, H, W) to vectors (N, D)."""

SIDES: Mapping[str, int] = {"fine": 32, "coarse": 16}
"""Images are compared when averaged down to about so many pixels a side, after the shift: fine ones tell
details apart, in coarse ones noise is averaged away."""
EMBEDDING = "embedding"
PART = 0.75
"""A copy is nearer than this part of what 19 of 20 held-out images keep."""
FEWEST = 20
"""Fewer held-out images do not tell what is usual."""
_BLOCK = 512
_FLAT = 1e-3
"""Images of a smaller deviation than this, in units of [-1, 1], are not stretched to unit deviation."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest training image of each of N images: its row (N,) and the distance to it (N,)."""

    row: NDArray[np.intp]
    distance: NDArray[np.float32]


def nearest_shifted(
    images: Images, training: Images, *, side: int, shift: int = 2, mirror: bool = False
) -> Nearest:
    """The nearest training image (M, C, H, W) of each image (N, C, H, W), over all small shifts.

    Both are cut by `shift` pixels at each border, one of them at every place that this leaves, averaged down
    to about `side` pixels, and brought to mean 0 and deviation 1. The distance is the root mean square
    difference then: 0 for the same image in another brightness and contrast, about 1.4 for unrelated ones.
    `mirror`: training images are also looked at flipped left to right.
    """
    height, width = images.shape[2:]
    if training.shape[1:] != images.shape[1:] or min(height, width) <= 2 * shift:
        raise ShapeError(
            "images cannot be compared",
            found=f"{images.shape[1:]}, cut by {shift}",
            expected=f"{training.shape[1:]}, larger than what is cut",
        )
    mine = _seen(images, shift, shift, shift, side)
    best = np.full(len(images), np.inf, dtype=np.float32)
    row = np.zeros(len(images), dtype=np.intp)
    for flipped in (training, training[..., ::-1])[: 2 if mirror else 1]:
        for y in range(2 * shift + 1):
            for x in range(2 * shift + 1):
                theirs = _seen(flipped, y, x, shift, side)
                for part, squares in _squares(mine, theirs):
                    near = squares.argmin(axis=1)
                    least = squares[np.arange(len(near)), near]
                    better = least < best[part]
                    row[part][better], best[part][better] = near[better], least[better]
    return Nearest(row, np.sqrt(best.clip(min=0)))


def _seen(images: Images, y: int, x: int, shift: int, side: int) -> NDArray[np.float32]:
    """Part of the images from (y, x), averaged down and standardised: (N, P)."""
    height, width = (size - 2 * shift for size in images.shape[2:])
    block = max(1, min(height, width) // side)
    height, width = height // block * block, width // block * block
    cut = np.asarray(images[:, :, y : y + height, x : x + width], dtype=np.float32)
    blocks = cut.reshape(*cut.shape[:2], height // block, block, width // block, block)
    flat = blocks.mean(axis=(3, 5)).reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.square(flat).mean(axis=1, keepdims=True))
    return np.asarray(flat / deviation.clip(min=_FLAT), dtype=np.float32)


def _squares(
    mine: NDArray[np.float32], theirs: NDArray[np.float32]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Mean square differences of vectors (N, P) and (M, P), a block of rows at a time."""
    length = np.square(theirs).mean(axis=1)
    for first in range(0, len(mine), _BLOCK):
        part = slice(first, first + _BLOCK)
        own = np.square(mine[part]).mean(axis=1)
        yield part, own[:, None] + length[None] - (2 / mine.shape[1]) * (mine[part] @ theirs.T)


def _nearest_vector(vectors: NDArray[np.float32], training: NDArray[np.float32]) -> Nearest:
    found = [(squares.argmin(axis=1), squares.min(axis=1)) for _, squares in _squares(vectors, training)]
    row, least = (np.concatenate(each) for each in zip(*found, strict=True))
    return Nearest(row, np.sqrt(least.clip(min=0)))


def too_near(held_out: NDArray[np.floating], part: float = PART) -> float:
    """`part` of the distance to the nearest training image that 19 of 20 held-out images keep."""
    return float(np.quantile(held_out, 0.05)) * part


@dataclass(frozen=True, eq=False)
class CopyDetector:
    """Finds copies of training images. Made by `CopyDetector.of`.

    An image is a copy when it is nearer to some training image than `thresholds` by any of the distances
    "fine" and "coarse" (by pixels, see `SIDES`) and, with an embedding, "embedding".

    Limits, by pixels alone at 64 pixels a side, on chest films, slices of gliomas (one and three sequences)
    and crops of lung nodules, patients apart, each image stretched to [-1, 1] (`data.intensity`):

    * found, 99 to 100 % of each: exact copies, shifts by 1-2 pixels, flips, brightness by 0.2, contrast by a
      quarter, gamma 0.7 and 1.4, noise of 0.05 to 0.2, blur of 1 pixel, 8 bit; 95 % or more: shifts by half a
      pixel, turned by 2 degrees;
    * found in part: noise of 0.3 (33 to 96 %), blur of 1.5 pixels (25 to 100 %), turned by 3 degrees (42 to
      94 %) or 5 (3 to 56 %), enlarged by 3 % (33 to 98 %) or 6 % (7 to 76 %), shifts by 3 pixels (8 to 93 %);
    * missed: shifts by 4 pixels (0 to 21 % found); a larger `shift` looks for them;
    * images that are not stretched: noise hides a copy as soon as it is about as strong as the image's own
      contrast. Films as they are stored (median deviation 0.17) were found in 98 % with noise of 0.05, in
      50 % with 0.1 and in 11 % with 0.2. `planted.plant_copies` tells what is found on the images at hand.

    Of images of patients who set no threshold 0 to 0.5 % were called copies.
    """

    training: Images
    embed: Embed | None
    vectors: NDArray[np.float32] | None
    mirror: bool
    shift: int
    thresholds: Mapping[str, float]
    held_out: Mapping[str, NDArray[np.float32]]
    """The distances of the held-out images."""
    false_alarms: float = 0.01
    """What the thresholds were taken for."""

    @classmethod
    def of(
        cls,
        training: Images,
        held_out: Images,
        *,
        embed: Embed | None = None,
        mirror: bool = False,
        shift: int = 2,
        false_alarms: float = 0.01,
    ) -> "CopyDetector":
        """Take the thresholds from images that cannot be copies.

        Args:
            training: (M, C, H, W) in [-1, 1], all that the generator has seen.
            held_out: (H, C, H, W) real images of other patients, at least `FEWEST`.
            embed: images to vectors, learned from the training images.
            mirror: whether the generator learned from flipped images too.
            shift: pixels by which a copy may be shifted.
            false_alarms: at most this share of the held-out images counts as copies, whatever `PART` is.

        Raises:
            ShapeError: too few held-out images, or images of different shapes.
        """
        if len(held_out) < FEWEST or not len(training):
            raise ShapeError(
                "too few images to tell copies by",
                found=f"{len(training)} training images, {len(held_out)} held out",
                expected=f"at least 1 and {FEWEST}",
            )
        vectors = None if embed is None else np.asarray(embed(training), dtype=np.float32)
        blank = cls(training, embed, vectors, mirror, shift, {}, {})
        distances = {name: found.distance for name, found in blank.nearest(held_out).items()}
        thresholds = thresholds_of(distances, false_alarms)
        return cls(training, embed, vectors, mirror, shift, thresholds, distances, false_alarms)

    def nearest(self, images: Images) -> dict[str, Nearest]:
        """The nearest training image of each image (N, C, H, W), N at least 1, by every distance."""
        found = {
            name: nearest_shifted(images, self.training, side=side, shift=self.shift, mirror=self.mirror)
            for name, side in SIDES.items()
        }
        if self.embed is not None and self.vectors is not None:
            ways = [images, images[..., ::-1]] if self.mirror else [images]
            looked = [np.asarray(self.embed(way), dtype=np.float32) for way in ways]
            first, *flipped = (_nearest_vector(one, self.vectors) for one in looked)
            for other in flipped:
                better = other.distance < first.distance
                first = Nearest(
                    np.where(better, other.row, first.row), np.minimum(first.distance, other.distance)
                )
            found[EMBEDDING] = first
        return found

    def is_copy(self, distances: Mapping[str, NDArray[np.float32]]) -> NDArray[np.bool_]:
        """Which images (N,) are copies, by their distances."""
        return copies_below(distances, self.thresholds)


def thresholds_of(held_out: Mapping[str, NDArray[np.floating]], false_alarms: float) -> dict[str, float]:
    """Below which distance an image is a copy, by the distances (H,) of held-out images.

    `false_alarms`: share of them that may lie below any of the thresholds.
    """
    each = false_alarms / len(held_out)
    return {
        name: min(too_near(known), float(np.quantile(known, each, method="lower")))
        for name, known in held_out.items()
    }


def copies_below(
    distances: Mapping[str, NDArray[np.floating]], thresholds: Mapping[str, float]
) -> NDArray[np.bool_]:
    """Which images (N,) are nearer to a training image than any of the thresholds."""
    below = [distances[name] < threshold for name, threshold in thresholds.items()]
    return np.asarray(np.any(below, axis=0))


@dataclass(frozen=True, eq=False)
class Memorisation:
    """What became of every generated image, against held-out real ones.

    nearest: by every distance, the training image nearest to each generated image; held_out: distances of
    held-out images to theirs; thresholds: below which an image is a copy; copies: rows of the generated
    images that are; held_out_copies: share of the held-out images that would be, 0-1.
    """

    nearest: Mapping[str, Nearest]
    held_out: Mapping[str, NDArray[np.float32]]
    thresholds: Mapping[str, float]
    copies: tuple[int, ...]
    held_out_copies: float

    @property
    def count(self) -> int:
        """Generated images."""
        return len(next(iter(self.nearest.values())).row)

    def numbers(self) -> dict[str, float]:
        """For a card: images, copies, and by each distance the medians, their ratio and the threshold.

        "ratio_fine" and so on: median distance of generated over that of held-out images, far below 1 when
        training images are repeated.
        """
        told = {"images": float(self.count), "copies": float(len(self.copies))}
        told["held_out_copies"] = self.held_out_copies
        for name, found in self.nearest.items():
            made, new = float(np.median(found.distance)), float(np.median(self.held_out[name]))
            told |= {f"generated_{name}": made, f"held_out_{name}": new}
            told |= {f"ratio_{name}": made / max(new, 1e-12), f"threshold_{name}": self.thresholds[name]}
        return told


def memorisation(detector: CopyDetector, blocks: Iterable[Images]) -> Memorisation:
    """Look at generated images (n, C, H, W) in [-1, 1], a block at a time; blocks of hundreds are quick.

    Raises `ShapeError` without any image.
    """
    looked = [detector.nearest(block) for block in blocks if len(block)]
    if not looked:
        raise ShapeError("no generated image to look at", found="0", expected="at least 1")
    nearest = {
        name: Nearest(
            np.concatenate([one[name].row for one in looked]),
            np.concatenate([one[name].distance for one in looked]),
        )
        for name in looked[0]
    }
    copies = detector.is_copy({name: found.distance for name, found in nearest.items()})
    alarms = float(detector.is_copy(detector.held_out).mean())
    numbers = tuple(int(number) for number in np.flatnonzero(copies))
    return Memorisation(nearest, detector.held_out, detector.thresholds, numbers, alarms)
