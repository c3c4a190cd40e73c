"""A picture by which a person sees in a second whether a mask fits its scan."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmask.core.volume import IGNORE, Mask, Volume
from fewmask.data.overlay import Picture, montage, overlay, with_legend
from fewmask.data.prepare import Trace

SLICES = 6
"""Slices of a volume that are shown."""

LONG_SIDE = 320
"""Pixels of a slice's longer side in the picture."""


def picture_of(volume: Volume, mask: Mask, trace: Trace, classes: Mapping[str, int]) -> Picture:
    """The mask's outlines on up to `SLICES` slices of the scan, turned as the model saw them: (Y, X, 3).

    Slices are spread over those that show a class, or over the whole scan when none does.
    """
    image, labels = trace.turn.do(volume.voxels), trace.turn.do(mask.voxels)
    spacing = trace.turn.grid(trace.native).spacing_mm
    size = size_of(labels.shape[1:], spacing[1:])
    numbers = shown_slices(labels)
    window = _window(image[numbers].astype(np.float64))
    pictures = [overlay(image[z], labels[z], window=window, size=size) for z in numbers]
    titles = [f"slice {z + 1} of {len(labels)}" for z in numbers] if len(labels) > 1 else None
    sheet = montage(pictures, columns=3, titles=titles)
    return with_legend(sheet, classes)


def shown_slices(labels: NDArray[Any]) -> list[int]:
    """Numbers of up to `SLICES` slices of labels (Z, Y, X), spread over those with a class."""
    used = np.flatnonzero(((labels > 0) & (labels != IGNORE)).any(axis=(1, 2)))
    span = used if used.size else np.arange(len(labels))
    places = np.linspace(0, len(span) - 1, min(SLICES, len(span)))
    return [int(span[round(place)]) for place in places]


def size_of(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...], long_side: int = LONG_SIDE
) -> tuple[int, int]:
    """Picture size with square pixels, the longer side `long_side` pixels; of a slice (Y, X)."""
    height, width = (n * mm for n, mm in zip(shape, spacing_mm, strict=True))
    scale = long_side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _window(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 1st and 99th percentile of the shown slices together."""
    low, high = np.percentile(values, (1, 99)).tolist()
    return (low, high) if math.isfinite(low) and high > low else (float(values.min()), float(values.max()))
