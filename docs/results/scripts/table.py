"""The table of a run as Markdown: per arm and shots the mean Dice over classes, each class, HD95, ceiling.

python docs/results/scripts/table.py RUN
"""

import sys
from pathlib import Path

from fewmask.core.run import Run
from fewmask.metrics.score import read_rows
from fewmask.metrics.statistics import MEAN, summarise
from fewmask.report.content import read_report
from fewmask.report.tables import comparisons, lines


def main() -> None:
    run = Run(Path(sys.argv[1]))
    rows, report = read_rows(run.results_csv), read_report(run.report_json)
    classes = list(dict.fromkeys(row.class_name for row in rows))
    by_class = {(s.arm, s.shots, s.class_name): s for s in summarise(rows, "dice")}
    names = " | ".join(name.replace("_", " ") for name in classes)
    print(f"| arm | k | Dice, mean of classes [95 %] | {names} | ASSD | HD95 | ceiling | draws |")
    print("|---|---|---|" + "---|" * (len(classes) + 4))
    for line in lines(rows, report):
        if line.class_name != MEAN:
            continue
        each = " | ".join(f"{by_class[line.arm, line.shots, name].mean:.3f}" for name in classes)
        shots = "all" if line.shots is None else line.shots
        tail = (
            f"{line.of['assd_mm'].mean:.2f} | {line.of['hd95_mm'].mean:.2f} | {line.of['ceiling'].mean:.3f}"
        )
        draws = ", ".join(f"{mean:.3f}" for mean in line.dice.draw_means)
        print(f"| {line.name} | {shots} | {line.dice.text()} | {each} | {tail} | {draws} |")
    print()
    found = [one for one in comparisons(rows, report) if one.shots_a == one.shots_b]
    if found:
        print("| comparison | k | difference in Dice [95 %] | p (Holm) | |")
        print("|---|---|---|---|---|")
    words = {"a": "the first is better", "b": "the second is better", "none": "not told apart"}
    for one in found:
        both = f"{report.name_of(one.arm_a)} against {report.name_of(one.arm_b)}"
        claim = words.get(one.claim, one.claim)
        print(f"| {both} | {one.shots_a or 'all'} | {one.text()} | {one.p_holm:.2g} | {claim} |")
    test = {row.patient for row in rows}
    print(f"\n{len(test)} test patients, {len({row.case for row in rows})} cases")
    for one in report.trained:
        minutes = one.seconds / 60
        print(f"- {one.what}: {one.images_seen} images, {minutes:.1f} min, {one.parameters} parameters")


if __name__ == "__main__":
    main()
