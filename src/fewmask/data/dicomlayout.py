"""Where the slices of a DICOM series lie, and what is wrong with that.

Slices are sorted by their position along the slice normal, never by their number. Nothing is moved,
filled or interpolated: a fault is refused, or reported and kept.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import Problem
from fewmask.core.volume import LPS_TO_RAS, Grid
from fewmask.data.dicomslices import PHASES, Slice
from fewmask.data.geometry import orthonormalise, tolerated_shift_mm

UNEVEN = 0.05
"""A distance between neighbours is uneven when it differs from the usual one by more than this part."""

SAME_POSITION_MM = 1e-3
"""Slices closer than this lie at the same position."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a series. With `fatal`, no reading of it makes sense, not even a reported one."""

    what: str
    found: str
    mend: str
    fatal: bool = False

    def problem(self, where: str) -> Problem:
        """The fault as part of an error."""
        return Problem(self.what, where, self.found, "", self.mend)


@dataclass(frozen=True)
class Layout:
    """Slices in the order of their positions, the affine (x, y, z) -> RAS+ mm they span, faults and notes."""

    slices: tuple[Slice, ...]
    affine: NDArray[np.float64]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]


def lay_out(slices: Sequence[Slice]) -> Layout:
    """Sort slices along their normal and find every fault of their geometry. Copies count once."""
    single = tuple({_identity(one): one for one in reversed(slices)}.values())[::-1]
    layout = _lay_out(single)
    if len(single) == len(slices):
        return layout
    return replace(layout, faults=(_copies(slices, single), *layout.faults))


def _lay_out(slices: Sequence[Slice]) -> Layout:
    faults = _unlike(slices)
    if faults:
        return Layout(tuple(slices), np.eye(4), faults, ())
    first = slices[0]
    if first.position is None or first.orientation is None:
        return _without_place(slices)
    normal = _normal(first.orientation)
    along = np.array([one.position @ normal for one in slices if one.position is not None])
    order = np.argsort(along, kind="stable")
    ordered = tuple(slices[i] for i in order)
    if len(ordered) == 1:
        affine, notes = _affine(ordered, normal * _thickness(first))
        return Layout(ordered, affine, (), notes)
    return _stack(ordered, along[order], normal)


def _stack(ordered: tuple[Slice, ...], along: NDArray[np.float64], normal: NDArray[np.float64]) -> Layout:
    duplicates = _duplicates(ordered, along)
    if duplicates:
        return Layout(ordered, np.eye(4), duplicates, ())
    faults = list(_gaps(along))
    distance = float(np.median(np.diff(along))) if faults else float(along[-1] - along[0]) / (len(along) - 1)
    positions = np.array([one.position for one in ordered])
    aside = positions - np.outer(along, normal)  # where each slice lies within its plane
    centred = along - along.mean()
    slide = centred @ (aside - aside.mean(axis=0)) / (centred @ centred)  # mm aside per mm along
    wander = float(np.linalg.norm(aside - aside.mean(axis=0) - np.outer(centred, slide), axis=1).max())
    dy, dx = ordered[0].spacing_mm or (1.0, 1.0)
    if wander > min(dy, dx):
        faults.append(_wandering(wander))
    affine, notes = _affine(ordered, (normal + slide) * distance)
    grid = Grid((len(ordered), *ordered[0].size), affine)
    upright = orthonormalise(grid)
    if upright.shift_mm > tolerated_shift_mm(grid):
        faults.append(_tilt(slide, distance, len(ordered)))
    else:
        affine, notes = upright.affine, (*notes, *upright.notes)
    return Layout(ordered, affine, tuple(faults), notes)


def _affine(
    ordered: Sequence[Slice], step: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Affine to RAS+ from the first slice's place and directions and the `step` (LPS+ mm) between slices."""
    first = ordered[0]
    assert first.orientation is not None
    assert first.position is not None
    dy, dx = first.spacing_mm or (1.0, 1.0)
    notes = () if first.spacing_mm else ("no pixel size in the header: 1 mm was taken",)
    lps = np.eye(4)
    lps[:3, 0] = first.orientation[:3] / np.linalg.norm(first.orientation[:3]) * dx
    lps[:3, 1] = first.orientation[3:] / np.linalg.norm(first.orientation[3:]) * dy
    lps[:3, 2] = step
    lps[:3, 3] = first.position
    return LPS_TO_RAS @ lps, notes


def _normal(orientation: NDArray[np.float64]) -> NDArray[np.float64]:
    normal = np.cross(orientation[:3], orientation[3:])
    return np.asarray(normal / np.linalg.norm(normal), dtype=np.float64)


def _thickness(one: Slice) -> float:
    return one.thickness_mm or 1.0


def _without_place(slices: Sequence[Slice]) -> Layout:
    """A plain radiograph has pixels but no place in the patient; several of them are no volume."""
    first = slices[0]
    dy, dx = first.spacing_mm or (1.0, 1.0)
    affine = np.diag([dx, dy, _thickness(first), 1.0])
    notes = ["the header gives no position: the image lies nowhere in the patient"]
    if first.spacing_mm is None:
        notes.append("no pixel size in the header: 1 mm was taken")
    if len(slices) == 1:
        return Layout(tuple(slices), affine, (), tuple(notes))
    fault = Fault(
        "its images have no position, so their order in space is unknown",
        f"{len(slices)} images without ImagePositionPatient (0020,0032)",
        "If they are single pictures (radiographs), read each file by itself; if they are a volume, "
        "export the series again as CT, MR or enhanced images.",
        fatal=True,
    )
    return Layout(tuple(slices), affine, (fault,), tuple(notes))


def _unlike(slices: Sequence[Slice]) -> tuple[Fault, ...]:
    """Faults of images that differ in size, pixel size, direction or having a position at all."""
    sizes = Counter(f"{one.size[0]} x {one.size[1]}" for one in slices)
    spacings = Counter(_words(one.spacing_mm, 4) for one in slices)
    planes = Counter(_words(one.orientation, 3) for one in slices)
    placed = Counter("with" if one.position is not None else "without" for one in slices)
    faults = []
    for what, counts in (
        ("its images differ in size (rows x columns)", sizes),
        ("its images differ in pixel size (mm)", spacings),
        ("its images lie in different directions", planes if _turned(slices) else Counter[str]()),
        ("some of its images have a position and some have none", placed),
    ):
        if len(counts) > 1:
            found = "; ".join(f"{count} of {name}" for name, count in counts.most_common(6))
            faults.append(
                Fault(what, found, "A scout or another scan is mixed in: move those files elsewhere.", True)
            )
    return tuple(faults)


def _turned(slices: Sequence[Slice]) -> bool:
    planes = [one.orientation for one in slices if one.orientation is not None]
    return any(np.abs(plane - planes[0]).max() > 1e-3 for plane in planes)


def _words(values: Sequence[float] | NDArray[np.float64] | None, digits: int) -> str:
    return (
        "none"
        if values is None
        else "(" + ", ".join(f"{round(float(v), digits) + 0.0:g}" for v in values) + ")"
    )


def _identity(one: Slice) -> tuple[object, ...]:
    """What two files of the same image share. The UID alone would not do: poor anonymisers repeat it."""
    place = [tuple(v.tolist()) if v is not None else None for v in (one.position, one.orientation)]
    return (one.instance, one.frame, one.size, one.spacing_mm, *place, one.phases)


def _copies(slices: Sequence[Slice], single: Sequence[Slice]) -> Fault:
    kept = {one.path for one in single}
    names = list(dict.fromkeys(one.path.name for one in slices if one.path not in kept))
    return Fault(
        "some files are copies of others (same SOP Instance UID)",
        f"{len(names)} too many: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}",
        "Delete them. Or read it in Python with on_fault='report': each image is taken once.",
    )


def _duplicates(ordered: Sequence[Slice], along: NDArray[np.float64]) -> tuple[Fault, ...]:
    twice = np.flatnonzero(np.diff(along) < SAME_POSITION_MM).tolist()
    if not twice:
        return ()
    pairs = [(ordered[i], ordered[i + 1], float(along[i])) for i in twice]
    shown = "; ".join(f"{a.path.name} and {b.path.name} at {at:.2f} mm" for a, b, at in pairs[:3])
    more = f"; and {len(pairs) - 3} more" if len(pairs) > 3 else ""
    a, b, _ = pairs[0]
    differ = [f"{n} ({x} / {y})" for n, x, y in zip(PHASES, a.phases, b.phases, strict=True) if x != y]
    mend = (
        f"They differ in {', '.join(differ[:3])}: put the files of each into a folder of its own."
        if differ
        else "Delete one of each, or put the files of each scan into a folder of its own."
    )
    what = f"{len(pairs)} positions are taken twice" if len(pairs) > 1 else "one position is taken twice"
    return (Fault(what, shown + more, mend, fatal=True),)


def _gaps(along: NDArray[np.float64]) -> list[Fault]:
    steps = np.diff(along)
    usual = float(np.median(steps))
    odd = np.flatnonzero(np.abs(steps - usual) > max(UNEVEN * usual, 0.02))
    if not len(odd):
        return []
    missing = [round(float(steps[i]) / usual) - 1 for i in odd]
    whole = all(
        n >= 1 and abs(steps[i] / usual - n - 1) < UNEVEN * (n + 1) for i, n in zip(odd, missing, strict=True)
    )
    shown = "; ".join(f"{steps[i]:.2f} mm from {along[i]:.2f} to {along[i + 1]:.2f} mm" for i in odd[:4])
    more = f"; and {len(odd) - 4} more" if len(odd) > 4 else ""
    what = (
        f"{sum(missing)} slice{'s are' if sum(missing) > 1 else ' is'} missing"
        if whole
        else "its slices are not evenly spaced"
    )
    mend = (
        "Copy the missing files from the archive"
        if whole
        else "Use the part with even spacing, or resample the scan yourself"
    )
    return [
        Fault(
            what,
            f"usual distance {usual:.2f} mm along the slice normal, but {shown}{more}",
            f"{mend}. Or read it in Python with on_fault='report': slices {usual:.2f} mm apart, as they are.",
        )
    ]


def _tilt(slide: NDArray[np.float64], distance: float, count: int) -> Fault:
    amount = float(np.linalg.norm(slide))
    return Fault(
        f"the gantry was tilted by {np.degrees(np.arctan(amount)):.1f} degrees",
        f"each slice lies {amount * distance:.2f} mm aside of the one before, "
        f"{amount * distance * (count - 1):.1f} mm over the stack",
        "Resample it upright (e.g. dcm2niix, or 3D Slicer with 'acquisition geometry regularization'). Or "
        "read it with on_fault='report': the voxels stay as they are, with a sheared affine.",
    )


def _wandering(wander_mm: float) -> Fault:
    return Fault(
        "its slices do not lie on a straight line",
        f"a slice lies {wander_mm:.2f} mm aside of the line through the others",
        "Two scans with different fields of view are mixed: put each into a folder of its own.",
        fatal=True,
    )
