"""What the recipe `invert` shows: residuals as a table and a file, pictures, checks."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from fewmask.data.overlay import contact_sheet, png_bytes, save_png
from fewmask.data.slices import SliceSet
from fewmask.inversion.pictures import DIFFERENCE_SCALE, comparison
from fewmask.inversion.project import Inversion
from fewmask.inversion.residual import Residual
from fewmask.metrics.bootstrap import Bootstrap
from fewmask.metrics.bootstrap import Table as Values
from fewmask.recipes.page import Job
from fewmask.report.content import Check, Gallery, Picture, Table

SHEET = 6
"""Slices on each picture of originals and reconstructions."""

Slices = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Way:
    """What one way of inverting gave: the unseen slices, their residuals, and seconds per slice."""

    name: str
    inversion: Inversion
    rows: list[Residual]
    seconds: float


def best_words(way: Way) -> str:
    """The best way in one sentence."""
    found, flagged = way.inversion, sum(row.flagged for row in way.rows)
    return (
        f"Unseen slices are met best by {way.name}: MSE {found.mse.mean():.4f}, "
        f"MS-SSIM {found.ms_ssim.mean():.3f}; {flagged} of {len(way.rows)} are flagged as not to be trusted."
    )


def residual_table(ways: Sequence[Way], unseen: SliceSet) -> str:
    """residuals.csv: one line per way and slice."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    fields = list(asdict(ways[0].rows[0]))
    table.writerow(["way", "patient", *fields])
    for way in ways:
        for patient, row in zip(unseen.patients, way.rows, strict=True):
            table.writerow([way.name, patient, *asdict(row).values()])
    return text.getvalue()


def way_table(ways: Sequence[Way], unseen: SliceSet, percentile: float) -> Table:
    """Means over patients with 95 % intervals, one line per way."""
    lines = []
    for way in ways:
        numbers = {
            "mse": [row.mse for row in way.rows],
            "ms_ssim": [row.ms_ssim for row in way.rows],
            "perceptual": [row.perceptual for row in way.rows],
        }
        lines.append(
            (
                way.name,
                *(with_interval(values, unseen.patients) for values in numbers.values()),
                f"{sum(row.flagged for row in way.rows)} of {len(way.rows)}",
                f"{way.seconds:.2f}",
            )
        )
    columns = ("Way", "MSE", "MS-SSIM", "Perceptual", "Flagged", "Seconds per slice")
    note = (
        f"Slices of {len(set(unseen.patients))} unseen patients; means over patients [95 % bootstrap "
        f"interval]. Flagged: beyond the {percentile:g}th percentile of training slices."
    )
    return Table("Residuals", columns, tuple(lines), note)


def with_interval(values: Sequence[float], patients: Sequence[str]) -> str:
    """Mean over patients of their means, with its bootstrap interval."""
    of: dict[str, list[float]] = {}
    for value, patient in zip(values, patients, strict=True):
        of.setdefault(patient, []).append(value)
    means = np.array([[np.mean(each)] for each in of.values()])
    low, high = Bootstrap(10_000, 0.95, 0).interval(Values(tuple(of), (0,), means))
    ends = "" if low is None or high is None else f" [{low:.4f}, {high:.4f}]"
    return f"{means.mean():.4f}{ends}"


def gallery(way: Way, images: Slices, job: Job) -> Gallery:
    """The worst and the median slices of a way, each original | reconstruction | difference."""
    order = np.argsort([-row.percentile - row.mse / 1e3 for row in way.rows])
    middle = len(order) // 2
    groups = {"worst": order[:SHEET], "median": order[middle : middle + SHEET]}
    pictures = []
    for name, rows in groups.items():
        triples = np.concatenate([comparison(images[[row]], _only(way.inversion, row))[0] for row in rows])
        sheet = contact_sheet(triples[:, None], columns=3, zoom=max(1, 128 // images.shape[-1]))
        save_png(job.run.pictures / f"{way.name}-{name}.png", sheet)
        shown = "; ".join(
            f"{way.rows[row].case}: MSE {way.rows[row].mse:.4f}"
            + (f" (flagged: {way.rows[row].why})" if way.rows[row].flagged else "")
            for row in rows
        )
        alt = f"{name} slices by {way.name}: original, reconstruction, difference"
        pictures.append(Picture.of_png(png_bytes(sheet), alt, f"{name}, from above: {shown}"))
    note = (
        "Original, reconstruction, and reconstruction minus original around middle grey "
        f"(white: brighter by {DIFFERENCE_SCALE:g} or more of the range [-1, 1])."
    )
    return Gallery(f"By {way.name}", tuple(pictures), note)


def _only(inversion: Inversion, row: int) -> Inversion:
    one = slice(row, row + 1)
    return Inversion(
        inversion.ws[one],
        inversion.images[one],
        inversion.mse[one],
        inversion.perceptual[one],
        inversion.ms_ssim[one],
        tuple(each[one] for each in inversion.noise),
    )


def flag_check(way: Way, percentile: float) -> Check:
    """Are unseen slices met as training slices are?"""
    flagged = [row.case for row in way.rows if row.flagged]
    share, usual = len(flagged) / len(way.rows), 1 - percentile / 100
    named = ", ".join(flagged[:6]) + (", ..." if len(flagged) > 6 else "")
    return Check(
        f"Unseen slices are inverted as well as training slices ({way.name})",
        "passed" if share <= max(0.25, 2 * usual) else "warning",
        f"{share:.0%} flagged, about {usual:.0%} of known slices would be"
        + (f": {named}" if flagged else ""),
        "Passed up to 25 % or twice what is usual. Do not trust features or masks of a flagged slice: the "
        "generator draws another one in its place.",
    )
