"""From scans as they come to what a network reads, and masks back onto the scan.

    orient (whole axes) -> crop -> map intensities to [-1, 1] -> pad to a square -> resize

`prepare` writes down in a `Trace` what it did; `undo` reads the trace and does the reverse for labels. All
steps are along whole axes, so labels travel there and back unharmed when nothing is resized.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, DataError, ShapeError
from fewmask.core.volume import Grid, Mask, Volume, corner_displacement_mm
from fewmask.data.crop import Box, find_box, whole
from fewmask.data.intensity import (
    Intensity,
    Window,
    check_window,
    fit_intensity,
    refuse_nonfinite,
)
from fewmask.data.orientation import STANDARD, Turn, nearest_turn
from fewmask.data.resize import resize_labels, resize_probabilities, resize_slices

Shape = tuple[int, int, int]

_BACKGROUND = 2 / 3


@dataclass(frozen=True)
class Preparation:
    """How scans are made ready for a network. Every setting is JSON; see `to_json` and `from_json`.

    `axes="slices"` resizes each slice to `size` and keeps the native slices; `axes="volume"` resamples the
    whole scan to `spacing_mm`.
    """

    channels: Mapping[str, tuple[Window, ...]] = field(default_factory=lambda: {"image": ("wide",)})
    """By modality, the intensity mapping of each channel: a CT window by name or (level, width) in HU, or
    "percentile", "zscore" (MR), "film" (X-ray). Channels follow this order."""
    axes: str = "slices"
    """"slices" (2-D: every native slice is kept) or "volume" (3-D)."""
    size: tuple[int, int] | None = None
    """Height and width of a prepared slice in pixels; None keeps the native pixels. Only for "slices"."""
    spacing_mm: tuple[float, float, float] | None = None
    """Voxel size (Z, Y, X) in mm of the prepared volume; None keeps the native voxels. Only for "volume"."""
    crop: str = "none"
    """"none", "body" (CT: the largest part above -500 HU) or "nonzero" (MR without its empty frame)."""
    square: bool = True
    """Whether slices are padded to a square before they are resized. Only for "slices"."""
    orientation: str = "LPS"
    """"LPS" or "RAS": arrays are turned to the nearest one; "native" leaves them, as pictures always are."""
    percentiles: tuple[float, float] = (0.5, 99.5)
    """Percentiles of the non-zero voxels that "percentile" maps to -1 and 1."""
    film_percentiles: tuple[float, float] = (1.0, 99.0)
    """Percentiles, black border left out, that "film" maps to -1 and 1."""

    def __post_init__(self) -> None:
        """Turn lists into tuples and check every setting."""
        windows = {name: tuple(_window(w) for w in windows) for name, windows in self.channels.items()}
        object.__setattr__(self, "channels", windows)
        for name in ("size", "spacing_mm", "percentiles", "film_percentiles"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))
        _check(self)

    @property
    def channel_count(self) -> int:
        """Number of channels C of a prepared image."""
        return sum(len(windows) for windows in self.channels.values())

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return {**asdict(self), "channels": {name: list(ws) for name, ws in self.channels.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Preparation":
        """The settings that `to_json` gave, or a part of them; an unknown name is a `ConfigError`."""
        known = [f.name for f in fields(cls)]
        for name in value:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                raise ConfigError(
                    f"preparation has no setting {name!r}",
                    expected=", ".join(known),
                    mend=f"Did you mean {near[0]!r}?" if near else "",
                )
        return cls(**value)


@dataclass(frozen=True, eq=False)
class Trace:
    """What `prepare` did to one case; enough to bring labels back."""

    native: Grid
    """The scan's own grid."""
    turn: Turn
    """How its axes were swapped and flipped."""
    crop: Box
    """The box kept, in voxels of the turned scan."""
    pad: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    """Voxels added before and after along (Z, Y, X), after the crop."""
    shape: Shape
    """(Z, Y, X) of the prepared image."""
    intensities: tuple[Intensity, ...]
    """The mapping of each channel."""

    @property
    def box_shape(self) -> Shape:
        """(Z, Y, X) after crop and padding, before resizing."""
        z, y, x = (
            high - low + before + after
            for (low, high), (before, after) in zip(self.crop, self.pad, strict=True)
        )
        return z, y, x

    @property
    def grid(self) -> Grid:
        """Where the prepared voxels lie in the patient."""
        step = np.eye(4)
        ends = zip(self.box_shape, self.shape, self.crop, self.pad, strict=True)
        for axis, (box, size, (low, _), (before, _)) in enumerate(ends):
            factor = box / size
            step[2 - axis, 2 - axis] = factor
            step[2 - axis, 3] = 0.5 * factor - 0.5 + low - before
        return Grid(self.shape, self.turn.grid(self.native).affine @ step)

    def to_json(self) -> dict[str, Any]:
        """The trace as plain JSON values, to be kept beside a run's results."""
        native = {"shape": list(self.native.shape), "affine": self.native.affine.tolist()}
        settings = {name: getattr(self, name) for name in ("crop", "pad", "shape")}
        intensities = [asdict(intensity) for intensity in self.intensities]
        return {"native": native, "turn": asdict(self.turn), **settings, "intensities": intensities}


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case as a network reads it: image float32 (C, Z, Y, X) in [-1, 1], and how it came about."""

    image: NDArray[np.float32]
    trace: Trace


def prepare(images: Mapping[str, Volume], how: Preparation) -> Prepared:
    """Prepare one case's aligned scans, given by modality. Modalities that `how` does not name are left out.

    The modalities must lie on one grid (corners within half a voxel of the first one's). Slices are worked on
    one at a time: beside the result only a few slices are in memory.

    Raises:
        DataError: a modality is missing, lies on another grid, or holds NaN or infinite values.
    """
    missing = [name for name in how.channels if name not in images]
    if missing:
        raise DataError(
            "a modality is missing", found=f"{', '.join(images)}", expected=f"{', '.join(how.channels)}"
        )
    native = images[next(iter(how.channels))].grid
    for name in how.channels:
        _refuse_other_grid(images[name], native, f"modality {name}")
        refuse_nonfinite(images[name], name)
    trace = _plan(images, how, native)
    image = np.empty((how.channel_count, *trace.shape), dtype=np.float32)
    for channel, intensity in zip(image, trace.intensities, strict=True):
        turned = trace.turn.do(images[intensity.modality].voxels)
        _fill(channel, turned, trace, intensity)
    return Prepared(image, trace)


def prepare_mask(mask: Mask, trace: Trace) -> NDArray[np.uint8]:
    """The mask of a prepared case on the network's grid: uint8 (Z, Y, X), `IGNORE` kept, 0 in the padding.

    A voxel of the network's grid is background only if it is so by more than 60 %, otherwise it takes the
    label that covers most of it: for small lesions this gives a higher ceiling than the nearest label or the
    plain majority (radius 6 pixels, halved: 0.926 against 0.908 and 0.919), for large organs the same.

    Raises:
        DataError: the mask lies on another grid than the scan, or holds values above 255.
    """
    _refuse_other_grid(mask, trace.native, "mask")
    if mask.voxels.dtype.itemsize > 1 and mask.voxels.max() > 255:
        raise DataError(
            "a mask holds a label above 255",
            found=f"{mask.voxels.max()}",
            expected="labels 0 to 254, 255 ignore",
        )
    z, y, x = (slice(low, high) for low, high in trace.crop)
    kept = trace.turn.do(mask.voxels)[z, y, x].astype(np.uint8)
    return resize_labels(np.pad(kept, trace.pad), trace.shape, background=_BACKGROUND)


def undo(labels: NDArray[np.integer[Any]], trace: Trace) -> Mask:
    """A label map (Z, Y, X) on the network's grid, brought back onto the scan; 0 outside the crop."""
    _refuse_other_shape(labels.shape, trace)
    if labels.dtype != np.uint8 and labels.size and not 0 <= labels.min() <= labels.max() <= 255:
        raise ShapeError("labels must be 0 to 255", found=f"{labels.min()} to {labels.max()}")
    return _uncrop(resize_labels(labels.astype(np.uint8, copy=False), trace.box_shape), trace)


def undo_probabilities(
    probabilities: NDArray[np.floating], trace: Trace, *, labels: Sequence[int] | None = None
) -> Mask:
    """The most probable label of every voxel of the scan, from probabilities (K, Z, Y, X) of any scale.

    Probabilities are interpolated linearly first, one slice of the scan at a time, which is smoother than
    `undo` of their argmax. `labels[k]` is the label of class k; by default k. 0 outside the crop.
    """
    _refuse_other_shape(probabilities.shape[1:], trace)
    values = range(len(probabilities)) if labels is None else labels
    return _uncrop(resize_probabilities(probabilities, trace.box_shape, values), trace)


def ceiling_mask(mask: Mask, trace: Trace) -> Mask:
    """The mask after the trip to the network's grid and back: the best that a perfect network could give."""
    return undo(prepare_mask(mask, trace), trace)


def _window(window: Any) -> Window:
    return window if isinstance(window, str) else tuple(float(number) for number in window)  # type: ignore[return-value]


def _check(how: Preparation) -> None:
    """Raise `ConfigError` on the first setting that is out of range or contradicts another."""
    if not how.channels or not all(how.channels.values()):
        raise ConfigError(
            "a preparation needs at least one channel of every modality", found=f"{how.channels}"
        )
    for windows in how.channels.values():
        for window in windows:
            check_window(window)
    for name, known in (
        ("axes", ("slices", "volume")),
        ("crop", ("none", "body", "nonzero")),
        ("orientation", (*STANDARD, "native")),
    ):
        if getattr(how, name) not in known:
            raise ConfigError(f"unknown {name}", found=f"{getattr(how, name)!r}", expected=", ".join(known))
    for name, count, other in (("size", 2, "volume"), ("spacing_mm", 3, "slices")):
        value = getattr(how, name)
        if value is None:
            continue
        if how.axes == other:
            raise ConfigError(f"{name} has no meaning with axes={other!r}", mend=f"Leave {name} out.")
        if len(value) != count or min(value) <= 0:
            raise ConfigError(f"{name} needs {count} numbers above 0", found=f"{value}")
    for name in ("percentiles", "film_percentiles"):
        low, high = getattr(how, name)
        if not 0 <= low < high <= 100:
            raise ConfigError(f"{name} must rise within 0 to 100", found=f"{(low, high)}")


def _refuse_other_grid(volume: Volume, native: Grid, where: str) -> None:
    shift = corner_displacement_mm(volume.grid, native)
    limit = 0.5 * min(native.spacing_mm)
    if shift >= limit:
        raise DataError(
            "does not lie on the grid of the scan",
            where=where,
            found=f"shape {volume.shape}, corners up to {shift:.3g} mm away",
            expected=f"shape {native.shape}, corners within {limit:.3g} mm (half a voxel)",
            mend="Resample it onto the scan first.",
        )


def _refuse_other_shape(shape: tuple[int, ...], trace: Trace) -> None:
    if shape != trace.shape:
        raise ShapeError(
            "labels do not have the shape of the prepared image", found=f"{shape}", expected=f"{trace.shape}"
        )


def _plan(images: Mapping[str, Volume], how: Preparation, native: Grid) -> Trace:
    """Decide everything before touching a voxel of the result."""
    turn = nearest_turn(native, how.orientation)
    turned = turn.grid(native)
    first = next(iter(how.channels))
    box = find_box(turn.do(images[first].voxels), turned.spacing_mm, how.crop)
    if how.axes == "slices":
        box = (whole(turned.shape)[0], box[1], box[2])
    z, y, x = (high - low for low, high in box)
    pad = ((0, 0), (0, 0), (0, 0))
    if how.axes == "slices":
        side = max(y, x) if how.square else 0
        pad = ((0, 0), _centred(y, side), _centred(x, side))
        height, width = how.size or (y + sum(pad[1]), x + sum(pad[2]))
        shape = (z, height, width)
    else:
        spacing = how.spacing_mm or turned.spacing_mm
        ends = zip((z, y, x), turned.spacing_mm, spacing, strict=True)
        depth, height, width = (max(1, round(n * mm / wanted)) for n, mm, wanted in ends)
        shape = (depth, height, width)
    percentiles = {"percentiles": how.percentiles, "film_percentiles": how.film_percentiles}
    intensities = tuple(
        fit_intensity(images[name], name, window, **percentiles)
        for name, windows in how.channels.items()
        for window in windows
    )
    return Trace(native, turn, box, pad, shape, intensities)


def _centred(size: int, wanted: int) -> tuple[int, int]:
    """Voxels to add before and after an axis of `size` to reach `wanted`, the larger half after."""
    missing = max(0, wanted - size)
    return missing // 2, missing - missing // 2


def _fill(out: NDArray[np.float32], turned: NDArray[np.generic], trace: Trace, how: Intensity) -> None:
    """Write one channel (Z, Y, X) of the prepared image into `out`."""
    (first, _), (y0, y1), (x0, x1) = trace.crop
    rows, columns = trace.pad[1:]

    def read(z: int) -> NDArray[np.float32]:
        plane = np.full(trace.box_shape[1:], how.padding, dtype=np.float32)
        inside = plane[rows[0] : rows[0] + y1 - y0, columns[0] : columns[0] + x1 - x0]
        inside[:] = how.apply(turned[first + z, y0:y1, x0:x1])
        return plane

    resize_slices(read, trace.box_shape, out)
    np.clip(out, -1.0, 1.0, out=out)


def _uncrop(labels: NDArray[np.uint8], trace: Trace) -> Mask:
    """Labels (Z, Y, X) of the padded box, put back into the scan."""
    turned = np.zeros(trace.turn.grid(trace.native).shape, dtype=np.uint8)
    inside = tuple(
        slice(before, n - after) for n, (before, after) in zip(labels.shape, trace.pad, strict=True)
    )
    z, y, x = (slice(low, high) for low, high in trace.crop)
    turned[z, y, x] = labels[inside]
    return Mask(np.ascontiguousarray(trace.turn.undo(turned)), trace.native.affine)
