"""How large, where and in how many pieces a class is in a mask, and whether that is seen in real masks.

A generated mask that real masks do not resemble in these three is no example to learn from. Masks are (H, W)
on one grid; sizes are in its pixels.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fewmask.core.errors import ShapeError


@dataclass(frozen=True)
class Shape:
    """One class in one mask: its pixels, the (y, x) centre of them (None without any), and its pieces.

    A piece is a component of 8 connected pixels.
    """

    pixels: int
    centre: tuple[float, float] | None
    pieces: int


def shapes(mask: NDArray[np.integer], classes: Mapping[str, int]) -> dict[str, Shape]:
    """The shape of every class, by the classes' label values, in a mask (H, W)."""
    if mask.ndim != 2:
        raise ShapeError("shapes are told of masks of one slice", found=f"{mask.shape}", expected="(H, W)")
    return {name: _shape(mask == value) for name, value in classes.items()}


def _shape(drawn: NDArray[np.bool_]) -> Shape:
    pixels = int(np.count_nonzero(drawn))
    if not pixels:
        return Shape(0, None, 0)
    y, x = (round(float(each.mean()), 3) for each in np.nonzero(drawn))
    return Shape(pixels, (y, x), int(ndimage.label(drawn, structure=np.ones((3, 3)))[1]))


@dataclass(frozen=True)
class Margin:
    """How far beyond what real masks show a class may go.

    area: factor on the smallest and the largest area; centre: pixels added around the box of the centres;
    pieces: pieces more or fewer.
    """

    area: float = 1.5
    centre: float = 4.0
    pieces: int = 1


@dataclass(frozen=True)
class Range:
    """What real masks show of one class, where they show it: least and most."""

    area: tuple[int, int]
    centre_y: tuple[float, float]
    centre_x: tuple[float, float]
    pieces: tuple[int, int]
    may_lack: bool
    """Whether some real mask does not show the class."""

    def refusals(self, shape: Shape, margin: Margin) -> list[str]:
        """In which of "absent", "area", "centre", "pieces" a shape is out of range; empty: in none."""
        if shape.centre is None:
            return [] if self.may_lack else ["absent"]
        y, x = shape.centre
        least, most = self.area[0] / margin.area, self.area[1] * margin.area
        inside = {
            "area": least <= shape.pixels <= most,
            "centre": _within(y, self.centre_y, margin.centre) and _within(x, self.centre_x, margin.centre),
            "pieces": _within(shape.pieces, self.pieces, margin.pieces),
        }
        return [name for name, fits in inside.items() if not fits]


def _within(value: float, ends: tuple[float, float], margin: float) -> bool:
    return ends[0] - margin <= value <= ends[1] + margin


def ranges(
    masks: Sequence[Mapping[str, Shape]], *, anywhere: Collection[str] = ()
) -> dict[str, Range | None]:
    """What the masks show of each class; None for a class that none of them shows.

    Classes that may be `anywhere`, as lesions may, can lie at any place, be as small as one pixel, and be
    absent, whatever the masks show: only their largest area and their pieces are taken from these.

    Raises `ShapeError` without any mask.
    """
    if not masks:
        raise ShapeError("no mask to take the range of shapes from", found="0", expected="at least 1")
    found: dict[str, Range | None] = {}
    for name in masks[0]:
        shown = [mask[name] for mask in masks if mask[name].centre is not None]
        centres = np.array([shape.centre for shape in shown], dtype=np.float64)
        found[name] = (
            Range(
                area=_ends([shape.pixels for shape in shown]),
                centre_y=(float(centres[:, 0].min()), float(centres[:, 0].max())),
                centre_x=(float(centres[:, 1].min()), float(centres[:, 1].max())),
                pieces=_ends([shape.pieces for shape in shown]),
                may_lack=len(shown) < len(masks),
            )
            if shown
            else None
        )
    for name in set(anywhere):
        known = found.get(name)
        if known is not None:
            box = (-np.inf, np.inf)
            found[name] = replace(
                known,
                area=(1, known.area[1]),
                centre_y=box,
                centre_x=box,
                pieces=(1, known.pieces[1]),
                may_lack=True,
            )
    return found


def _ends(values: Sequence[int]) -> tuple[int, int]:
    return min(values), max(values)


def implausible(
    mask: Mapping[str, Shape], seen: Mapping[str, Range | None], margin: Margin
) -> tuple[str, ...]:
    """Why a mask does not look like the real ones, as "CLASS: area" and so on; empty: it does.

    A class that no real mask shows is "CLASS: unknown" where the mask shows it.
    """
    reasons = []
    for name, shape in mask.items():
        known = seen[name]
        if known is None:
            reasons += [f"{name}: unknown"] if shape.pixels else []
        else:
            reasons += [f"{name}: {why}" for why in known.refusals(shape, margin)]
    return tuple(reasons)


@dataclass(frozen=True)
class ClassRow:
    """How often and how large one class is, in real and in generated masks."""

    class_name: str
    real: int
    """Real masks."""
    real_present: float
    """Share of them that show the class, 0-1."""
    real_area: tuple[float, float, float] | None
    """Quartiles of its pixels where it is shown; None where it never is."""
    made: int
    """Generated masks."""
    made_present: float
    """The same for these."""
    made_area: tuple[float, float, float] | None


def class_table(
    real: Sequence[Mapping[str, Shape]], made: Sequence[Mapping[str, Shape]]
) -> tuple[ClassRow, ...]:
    """Presence and areas of every class, real against generated; a `ShapeError` when either is empty."""
    if not real or not made:
        found = f"{len(real)} real, {len(made)} generated"
        raise ShapeError("no masks to compare", found=found, expected="at least 1 of each")
    rows = []
    for name in real[0]:
        ours, theirs = ([mask[name] for mask in masks] for masks in (real, made))
        rows.append(ClassRow(name, len(ours), *_summary(ours), len(theirs), *_summary(theirs)))
    return tuple(rows)


def _summary(found: Sequence[Shape]) -> tuple[float, tuple[float, float, float] | None]:
    pixels = [shape.pixels for shape in found if shape.pixels]
    if not pixels:
        return 0.0, None
    low, middle, high = np.quantile(pixels, (0.25, 0.5, 0.75)).tolist()
    return len(pixels) / len(found), (low, middle, high)
