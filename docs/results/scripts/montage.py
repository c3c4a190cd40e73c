"""A picture of test cases by several arms of a run: scan, reference, then one column per arm.

python docs/results/scripts/montage.py RUN COHORT OUT.png --arms unet/k=1/draw=0 unet/all [--cases 4]
The cases are spread from the worst to the best by the first arm's mean Dice.
"""

import argparse
from pathlib import Path

import numpy as np

from fewmask.core.run import MaskFolder, Run
from fewmask.data.cohort import read_case_mask, read_cohort, read_images
from fewmask.data.io import read_mask
from fewmask.data.overlay import montage, overlay, save_png, with_legend
from fewmask.metrics.score import read_rows

SIDE = 176


def chosen(run: Run, arm: str, count: int) -> list[str]:
    dice: dict[str, list[float]] = {}
    for row in read_rows(run.results_csv):
        shots = "all" if row.shots is None else f"k={row.shots}/draw={row.draw}"
        if f"{row.arm.replace(' ', '-')}/{shots}" == arm:
            dice.setdefault(row.case, []).append(row.dice)
    order = sorted(dice, key=lambda case: float(np.mean(dice[case])))
    return [order[round(place)] for place in np.linspace(0, len(order) - 1, count)]


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("run", type=Path)
    words.add_argument("cohort", type=Path)
    words.add_argument("out", type=Path)
    words.add_argument("--arms", nargs="+")
    words.add_argument("--cases", type=int, default=4)
    words.add_argument("--classes", nargs="*", default=[])
    given = words.parse_args()
    classes = {name: value for value, name in enumerate(given.classes, start=1)} or None
    run, cohort = Run(given.run), read_cohort(given.cohort, classes=classes)
    pictures, titles = [], []
    for name in chosen(run, given.arms[0], given.cases):
        case = cohort.case(name)
        scan = next(iter(read_images(case).values())).voxels
        truth = np.asarray(read_case_mask(case, cohort).voxels)
        z = int(np.count_nonzero(truth, axis=(1, 2)).argmax())
        shown = [np.zeros_like(truth), truth]
        for arm in given.arms:
            files = MaskFolder(run.cases(arm))
            paths = [files.mask(name, suffix) for suffix in (".png", ".nii.gz")]
            shown.append(np.asarray(read_mask(next(path for path in paths if path.exists())).voxels))
        pictures += [overlay(scan[z], labels[z], size=(SIDE, SIDE)) for labels in shown]
        titles += [name, "reference", *(arm.removesuffix("/draw=0") for arm in given.arms)]
    sheet = montage(pictures, columns=len(given.arms) + 2, titles=titles)
    save_png(given.out, with_legend(sheet, cohort.classes))


if __name__ == "__main__":
    main()
