"""The table of what was found and invented lesion by lesion, for classes that were scored so."""

from collections.abc import Sequence

import numpy as np

from fewmask.metrics.bootstrap import Bootstrap
from fewmask.metrics.bootstrap import Table as Values
from fewmask.metrics.lesions import HIT_SHARE, OUTLINED_DICE
from fewmask.metrics.score import Row
from fewmask.metrics.statistics import interval_text
from fewmask.report.content import Report, Table
from fewmask.report.tables import arms_of, class_names, shots_text

_NOTE = (
    "A lesion is a connected component of the reference. Hit: at least "
    f"{100 * HIT_SHARE:.0f} % of its voxels are predicted, so that marking too much hits everything. "
    f"Outlined: its Dice with the predicted components that touch it is above {OUTLINED_DICE:g}. Invented: a "
    "predicted component that touches no lesion. Counts are of all draws together; a sensitivity is the mean "
    "over patients with lesions, with 95 % intervals; invented is the mean per patient, over all of a "
    "patient's cases."
)


def lesion_tables(
    rows: Sequence[Row], report: Report, *, resamples: int = 10_000, seed: int = 0
) -> tuple[Table, ...]:
    """One table per class that was scored by lesion, in the order of the arms; none without such rows.

    Args:
        rows: the scores of all arms.
        report: names and order of the arms.
        resamples: bootstrap resamples of patients and draws.
        seed: names the bootstrap's stream.
    """
    scored = [row for row in rows if row.lesions is not None]
    chance = Bootstrap(resamples, 0.95, seed)
    made = []
    for name in class_names(scored):
        own = [row for row in scored if row.class_name == name]
        lines = []
        for arm, shots in arms_of(own, report):
            members = [row for row in own if (row.arm, row.shots) == (arm, shots)]
            lines.append((report.name_of(arm), shots_text(shots), *_told(members, chance)))
        columns = ("Method", "Shots", "Hit", "Sensitivity", "Outlined", "Sensitivity", "Invented per patient")
        made.append(Table(f"Lesion by lesion: {name}", columns, tuple(lines), _NOTE))
    return tuple(made)


def _told(rows: Sequence[Row], chance: Bootstrap) -> tuple[str, ...]:
    """What was hit and outlined of all, each with its sensitivity; invented per patient and draw."""
    outlined = any(row.lesions_outlined is not None for row in rows)
    hits = _of_all(rows, "lesions_hit", chance)
    outlines = _of_all(rows, "lesions_outlined", chance) if outlined else ("–", "–")
    return (*hits, *outlines, f"{_table(rows, 'lesions_invented').mean():.2f}")


def _of_all(rows: Sequence[Row], field: str, chance: Bootstrap) -> tuple[str, str]:
    """How many of all lesions, and the mean share over patients with its interval."""
    there, hit = _table(rows, "lesions"), _table(rows, field)
    found = f"{hit.values[np.isfinite(hit.values)].sum():.0f} of "
    found += f"{there.values[np.isfinite(there.values)].sum():.0f}"
    shares = np.divide(hit.values, there.values, out=np.full_like(hit.values, np.nan), where=there.values > 0)
    kept = [patient for patient, own in zip(hit.patients, shares, strict=True) if np.isfinite(own).any()]
    sensitivity = "–"
    if kept:
        table = Values(hit.patients, hit.draws, shares).of(kept)
        sensitivity = interval_text(table.mean(), *chance.interval(table))
    return found, sensitivity


def _table(rows: Sequence[Row], field: str) -> Values:
    """Sum of a count over the cases of each patient, by draw; NaN where a patient was not scored."""
    patients = {name: place for place, name in enumerate(dict.fromkeys(row.patient for row in rows))}
    draws = {number: place for place, number in enumerate(sorted({row.draw for row in rows}))}
    values = np.full((len(patients), len(draws)), np.nan)
    for row in rows:
        at = patients[row.patient], draws[row.draw]
        values[at] = np.nan_to_num(values[at]) + (getattr(row, field) or 0)
    return Values(tuple(patients), tuple(draws), values)
