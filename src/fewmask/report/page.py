"""The page: one HTML file with everything inside, to be read offline, printed or sent by mail."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fewmask.core.files import write_text
from fewmask.metrics.score import Row
from fewmask.metrics.statistics import BETTER, MEAN, Comparison, Summary
from fewmask.report import figures
from fewmask.report.checks import score_checks
from fewmask.report.content import EMPTY_ARM, CasePicture, Picture, Report
from fewmask.report.grid import grid_of, named_arms
from fewmask.report.lesions import lesion_tables
from fewmask.report.tables import (
    EmptyLine,
    Line,
    class_names,
    comparisons,
    empty_lines,
    lines,
    shots_text,
)
from fewmask.report.verdict import verdict_of
from fewmask.report.words import signed

_NOTHING = "–"
_KIND_WORDS = {
    "ours": "on trial",
    "baseline": "to be beaten",
    "reference": "reference",
    "control": "control",
    "trivial": "no skill",
}


@dataclass(frozen=True)
class _ClassTable:
    """The lines of one class, or of the mean over classes."""

    class_name: str
    lines: list[Line]
    empty: EmptyLine | None


def write_page(report: Report, rows: Sequence[Row], path: Path, *, resamples: int = 10_000) -> Path:
    """Write the report of a run as one self-contained HTML page, atomically.

    Args:
        report: what does not follow from the scores.
        rows: the scores of all arms; may be empty.
        path: where to write; pictures given by path are looked for in its folder, a missing one is named.
        resamples: bootstrap resamples of each interval.

    Raises:
        RunError: the page cannot be written.
    """
    found = lesion_tables(rows, report, resamples=resamples)
    checks = (*score_checks(rows, report), *report.checks)
    report = replace(report, checks=checks, tables=(*found, *report.tables))
    table = lines(rows, report, resamples=resamples)
    compared = comparisons(rows, report, resamples=resamples)
    of_mean = [line for line in table if line.class_name == MEAN]
    html = _environment(path.parent).get_template("page.html").render(
        report=report,
        sentences=verdict_of(rows, report, of_mean, compared),
        tables=_class_tables(rows, table),
        comparisons=compared,
        plot_width=_reach(compared),
        patients=len({row.patient for row in rows}),
        draws=len({row.draw for row in rows}),
        grid=grid_of(rows, of_mean, compared, report),
        cases=_by_arm(report.cases),
        shots_figure=Markup(figures.dice_against_shots(of_mean, report.shots_unit)),
        patients_figure=Markup(figures.dice_by_patient(rows, of_mean)),
        watched_figure=Markup(figures.iou_over_training(report.watched, of_mean)),
        faint=len({line.arm for line in of_mean if line.kind != "trivial"}) > len(named_arms(of_mean)),
        curves=[Markup(figures.training_curve(c, i)) for i, c in enumerate(report.curves)],
        settings=flatten(report.settings),
        has_ceiling=any("ceiling" in line.of for line in table),
    )  # fmt: skip
    return write_text(path, html)


def _class_tables(rows: Sequence[Row], table: Sequence[Line]) -> list[_ClassTable]:
    """The mean over classes first, then each class; with one class that class alone."""
    names = class_names(rows)
    scored = any(row.arm == EMPTY_ARM.key for row in rows)
    empty = {} if scored else {line.class_name: line for line in empty_lines(rows)}
    wanted = [MEAN, *names] if len(names) > 1 else names
    return [
        _ClassTable(name, [line for line in table if line.class_name == name], empty.get(name))
        for name in wanted
    ]


def _by_arm(cases: Sequence[CasePicture]) -> list[list[CasePicture]]:
    """The pictures of each arm and number of shots together."""
    return [list(group) for _, group in groupby(cases, key=lambda case: (case.arm, case.shots))]


def _reach(compared: Sequence[Comparison]) -> float:
    """The largest distance from 0 that the drawings of the comparisons must show."""
    ends = [end for one in compared for end in (one.low, one.high, one.difference) if end is not None]
    return max((abs(end) for end in ends), default=1.0)


def _environment(folder: Path) -> Environment:
    """Templates with our filters; text is escaped, an unknown name is an error."""
    made = Environment(
        loader=PackageLoader("fewmask.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=number_text,
        shots=shots_text,
        minutes=minutes_text,
        seconds=seconds_text,
        count=lambda n: f"{n:,}".replace(",", "\u202f"),
        p=p_text,
        interval=interval_html,
        signed=signed,
        source=lambda picture: picture_source(picture, folder),
        forest=forest_html,
        size=lambda shape: " × ".join(f"{value:g}" for value in shape),
        groupby_arm=lambda table: [list(group) for _, group in groupby(table, key=lambda line: line.arm)],
    )
    made.globals.update(BETTER=BETTER, MEAN=MEAN, KIND_WORDS=_KIND_WORDS)
    return made


def number_text(value: float | None, digits: int = 3) -> str:
    """`0.853`, with a true minus sign; a dash for None."""
    return _NOTHING if value is None else f"{value:.{digits}f}".replace("-", "−")


def interval_html(summary: Summary | None, digits: int = 3) -> Markup:
    """A mean with its interval in smaller letters."""
    if summary is None:
        return Markup(_NOTHING)
    mean = number_text(summary.mean, digits)
    if summary.low is None:
        return Markup('{} <span class="interval">no interval</span>').format(mean)
    low, high = number_text(summary.low, digits), number_text(summary.high, digits)
    return Markup('{} <span class="interval">[{}, {}]</span>').format(mean, low, high)


def p_text(p: float | None) -> str:
    """A p-value with two digits that count; tiny ones as a bound."""
    if p is None:
        return _NOTHING
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}" if p < 0.001 else f"{p:.3f}"


def minutes_text(minutes: float) -> str:
    """`24 min`, `2 h 05 min`."""
    whole = round(minutes)
    return f"{whole} min" if whole < 60 else f"{whole // 60} h {whole % 60:02d} min"


def seconds_text(seconds: float) -> str:
    """`12 s`, `24 min`, `2 h 05 min`."""
    return f"{seconds:.0f} s" if seconds < 90 else minutes_text(seconds / 60)


def picture_source(picture: Picture, folder: Path) -> str:
    """A picture as a data URL; empty when its file is not there."""
    if picture.png:
        return f"data:image/png;base64,{picture.png}"
    try:
        data = (folder / picture.path).read_bytes()
    except OSError:
        return ""
    kind = "jpeg" if picture.path.lower().endswith((".jpg", ".jpeg")) else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def forest_html(one: Comparison, width: float) -> Markup:
    """The difference and its interval as a small drawing around 0; the numbers stand beside it."""
    half, reach = 84.0, width or 1.0
    x = {
        name: 90 + half * value / reach
        for name, value in (("low", one.low), ("mid", one.difference), ("high", one.high))
        if value is not None
    }
    bar = ""
    if "low" in x and "high" in x:
        low, high = x["low"], x["high"]
        bar = f'<path d="M{low:.1f} 4v10M{low:.1f} 9H{high:.1f}M{high:.1f} 4v10" class="bar"/>'
    return Markup(
        '<svg class="forest" viewBox="0 0 180 18" width="180" height="18" aria-hidden="true">'
        f'<line x1="90" x2="90" y1="0" y2="18" class="zero"/>{bar}'
        f'<circle cx="{x["mid"]:.1f}" cy="9" r="3" class="dot"/></svg>'
    )


def flatten(settings: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value) pairs, as they are typed on the command line."""
    flat: list[tuple[str, str]] = []
    for name, value in settings.items():
        full = f"{above}.{name}" if above else name
        if isinstance(value, Mapping) and value:
            flat += flatten(value, full)
        else:
            flat.append((full, _value_text(value)))
    return flat


def _value_text(value: object) -> str:
    """One setting's value."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value_text(item) for item in value) + "]"
    return "none" if value is None or value == {} else str(value)
