"""What is wrong with a phantom patient: nodules and diffuse opacities in the lungs."""

import numpy as np
from numpy.typing import NDArray

from fewmask.core.seed import stream
from fewmask.data.phantom_anatomy import lungs
from fewmask.data.phantom_patient import Body, Nodule, Opacity
from fewmask.data.phantom_shapes import Field, Places

PREVALENCE = 0.5
"""Probability that a patient is diseased."""

_CANDIDATES = 96


def draw_lesions(
    seed: int,
    number: int,
    body: Body,
    *,
    kinds: tuple[str, ...],
    slab_mm: tuple[float, float],
    nodule_mm: float,
) -> tuple[Nodule | Opacity, ...]:
    """The lesions of one patient: none with probability 1 - `PREVALENCE`, else one kind out of `kinds`.

    Args:
        seed: of the cohort.
        number: of the patient.
        body: its organs.
        kinds: "nodule", "opacity", or both; empty for a healthy patient.
        slab_mm: lowest and highest z where centres may lie: the part of the patient that will be drawn.
        nodule_mm: mean diameter of a nodule; the standard deviation is a quarter of it.
    """
    chance = stream(seed, "phantom", "lesions", number)
    diseased = chance.random() < PREVALENCE
    kind = int(chance.integers(max(1, len(kinds))))
    if not diseased or not kinds:
        return ()
    waves = chance.uniform(0, 2 * np.pi, (4, 3))
    if kinds[kind] == "opacity":
        radius = float(np.clip(chance.normal(42, 9), 22, 65))
        x, y, z = _place(chance, body, slab_mm, 0.35 * radius)
        return (Opacity(x, y, z, radius, float(chance.uniform(0.35, 0.8)), _three(waves[0])),)
    found = []
    for n in range(1 + min(3, int(chance.poisson(0.5)))):
        radius = nodule_mm / 2 * float(np.clip(chance.normal(1, 0.25), 0.6, 1.7))
        x, y, z = _place(chance, body, slab_mm, 0.7 * radius)
        found.append(Nodule(x, y, z, radius, _three(waves[n])))
    return tuple(found)


def _place(
    chance: np.random.Generator, body: Body, slab_mm: tuple[float, float], depth_mm: float
) -> tuple[float, float, float]:
    """A place in the lungs at least `depth_mm` from their surface; failing that, the deepest of many."""
    low, high = slab_mm
    x = chance.uniform(-body.width, body.width, _CANDIDATES)
    y = chance.uniform(-body.depth, body.depth, _CANDIDATES)
    z = chance.uniform(low, high, _CANDIDATES)
    spots = Places(*(values.astype(np.float32).reshape(-1, 1, 1) for values in (x, y, z)))
    deep = -lungs(body, spots).ravel()
    enough = np.flatnonzero(deep >= depth_mm)
    best = int(enough[0]) if enough.size else int(deep.argmax())
    return float(x[best]), float(y[best]), float(z[best])


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    a, b, c = values.tolist()
    return a, b, c


def nodule_distance(nodule: Nodule, places: Places, dz: float = 0.0) -> Field:
    """Distance to a nodule's surface, at `dz` mm above each place."""
    x, y, z = places.x - nodule.x, places.y - nodule.y, places.z - nodule.z + dz
    away = np.sqrt(x * x + y * y + z * z)
    angle = np.arctan2(y, x)
    first, second, _ = nodule.waves
    wave = 0.10 * np.sin(3 * angle + first) + 0.06 * np.sin(5 * angle + second + z / nodule.radius)
    return np.asarray(away - nodule.radius * (1 + wave), dtype=np.float32)


def nodule_coverage(nodule: Nodule, places: Places, pixel_mm: float, thickness_mm: float) -> Field:
    """Share of each voxel inside a nodule: the mean over five layers of the slice."""
    layers = (np.arange(5) - 2) / 5 * thickness_mm
    shares = [np.clip(0.5 - nodule_distance(nodule, places, dz) / pixel_mm, 0, 1) for dz in layers.tolist()]
    return np.asarray(sum(shares) / len(shares), dtype=np.float32)


def opacity_share(opacity: Opacity, places: Places) -> Field:
    """How dense a cloud is at each place, 0 at its edge and outside, 1 in its middle."""
    x, y, z = places.x - opacity.x, places.y - opacity.y, places.z - opacity.z
    away = np.sqrt(x * x + y * y + (1.2 * z) ** 2) / opacity.radius
    a, b, c = opacity.waves
    ragged = np.sin(x / 7 + a + np.sin(y / 9)) * np.sin(y / 6 + b) + 0.6 * np.sin((x + y) / 13 + z / 11 + c)
    return np.asarray(np.clip(1.25 - away + 0.18 * ragged, 0, 1), dtype=np.float32)
