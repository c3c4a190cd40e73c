"""Consensus of three readers against the one left out, on crops of lung nodules; a table and a picture.

python docs/results/scripts/consensus.py lidc-nodules-4-readers OUT.json PICTURE.png [--patients 9] [--arms A]

A trial is one slice and one left-out reader who outlined something, when at least two of the other three did.
Dice is averaged over the trials of a patient, then over patients; intervals resample patients.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from fewmask.consensus.growing import Growth, growth_for
from fewmask.consensus.settle import settle
from fewmask.data.cohort import read_case_mask, read_cohort, read_images
from fewmask.data.outlines import drawn_by, panel
from fewmask.data.overlay import montage, save_png, with_legend
from fewmask.metrics.agreement import agreement
from fewmask.metrics.bootstrap import Bootstrap, Table
from fewmask.metrics.overlap import dice
from fewmask.metrics.statistics import signed_rank

SPACING = (1.0, 0.7, 0.7)
"""The crops do not tell their pixel size; 0.7 mm is usual for LIDC's scans."""

PLAIN, RECIPE = "majority > 50 % of those who marked", "document's recipe"
HALFWAY = "grey as HU, regions of all that is above -400 HU"

Masks = Mapping[str, np.ndarray]


def in_hu(image: np.ndarray) -> np.ndarray:
    """Grey values as HU, by two landmarks: the 5th percentile is lung (-850), the 99th soft tissue (50)."""
    low, high = np.percentile(image, (5, 99))
    return -850.0 + 900.0 * (image.astype(np.float64) - low) / max(float(high - low), 1.0)


def _grow(image: np.ndarray, growth: Growth) -> Callable[[Masks], np.ndarray]:
    return lambda masks: settle(masks, SPACING, rule="grow", image=image, growth=growth).mask


def arms(image: np.ndarray) -> dict[str, Callable[[Masks], np.ndarray]]:
    plain, hu = growth_for(image), in_hu(image)
    return {
        PLAIN: lambda m: settle(m, SPACING).mask,
        "majority >= 50 % of those who marked": lambda m: settle(m, SPACING, rule="half").mask,
        "majority > 50 % of all three": lambda m: settle(m, SPACING, of="all").mask,
        "STAPLE of those who marked": lambda m: settle(m, SPACING, rule="staple").mask,
        "STAPLE of all three": lambda m: settle(m, SPACING, rule="staple", of="all").mask,
        RECIPE: _grow(image, plain),
        "the same, grey as HU": _grow(hu, Growth()),
        "the same, guard as written": _grow(image, replace(plain, guard="literal")),
        HALFWAY: _grow(hu, Growth(floor=-400.0, spreads=1000.0)),
        "the same, nothing dropped for its size": _grow(image, replace(plain, least_mm=0.0)),
    }


def trials(cohort_folder: Path, limit: int | None):
    cohort = read_cohort(cohort_folder)
    wanted = cohort.patients[:limit]
    for case in cohort.cases:
        if case.patient not in wanted:
            continue
        masks = {r: np.asarray(read_case_mask(case, cohort, reader=r).voxels) > 0 for r in case.readers}
        yield case, np.asarray(next(iter(read_images(case).values())).voxels), masks


def means(scores: Mapping[str, Mapping[str, list[float]]], patients: list[str]) -> dict[str, Table]:
    return {
        arm: Table(tuple(patients), (0,), np.array([[np.mean(each[p])] for p in patients]))
        for arm, each in scores.items()
    }


def summary(scores, patients: list[str]) -> list[dict]:
    tables, chance = means(scores, patients), Bootstrap(10_000, 0.95, 0)
    base = tables[PLAIN]
    rows = []
    for arm, table in tables.items():
        low, high = chance.interval(table)
        row = {"arm": arm, "dice": table.mean(), "low": low, "high": high}
        if table is not base:
            row["difference"] = table.mean() - base.mean()
            row["difference_low"], row["difference_high"] = chance.difference(table, base)
            row["p"] = signed_rank((table.values - base.values)[:, 0])
        rows.append(row)
    return rows


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("cohort", type=Path)
    words.add_argument("out", type=Path)
    words.add_argument("picture", type=Path)
    words.add_argument("--patients", type=int)
    words.add_argument("--arms", nargs="+", default=[], help="beginnings of the names of arms; default: all")
    given = words.parse_args()
    scores = {
        group: defaultdict(lambda: defaultdict(list)) for group in ("all", "four marked", "three marked")
    }
    agree, counts, seconds, shown = defaultdict(list), defaultdict(int), defaultdict(float), []
    for case, image, masks in trials(given.cohort, given.patients):
        marked = [reader for reader, mask in masks.items() if mask.any()]
        if len(marked) < 3:
            counts["slices left out: fewer than three outlines"] += 1
            continue
        group = {4: "four marked", 3: "three marked"}[len(marked)]
        counts[f"slices, {group}"] += 1
        found = agreement({r: masks[r] for r in marked}, SPACING)
        for name in ("mean_dice", "mean_cohen", "fleiss", "unanimous"):
            agree[name].append(getattr(found, name))
        for left_out in marked:
            others = {r: m for r, m in masks.items() if r != left_out}
            results = {}
            for arm, make in arms(image).items():
                if given.arms and arm != PLAIN and not arm.startswith(tuple(given.arms)):
                    continue
                begun = time.perf_counter()
                results[arm] = make(others)
                seconds[arm] += time.perf_counter() - begun
            human = [dice(masks[r], masks[left_out]) for r in marked if r != left_out]
            counts[f"trials, {group}"] += 1
            for where in ("all", group):
                for arm, mask in results.items():
                    scores[where][arm][case.patient].append(dice(mask, masks[left_out]))
                scores[where]["one other reader (human - human)"][case.patient].append(float(np.mean(human)))
            if len(marked) == 4 and left_out == marked[-1]:
                shown.append((case.name, image, others, masks[left_out], results))
    result = {
        "spacing_mm": SPACING,
        "counts": dict(counts),
        "agreement of those who marked (mean over slices)": {k: float(np.mean(v)) for k, v in agree.items()},
        "milliseconds": {
            arm: 1000 * s / sum(v for k, v in counts.items() if k.startswith("trials"))
            for arm, s in seconds.items()
        },
        "groups": {
            where: {"patients": len(p := sorted(next(iter(each.values())))), "arms": summary(each, p)}
            for where, each in scores.items()
            if each
        },
    }
    given.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
    if not given.arms:
        draw(shown, given.picture)


def draw(shown, path: Path) -> None:
    """Six slices from where the recipe loses most against the majority to where it gains most."""
    gain = [dice(r[RECIPE], truth) - dice(r[PLAIN], truth) for _, _, _, truth, r in shown]
    order = np.argsort(gain)
    pictures, titles = [], []
    names = ("reader", "another", "a third", "left out", "consensus")
    for place in np.linspace(0, len(order) - 1, 6).round().astype(int):
        name, image, others, truth, results = shown[order[place]]
        everybody = np.logical_or.reduce([*others.values(), truth])[0]
        for title, masks in (
            (name.removeprefix("LIDC-IDRI-"), [*others.values()]),
            (f"majority {dice(results[PLAIN], truth):.2f}", [None, None, None, truth, results[PLAIN]]),
            (f"recipe {dice(results[RECIPE], truth):.2f}", [None, None, None, truth, results[RECIPE]]),
        ):
            lines = {n: m[0] for n, m in zip(names, masks, strict=False) if m is not None}
            pictures.append(drawn_by(image[0], lines, names, panel(everybody, 12), size=200))
            titles.append(title)
    legend = {name: number for number, name in enumerate(names, start=1)}
    save_png(path, with_legend(montage(pictures, columns=6, titles=titles), legend))


if __name__ == "__main__":
    main()
