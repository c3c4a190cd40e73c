"""Which pairs to learn from: without the most uncertain ones, and without masks unlike any real one.

Asked after the fact, over all pairs of all shards. No pair is moved or deleted: the choice is a list of
numbers, and a cohort's table of the pairs that stay (`kept.csv`, which any verb takes for a cohort).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.files import read_json, write_json, write_text
from fewmask.data.cohort_table import read_table
from fewmask.metrics.shapes import ClassRow, Margin, class_table, implausible, ranges, shapes
from fewmask.synthesis.factory import PairFolder, Record

KEPT_CSV = "kept.csv"
KEPT_JSON = "kept.json"
UNCERTAIN = "uncertain"
"""The reason of pairs that are left out by their score."""


@dataclass(frozen=True)
class Sifted:
    """What became of every pair: the numbers that stay, and why each other one does not.

    A pair may be refused for several reasons: "uncertain", and "CLASS: area", "CLASS: centre",
    "CLASS: pieces", "CLASS: absent", "CLASS: unknown" as in `metrics.shapes.implausible`.
    """

    kept: tuple[int, ...]
    refused: Mapping[int, tuple[str, ...]]

    @property
    def counts(self) -> dict[str, int]:
        """How many pairs each reason refuses, the most frequent first; their sum may exceed the pairs."""
        found = Counter(reason for reasons in self.refused.values() for reason in reasons)
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def sift(
    records: Mapping[int, Record],
    *,
    real_masks: NDArray[np.uint8] | None = None,
    classes: Mapping[str, int] | None = None,
    lesions: Sequence[str] = (),
    uncertain_share: float = 0.1,
    margin: Margin | None = None,
) -> Sifted:
    """Choose among all pairs.

    Args:
        records: of all pairs, from `PairFolder.records`.
        real_masks: (M, H, W) label values, the masks that the heads learned from, on the pairs' grid; None:
            any mask is plausible.
        classes: names and label values, needed with `real_masks`.
        lesions: names of classes that may be anywhere and may be absent, see `metrics.shapes.ranges`.
        uncertain_share: share of all pairs to leave out, those with the highest score (of equal ones the
            later). Zhang et al. 2021 leave out 10 %; their released code also drops the most certain ones,
            which is not followed here.
        margin: how far beyond the real masks is plausible; None: `Margin()`.

    Raises:
        ConfigError: a share outside [0, 1), no pair, or real masks without classes.
    """
    if not 0 <= uncertain_share < 1 or not records or (real_masks is not None and classes is None):
        raise ConfigError(
            "pairs cannot be chosen so",
            found=f"{len(records)} pairs, uncertain_share {uncertain_share:g}",
            expected="at least one pair, a share from 0 to below 1, and classes with the real masks",
        )
    by_score = sorted(records.values(), key=lambda one: (one.score, one.number))
    dropped = {one.number for one in by_score[len(by_score) - round(uncertain_share * len(by_score)) :]}
    seen = None
    if real_masks is not None and classes is not None:
        seen = ranges([shapes(mask, classes) for mask in real_masks], anywhere=lesions)
    refused: dict[int, tuple[str, ...]] = {}
    for number, record in sorted(records.items()):
        reasons = (UNCERTAIN,) if number in dropped else ()
        if seen is not None:
            reasons = (*reasons, *implausible(record.shapes, seen, margin or Margin()))
        if reasons:
            refused[number] = reasons
    return Sifted(tuple(number for number in sorted(records) if number not in refused), refused)


def write_sifted(pairs: PairFolder, records: Mapping[int, Record], sifted: Sifted) -> Path:
    """Write the choice beside the pairs: `kept.json` (numbers and reasons) and the table `kept.csv`.

    Returns the table; it can be read as a cohort. Written again it replaces the choice before.
    """
    told = {
        "pairs": len(records),
        "kept": list(sifted.kept),
        "counts": sifted.counts,
        "refused": {str(number): list(reasons) for number, reasons in sifted.refused.items()},
    }
    write_json(pairs.folder / KEPT_JSON, told)
    return write_text(pairs.folder / KEPT_CSV, pairs.table(sifted.kept, records))


def read_sifted(pairs: PairFolder) -> Sifted | None:
    """The choice that `write_sifted` left beside the pairs; None when none was made.

    Raises `DataError` when it is damaged, or when the table is not the one that was written with it.
    """
    path, table = pairs.folder / KEPT_JSON, pairs.folder / KEPT_CSV
    if not path.is_file() or not table.is_file():
        return None
    told = read_json(path)
    try:
        kept = tuple(int(number) for number in told["kept"])
        refused = {int(number): tuple(reasons) for number, reasons in told["refused"].items()}
        listed = [int(row["number"]) for _, row in read_table(table).rows]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError("is no choice among pairs", where=str(path), found=str(error)) from error
    if sorted(listed) != sorted(kept):
        raise DataError(
            "is not the table that was written with the choice beside it",
            where=str(table),
            found=f"{len(listed)} pairs",
            expected=f"the {len(kept)} pairs of {KEPT_JSON}",
            mend="Choose again; do not edit the table.",
        )
    return Sifted(kept, refused)


def against_real(
    records: Sequence[Record], real_masks: NDArray[np.uint8], classes: Mapping[str, int]
) -> tuple[ClassRow, ...]:
    """Presence and area of every class in real masks (M, H, W) and in pairs; see `ClassRow`."""
    real = [shapes(mask, classes) for mask in real_masks]
    return class_table(real, [record.shapes for record in records])
