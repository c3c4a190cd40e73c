"""The pairing table of a check: which mask belongs to which scan, and whether they lie on each other."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from fewmask.core.files import write_text
from fewmask.data.check import CheckRow

SHOWN = 20
"""Lines on the console; the file has all."""

HEADS = ("case", "patient", "part", "images", "masks", "shape (Z, Y, X)", "spacing mm", "geometry", "voxels")


def pairing_table(rows: Sequence[CheckRow]) -> Table:
    """The first lines: every faulty geometry comes first, then the order of the cohort."""
    table = Table(*HEADS, box=None, pad_edge=False)
    for row in sorted(rows, key=lambda row: row.verdict in (None, "fine"))[:SHOWN]:
        table.add_row(*cells(row))
    if len(rows) > SHOWN:
        table.caption = f"{len(rows) - SHOWN} more; --out FOLDER writes them all"
        table.caption_justify = "left"
    return table


def write_pairing(path: Path, rows: Sequence[CheckRow]) -> Path:
    """The whole table as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEADS)
    writer.writerows(cells(row) for row in rows)
    return write_text(path, stream.getvalue())


def cells(row: CheckRow) -> tuple[str, ...]:
    """One line in words; a geometry that is not fine says by how many mm its worst corner is off."""
    verdict: str = row.verdict or ""
    if row.verdict not in (None, "fine") and row.displacement_mm is not None:
        verdict += f" ({row.displacement_mm:.3g} mm)"
    images = ", ".join(file if name == "image" else f"{name}: {file}" for name, file in row.images.items())
    return (
        row.case,
        row.patient,
        row.part,
        images,
        ", ".join(row.masks) or "unlabelled",
        " x ".join(map(str, row.shape)) if row.shape else "unreadable",
        " x ".join(f"{mm:.3g}" for mm in row.spacing_mm) if row.spacing_mm else "",
        verdict,
        ", ".join(f"{name} {count}" for name, count in row.voxels.items()),
    )
