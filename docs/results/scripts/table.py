"""The tables of a run as Markdown.

Table 1 of the few-shot document re-made: per method and shots Dice and IoU per slice and per patient with
95 % intervals, and the share of full supervision; then each class, distances and ceiling; then comparisons.

python docs/results/scripts/table.py RUN
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from fewmask.core.run import Run
from fewmask.metrics.score import Row, read_rows
from fewmask.metrics.statistics import MEAN, summarise
from fewmask.report.content import Report, read_report
from fewmask.report.grid import Grid, grid_of
from fewmask.report.tables import Line, comparisons, lines, shots_text


def main() -> None:
    run = Run(Path(sys.argv[1]))
    rows, report = read_rows(run.results_csv), read_report(run.report_json)
    table = [line for line in lines(rows, report) if line.class_name == MEAN]
    compared = comparisons(rows, report)
    grid = grid_of(rows, table, compared, report)
    if grid is not None:
        print_table_one(grid)
    print_measures(rows, table)
    if compared:
        print("| comparison | k | difference in Dice [95 %] | p (Holm) | |")
        print("|---|---|---|---|---|")
    words = {"a": "the first is better", "b": "the second is better", "none": "not told apart"}
    for one in compared:
        both = f"{report.name_of(one.arm_a)} against {report.name_of(one.arm_b)}"
        shots = " against ".join(dict.fromkeys((shots_text(one.shots_a), shots_text(one.shots_b))))
        p = "–" if one.p_holm is None else f"{one.p_holm:.2g}"
        print(f"| {both} | {shots} | {one.text()} | {p} | {words.get(one.claim, one.claim)} |")
    print_trained(rows, report)


def print_table_one(grid: Grid) -> None:
    """Methods by shots; the best Dice of each number of shots in bold."""
    slices = grid.has_slices and not grid.one_slice
    heads = ["Dice per slice", "IoU per slice"] if slices else []
    heads += ["Dice per patient", "IoU per patient", "share of full supervision"]
    print(f"| method | k | {' | '.join(heads)} |")
    print("|---|---|" + "---|" * len(heads))
    for cell in grid.cells:
        of = cell.line.of
        shown = [of[name].text() if name in of else "–" for name in ("slice_dice", "slice_iou") if slices]
        shown += [f"**{cell.line.dice.text()}**" if cell.best else cell.line.dice.text(), of["iou"].text()]
        shown.append(cell.line.share.text() if cell.line.share is not None else "–")
        print(f"| {cell.line.name} | {shots_text(cell.line.shots)} | {' | '.join(shown)} |")
    if grid.one_slice:
        print("\nEvery test case has one slice: per slice and per patient are the same.")
    print()


def print_measures(rows: Sequence[Row], table: Sequence[Line]) -> None:
    """Each class, distances, ceiling and the draws' means."""
    classes = list(dict.fromkeys(row.class_name for row in rows))
    by_class = {(s.arm, s.shots, s.class_name): s for s in summarise(rows, "dice", resamples=1)}
    names = " | ".join(name.replace("_", " ") for name in classes)
    print(f"| method | k | Dice, mean of classes [95 %] | {names} | ASSD | HD95 | ceiling | draws |")
    print("|---|---|---|" + "---|" * (len(classes) + 4))
    for line in table:
        each = " | ".join(f"{by_class[line.arm, line.shots, name].mean:.3f}" for name in classes)
        ceiling = f"{line.of['ceiling'].mean:.3f}" if "ceiling" in line.of else "–"
        tail = f"{line.of['assd_mm'].mean:.2f} | {line.of['hd95_mm'].mean:.2f} | {ceiling}"
        draws = ", ".join(f"{mean:.3f}" for mean in line.dice.draw_means)
        print(f"| {line.name} | {shots_text(line.shots)} | {line.dice.text()} | {each} | {tail} | {draws} |")
    print()


def print_trained(rows: Sequence[Row], report: Report) -> None:
    """How many patients, and what was trained."""
    test = {row.patient for row in rows}
    print(f"\n{len(test)} test patients, {len({row.case for row in rows})} cases")
    for one in report.trained:
        minutes = one.seconds / 60
        print(f"- {one.what}: {one.images_seen} images, {minutes:.1f} min, {one.parameters} parameters")


if __name__ == "__main__":
    main()
