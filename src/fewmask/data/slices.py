"""Volumes as ordered slices and back; which slices are worth learning from; a cohort of them as one array."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import ndimage

from fewmask.core.errors import ConfigError, DataError, ShapeError
from fewmask.core.files import write_atomic
from fewmask.data.case import Case, Cohort
from fewmask.data.case_voxels import read_case_mask, read_images
from fewmask.data.prepare import Preparation, Prepared, Trace, prepare, prepare_mask

AIR_LIMIT_HU = -400.0
"""Voxels below this are air, in the body or around it."""

IMAGES_NPY = "images.npy"
"""Slices streamed to a folder, one array (N, C, H, W)."""

Rule = Callable[[Prepared], NDArray[np.bool_]]
"""Which slices (Z,) of a prepared case are worth learning from."""


@dataclass(frozen=True)
class SliceRef:
    """Where a slice comes from."""

    case: str
    """Name of the case."""
    z: int
    """Number of the slice in the prepared volume, from 0."""


@dataclass(frozen=True, eq=False)
class SliceSet:
    """Slices of many cases as one array: image n is refs[n]."""

    images: NDArray[Any]
    """(N, C, H, W) float in [-1, 1], in memory or memory-mapped."""
    masks: NDArray[np.uint8] | None
    """(N, H, W), or None."""
    refs: tuple[SliceRef, ...]
    """Where each slice comes from, in order of case and z."""
    patients: tuple[str, ...]
    """Whose slice each is."""
    traces: Mapping[str, Trace]
    """How each case was prepared, by its name."""


def to_slices(image: NDArray[Any]) -> NDArray[Any]:
    """A prepared image (C, Z, H, W) as slices (Z, C, H, W) in order; a view."""
    if image.ndim != 4:
        raise ShapeError("a prepared image has four axes (C, Z, H, W)", found=f"{image.shape}")
    return image.swapaxes(0, 1)


def from_slices(slices: Sequence[NDArray[Any]] | NDArray[Any]) -> NDArray[Any]:
    """Slices in order, each (C, H, W), as one image (C, Z, H, W); or each (H, W), as labels (Z, H, W)."""
    stacked = np.asarray(slices)
    if stacked.ndim not in (3, 4):
        raise ShapeError("slices must be (Z, C, H, W) or (Z, H, W)", found=f"{stacked.shape}")
    return stacked.swapaxes(0, 1) if stacked.ndim == 4 else stacked


def with_content(prepared: Prepared, *, share: float = 0.02) -> NDArray[np.bool_]:
    """Slices (Z,) in which at least `share` of the pixels differ from empty space by 5 % of the range."""
    empty = [intensity.padding for intensity in prepared.trace.intensities]
    kept = np.zeros(prepared.image.shape[1], dtype=np.bool_)
    for channel, padding in zip(prepared.image, empty, strict=True):
        for z, plane in enumerate(channel):
            kept[z] |= np.mean(np.abs(plane - padding) > 0.1) >= share
    return kept


def with_lung(prepared: Prepared, *, share: float = 0.02) -> NDArray[np.bool_]:
    """Slices (Z,) of a chest CT in which air inside the body covers at least `share` of the picture.

    Air is below `AIR_LIMIT_HU`; inside the body means that its part does not touch the picture's edge.

    Raises:
        ConfigError: no channel has a CT window that tells -400 HU from its neighbours.
    """
    limits = [(i.apply(np.array(AIR_LIMIT_HU)).item(), n) for n, i in enumerate(prepared.trace.intensities)]
    usable = [
        (limit, n)
        for limit, n in limits
        if prepared.trace.intensities[n].floor is not None and -0.95 < limit < 0.95
    ]
    if not usable:
        raise ConfigError(
            "no channel can tell lung from tissue",
            found=", ".join(str(i.window) for i in prepared.trace.intensities),
            expected="a CT window around -400 HU, such as lung or wide",
            mend="Add such a channel, or choose the slices by content.",
        )
    limit, channel = usable[0]
    return np.array([_inner(plane < limit) >= share for plane in prepared.image[channel]])


def _inner(air: NDArray[np.bool_]) -> float:
    """Share of the plane (H, W) covered by parts of `air` that do not touch its edge."""
    parts, _ = ndimage.label(air)
    outside = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return float(np.mean(~np.isin(parts, np.append(outside, 0))))


def spread(count: int, cap: int | None) -> NDArray[np.int64]:
    """At most `cap` numbers out of 0 ... count - 1, evenly spaced, the middles of `cap` equal stretches."""
    if cap is None or count <= cap:
        return np.arange(count)
    return ((np.arange(cap) + 0.5) * count / cap).astype(np.int64)


def select_slices(prepared: Prepared, rule: Rule | None = with_content) -> tuple[int, ...]:
    """Numbers of the slices that `rule` keeps; all slices if it keeps none, or without a rule."""
    if rule is None:
        return tuple(range(prepared.image.shape[1]))
    kept = np.flatnonzero(rule(prepared))
    return tuple(kept.tolist()) or tuple(range(prepared.image.shape[1]))


def prepare_slices(
    cases: Sequence[Case],
    cohort: Cohort,
    how: Preparation,
    *,
    masks: bool,
    rule: Rule | None = with_content,
    cap: int | None = None,
    reader: str | None = None,
    dtype: DTypeLike = np.float16,
    folder: Path | None = None,
) -> SliceSet:
    """Prepare many cases into one array of slices. One case is in memory at a time.

    Args:
        cases: the cases, e.g. of the training patients.
        cohort: where the classes of their masks are declared.
        how: the preparation; with a fixed `size`, since all slices must have one shape.
        masks: whether to prepare masks too; every case must then have one.
        rule: which slices to keep; None keeps all.
        cap: at most so many slices of one patient, evenly spaced over all that the rule keeps.
        reader: whose masks; by default the cohort's.
        dtype: float16 halves the memory and is exact to 0.0005.
        folder: where the images are written and memory-mapped from; None: in memory. Masks are in memory.

    Raises:
        DataError: no slice at all, or a case cannot be read.
        ConfigError: the preparation has no fixed size, or resamples to a 3-D grid.
        RunError: the folder cannot be written.
    """
    if how.axes != "slices" or how.size is None:
        raise ConfigError(
            "slices of many cases need one size",
            found=f"axes={how.axes!r}, size={how.size}",
            mend="Set size.",
        )

    def read(case: Case) -> tuple[Prepared, NDArray[np.uint8] | None]:
        prepared = prepare(read_images(case), how)
        if not masks:
            return prepared, None
        return prepared, prepare_mask(read_case_mask(case, cohort, reader=reader), prepared.trace)

    return gather_slices(cases, read, rule=rule, cap=cap, dtype=dtype, folder=folder)


def gather_slices(
    cases: Sequence[Case],
    read: Callable[[Case], tuple[Prepared, NDArray[np.uint8] | None]],
    *,
    rule: Rule | None = with_content,
    cap: int | None = None,
    dtype: DTypeLike = np.float16,
    folder: Path | None = None,
) -> SliceSet:
    """As `prepare_slices`, with `read` giving the prepared case and its prepared mask or None.

    The scans of a patient are read one after the other, in the order of the patient's first case.
    """
    refs: list[SliceRef] = []
    patients: list[str] = []
    traces: dict[str, Trace] = {}

    def chunks() -> Iterator[tuple[NDArray[Any], NDArray[np.uint8] | None]]:
        for patient, scans in _by_patient(cases).items():
            images, labels, names = _patient(scans, read, rule, cap, traces, np.dtype(dtype))
            refs.extend(names)
            patients.extend([patient] * len(names))
            yield images, labels

    if not cases:
        raise DataError("no slice to prepare", found="no case", expected="at least one case")
    images, masks = _collect(chunks(), folder)
    return SliceSet(images, masks, tuple(refs), tuple(patients), traces)


def _by_patient(cases: Sequence[Case]) -> dict[str, list[Case]]:
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.patient, []).append(case)
    return groups


def _patient(
    scans: Sequence[Case],
    read: Callable[[Case], tuple[Prepared, NDArray[np.uint8] | None]],
    rule: Rule | None,
    cap: int | None,
    traces: dict[str, Trace],
    dtype: np.dtype[Any],
) -> tuple[NDArray[Any], NDArray[np.uint8] | None, list[SliceRef]]:
    """The chosen slices (N, C, H, W), masks (N, H, W) and references of one patient."""
    images, masks, refs = [], [], []
    for case in scans:
        prepared, labels = read(case)
        traces[case.name] = prepared.trace
        chosen = select_slices(prepared, rule)
        refs += [SliceRef(case.name, z) for z in chosen]
        images.append(to_slices(prepared.image)[list(chosen)].astype(dtype))
        if labels is not None:
            masks.append(labels[list(chosen)])
    kept = spread(len(refs), cap)
    chosen_masks = np.concatenate(masks)[kept] if masks else None
    return np.concatenate(images)[kept], chosen_masks, [refs[n] for n in kept]


def _collect(
    chunks: Iterable[tuple[NDArray[Any], NDArray[np.uint8] | None]], folder: Path | None
) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """All chunks one after the other. With a folder the images are streamed to a file and memory-mapped."""
    parts: list[NDArray[Any]] = []
    masks: list[NDArray[np.uint8]] = []

    def images() -> Iterator[NDArray[Any]]:
        for image, mask in chunks:
            if mask is not None:
                masks.append(mask)
            yield image

    if folder is None:
        parts.extend(images())
    else:
        path = write_atomic(folder / IMAGES_NPY, lambda temporary: _stream(temporary, images()))
        parts.append(np.load(path, mmap_mode="r"))
    together = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return together, np.concatenate(masks) if masks else None


def _stream(path: Path, chunks: Iterable[NDArray[Any]]) -> None:
    """Write rows to an .npy file as they come. NumPy leaves room in the header for a growing first axis."""
    count = 0
    with path.open("wb") as file:
        for rows in chunks:
            count += len(rows)
            header = {
                "descr": np.lib.format.dtype_to_descr(rows.dtype),
                "fortran_order": False,
                "shape": (count, *rows.shape[1:]),
            }
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, header)
            file.seek(0, os.SEEK_END)
            file.write(np.ascontiguousarray(rows).data)
