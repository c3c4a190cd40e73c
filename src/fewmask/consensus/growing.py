"""Adaptive region growing: a voter that sees the scan and knows of the readers only a centre and a size.

From a small ball of seeds the region takes in, ring by ring, the neighbours whose value lies near the mean of
the region so far. It may not leave a ball around the centre, nor the lung, and stops where it leaks. The
recipe is that of the few-shot document, section 7 of the method page; what that leaves open is said here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fewmask.consensus.morphology import TOUCHING, away_mm, ball, closed, facing, filled, opened, surface
from fewmask.core.errors import ShapeError

Bool = NDArray[np.bool_]

HU_BELOW = -200.0
"""A scan with values below this is taken for CT in HU: pictures and MR have none."""


@dataclass(frozen=True)
class Growth:
    """How a region grows. Intensities are in the scan's units, HU for CT."""

    seed_mm: float = 2.0
    """Radius of the ball of seeds; at most half the structure's radius, so that small ones are not left."""
    least_spread: float = 40.0
    """The standard deviation inside the region counts as at least this much."""
    spreads: float = 2.5
    """A neighbour joins within this many standard deviations of the mean."""
    floor: float | None = -700.0
    """A neighbour joins only above this value (aerated lung lies below); None: no floor."""
    cap: float = 1.25
    """The region stays within this many radii of the centre."""
    lung_margin_mm: float = 3.0
    """How far it may leave the lung."""
    leak: float = 0.6
    """The region leaks when a ring adds more than this share of it; see `guard`."""
    guard: Literal["ball", "literal"] = "ball"
    """What the share is added to. "literal": to nothing, as written; then every small region stops at its
    first ring, since a ball of r voxels gains ((r + 1) / r)^3 - 1, above 60 % up to r = 5.8. "ball": to
    what a ball of as many voxels around the centre would gain."""
    morphology_mm: float = 1.0
    """Radius of the closing before and of the opening after holes are filled."""
    largest_mm: float = 60.0
    """No vote on structures of a larger diameter: this is a recipe for nodules, not for organs."""
    least_mm: float = 3.0
    """A consensus of a smaller diameter (of the ball of its volume, the disc in 2-D) is dropped."""
    abstain: float = 0.5
    """No vote when more than this share of the region's surface touches the cap."""


@dataclass(frozen=True, eq=False)
class Grown:
    """A region as it came out. Only `mask` votes, and only when `abstains` is empty."""

    mask: Bool
    """(Z, Y, X)."""
    abstains: str
    """Why the grower does not vote; empty: it votes."""
    rings: int
    """How many rings were added."""
    leaked: bool
    """Whether it was stopped at a leak; what it had by then is kept."""
    at_cap: float
    """Share of its surface that touches the cap, 0..1."""


def grow(
    image: NDArray[np.generic],
    centre: Sequence[float],
    radius_mm: float,
    spacing_mm: Sequence[float],
    *,
    lung: Bool | None = None,
    growth: Growth | None = None,
) -> Grown:
    """Grow one region from a centre and a radius (half of LUNA16's diameter, or the readers' radius).

    Args:
        image: (Z, Y, X) in HU, or in units that `growth` fits; one slice is grown in 2-D.
        centre: voxel position (z, y, x).
        radius_mm: of the structure, above 0.
        spacing_mm: along (Z, Y, X).
        lung: (Z, Y, X); the region stays inside it and a margin. None: not known.
        growth: settings.

    Raises:
        ShapeError: image and lung differ in shape, or the centre lies outside.
    """
    how = growth or Growth()
    _check(image, centre, lung)
    values = np.asarray(image, dtype=np.float64)
    away = away_mm(values.shape, centre, spacing_mm)
    cap = _cap(away, radius_mm * how.cap, lung, spacing_mm, how)
    middle = tuple(round(c) for c in centre)
    seeds = cap & (away <= min(how.seed_mm, radius_mm / 2))
    seeds[middle] = cap[middle]
    seeds &= np.isfinite(values)
    if not seeds.any():
        return Grown(seeds, "its centre has no value, or lies outside the lung", 0, False, 0.0)
    region, rings, leaked = _rings(values, seeds, cap, away, how)
    region = _tidied(region, seeds, spacing_mm, how) & cap
    edge = surface(region)
    at_cap = float(facing(region, ~cap).sum() / edge.sum()) if edge.any() else 0.0
    why = ""
    if not region.any():
        why = "nothing is left after the opening"
    elif at_cap > how.abstain:
        why = f"{100 * at_cap:.0f} % of its surface touches the cap"
    return Grown(region, why, rings, leaked, at_cap)


def _check(image: NDArray[np.generic], centre: Sequence[float], lung: Bool | None) -> None:
    if image.ndim != 3 or (lung is not None and lung.shape != image.shape):
        raise ShapeError(
            "a region grows in an image (Z, Y, X), with a lung mask of the same shape",
            found=f"image {image.shape}" + ("" if lung is None else f", lung {lung.shape}"),
        )
    if not all(0 <= round(c) < size for c, size in zip(centre, image.shape, strict=True)):
        raise ShapeError("the centre of a region lies outside the image", found=f"{tuple(centre)}")


def _cap(
    away: NDArray[np.float64],
    reach_mm: float,
    lung: Bool | None,
    spacing_mm: Sequence[float],
    how: Growth,
) -> Bool:
    """Where the region may go."""
    cap = np.asarray(away <= reach_mm, dtype=np.bool_)
    if lung is not None:
        cap &= ndimage.binary_dilation(lung, ball(how.lung_margin_mm, spacing_mm))
    return cap


def _rings(
    values: NDArray[np.float64], seeds: Bool, cap: Bool, away: NDArray[np.float64], how: Growth
) -> tuple[Bool, int, bool]:
    """The region after the last ring, how many rings, and whether it leaked."""
    nearest = np.sort(away, axis=None)
    region, rings = seeds.copy(), 0
    open_to = cap & np.isfinite(values)
    if how.floor is not None:
        open_to &= values > how.floor
    while True:
        inside = values[region]
        mean, spread = float(np.nanmean(inside)), max(float(np.nanstd(inside)), how.least_spread)
        ring = ndimage.binary_dilation(region, TOUCHING) & ~region & open_to
        ring &= np.abs(values - mean) <= how.spreads * spread
        added, before = int(np.count_nonzero(ring)), int(np.count_nonzero(region))
        if added == 0:
            return region, rings, False
        expected = _ring_of(away <= nearest[before - 1]) if how.guard == "ball" else 0
        if added > expected + how.leak * before:
            return region, rings, True
        region |= ring
        rings += 1


def _ring_of(region: Bool) -> int:
    """How many voxels the next ring of 26 (8) neighbours would add if all joined."""
    return int(np.count_nonzero(ndimage.binary_dilation(region, TOUCHING)) - np.count_nonzero(region))


def _tidied(region: Bool, seeds: Bool, spacing_mm: Sequence[float], how: Growth) -> Bool:
    """Closed, filled slice by slice, opened, and the component that holds most of the seeds."""
    smooth = opened(filled(closed(region, how.morphology_mm, spacing_mm)), how.morphology_mm, spacing_mm)
    parts, count = ndimage.label(smooth, structure=TOUCHING)
    held = np.bincount(parts[seeds], minlength=count + 1)
    held[0] = 0
    if not held.any():
        return np.zeros_like(region)
    return np.asarray(parts == int(held.argmax()))


def growth_for(image: NDArray[np.generic]) -> Growth:
    """The settings for a scan: as they are for CT in HU, known by values below -200; else without a floor.

    Elsewhere the least spread is 4 % of the range from the 1st to the 99th percentile, which is what 40 HU
    are of the usual lung window's 1000.
    """
    values = image[np.isfinite(image)] if image.dtype.kind == "f" else image
    if values.size == 0 or float(values.min()) < HU_BELOW:
        return Growth()
    low, high = np.percentile(values, (1, 99))
    return Growth(floor=None, least_spread=max(0.04 * float(high - low), 1e-6))
