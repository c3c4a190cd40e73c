"""Failure checks that follow from the scores alone (protocol, section 9); recipes add those of their own."""

from collections.abc import Sequence

from fewmask.metrics.score import Row
from fewmask.metrics.statistics import MEAN, MINIMUM_PATIENTS, summarise
from fewmask.report.content import Check, Report
from fewmask.report.tables import class_names, shots_text

SEED_POINTS = 0.05
"""A spread of the draws' mean Dice above this is a warning."""

LOW_CEILING = 0.95
"""Below this mean ceiling the model's grid, not the model, limits the Dice."""


def score_checks(rows: Sequence[Row], report: Report) -> tuple[Check, ...]:
    """All checks on the rows, in a fixed order."""
    judged = [row for row in rows if report.kind_of(row.arm) != "trivial"]
    if not judged:
        return ()
    return (
        _patients(judged),
        _collapse(judged, report),
        _spread(judged, report),
        _prevalence(judged),
        _ceiling(judged),
    )


def _patients(rows: Sequence[Row]) -> Check:
    """Are there enough test patients for a statement?"""
    count = len({row.patient for row in rows})
    return Check(
        "Enough test patients",
        "passed" if count >= MINIMUM_PATIENTS else "failed",
        f"{count} test patients",
        f"With fewer than {MINIMUM_PATIENTS} no difference between arms can be told from chance.",
    )


def _collapse(rows: Sequence[Row], report: Report) -> Check:
    """Does an arm mark nothing where there is something?"""
    worst, named = 0.0, ""
    groups: dict[tuple[str, int | None, str], list[Row]] = {}
    for row in rows:
        if row.outcome in ("overlap", "missed"):
            groups.setdefault((row.arm, row.shots, row.class_name), []).append(row)
    for (arm, shots, class_name), members in groups.items():
        share = sum(row.outcome == "missed" for row in members) / len(members)
        if share > worst:
            worst, named = share, f"{report.name_of(arm)}, shots: {shots_text(shots)}, {class_name}"
    return Check(
        "No collapse to the background",
        "passed" if worst < 0.1 else "warning" if worst < 0.5 else "failed",
        f"at most {100 * worst:.0f} % of the structures missed altogether" + (f" ({named})" if named else ""),
        "An arm that marks nothing scores Dice 0, but may still show a high pixel accuracy.",
    )


def _spread(rows: Sequence[Row], report: Report) -> Check:
    """How much do the draws of shots, or seeds, matter?"""
    means = [s for s in summarise(rows, resamples=1) if s.class_name == MEAN and s.n_draws > 1]
    if not means:
        return Check(
            "Little depends on the draw of shots",
            "not run",
            "every arm ran with one draw",
            "Another choice of labelled images may give another result; the intervals do not show it.",
        )
    widest = max(means, key=lambda s: max(s.draw_means) - min(s.draw_means))
    spread = max(widest.draw_means) - min(widest.draw_means)
    return Check(
        "Little depends on the draw of shots",
        "passed" if spread <= SEED_POINTS else "warning",
        f"largest spread of mean Dice between draws {spread:.3f} "
        f"({report.name_of(widest.arm)}, shots: {shots_text(widest.shots)}, {widest.n_draws} draws)",
        f"Above {SEED_POINTS:.2f} a single draw says little: read the intervals, or run more draws.",
    )


def _prevalence(rows: Sequence[Row]) -> Check:
    """Is pixel accuracy meaningless here?"""
    unique = {(row.case, row.class_name): row for row in rows}.values()
    rare = []
    for name in class_names(rows):
        own = [row.empty_accuracy for row in unique if row.class_name == name]
        if sum(own) / len(own) > 0.95:
            rare.append(f"{name} {100 * sum(own) / len(own):.1f} %")
    return Check(
        "Pixel accuracy of the empty mask",
        "warning" if rare else "passed",
        ("an empty mask is right on " + ", ".join(rare) + " of the voxels") if rare else "below 95 % for all",
        "Where the structure is small, pixel accuracy is high for a method that finds nothing.",
    )


def _ceiling(rows: Sequence[Row]) -> Check:
    """Does the model's grid limit the score?"""
    name = "The model's grid keeps the structures"
    meaning = "The ceiling is the Dice of a perfect model after the trip to the model's grid and back."
    means = [s for s in summarise(rows, "ceiling", resamples=1) if s.class_name != MEAN]
    if not means:
        return Check(name, "not run", "no ceiling was measured", meaning)
    lowest = min(means, key=lambda s: s.mean)
    return Check(
        name,
        "passed" if lowest.mean >= LOW_CEILING else "warning",
        f"lowest mean ceiling {lowest.mean:.3f} ({lowest.class_name})",
        meaning,
    )
