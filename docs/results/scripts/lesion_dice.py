"""Sensitivity by lesion at a Dice above 0.1, from the masks that a run left, as Markdown.

python docs/results/scripts/lesion_dice.py RUN COHORT CLASS

A lesion of the reference (8 or 26 connected voxels) is found when its Dice with all predicted components that
touch it is above 0.1. The page's own measure asks only for a tenth of the lesion's voxels, which a prediction
of everything reaches.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import ndimage

from fewmask.core.run import MaskFolder, Run
from fewmask.data.cohort import read_case_mask, read_cohort
from fewmask.data.io import read_mask
from fewmask.metrics.bootstrap import Bootstrap, Table
from fewmask.metrics.overlap import dice
from fewmask.metrics.score import read_rows
from fewmask.metrics.statistics import interval_text
from fewmask.recipes.arms import place
from fewmask.report.content import read_report
from fewmask.report.tables import arms_of, shots_text
from fewmask.segmenter.evaluate import mask_suffix

LEAST = 0.1


def found(predicted: np.ndarray, reference: np.ndarray) -> tuple[int, int]:
    """Lesions of the reference, and how many are found; two boolean masks (Z, Y, X)."""
    neighbours = np.ones((3, 3, 3), dtype=bool)
    lesions, count = ndimage.label(reference, structure=neighbours)
    parts, _ = ndimage.label(predicted, structure=neighbours)
    hits = 0
    for number in range(1, count + 1):
        one = lesions == number
        touching = np.setdiff1d(parts[one], 0)
        hits += bool(touching.size) and dice(np.isin(parts, touching), one) > LEAST
    return count, hits


def main() -> None:
    run, cohort, name = Run(Path(sys.argv[1])), read_cohort(Path(sys.argv[2])), sys.argv[3]
    rows, report, value = (
        read_rows(run.results_csv),
        read_report(run.report_json),
        cohort.classes[sys.argv[3]],
    )
    rows = [row for row in rows if row.class_name == name]
    truths = {row.case: read_case_mask(cohort.case(row.case), cohort) for row in rows}
    chance = Bootstrap(10_000, 0.95, 0)
    print(f"| method | k | {name}s found at Dice > {LEAST:g} | sensitivity, mean of patients [95 %] |")
    print("|---|---|---|---|")
    for arm, shots in arms_of(rows, report):
        sums: dict[tuple[str, int], np.ndarray] = defaultdict(lambda: np.zeros(2))
        for row in rows:
            if (row.arm, row.shots) != (arm, shots):
                continue
            truth = truths[row.case]
            files = MaskFolder(run.cases(place(arm, shots, row.draw)))
            mask = files.mask(row.case, mask_suffix(cohort.case(row.case), truth.shape))
            sums[row.patient, row.draw] += found(read_mask(mask).voxels == value, truth.voxels == value)
        patients = sorted({patient for (patient, _), (there, _) in sums.items() if there})
        if not patients:
            continue
        draws = sorted({draw for _, draw in sums})
        values = [[_share(sums[patient, draw]) for draw in draws] for patient in patients]
        table = Table(tuple(patients), tuple(draws), np.array(values))
        there, hits = np.sum(list(sums.values()), axis=0)
        text = interval_text(table.mean(), *chance.interval(table))
        print(f"| {report.name_of(arm)} | {shots_text(shots)} | {hits:.0f} of {there:.0f} | {text} |")


def _share(counted: np.ndarray) -> float:
    """Found of all; NaN where there was none to find."""
    there, hits = counted
    return float(hits / there) if there else float("nan")


if __name__ == "__main__":
    main()
