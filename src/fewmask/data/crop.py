"""The part of a scan that is worth looking at: a box around the body, or around what is not zero."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First voxel and the one after the last, along (Z, Y, X)."""

BODY_HU = -500.0
"""Voxels above this are tissue rather than air."""

_COARSE_MM = 2.5


def whole(shape: tuple[int, ...]) -> Box:
    """The box of all voxels of a volume of `shape` (Z, Y, X)."""
    z, y, x = shape
    return (0, z), (0, y), (0, x)


def find_box(voxels: NDArray[Any], spacing_mm: tuple[float, ...], crop: str) -> Box:
    """The box of `voxels` (Z, Y, X): "none" all of it, "body" (CT in HU) or "nonzero".

    "body" is the largest connected part above `BODY_HU`, looked for on a grid of about 2.5 mm and widened to
    hold every voxel in between; filling its holes would not change its box. Nothing found: all of it.
    """
    if crop == "body":
        steps = [max(1, int(_COARSE_MM / max(mm, 1e-6))) for mm in spacing_mm]
        z, y, x = (slice(None, None, step) for step in steps)
        parts, count = ndimage.label(voxels[z, y, x] > BODY_HU)
        if count:
            sizes = np.bincount(parts.ravel())[1:]
            found = ndimage.find_objects(parts)[int(sizes.argmax())]
            ends = zip(found, steps, voxels.shape, strict=True)
            low_high = [(max(0, (s.start - 1) * n + 1), min(m, s.stop * n)) for s, n, m in ends]
            return low_high[0], low_high[1], low_high[2]
    elif crop == "nonzero":
        used = voxels != 0
        spans = [_span(np.any(used, axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        if all(high > low for low, high in spans):
            return spans[0], spans[1], spans[2]
    return whole(voxels.shape)


def _span(used: Any) -> tuple[int, int]:
    positions = np.flatnonzero(used)
    return (int(positions[0]), int(positions[-1]) + 1) if positions.size else (0, 0)
