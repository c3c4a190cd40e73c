"""From a scan's values to [-1, 1] and back: CT windows, percentiles, z-scores, films.

Every mapping is one straight line with clipped ends, so its two numbers say all about it; they are kept in
the trace of a prepared case, and values inside the range come back exactly (to rounding).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.volume import Volume

AIR_HU = -1024.0
"""CT values below this mark padding outside the scanner's field and are read as this."""

WINDOWS_HU: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "lung": (-600.0, 1500.0),
        "soft_tissue": (40.0, 400.0),
        "bone": (400.0, 1800.0),
        "wide": (-300.0, 1400.0),
    }
)
"""CT windows by name: (level, width) in HU. `wide` is -1000 to 400 HU."""

ADAPTIVE = ("percentile", "zscore", "film")
"""Mappings that look at the scan's own values."""

ZSCORE_RANGE = 3.0
"""`zscore` maps the mean minus and plus so many standard deviations to -1 and 1."""

_SAMPLES = 4_000_000

Window = str | tuple[float, float]
"""How one channel is mapped: a name, or a CT window (level, width) in HU."""


@dataclass(frozen=True)
class Intensity:
    """One channel's mapping: mapped = clip((value - offset) * scale, -1, 1)."""

    modality: str
    """The modality that the channel is made from."""
    window: Window
    """What was asked for."""
    offset: float
    """The value that becomes 0, in the scan's units."""
    scale: float
    """Mapped units per unit of the scan; positive."""
    floor: float | None
    """Values below this are read as this, in the scan's units; None when there is no such value."""
    padding: float
    """The mapped value outside the picture, in [-1, 1]."""

    def apply(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """Values of any shape in the scan's units, mapped to float32 in [-1, 1]."""
        mapped = values.astype(np.float32)
        if self.floor is not None:
            np.maximum(mapped, np.float32(self.floor), out=mapped)
        mapped -= np.float32(self.offset)
        mapped *= np.float32(self.scale)
        return np.clip(mapped, -1.0, 1.0, out=mapped)

    def invert(self, mapped: NDArray[np.floating]) -> NDArray[np.float32]:
        """Mapped values of any shape, back in the scan's units; clipped values stay at the window's end."""
        return np.asarray(mapped / self.scale + self.offset, dtype=np.float32)


def check_window(window: Window) -> None:
    """Raise `ConfigError` unless `window` is a known name or a (level, width) of finite width above 0."""
    if isinstance(window, str):
        known = (*WINDOWS_HU, *ADAPTIVE)
        if window not in known:
            near = get_close_matches(window, known, n=1)
            raise ConfigError(
                f"no intensity mapping is called {window!r}",
                expected=", ".join(known) + ", or [level, width] in HU",
                mend=f"Did you mean {near[0]!r}?" if near else "",
            )
    elif len(window) != 2 or not np.isfinite(window).all() or window[1] <= 0:
        raise ConfigError("a window is (level, width) in HU with a width above 0", found=f"{window}")


def fit_intensity(
    volume: Volume,
    modality: str,
    window: Window,
    *,
    percentiles: tuple[float, float] = (0.5, 99.5),
    film_percentiles: tuple[float, float] = (1.0, 99.0),
) -> Intensity:
    """The mapping of one channel of one scan.

    A CT window does not look at the scan. `percentile` maps these percentiles of the non-zero voxels to -1
    and 1; `zscore` the mean of the non-zero voxels plus and minus `ZSCORE_RANGE` standard deviations; `film`
    the percentiles of the picture without its black border (see `_inside_border`), so that films of other
    brightness and contrast agree. A scan of one value becomes -1.
    """
    if not isinstance(window, str) or window in WINDOWS_HU:
        level, width = WINDOWS_HU[window] if isinstance(window, str) else window
        air = max((AIR_HU - level) * 2 / width, -1.0)
        return Intensity(modality, window, level, 2 / width, AIR_HU, min(air, 1.0))
    if window == "film":
        low, high = np.percentile(_inside_border(volume.voxels), film_percentiles).tolist()
        return _between(modality, window, low, high, padding=-1.0)
    inside = _sample(volume.voxels)
    inside = inside[inside != 0]
    if inside.size == 0:
        return _between(modality, window, 0.0, 0.0, padding=-1.0)
    if window == "zscore":
        mean, spread = float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))
        low, high = mean - ZSCORE_RANGE * spread, mean + ZSCORE_RANGE * spread
    else:
        low, high = np.percentile(inside, percentiles).tolist()
    return _between(modality, window, low, high)


def refuse_nonfinite(volume: Volume, modality: str) -> None:
    """Raise `DataError` if a scan of floating-point values holds NaN or infinity."""
    voxels = volume.voxels
    if voxels.dtype.kind == "f":
        bad = sum(int(plane.size - np.isfinite(plane).sum()) for plane in voxels)
        if bad:
            raise DataError(
                "the scan holds values that are not numbers",
                where=modality,
                found=f"{bad} of {voxels.size} voxels are NaN or infinite",
                expected="finite values",
                mend="Replace them by the value of air (CT: -1024) or of background before preparing.",
            )


def _between(
    modality: str, window: Window, low: float, high: float, *, padding: float | None = None
) -> Intensity:
    """The mapping of [low, high] onto [-1, 1]; without extent, of `low` onto -1. Padding stands for 0."""
    if not high > low:
        high = low + 2.0
    offset, scale = (low + high) / 2, 2 / (high - low)
    if padding is None:
        padding = float(np.clip(-offset * scale, -1, 1))
    return Intensity(modality, window, offset, scale, None, padding)


def _sample(voxels: NDArray[Any]) -> NDArray[Any]:
    """All voxels as one vector, or of a large volume every n-th along each axis: enough for percentiles."""
    step = max(1, int(np.ceil((voxels.size / _SAMPLES) ** (1 / 3))))
    return voxels[::step, ::step, ::step].ravel()


def _inside_border(voxels: NDArray[Any]) -> NDArray[Any]:
    """The pixels of a film without its black border.

    The border is what is within 2 % of the darkest value and joined to the picture's edge through such
    pixels: collimation, rotation and square padding, none of which says anything about the exposure.
    """
    low, high = float(voxels.min()), float(voxels.max())
    dark = voxels <= low + 0.02 * (high - low)
    inside = []
    for plane, shade in zip(voxels, dark, strict=True):
        parts, _ = ndimage.label(shade)
        edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
        outside = np.isin(parts, edge[edge > 0])
        inside.append(plane[~outside])
    kept = np.concatenate(inside)
    return kept if kept.size else voxels.ravel()
