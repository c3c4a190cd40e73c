"""Readers of the phantom, who err: each shifts boundaries in his own way and overlooks some nodules."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fewmask.core.seed import stream

WAVE_MM = 9.0
"""How far a boundary's error reaches along the boundary."""


@dataclass(frozen=True)
class Reader:
    """One reader's habits."""

    bias_mm: float
    """How far outside the true boundary the reader draws on average."""
    jitter_mm: float
    """Standard deviation of the drawn boundary around that."""
    miss: float
    """Probability in [0, 1] of overlooking a nodule."""


def draw_readers(seed: int, count: int, *, pixel_mm: float) -> tuple[Reader, ...]:
    """The habits of `count` readers; on coarse pixels they err by at least a third of a pixel."""
    readers = []
    for number in range(count):
        chance = stream(seed, "phantom", "reader", number)
        jitter = max(1.0, 0.3 * pixel_mm) * float(chance.uniform(0.8, 1.4))
        readers.append(
            Reader(0.5 * jitter * float(chance.normal()), jitter, float(chance.uniform(0.05, 0.3)))
        )
    return tuple(readers)


def read_as(
    reader: Reader,
    labels: NDArray[np.uint8],
    spacing_mm: Sequence[float],
    *,
    nodule: int | None,
    chance: np.random.Generator,
) -> NDArray[np.uint8]:
    """The label map (Z, Y, X) that `reader` draws of the true `labels`.

    `nodule` is the label whose connected parts may be overlooked; they become what surrounds them. Where
    redrawn organs overlap, the higher label wins.
    """
    seen = labels.copy()
    if nodule is not None:
        _overlook(seen, nodule, reader.miss, chance)
    drawn = np.zeros_like(labels)
    for label in np.unique(seen[seen > 0]).tolist():
        _redraw(drawn, seen, label, reader, spacing_mm, chance)
    return drawn


def _overlook(labels: NDArray[np.uint8], nodule: int, miss: float, chance: np.random.Generator) -> None:
    """Give each nodule, with probability `miss`, the commonest label around it."""
    cube = np.ones((3, 3, 3), dtype=bool)
    parts, count = ndimage.label(labels == nodule, structure=cube)
    for number in range(1, count + 1):
        if chance.random() < miss:
            part = parts == number
            ring = labels[ndimage.binary_dilation(part, structure=cube) & (parts == 0)]
            labels[part] = np.bincount(ring).argmax() if ring.size else 0


def _redraw(
    drawn: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    label: int,
    reader: Reader,
    spacing_mm: Sequence[float],
    chance: np.random.Generator,
) -> None:
    """Draw one label with a wandering boundary, slice by slice as readers do."""
    margin_mm = abs(reader.bias_mm) + 4 * reader.jitter_mm
    box = ndimage.find_objects((labels == label).astype(np.uint8))[0]
    grown = [
        slice(max(0, part.start - int(margin_mm / mm) - 1), part.stop + int(margin_mm / mm) + 1)
        for part, mm in zip(box[1:], spacing_mm[1:], strict=True)
    ]
    for z in range(box[0].start, box[0].stop):
        inside = labels[z, grown[0], grown[1]] == label
        if not inside.any():
            continue
        away = ndimage.distance_transform_edt(~inside, sampling=spacing_mm[1:])
        deep = ndimage.distance_transform_edt(inside, sampling=spacing_mm[1:])
        half = 0.5 * min(spacing_mm[1:])
        distance = np.where(inside, half - deep, away - half)
        wave = ndimage.gaussian_filter(
            chance.standard_normal(inside.shape), [WAVE_MM / 2 / mm for mm in spacing_mm[1:]]
        )
        wave *= reader.jitter_mm / max(float(wave.std()), 1e-6)
        part = drawn[z, grown[0], grown[1]]
        part[distance < reader.bias_mm + wave] = label
