"""The figures of the page, as SVG that takes its colours from the page (light, dark, print).

Matplotlib's `Figure` objects only: no pyplot, no window, no global state left behind. The text stays text,
so that it can be read out, searched and enlarged.
"""

import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fewmask.metrics.score import Row
from fewmask.metrics.statistics import MEAN
from fewmask.report.content import Curve, Watched
from fewmask.report.grid import named_arms
from fewmask.report.tables import Line, shots_order, shots_text

_INK = "#010203"
_FAINT = "#040506"
_SERIES = tuple(f"#0a0b{n:02x}" for n in range(6))
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
_WIDTH = 9.0
_PER_PAGE = 8
_MANY = 24


def dice_against_shots(table: Sequence[Line], unit: str) -> str:
    """Mean Dice with its interval against the number of shots, counted in `unit`s.

    Steps along the axis are equal; "all" stands apart. Every arm has a colour, a marker and a dash of its
    own; of many arms six do (see `named_arms`) and the others are faint lines without a name. The axis ends
    at 1 and begins below the lowest interval of a named arm. Arms without skill are left out; empty when
    there is no other.
    """
    own = [line for line in table if line.class_name == MEAN and line.kind != "trivial"]
    if not own:
        return ""
    shots = sorted({line.shots for line in own}, key=shots_order)
    place = {k: index + (0.4 if k is None and len(shots) > 1 else 0.0) for index, k in enumerate(shots)}
    named = named_arms(own)
    with _style("shots"):
        figure, axes = _new(3.9)
        for arm in sorted(dict.fromkeys(line.arm for line in own), key=lambda arm: arm in named):
            members = sorted(
                (line for line in own if line.arm == arm), key=lambda line: shots_order(line.shots)
            )
            if arm in named:
                _arm_line(axes, members, place, named[arm], len(named))
            else:
                _faint_line(axes, members, place)
        axes.set_xticks(list(place.values()), [shots_text(k) for k in shots])
        axes.set_xlim(min(place.values()) - 0.5, max(place.values()) + 0.5)
        ends = [
            line.dice.mean if line.dice.low is None else line.dice.low for line in own if line.arm in named
        ]
        lowest = min(ends)
        axes.set_ylim(max(0.0, int((lowest - 0.03) * 20) / 20), 1.0)
        axes.set_xlabel(f"shots: labelled {unit}s (steps are not to scale)")
        axes.set_ylabel("Dice, mean over classes")
        _legend(figure, axes)
        return _svg(
            figure,
            "shots",
            "Dice against the number of shots, with intervals; the numbers stand in the table",
        )


def _faint_line(axes: Axes, members: Sequence[Line], place: Mapping[int | None, float]) -> None:
    """An arm without a name."""
    x, y = [place[line.shots] for line in members], [line.dice.mean for line in members]
    axes.plot(x, y, color=_FAINT, lw=1.0, marker=".", markersize=4)


def _arm_line(
    axes: Axes, members: Sequence[Line], place: Mapping[int | None, float], number: int, count: int
) -> None:
    """One arm: dots with whiskers, joined from few to many shots but not across to "all"."""
    colour, offset = _SERIES[number % len(_SERIES)], (number - (count - 1) / 2) * 0.07
    look: dict[str, Any] = {"color": colour, "marker": _MARKERS[number % len(_MARKERS)], "markersize": 6.5}
    some = [line for line in members if line.shots is not None]
    x = [place[line.shots] + offset for line in some]
    axes.plot(
        x, [line.dice.mean for line in some], linestyle=_DASHES[number % len(_DASHES)], lw=1.7,
        label=members[0].name, **look,
    )  # fmt: skip
    for line in members:
        at, dice = place[line.shots] + offset, line.dice
        if dice.low is not None and dice.high is not None:
            axes.plot([at, at], [dice.low, dice.high], color=colour, lw=1.7, solid_capstyle="butt")
        if line.shots is None:
            axes.plot([at], [dice.mean], linestyle="none", **look)


def dice_by_patient(rows: Sequence[Row], table: Sequence[Line]) -> str:
    """The Dice of every test patient (mean over classes, cases and draws), one row per arm and shots.

    Of many arms those with a colour in `dice_against_shots` alone; none without skill.
    """
    own = [line for line in table if line.class_name == MEAN and line.kind != "trivial"]
    numbers = named_arms(own)
    own = [line for line in own if line.arm in numbers or len(own) <= _MANY]
    if not own:
        return ""
    with _style("patients"):
        figure, axes = _new(0.9 + 0.34 * len(own))
        lowest = 1.0
        for height, line in enumerate(own):
            number = numbers.get(line.arm)
            colour = _FAINT if number is None else _SERIES[number % len(_SERIES)]
            values = _patient_values(rows, line)
            jitter = [height + 0.22 * (((7 * i) % 11) / 5 - 1) for i in range(len(values))]
            lowest = min(lowest, *values)
            axes.plot(values, jitter, "o", color=colour, alpha=0.45, markersize=4.2, markeredgewidth=0)
            axes.plot([line.dice.mean] * 2, [height - 0.36, height + 0.36], color=_INK, lw=2)
        axes.set_yticks(range(len(own)), [f"{line.name}, {shots_text(line.shots)}" for line in own])
        axes.set_ylim(len(own) - 0.5, -0.5)
        axes.set_xlim(max(-0.01, int(lowest * 10) / 10 - 0.01), 1.01)
        axes.set_xlabel("Dice of each test patient; the bar is the mean")
        axes.grid(axis="y", visible=False)
        return _svg(figure, "patients", "Dice of every test patient, one row per method and number of shots")


def _patient_values(rows: Sequence[Row], line: Line) -> list[float]:
    """Mean Dice of each patient of one arm, over classes, cases and draws."""
    of: dict[str, list[float]] = {}
    for row in rows:
        if (row.arm, row.shots) == (line.arm, line.shots):
            of.setdefault(row.patient, []).append(row.dice)
    return [sum(values) / len(values) for values in of.values()]


def iou_over_training(watched: Sequence[Watched], table: Sequence[Line]) -> str:
    """Mean IoU while the arms were trained, in the form of Figure 4 of the few-shot document.

    One panel per number of shots. The lines of full supervision are solid and stand in every panel, those
    of k shots are dotted. Colours are those of `dice_against_shots`; arms without one are faint. Along the
    axis is the share of a training's images, since arms see different numbers. Empty when nothing was
    watched.
    """
    if not watched:
        return ""
    names = {line.arm: line.name for line in table}
    numbers = named_arms(table) or {one.arm: i for i, one in enumerate(watched)}
    full = [one for one in watched if one.shots is None]
    counts: Sequence[int | None] = sorted({one.shots for one in watched if one.shots is not None}) or [None]
    with _style("watched"):
        figure = Figure(figsize=(_WIDTH, 3.5), layout="constrained")
        FigureCanvasSVG(figure)
        panels = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
        shown: dict[str, Any] = {}
        for axes, k in zip(panels, counts, strict=True):
            few = [one for one in watched if one.shots == k and k is not None]
            for one in sorted((*full, *few), key=lambda one: one.arm in numbers):
                look = _watched_look(one, numbers)
                (line,) = axes.plot([100 * done for done in one.done], one.iou, **look)
                if one.arm in numbers:
                    shown.setdefault(names.get(one.arm, one.arm), line)
            axes.set_title("full supervision" if k is None else f"k = {k}", fontsize=10.5)
            axes.set_xlim(0, 100)
            axes.set_xticks([0, 25, 50, 75])
        panels[0].set_ylabel("mean IoU over classes")
        figure.supxlabel("share of the training's images, %", fontsize=10.5)
        figure.legend(
            list(shown.values()),
            list(shown),
            loc="outside upper left",
            ncols=3,
            frameon=False,
            handlelength=2.6,
        )
        return _svg(figure, "watched", "Mean IoU over training, one panel per number of shots")


def _watched_look(one: Watched, numbers: Mapping[str, int]) -> dict[str, Any]:
    """Solid for full supervision, dotted for few shots, in the arm's colour."""
    number = numbers.get(one.arm)
    look: dict[str, Any] = {"linestyle": "-" if one.shots is None else (0, (1, 1.1))}
    if len(one.done) < 2:
        look["marker"] = "o"
    if number is None:
        return {**look, "color": _FAINT, "lw": 1.0}
    return {**look, "color": _SERIES[number % len(_SERIES)], "lw": 1.6 if one.shots is None else 2.0}


def training_curve(curve: Curve, number: int = 0) -> str:
    """What one training told, one small panel per series, over the images seen."""
    names = list(curve.series)[:_PER_PAGE]
    columns = min(4, len(names))
    lines_of_panels = -(-len(names) // columns)
    with _style(f"curve{number}"):
        figure = Figure(figsize=(_WIDTH, 0.35 + 1.75 * lines_of_panels), layout="constrained")
        FigureCanvasSVG(figure)
        for index, name in enumerate(names):
            axes = figure.add_subplot(lines_of_panels, columns, index + 1)
            points = [(x, y) for x, y in zip(curve.images, curve.series[name], strict=True) if y is not None]
            axes.plot([x for x, _ in points], [y for _, y in points], color=_SERIES[0], lw=1.3)
            axes.set_title(name, fontsize=10)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.yaxis.set_major_locator(MaxNLocator(4))
        figure.supxlabel("images seen", fontsize=10)
        return _svg(figure, f"curve{number}", f"Training curves of {curve.name}: {', '.join(names)}")


def _new(height: float) -> tuple[Figure, Axes]:
    """A figure of the page's width with one set of axes."""
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


def _legend(figure: Figure, axes: Axes) -> None:
    """The names of the arms above the axes, where they cover nothing."""
    _names(figure, *axes.get_legend_handles_labels())


def _names(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """The names above everything."""
    figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False, handlelength=3.2)


@contextmanager
def _style(salt: str) -> Iterator[None]:
    """Colours that `_svg` turns into those of the page; text as text; the same bytes for the same figure."""
    settings: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.size": 10.5,
        "axes.edgecolor": _FAINT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": _FAINT,
        "grid.linewidth": 0.6,
        "grid.alpha": 0.35,
        "axes.axisbelow": True,
    }
    settings |= dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _INK)
    with mpl.rc_context(settings):
        yield


def _svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an `<svg>` element: no header, no white ground, colours and font of the page."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    head, body = text[text.index("<svg") :].split(">", 1)
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = body.replace(_INK, "var(--ink)").replace(_FAINT, "var(--faint)")
    for number, colour in enumerate(_SERIES):
        body = body.replace(colour, f"var(--series-{number + 1})")
    # Two figures on one page must not share the names of their parts.
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", body)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{html.escape(label)}">{body}'
