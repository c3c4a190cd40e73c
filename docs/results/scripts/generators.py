"""The tables of docs/results/generators.md from the folders of finished runs, and the pictures if asked for.

python docs/results/scripts/generators.py RUN ... [--pictures PREFIX]

RUN is the folder of a `fewmask run gan` or `fewmask run invert`. With --pictures the page's pictures are
written as PREFIX-NAME.png: only for scans whose licence allows it.
"""

import argparse
import base64
from pathlib import Path

from fewmask.core.files import write_atomic
from fewmask.core.run import Run
from fewmask.report.content import Curve, Report, Table, read_report


def table_lines(table: Table) -> list[str]:
    """A table as Markdown."""
    head = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    return [*head, *("| " + " | ".join(row) + " |" for row in table.rows)]


def curve_lines(curve: Curve) -> list[str]:
    """A curve as a Markdown table, one column per judgement."""
    head = ["| images seen | " + " | ".join(f"{images:,.0f}" for images in curve.images) + " |"]
    head.append("|" + "---|" * (len(curve.images) + 1))
    for name, values in curve.series.items():
        numbers = ["" if value is None else f"{value:.3g}" for value in values]
        head.append(f"| {name} | " + " | ".join(numbers) + " |")
    return head


def trained_lines(report: Report) -> list[str]:
    """What was trained, for how long."""
    return [
        f"{one.what}: {one.images_seen:,} images in {one.seconds / 60:.1f} minutes, "
        f"{one.parameters:,} weights, {one.memory_mb or 0:.0f} MB"
        for one in report.trained
    ]


def write_pictures(report: Report, prefix: str) -> None:
    """The pictures of the page's galleries."""
    for gallery in report.galleries:
        for number, picture in enumerate(gallery.pictures):
            name = f"{prefix}-{gallery.title.lower().replace(' ', '-')}-{number}.png"
            data = base64.b64decode(picture.png)
            write_atomic(Path(name), lambda path, data=data: path.write_bytes(data))


def main() -> None:
    """Print every run's tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--pictures")
    given = parser.parse_args()
    for folder in given.runs:
        report = read_report(Run(folder).report_json)
        print(f"\n## {folder.name}: {report.command}\n")
        print(f"{report.data.cohort}: {dict(report.data.parts)}\n")
        print("\n".join(trained_lines(report)), "\n")
        for table in report.tables:
            print("\n".join([*table_lines(table), "", table.note, ""]))
        for curve in report.curves:
            if curve.name.endswith("judged"):
                print("\n".join([*curve_lines(curve), ""]))
        for check in report.checks:
            print(f"* {check.name}: {check.outcome}; {check.found}")
        if given.pictures:
            write_pictures(report, given.pictures)


if __name__ == "__main__":
    main()
