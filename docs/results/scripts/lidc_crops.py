"""One crop of each nodule slice, placed at random, with one reference mask out of its readers.

python docs/results/scripts/lidc_crops.py lidc-nodules-4-readers OUT [--size 64] [--seed 0]

In the source the nodule lies in the middle of every picture. Here the crop holds the whole reference, at a
place drawn uniformly from all that do. The reference: more than half of the readers who marked a structure;
what only one reader marked is dropped, and so is a slice on which then nothing is left.

Tells how far the nodules lie from the middle before and after, and what one mask for all slices scores.
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fewmask.consensus.settle import settle
from fewmask.core.seed import stream
from fewmask.data.case import Case, Cohort
from fewmask.data.cohort import read_case_mask, read_cohort, read_images
from fewmask.metrics.overlap import dice

SPACING = (1.0, 0.7, 0.7)
"""The source does not tell its pixel size; a majority does not depend on it."""


@dataclass(frozen=True, eq=False)
class Slice:
    """A picture (Y, X) uint8 with its reference (Y, X) bool, and the case it comes from."""

    case: Case
    image: np.ndarray
    mask: np.ndarray


def slices(cohort: Cohort) -> Iterator[Slice]:
    for case in cohort.cases:
        masks = {r: np.asarray(read_case_mask(case, cohort, reader=r).voxels) > 0 for r in case.readers}
        image = np.asarray(next(iter(read_images(case).values())).voxels)
        yield Slice(case, image[0], settle(masks, SPACING, at_least=2).mask[0])


def corners(mask: np.ndarray, size: int) -> list[tuple[int, int]]:
    """Per axis the first and the last start of a crop of `size` that holds the whole mask (Y, X)."""
    found = []
    for axis, length in enumerate(mask.shape):
        inside = np.flatnonzero(mask.any(axis=1 - axis))
        found.append((max(int(inside[-1]) + 1 - size, 0), min(int(inside[0]), length - size)))
    return found


def crop(one: Slice, size: int, seed: int) -> tuple[Slice, tuple[int, int]] | None:
    """The slice cut at random, and the upper left corner; None if the nodule is too large."""
    ranges = corners(one.mask, size)
    if any(last < first for first, last in ranges):
        return None
    chance = stream(seed, "lidc crops", one.case.name)
    top, left = (int(chance.integers(first, last + 1)) for first, last in ranges)
    window = (slice(top, top + size), slice(left, left + size))
    return Slice(one.case, one.image[window], one.mask[window]), (top, left)


def off_centre(mask: np.ndarray) -> float:
    """Distance of the mask's centroid from the middle of the picture, in pixels."""
    middle = (np.array(mask.shape) - 1) / 2
    return float(np.linalg.norm(np.argwhere(mask).mean(axis=0) - middle))


def one_mask_for_all(masks: Sequence[np.ndarray]) -> float:
    """The best mean Dice that a mask which knows positions only can reach: the mean mask, cut best.

    The cut is chosen on the same masks, so that this is rather too high.
    """
    mean = np.mean(masks, axis=0)
    levels = np.quantile(mean[mean > 0], np.linspace(0, 0.999, 60))
    return max(float(np.mean([dice(mean >= level, mask) for mask in masks])) for level in levels)


def told(name: str, masks: Sequence[np.ndarray]) -> str:
    side = masks[0].shape[0]
    away = np.array([off_centre(mask) for mask in masks])
    median, most = np.percentile(away, (50, 95))
    return (
        f"{name}: {side} px; centroid from the middle, median {median:.1f} px, 95th percentile {most:.1f} px "
        f"({100 * median / side:.1f} and {100 * most / side:.1f} % of the side); "
        f"one mask for all slices: Dice {one_mask_for_all(masks):.3f}"
    )


def write(out: Path, cropped: Sequence[tuple[Slice, tuple[int, int]]]) -> None:
    images, masks = out / "images", out / "masks" / "nodule"
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for one, (top, left) in cropped:
        file = f"{one.case.name}.png"
        Image.fromarray(one.image).save(images / file)
        Image.fromarray(one.mask.astype(np.uint8) * 255).save(masks / file)
        rows.append((file, one.case.patient, one.case.tags.get("nodule", ""), top, left, int(one.mask.sum())))
    with (out / "index.csv").open("w", newline="", encoding="utf-8") as file_of_rows:
        writer = csv.writer(file_of_rows)
        writer.writerow(("file", "patient", "nodule", "top", "left", "pixels"))
        writer.writerows(rows)


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("data", type=Path)
    words.add_argument("out", type=Path)
    words.add_argument("--size", type=int, default=64, help="side of the crops, in pixels")
    words.add_argument("--seed", type=int, default=0)
    given = words.parse_args()
    every = list(slices(read_cohort(given.data)))
    marked = [one for one in every if one.mask.any()]
    found = [crop(one, given.size, given.seed) for one in marked]
    cropped = [one for one in found if one is not None]
    write(given.out, cropped)
    patients = len({one.case.patient for one, _ in cropped})
    pixels = np.percentile([one.mask.sum() for one, _ in cropped], (5, 50, 95))
    print(f"{len(cropped)} slices of {patients} patients in {given.out}")
    print(f"left out: {len(every) - len(marked)} without a reference, {found.count(None)} too large to fit")
    print("pixels of a nodule, 5th, 50th and 95th percentile: " + ", ".join(f"{p:.0f}" for p in pixels))
    print(told("before", [one.mask for one in marked]))
    print(told("after", [one.mask for one, _ in cropped]))


if __name__ == "__main__":
    main()
