"""Boxes that readers drew on pictures: from a table to each case, onto the network's grid and back.

A box is x, y, w, h in pixels of the source picture; x and y are of its upper left corner, measured from the
upper left edge of the first pixel: pixel (row, column) covers row..row+1 and column..column+1.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import DataError, Problem
from fewmask.data.case import Case, Cohort
from fewmask.data.case_voxels import read_image_grid
from fewmask.data.cohort_table import FILE_COLUMNS, Table, read_table, stem
from fewmask.data.prepare import Trace

Rectangles = NDArray[np.float64]
"""(K, 4): x, y, w, h."""

BESIDE = 1.0
"""Pixels by which a box may leave the picture: readers round. It is cut at the picture's edge."""

_NUMBERS = ("x", "y", "w", "h")
_FINDING = "finding"


@dataclass(frozen=True)
class FindingBox:
    """One box: what was found, and where, in pixels of the source picture."""

    finding: str
    x: float
    y: float
    w: float
    h: float


def read_boxes(
    path: Path, cohort: Cohort, *, unknown: Literal["refuse", "leave out"] = "refuse"
) -> dict[str, tuple[FindingBox, ...]]:
    """The boxes of each case, by its name, in the table's order; cases without boxes are not in it.

    Args:
        path: a table with the columns `file` (or `case`, `image`), `x`, `y`, `w`, `h` and, if there are
            several findings, `finding`; a row is one box. A file is named as it lies in the cohort, with as
            many of its folders as tell it apart, or by its case.
        cohort: pictures, or volumes of one slice.
        unknown: what to do with boxes of cases that the cohort does not have.

    Raises:
        DataError: missing columns; and, all told at once, boxes that are no numbers, without area, outside
            their picture, of an unknown case, of a file that several cases fit, or of a volume of slices.
    """
    table = read_table(path)
    files = _file_column(table)
    finding = table.column((_FINDING,))
    named = {name: table.column((name,)) for name in _NUMBERS}
    known = _Known(cohort)
    boxes: dict[str, list[FindingBox]] = defaultdict(list)
    faults: list[Problem] = []
    for number, row in table.rows:
        where = f"{path.name} row {number}"
        case = known.find(row.get(files, ""), where, faults, refuse=unknown == "refuse")
        corners = _corners([row.get(named[name] or "", "") for name in _NUMBERS], where, faults)
        if case is None or corners is None:
            continue
        inside = _inside(corners, known.size(case, where, faults), where, faults)
        if inside is not None:
            boxes[case.name].append(FindingBox(row.get(finding or "", ""), *inside))
    if faults:
        raise DataError.of(faults, title=f"{path} has {len(faults)} faults:" if len(faults) > 1 else "")
    return {name: tuple(those) for name, those in boxes.items()}


def native_rectangles(boxes: tuple[FindingBox, ...]) -> Rectangles:
    """The boxes of one case as (K, 4) on the picture's own grid, x, y, w, h in its pixels."""
    return np.array([(box.x, box.y, box.w, box.h) for box in boxes], dtype=np.float64).reshape(-1, 4)


def prepared_rectangles(boxes: Rectangles, trace: Trace) -> Rectangles:
    """Boxes (K, 4) of a picture as they lie on the network's grid, in its pixels; what was cropped is cut.

    Boxes of which nothing is left are dropped, so fewer may come back.

    Args:
        boxes: x, y, w, h in pixels of the picture as stored.
        trace: how the picture was prepared.

    Raises:
        DataError: the case has several slices, or was turned out of its plane.
    """
    _refuse_stacks(trace)
    corners = _turned(boxes, trace)
    (left, top), (step_x, step_y) = _place(trace)
    corners = (corners - [left, top, left, top]) / [step_x, step_y, step_x, step_y]
    _, height, width = trace.shape
    return _rectangles(np.clip(corners, 0.0, [width, height, width, height]))


def undo_rectangles(boxes: Rectangles, trace: Trace) -> Rectangles:
    """Boxes (K, 4) on the network's grid, brought back onto the picture, in its pixels; padding is cut.

    Raises as `prepared_rectangles`.
    """
    _refuse_stacks(trace)
    (left, top), (step_x, step_y) = _place(trace)
    corners = _from_rectangles(boxes) * [step_x, step_y, step_x, step_y] + [left, top, left, top]
    _, height, width = trace.turn.grid(trace.native).shape
    corners = np.clip(corners, 0.0, [width, height, width, height])
    flip_y, flip_x = trace.turn.flips[1:]
    corners = _flipped(corners, width if flip_x else None, height if flip_y else None)
    return _rectangles(corners[:, [1, 0, 3, 2]] if trace.turn.permutation[1] == 2 else corners)


def _turned(boxes: Rectangles, trace: Trace) -> Rectangles:
    """Corners (K, 4) x0, y0, x1, y1 in the turned picture."""
    corners = _from_rectangles(boxes)
    if trace.turn.permutation[1] == 2:
        corners = corners[:, [1, 0, 3, 2]]
    _, height, width = trace.turn.grid(trace.native).shape
    flip_y, flip_x = trace.turn.flips[1:]
    return _flipped(corners, width if flip_x else None, height if flip_y else None)


def _flipped(corners: Rectangles, width: int | None, height: int | None) -> Rectangles:
    x0, y0, x1, y1 = corners.T
    if width is not None:
        x0, x1 = width - x1, width - x0
    if height is not None:
        y0, y1 = height - y1, height - y0
    return np.stack([x0, y0, x1, y1], axis=1)


def _place(trace: Trace) -> tuple[tuple[float, float], tuple[float, float]]:
    """Upper left corner (x, y) of the network's grid in the turned picture, and its pixel's width, height."""
    (_, (y0, _), (x0, _)), (_, (top, _), (left, _)) = trace.crop, trace.pad
    _, box_height, box_width = trace.box_shape
    _, height, width = trace.shape
    return (x0 - left, y0 - top), (box_width / width, box_height / height)


def _from_rectangles(boxes: Rectangles) -> Rectangles:
    x, y, w, h = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).T
    return np.stack([x, y, x + w, y + h], axis=1)


def _rectangles(corners: Rectangles) -> Rectangles:
    x0, y0, x1, y1 = corners.T
    boxes = np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)
    return boxes[(boxes[:, 2] > 0) & (boxes[:, 3] > 0)]


def _refuse_stacks(trace: Trace) -> None:
    if trace.native.shape[0] != 1 or trace.turn.permutation[0] != 0:
        raise DataError(
            "a box lies on a picture, not in a volume",
            found=f"shape {trace.native.shape}",
            expected="one slice (1, Y, X)",
            mend="Make each slice a case.",
        )


def _file_column(table: Table) -> str:
    """The column that names the picture; missing columns are refused."""
    files = table.column(FILE_COLUMNS)
    missing = [name for name in _NUMBERS if table.column((name,)) is None]
    if files is None or missing:
        raise DataError(
            "is no table of boxes: columns are missing",
            where=str(table.path),
            found=", ".join(table.columns),
            expected="file, x, y, w, h, and finding where there are several",
            mend=f"Add {', '.join([*([] if files else ['file']), *missing])}.",
        )
    return files


def _corners(cells: list[str], where: str, faults: list[Problem]) -> tuple[float, ...] | None:
    """x, y, w, h of a row; None and a fault when they are no numbers or without area."""
    try:
        numbers = tuple(float(cell) for cell in cells)
    except ValueError:
        numbers = ()
    if not numbers or not np.isfinite(numbers).all() or min(numbers[2:]) <= 0:
        faults.append(
            Problem(
                "is no box",
                where=where,
                found=", ".join(f"{name}={cell!r}" for name, cell in zip(_NUMBERS, cells, strict=True)),
                expected="four numbers, w and h above 0",
            )
        )
        return None
    return numbers


def _inside(
    box: tuple[float, ...], size: tuple[int, int] | None, where: str, faults: list[Problem]
) -> tuple[float, float, float, float] | None:
    """The box cut at the picture's edge; None and a fault when it leaves it by more than rounding."""
    if size is None:
        return None
    x, y, w, h = box
    height, width = size
    if min(x, y) < -BESIDE or x + w > width + BESIDE or y + h > height + BESIDE or x >= width or y >= height:
        faults.append(
            Problem(
                "the box leaves its picture",
                where=where,
                found=f"x {x:g} to {x + w:g}, y {y:g} to {y + h:g}",
                expected=f"within x 0 to {width}, y 0 to {height}",
                mend="Give boxes in pixels of the picture that is in the cohort, not of a larger original.",
            )
        )
        return None
    if x >= 0 and y >= 0 and x + w <= width and y + h <= height:
        return x, y, w, h
    left, top = max(x, 0.0), max(y, 0.0)
    return left, top, min(x + w, float(width)) - left, min(y + h, float(height)) - top


class _Known:
    """Finds cases by the file that a row names, and the sizes of their pictures."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self.by_key: dict[str, set[str]] = defaultdict(set)
        self.cases = {case.name: case for case in cohort.cases}
        self.sizes: dict[str, tuple[int, int] | None] = {}
        for case in cohort.cases:
            self.by_key[case.name].add(case.name)
            for file in case.images.values():
                parts = file.path.parts
                for start in range(len(parts)):
                    self.by_key["/".join(parts[start:])].add(case.name)
                self.by_key[stem(file.path)].add(case.name)

    def find(self, cell: str, where: str, faults: list[Problem], *, refuse: bool) -> Case | None:
        """The case that `cell` names; None when there is none, or with a fault."""
        key = Path(cell).as_posix()
        names = {key} if key in self.cases else self.by_key.get(key, set())
        if len(names) == 1:
            return self.cases[next(iter(names))]
        if names or refuse:
            faults.append(
                Problem(
                    "names a file of several cases"
                    if names
                    else "names a case that the cohort does not have",
                    where=where,
                    found=f"{cell!r}" + (f": {', '.join(sorted(names))}" if names else ""),
                    expected="a file or a case of " + str(self.cohort.folder),
                    mend="Write the folders before it too." if names else "Correct it, or delete the row.",
                )
            )
        return None

    def size(self, case: Case, where: str, faults: list[Problem]) -> tuple[int, int] | None:
        """Height and width of a case's picture; None and a fault for a volume of slices."""
        if case.name not in self.sizes:
            depth, height, width = read_image_grid(next(iter(case.images.values()))).shape
            self.sizes[case.name] = (height, width) if depth == 1 else None
        if self.sizes[case.name] is None:
            faults.append(
                Problem(
                    "a box lies on a picture, not in a volume",
                    where=where,
                    found=f"case {case.name} of several slices",
                    mend="Make each slice a case.",
                )
            )
        return self.sizes[case.name]
