"""Who the phantom is: the numbers of one patient, drawn around a mean by a Gaussian each.

Lengths are mm. x points to the patient's left, y to the back, z to the head; z = 0 is a little below the
fork of the windpipe, the heart lies below, the tops of the lungs near z = 130.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fewmask.core.seed import stream

LEVELS = 6
TRUNKS = 6


@dataclass(frozen=True)
class Body:
    """Lengths and places of one patient's organs."""

    width: float
    """Half width of the body."""
    depth: float
    """Half depth of the body, front to back."""
    fat: float
    """Thickness of the fat under the skin."""
    wall: float
    """Thickness of muscle and ribs around the lungs."""
    breast: float
    """How far the breasts stand out; below 8 they do not."""
    squareness: float
    """Power of the body's superellipse; 2 is an ellipse."""
    top: float
    """Height of the tops of the lungs."""
    diaphragm: float
    """Height of the right dome of the diaphragm."""
    heart_x: float
    """Place of the heart's centre to the left of the middle."""
    heart_y: float
    """Place of the heart's centre in front (negative) of the middle."""
    heart_z: float
    """Height of the heart's centre."""
    heart_long: float
    """Half the heart's long axis in a slice."""
    heart_short: float
    """Half its short axis."""
    heart_height: float
    """Half its height."""
    heart_angle: float
    """Direction of the long axis in radians from left to back; negative points to the left and front."""
    mediastinum: float
    """Half width of the tissue between the lungs."""
    spine_y: float
    """Place of the vertebral bodies behind the middle."""
    vertebra: float
    """Half width of a vertebral body."""
    aorta: float
    """Radius of the aorta."""
    fork: float
    """Height of the fork of the windpipe."""
    oesophagus: float
    """Half width of the oesophagus."""
    enhancement_hu: float
    """What contrast agent adds to the blood; 0 without."""
    lung_hu: float
    """Mean of the lung's tissue."""
    rib_phase: float
    """Height of the first rib, in rib distances."""
    sway: float
    """How far organs wander sideways along z."""
    sway_phase: float
    """Where that wave begins, in radians."""


MEAN_AND_SPREAD: dict[str, tuple[float, float]] = {
    "width": (163, 11),
    "depth": (112, 9),
    "fat": (15, 4.5),
    "wall": (20, 1.8),
    "breast": (4, 14),
    "squareness": (2.25, 0.12),
    "top": (132, 8),
    "diaphragm": (-82, 8),
    "heart_x": (20, 5),
    "heart_y": (-31, 4),
    "heart_z": (-55, 6),
    "heart_long": (68, 5),
    "heart_short": (47, 4),
    "heart_height": (64, 5),
    "heart_angle": (-0.62, 0.1),
    "mediastinum": (17, 2),
    "spine_y": (42, 4),
    "vertebra": (18, 1.5),
    "aorta": (13, 1.3),
    "fork": (18, 4),
    "oesophagus": (9, 1),
    "enhancement_hu": (70, 60),
    "lung_hu": (-850, 25),
    "rib_phase": (0, 0.5),
    "sway": (3, 1),
    "sway_phase": (0, 2),
}
"""By field of `Body`: mean and standard deviation. Draws are cut at 2.5 standard deviations."""


@dataclass(frozen=True)
class Nodule:
    """A lump in the lung: a sphere with a slightly wavy surface."""

    x: float
    y: float
    z: float
    radius: float
    waves: tuple[float, float, float]
    """Phases in radians of the surface's waves."""


@dataclass(frozen=True)
class Opacity:
    """A diffuse cloud in the lung: an ellipsoid with a ragged edge that is thickest in its middle."""

    x: float
    y: float
    z: float
    radius: float
    density: float
    """Share of the air that is replaced in its middle, in [0, 1]."""
    waves: tuple[float, float, float]
    """Phases in radians of its edge's waves."""


@dataclass(frozen=True, eq=False)
class Patient:
    """One phantom patient: all that is needed to draw any slice of it."""

    body: Body
    vessels: NDArray[np.float32]
    """Branches (n, 7): start x, y, z, end x, y, z, radius."""
    lesions: tuple[Nodule | Opacity, ...] = ()
    """None in a healthy patient."""

    @property
    def diseased(self) -> bool:
        """Whether there is a lesion."""
        return bool(self.lesions)


def draw_body(seed: int, number: int) -> Body:
    """The organs of patient `number` of the cohort `seed`."""
    chance = stream(seed, "phantom", "body", number)
    drawn = {}
    for name in (field.name for field in fields(Body)):
        mean, spread = MEAN_AND_SPREAD[name]
        drawn[name] = mean + spread * float(np.clip(chance.normal(), -2.5, 2.5))
    drawn["enhancement_hu"] = max(0.0, drawn["enhancement_hu"])
    drawn["fat"] = max(6.0, drawn["fat"])
    return Body(**drawn)


def draw_vessels(seed: int, number: int) -> NDArray[np.float32]:
    """Vessels of both lungs: `TRUNKS` trunks each, that fork `LEVELS` - 1 times; see `Patient.vessels`."""
    chance = stream(seed, "phantom", "vessels", number)
    return np.concatenate([_tree(chance, side) for side in (-1.0, 1.0)]).astype(np.float32)


def _tree(chance: np.random.Generator, side: float) -> NDArray[np.float64]:
    """One lung's branches; `side` is -1 for the right lung, 1 for the left."""
    turns = np.linspace(0, 2 * np.pi, TRUNKS, endpoint=False) + chance.uniform(0, 2 * np.pi)
    ways = np.stack([np.full(TRUNKS, 0.9 * side), np.cos(turns), 1.3 * np.sin(turns)], axis=1)
    ways = _unit(ways + 0.2 * chance.normal(size=ways.shape))
    starts = np.array([36.0 * side, 4.0, -4.0]) + chance.normal(0, 5, ways.shape)
    length, radius, levels = 36.0, 4.6, []
    for _ in range(LEVELS):
        lengths = length * chance.uniform(0.75, 1.25, len(ways))
        ends = starts + lengths[:, None] * ways
        levels.append(np.column_stack([starts, ends, np.full(len(ways), radius)]))
        starts = np.repeat(ends, 2, axis=0)
        ways = _unit(np.repeat(ways, 2, axis=0) + 0.6 * chance.normal(size=(len(starts), 3)))
        length, radius = 0.8 * length, 0.7 * radius
    return np.concatenate(levels)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
