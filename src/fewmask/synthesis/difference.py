"""From how much a method changed each pixel to masks: the document's rule, and one that healthy images set.

Page `lazylabel`, section 6. The document divides each image's difference by its own maximum, so every healthy
image gets a mask, and leaves out the strongest differences. The calibrated rule smooths, looks at the body
only, divides by one scale for all images, and takes the threshold at which so few healthy pixels fire.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fewmask.core.errors import ConfigError, DataError, ShapeError
from fewmask.synthesis.healthy import Floats

Bools = NDArray[np.bool_]
Masks = NDArray[np.uint8]

DOCUMENT_LOW, DOCUMENT_HIGH = 0.3, 0.8
"""The document keeps 0.3 < d < 0.8, "best found by eye"."""

EPSILON = 1e-6
"""Differences of grey levels on the scale of [-1, 1] below this are none."""

_TOUCHING = np.ones((3, 3), dtype=np.bool_)
_SHOWN = 0.1
_LEAST_BODY = 0.05


@dataclass(frozen=True)
class DifferenceSettings:
    """How a map of change becomes a mask."""

    smoothing: Literal["gaussian", "median", "none"] = "gaussian"
    """What is done to each map before anything else."""
    sigma: float = 1.0
    """Standard deviation of the Gaussian in pixels."""
    window: int = 5
    """Side of the median's window in pixels, odd."""
    percentile: float = 99.5
    """Percentile over the bodies of all healthy validation images that becomes 1."""
    false_positive_share: float = 0.01
    """At most so much of the bodies of the healthy validation images may fire, 0 to 1."""
    least_area: float = 0.001
    """Connected parts below this share of the image are dropped."""

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        wrong = [
            *(["smoothing"] if self.smoothing not in ("gaussian", "median", "none") else []),
            *(["sigma"] if not self.sigma > 0 else []),
            *(["window"] if self.window < 1 or self.window % 2 == 0 else []),
            *(["percentile"] if not 0 < self.percentile <= 100 else []),
            *(["false_positive_share"] if not 0 <= self.false_positive_share < 1 else []),
            *(["least_area"] if not 0 <= self.least_area < 1 else []),
        ]
        if wrong:
            raise ConfigError(
                "difference maps cannot be read so",
                where=", ".join(wrong),
                found=", ".join(f"{getattr(self, name)!r}" for name in wrong),
                expected="smoothing gaussian, median or none; sigma above 0; an odd window; a percentile "
                "above 0 up to 100; shares from 0 to below 1",
            )


@dataclass(frozen=True)
class Calibration:
    """What healthy validation images say about one method's maps."""

    scale: float
    """Of the smoothed map, in the method's own unit: this becomes 1."""
    threshold: float
    """A pixel fires above this, in units of `scale`."""
    fired: float
    """Share of the healthy validation bodies that fires, before small parts are dropped."""
    covered: float
    """The same after it: what the masks cover."""
    images: int
    """How many healthy validation images there were."""
    settings: DifferenceSettings = field(default_factory=DifferenceSettings)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Calibration":
        """From what `to_json` gave. Raises `DataError` for anything else."""
        names = {one.name for one in fields(cls)}
        if set(value) != names:
            raise DataError(
                "is not a calibration of difference maps",
                found=", ".join(sorted(value)) or "nothing",
                expected=", ".join(sorted(names)),
                mend="Calibrate again.",
            )
        return cls(**{**value, "settings": DifferenceSettings(**value["settings"])})


def document_rule(
    x: Floats, x_h: Floats, *, reading: Literal["document", "absmax"] = "document"
) -> tuple[NDArray[np.float32], Masks]:
    """The document's rule: d = |X - X'| / max(X - X'), and its mask 0.3 < d < 0.8, image by image.

    Its maximum is of the signed difference, so it is 0 or less where a method only brightens: "document"
    takes its absolute value, "absmax" the maximum of |X - X'|; neither divides by less than `EPSILON`. The
    document is about grey images; of several channels the mean of the differences is taken.

    Args:
        x: images (N, C, H, W) in [-1, 1].
        x_h: what a method made of them.
        reading: of the maximum.

    Returns:
        d (N, H, W), 0 or more, up to 1 in "absmax"; and masks (N, H, W), 1 diseased.

    Raises:
        ShapeError: other shapes.
    """
    if x.shape != x_h.shape or x.ndim != 4:
        raise ShapeError("images and what was made of them differ", found=f"{x.shape} and {x_h.shape}")
    signed = x.astype(np.float64) - x_h.astype(np.float64)
    size = np.abs(signed).mean(axis=1)
    largest = np.abs(signed.mean(axis=1).max(axis=(1, 2))) if reading == "document" else size.max(axis=(1, 2))
    d = size / np.maximum(largest, EPSILON)[:, None, None]
    return d.astype(np.float32), ((d > DOCUMENT_LOW) & (d < DOCUMENT_HIGH)).astype(np.uint8)


def body_mask(images: Floats) -> Bools:
    """Where the body is in each image (N, C, H, W): (N, H, W), the largest bright part, its holes filled.

    Bright is 5 % of the range of [-1, 1] above the darkest 1 % in the mean over channels. Where that leaves
    less than 5 % of the image, nothing is known, and all of it counts as body.
    """
    grey = images.astype(np.float32).mean(axis=1)
    bodies = np.ones(grey.shape, dtype=np.bool_)
    for body, plane in zip(bodies, grey, strict=True):
        parts, count = ndimage.label(plane > np.percentile(plane, 1) + _SHOWN)
        if count:
            largest = np.argmax(np.bincount(parts.ravel())[1:]) + 1
            found = ndimage.binary_fill_holes(parts == largest)
            if found.mean() >= _LEAST_BODY:
                body[:] = found
    return bodies


def smooth(delta: Floats, settings: DifferenceSettings) -> NDArray[np.float32]:
    """Maps (N, H, W) smoothed, each by itself; the edge is mirrored."""
    if settings.smoothing == "gaussian":
        return np.asarray(
            ndimage.gaussian_filter(delta.astype(np.float32), (0, settings.sigma, settings.sigma))
        )
    if settings.smoothing == "median":
        size = (1, settings.window, settings.window)
        return np.asarray(ndimage.median_filter(delta.astype(np.float32), size=size))
    return delta.astype(np.float32)


def calibrate(
    healthy_deltas: Floats, bodies: Bools | None = None, settings: DifferenceSettings | None = None
) -> Calibration:
    """Scale and threshold of a method from its maps of healthy validation images.

    The threshold is the smallest value of these maps above which at most the wanted share of their pixels
    lies. Small parts are dropped later, so the masks cover less.

    Args:
        healthy_deltas: (N, H, W), `Healthy.delta` of healthy images that trained nothing.
        bodies: (N, H, W), where disease may be; None: everywhere.
        settings: by default those of `DifferenceSettings`.

    Raises:
        DataError: no image, no body, or values that are negative or no numbers.
        ShapeError: shapes that do not fit.
    """
    how = settings or DifferenceSettings()
    _check(healthy_deltas, bodies)
    smoothed = smooth(healthy_deltas, how)
    values = np.sort(smoothed.ravel() if bodies is None else smoothed[bodies])
    if not len(values):
        raise DataError(
            "nothing to calibrate on",
            found=f"{len(healthy_deltas)} healthy validation images, no pixel of a body",
            expected="healthy images of validation patients",
            mend="Give the validation part more healthy patients.",
        )
    scale = float(np.percentile(values, how.percentile))
    scale = max(scale if scale > EPSILON else float(values[-1]), EPSILON)
    in_scale = values / np.float32(scale)
    allowed = int(how.false_positive_share * len(values))
    threshold = max(float(in_scale[len(values) - 1 - allowed]), EPSILON)
    fired = float((in_scale > threshold).mean())
    draft = Calibration(scale, threshold, fired, 0.0, len(healthy_deltas), how)
    covered = float(apply(draft, healthy_deltas, bodies).sum() / len(values))
    return replace(draft, covered=covered)


def calibrated(calibration: Calibration, delta: Floats, body: Bools | None = None) -> NDArray[np.float32]:
    """Smoothed maps (N, H, W) in units that are the same for all images; 0 outside the body.

    1 is what the strongest half per cent of healthy pixels reach (`DifferenceSettings.percentile`).
    """
    _check(delta, body)
    maps = smooth(delta, calibration.settings) / np.float32(calibration.scale)
    return maps if body is None else maps * body


def apply(calibration: Calibration, delta: Floats, body: Bools | None = None) -> Masks:
    """Masks (N, H, W), 1 diseased, of maps (N, H, W), by a calibration of the same method.

    Raises:
        DataError: values that are negative or no numbers.
        ShapeError: shapes that do not fit.
    """
    return masks_of(calibration, calibrated(calibration, delta, body))


def masks_of(calibration: Calibration, maps: NDArray[np.float32]) -> Masks:
    """Masks (N, H, W), 1 diseased, of maps that `calibrated` gave."""
    least = calibration.settings.least_area * maps.shape[1] * maps.shape[2]
    masks = np.zeros(maps.shape, dtype=np.uint8)
    for mask, plane in zip(masks, maps, strict=True):
        mask[:] = _without_small(plane > calibration.threshold, least)
    return masks


def merge(masks: Mapping[int, Masks], maps: Mapping[int, Floats]) -> Masks:
    """One label map (N, H, W) of several diseases: of the masks that fire the largest calibrated map wins.

    Args:
        masks: of each label 1..254, (N, H, W), what `apply` gave by that disease's own calibration.
        maps: of each label (N, H, W), what `calibrated` gave.

    Returns:
        0 where no mask fires; the smaller label where two maps are equal.

    Raises:
        ShapeError: other labels or shapes in the two.
        ConfigError: a label outside 1..254, or none.
    """
    labels = sorted(masks)
    if not labels or labels[0] < 1 or labels[-1] > 254:
        raise ConfigError("diseases are labelled from 1 to 254", found=f"{labels}")
    shapes = {one.shape for one in [*masks.values(), *maps.values()]}
    if labels != sorted(maps) or len(shapes) != 1:
        raise ShapeError(
            "masks and maps of several diseases do not fit",
            found=f"masks of {labels}, maps of {sorted(maps)}, shapes {sorted(shapes)}",
            expected="one of each per disease, all of one shape",
        )
    heights = np.stack([np.where(masks[label] > 0, maps[label], -np.inf) for label in labels])
    best = np.array(labels, dtype=np.uint8)[heights.argmax(axis=0)]
    return np.where(np.isfinite(heights).any(axis=0), best, 0).astype(np.uint8)


def _without_small(mask: Bools, least: float) -> Bools:
    """Without parts of fewer pixels than `least`; pixels that touch at a corner are one part."""
    parts, _ = ndimage.label(mask, structure=_TOUCHING)
    keep = np.bincount(parts.ravel()) >= least
    keep[0] = False
    return np.asarray(keep[parts], dtype=np.bool_)


def _check(delta: Floats, body: Bools | None) -> None:
    if delta.ndim != 3 or (body is not None and body.shape != delta.shape):
        raise ShapeError(
            "maps of change and bodies do not fit",
            found=f"maps {delta.shape}" + ("" if body is None else f", bodies {body.shape}"),
            expected="both (N, H, W)",
        )
    if not np.isfinite(delta).all() or (delta < 0).any():
        strange = int((~np.isfinite(delta)).sum())
        raise DataError(
            "a map of change must be 0 or more everywhere",
            found=f"{np.nanmin(delta):g} to {np.nanmax(delta):g}, {strange} not finite",
            mend="Look at the method's training: its images are no images.",
        )
