"""Does a copy detector find copies? Copies of training images are planted, changed as a copier may.

A detector that finds none among generated images has said something only when it finds those that are known
to be there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.core.seed import stream
from fewmask.metrics.memorisation import CopyDetector, Images, copies_below, thresholds_of

REQUIRED = 0.99
"""A detector is proven when it finds at least this share of every kind of planted copy."""
NOISE = 0.05
"""Standard deviation of the noise that is added, in units of [-1, 1]."""
BRIGHTNESS, CONTRAST = 0.2, 0.25
"""Largest grey level added, in units of [-1, 1], and largest change of the contrast about the mean."""
SHIFTS = (1, 2)
"""Pixels by which copies are shifted."""

Change = Callable[[Images, np.random.Generator], Images]


@dataclass(frozen=True)
class Planted:
    """How many planted copies a detector found.

    found: share of each kind of change, 0-1; copies: of each kind.
    """

    found: Mapping[str, float]
    copies: int

    @property
    def share(self) -> float:
        """Of all planted copies, the share that was found."""
        return sum(self.found.values()) / len(self.found)

    @property
    def proven(self) -> bool:
        """Whether `REQUIRED` of every kind was found."""
        return min(self.found.values()) >= REQUIRED


def changes(mirror: bool) -> dict[str, Change]:
    """What is done to images (N, C, H, W) in [-1, 1] by each kind of planted copy, flips where `mirror`."""
    kinds: dict[str, Change] = {
        "exact": lambda images, _: images,
        "shifted": _shifted,
        "brightness": lambda images, chance: images + _uniform(chance, images, BRIGHTNESS),
        "contrast": _contrast,
        "noise": lambda images, chance: images + chance.normal(scale=NOISE, size=images.shape),
        "8 bit": lambda images, _: np.rint((images + 1) * 127.5) / 127.5 - 1,
    }
    return {**kinds, "flipped": lambda images, _: images[..., ::-1]} if mirror else kinds


def plant(images: Images, change: Change, *, seed: int, kind: str = "") -> NDArray[np.float32]:
    """Changed copies of images (N, C, H, W), clipped to [-1, 1] as a generator's are; fixed by seed, kind."""
    changed = change(np.asarray(images, dtype=np.float64), stream(seed, "planted", kind))
    return np.asarray(np.clip(changed, -1, 1), dtype=np.float32)


def plant_copies(detector: CopyDetector, *, most: int = 200, seed: int = 0) -> Planted:
    """Plant copies of training images of every kind in `changes`, and count those the detector finds.

    Args:
        detector: flips are planted where it was told that the training was mirrored.
        most: copies of each kind, a random choice of the training images where there are more.
        seed: of the choice and the changes.

    Raises `ConfigError` when no copy is asked for.
    """
    if most < 1:
        raise ConfigError("at least one copy must be planted", found=f"most={most}")
    training = detector.training
    chosen = stream(seed, "planted", "choice").permutation(len(training))[:most]
    originals = training[np.sort(chosen)]
    found = {}
    for kind, change in changes(detector.mirror).items():
        near = detector.nearest(plant(originals, change, seed=seed, kind=kind))
        copies = detector.is_copy({name: one.distance for name, one in near.items()})
        found[kind] = float(copies.mean())
    return Planted(found, len(originals))


def false_alarms(detector: CopyDetector, patients: NDArray[np.generic], *, folds: int = 5) -> float:
    """Share of held-out images that count as copies by thresholds of other held-out patients, 0-1.

    `Memorisation.held_out_copies` looks at the images that the thresholds were taken from, where few alarms
    are sure; here each fold of the patients is judged by the others.

    Args:
        detector: with its held-out distances.
        patients: (H,) whose image each held-out one is, in the order given to `CopyDetector.of`.
        folds: at least 2; at most as many as there are patients are used.

    Raises:
        ShapeError: not one patient per held-out image, or fewer than two.
    """
    names = np.unique(patients)
    count = len(next(iter(detector.held_out.values())))
    if len(patients) != count or len(names) < 2 or folds < 2:
        raise ShapeError(
            "false alarms cannot be counted",
            found=f"{len(patients)} names of {len(names)} patients, {folds} folds",
            expected=f"{count} names, one per held-out image, of at least 2 patients",
        )
    alarms = 0
    for fold in range(min(folds, len(names))):
        mine = np.isin(patients, names[fold :: min(folds, len(names))])
        known = {name: distances[~mine] for name, distances in detector.held_out.items()}
        asked = {name: distances[mine] for name, distances in detector.held_out.items()}
        alarms += int(copies_below(asked, thresholds_of(known, detector.false_alarms)).sum())
    return alarms / count


def _uniform(chance: np.random.Generator, images: Images, most: float) -> NDArray[np.float64]:
    """One number per image, from -most to most, shaped to be added to it."""
    return chance.uniform(-most, most, size=(len(images), 1, 1, 1))


def _contrast(images: Images, chance: np.random.Generator) -> Images:
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return np.asarray(mean + (images - mean) * (1 + _uniform(chance, images, CONTRAST)))


def _shifted(images: Images, chance: np.random.Generator) -> Images:
    """Each image moved by 1 or 2 pixels along y, x or both; its border is repeated where it left."""
    most = max(SHIFTS)
    padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)), mode="edge")
    ways = [(y, x) for y in range(-most, most + 1) for x in range(-most, most + 1) if (y, x) != (0, 0)]
    height, width = images.shape[2:]
    moved = np.empty_like(images)
    for row, way in enumerate(chance.integers(len(ways), size=len(images))):
        y, x = (most + by for by in ways[way])
        moved[row] = padded[row, :, y : y + height, x : x + width]
    return moved
