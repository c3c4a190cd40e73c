"""Shapes of the phantom as signed distances in mm, negative inside, on any broadcastable coordinates.

Axes follow the patient: x to the left, y to the back, z to the head, as an LPS slice is looked at (the
patient's left on the picture's right, back at the bottom).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]
"""Values on a set of places; any shape that broadcasts."""

Number = float | Field
"""A length in mm that may differ between slices, then (Z, 1, 1)."""


@dataclass(frozen=True, eq=False)
class Places:
    """Where to look: coordinates in mm that broadcast together, e.g. (1, 1, X), (1, Y, 1) and (Z, 1, 1)."""

    x: Field
    y: Field
    z: Field


def ellipse(places: Places, x: Number, y: Number, a: Number, b: Number, power: float = 2.0) -> Field:
    """First-order distance to |dx / a|^power + |dy / b|^power = 1, an upright (super)ellipse at (x, y)."""
    u, v = np.abs(places.x - x) / a, np.abs(places.y - y) / b
    u1, v1 = u ** (power - 1), v ** (power - 1)
    slope = (power * u1 / a) ** 2 + (power * v1 / b) ** 2
    return np.asarray((u1 * u + v1 * v - 1) / np.sqrt(slope + np.float32(1e-12)), dtype=np.float32)


def tilted_ellipse(places: Places, x: Number, y: Number, a: Number, b: Number, angle: float) -> Field:
    """First-order distance to an ellipse at (x, y) whose half axis `a` points `angle` radians from x to y."""
    dx, dy = places.x - x, places.y - y
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = (cos * dx + sin * dy) / a, (cos * dy - sin * dx) / b
    slope = 2 * np.sqrt((u / a) ** 2 + (v / b) ** 2 + np.float32(1e-12))
    return np.asarray((u * u + v * v - 1) / slope, dtype=np.float32)


def capsule(
    places: Places, start: tuple[float, float], end: tuple[float, float], radius: Number, *, x: Number = 0.0
) -> Field:
    """Distance to a rod of `radius` from `start` to `end`, both (x, y), moved by `x`."""
    dx, dy = places.x - (x + start[0]), places.y - start[1]
    along = np.array([end[0] - start[0], end[1] - start[1]], dtype=np.float32)
    share = np.clip((dx * along[0] + dy * along[1]) / (along @ along), 0, 1)
    gap = np.hypot(dx - share * along[0], dy - share * along[1]) - radius
    return np.asarray(gap, dtype=np.float32)


def join(first: Field, second: Field, smooth_mm: float) -> Field:
    """The union of two shapes, its inner corners rounded over `smooth_mm`."""
    closeness = np.maximum(np.float32(smooth_mm) - np.abs(first - second), 0)
    rounded = np.minimum(first, second) - closeness * closeness / np.float32(4 * smooth_mm)
    return np.asarray(rounded, dtype=np.float32)


def dome(height: Field, top: float, radius: float, half_height: float) -> Field:
    """Half axis in mm at height z of a dome with its `top` at that z; a thousandth of a mm above it."""
    depth = np.clip((top - height) / half_height, 0, 1)
    return np.asarray(radius * np.sqrt(1 - (1 - depth) ** 2) + 1e-3, dtype=np.float32)


def bulge(height: Field, centre: float, half_height: float) -> Field:
    """Share in (0, 1] by which an ellipsoid's half axes shrink at height z; a thousandth outside it."""
    share = np.sqrt(np.clip(1 - ((height - centre) / half_height) ** 2, 1e-6, 1))
    return np.asarray(share, dtype=np.float32)


def coverage(distance: Field, pixel_mm: float, width_mm: float | None = None) -> Field:
    """Share of a pixel inside a shape, in [0, 1]; `width_mm` is the shape's width if it may be thin."""
    inside = np.clip(np.float32(0.5) - distance / np.float32(pixel_mm), 0, 1)
    if width_mm is not None and width_mm < pixel_mm:
        inside *= np.float32(width_mm / pixel_mm)
    return np.asarray(inside, dtype=np.float32)
