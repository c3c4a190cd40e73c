"""Methods by numbers of shots, in the form of Table 1 of the few-shot document (fewshot.md, section 10)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fewmask.metrics.score import Row
from fewmask.metrics.statistics import MEAN, Comparison
from fewmask.report.content import Report
from fewmask.report.tables import Line, best_line, full_supervision, rival_of, shots_order

Against = Literal["above", "below", ""]


@dataclass(frozen=True)
class Cell:
    """One method at one number of shots."""

    line: Line
    best: bool
    """Whether no other method has a higher mean Dice at these shots."""
    against: Against
    """Where it stands to the rival on the same shots, when the interval of the difference excludes 0."""


@dataclass(frozen=True)
class GridRow:
    """One method over all numbers of shots."""

    first: Line
    cells: tuple[Cell | None, ...]
    """One per number of shots of the grid; None where the method was not run."""


@dataclass(frozen=True)
class Grid:
    """The table of methods by shots."""

    shots: tuple[int | None, ...]
    """From few to all; 0 is not among them."""
    rows: tuple[GridRow, ...]
    needless: tuple[Line, ...]
    """Methods that need no mask (0 shots), such as the empty mask."""
    rival: str
    """Name of the arm that "above" and "below" refer to; empty when there is none."""
    full: str
    """Name of the arm that shares refer to; empty when there is none."""
    one_slice: bool
    """Whether every test patient has one slice per score, so that slices and patients score the same."""
    has_slices: bool
    """Whether slices were scored: runs of earlier versions did not."""

    @property
    def cells(self) -> list[Cell]:
        """Every cell, method by method."""
        return [cell for row in self.rows for cell in row.cells if cell is not None]


def grid_of(
    rows: Sequence[Row], table: Sequence[Line], compared: Sequence[Comparison], report: Report
) -> Grid | None:
    """The grid of a run with few shots; None when every arm saw all masks or none.

    `table` holds the lines of the mean over classes.
    """
    few = [line for line in table if line.shots != 0]
    shots = tuple(sorted({line.shots for line in few}, key=shots_order))
    if not any(shots):
        return None
    rival, full = rival_of(rows, report), full_supervision(rows, report)
    claims = {(c.arm_a, c.shots_a): c.claim for c in compared if (c.arm_b, c.shots_b) == (rival, c.shots_a)}
    best = {k: best_line(few, k) for k in shots}
    rivals = {k: sum(line.shots == k for line in few) for k in shots}

    def cell(line: Line) -> Cell:
        sides: dict[str | None, Against] = {"a": "above", "b": "below"}
        claim = sides.get(claims.get((line.arm, line.shots)), "")
        return Cell(line, line is best[line.shots] and rivals[line.shots] > 1, claim)

    made = []
    for arm in dict.fromkeys(line.arm for line in few):
        own = {line.shots: cell(line) for line in few if line.arm == arm}
        made.append(GridRow(next(iter(own.values())).line, tuple(own.get(k) for k in shots)))
    return Grid(
        shots=shots,
        rows=tuple(made),
        needless=tuple(line for line in table if line.shots == 0),
        rival="" if rival is None else report.name_of(rival),
        full="" if full is None else report.name_of(full[0]),
        one_slice=all(row.slice_dice == row.dice and row.slice_iou == row.iou for row in rows),
        has_slices=any(line.class_name == MEAN and "slice_dice" in line.of for line in few),
    )


def named_arms(table: Sequence[Line], most: int = 6) -> dict[str, int]:
    """Which arms a figure names, and the number of each one's colour: all, or `most` of them.

    Of more arms the rival (the first baseline), the best other baseline and the best on trial are named,
    by their mean Dice over the numbers of shots; `table` holds the lines of the mean over classes.
    """
    skilled = [line for line in table if line.kind != "trivial"]
    arms = list(dict.fromkeys(line.arm for line in skilled))
    if len(arms) > most:
        kind = {line.arm: line.kind for line in skilled}

        def mean(arm: str) -> float:
            own = [line.dice.mean for line in skilled if line.arm == arm and line.shots is not None]
            return sum(own) / len(own) if own else 0.0

        baselines = [arm for arm in arms if kind[arm] == "baseline"]
        others = sorted(baselines[1:], key=mean, reverse=True)[:1]
        ours = sorted((arm for arm in arms if kind[arm] == "ours"), key=mean, reverse=True)
        rest = [arm for arm in arms if kind[arm] != "ours" and arm not in baselines[:1] + others]
        chosen = [*baselines[:1], *others, *ours, *rest][:most]
        arms = [arm for arm in arms if arm in chosen]
    return {arm: number for number, arm in enumerate(arms)}
