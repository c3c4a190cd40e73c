"""From rows to what may be said about patients: means with intervals, paired comparisons, claims.

The unit is the patient. Several cases of a patient are averaged first, slices are never counted as
independent. The interval is a percentile bootstrap: patients are drawn with replacement, and so are the
draws of shots (one draw trains one model that is used on all patients, so the two are crossed). With one
draw only the patients vary, and the interval says nothing about another choice of shots.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from fewmask.core.errors import ConfigError
from fewmask.metrics.bootstrap import Bootstrap, Table
from fewmask.metrics.score import Row

MEAN = "mean"
"""Stands as a class's name for the mean over all classes."""

MINIMUM_PATIENTS = 6
"""Fewer patients decide nothing: six differences of one sign are the first with two-sided p < 0.05."""

BETTER: Mapping[str, Literal["higher", "lower"]] = {
    "dice": "higher",
    "iou": "higher",
    "slice_dice": "higher",
    "slice_iou": "higher",
    "pixel_accuracy": "higher",
    "ceiling": "higher",
    "assd_mm": "lower",
    "hd95_mm": "lower",
}
"""The columns of a row that can be summarised, and which way is better."""


@dataclass(frozen=True)
class Summary:
    """One measure of one arm over the patients."""

    arm: str
    shots: int | None
    class_name: str
    metric: str
    mean: float
    """Mean over patients and draws."""
    low: float | None
    """Lower end of the interval; None with a single patient."""
    high: float | None
    """Upper end of the interval; None with a single patient."""
    sd: float
    """Standard deviation between patients (of their means over draws); 0 with a single patient."""
    median: float
    """Of the patients' means over draws, as are the quartiles."""
    q1: float
    q3: float
    n_patients: int
    n_draws: int
    draw_means: tuple[float, ...]
    """The mean over patients of each draw: their spread shows how much the choice of shots matters."""
    true_negatives: int
    """Rows with both masks empty: they count as Dice 1."""
    missed: int
    """Rows with an empty prediction of a structure that is there."""
    false_alarms: int
    """Rows with a predicted structure that is not there."""

    def text(self, digits: int = 3) -> str:
        """`0.850 [0.820, 0.880]`, or the bare mean with a single patient."""
        return interval_text(self.mean, self.low, self.high, digits)


@dataclass(frozen=True)
class Comparison:
    """Arm a against arm b on the same patients: the difference is a minus b."""

    arm_a: str
    shots_a: int | None
    arm_b: str
    shots_b: int | None
    class_name: str
    metric: str
    mean_a: float
    mean_b: float
    difference: float
    """Mean over patients of (a - b), each averaged over draws."""
    low: float | None
    high: float | None
    p_value: float | None
    """Wilcoxon signed-rank test on the patients' differences, two-sided; None with a single patient."""
    n_patients: int
    n_draws_a: int
    n_draws_b: int
    p_holm: float | None = None
    """The p-value after Holm's correction for the comparisons made together; see `with_holm`."""

    @property
    def claim(self) -> Literal["a", "b", "none", "too few patients"]:
        """Which arm may be called better: only when the interval excludes 0."""
        if self.low is None or self.high is None or self.n_patients < MINIMUM_PATIENTS:
            return "too few patients"
        if self.low <= 0.0 <= self.high:
            return "none"
        a_is_higher = self.low > 0.0
        return "a" if a_is_higher == (BETTER[self.metric] == "higher") else "b"

    def text(self, digits: int = 3) -> str:
        """`-0.070 [-0.090, -0.050]`, with the sign always shown."""
        return interval_text(self.difference, self.low, self.high, digits, sign=True)


def interval_text(
    value: float, low: float | None, high: float | None, digits: int = 3, *, sign: bool = False
) -> str:
    """A number with its interval in brackets."""
    form = f"{'+' if sign else ''}.{digits}f"
    if low is None or high is None:
        return f"{value:{form}}"
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def summarise(
    rows: Iterable[Row],
    metric: str = "dice",
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Summary]:
    """Summarise one measure per (arm, shots, class) and per (arm, shots, mean over classes).

    Args:
        rows: scores of any number of arms.
        metric: one of `BETTER`; rows whose value is None are left out.
        resamples: bootstrap resamples.
        level: coverage of the interval, 0..1.
        seed: names the bootstrap's stream.

    Returns:
        In the order in which arms and classes first appear, the mean over classes after its classes.

    Raises:
        ConfigError: an unknown measure.
    """
    bootstrap = Bootstrap(resamples, level, seed)
    summaries = []
    for (arm, shots), members in _by_arm(rows).items():
        for class_name in (*dict.fromkeys(row.class_name for row in members), MEAN):
            own = [row for row in members if class_name in (MEAN, row.class_name)]
            table = _table(own, metric)
            if table.values.size:
                summaries.append(_summary(arm, shots, class_name, metric, own, table, bootstrap))
    return summaries


def compare(
    rows: Iterable[Row],
    a: tuple[str, int | None],
    b: tuple[str, int | None],
    metric: str = "dice",
    *,
    class_name: str = MEAN,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two (arm, shots) on the patients that both have scored.

    Draws with the same numbers are resampled together (draw n is the same choice of shots for both),
    other draws apart from each other.

    Args:
        rows: scores of both arms, and of any others.
        a: arm and shots; shots None: all.
        b: arm and shots.
        metric: one of `BETTER`.
        class_name: one class, or `MEAN` for the mean over classes.
        resamples: bootstrap resamples.
        level: coverage of the interval, 0..1.
        seed: names the bootstrap's stream.

    Raises:
        ConfigError: an unknown measure, or the arms share no patient.
    """
    left, right = paired(rows, a, b, metric, class_name=class_name)
    differences = left.patient_means() - right.patient_means()
    low, high = Bootstrap(resamples, level, seed).difference(left, right)
    return Comparison(
        *a,
        *b,
        class_name=class_name,
        metric=metric,
        mean_a=left.mean(),
        mean_b=right.mean(),
        difference=left.mean() - right.mean(),
        low=low,
        high=high,
        p_value=signed_rank(differences),
        n_patients=len(left.patients),
        n_draws_a=len(left.draws),
        n_draws_b=len(right.draws),
    )


def paired(
    rows: Iterable[Row],
    a: tuple[str, int | None],
    b: tuple[str, int | None],
    metric: str = "dice",
    *,
    class_name: str = MEAN,
) -> tuple[Table, Table]:
    """The values of two (arm, shots) by patient and draw, on the patients that both have scored.

    Raises:
        ConfigError: an unknown measure, or the arms share no patient.
    """
    groups = _by_arm(row for row in rows if class_name in (MEAN, row.class_name))
    tables = [_table(groups.get(key, []), metric) for key in (a, b)]
    patients = [p for p in tables[0].patients if p in set(tables[1].patients)]
    if not patients:
        raise ConfigError(
            "two arms can only be compared on patients that both have scored",
            where=f"{a[0]} ({_shots_text(a[1])}) against {b[0]} ({_shots_text(b[1])})",
            found=f"{len(tables[0].patients)} and {len(tables[1].patients)} patients, none in common",
            expected=", ".join(f"{arm} ({_shots_text(shots)})" for arm, shots in groups),
        )
    return tables[0].of(patients), tables[1].of(patients)


def signed_rank(differences: NDArray[np.float64]) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test on paired differences (n,); None for fewer than two.

    Differences of 0 are left out (Wilcoxon 1945); if nothing else is there, p is 1.
    """
    if differences.size < 2:
        return None
    # Equal scores of two arms differ by rounding once they are averaged: that is no difference.
    moved = differences[np.abs(differences) > 1e-12]
    if moved.size == 0:
        return 1.0
    distinct = np.unique(np.abs(moved)).size == moved.size
    exact = moved.size <= 50 and distinct
    return float(wilcoxon(moved, method="exact" if exact else "asymptotic").pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (Holm 1979): adjusted p-values in the same order; None stays None."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[index] = highest
    return adjusted


def with_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with `p_holm` filled in: corrected for all that are given together."""
    adjusted = holm([comparison.p_value for comparison in comparisons])
    return [replace(c, p_holm=p) for c, p in zip(comparisons, adjusted, strict=True)]


def _by_arm(rows: Iterable[Row]) -> dict[tuple[str, int | None], list[Row]]:
    """Rows by (arm, shots), in order of first appearance."""
    groups: dict[tuple[str, int | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.arm, row.shots), []).append(row)
    return groups


def _table(rows: Sequence[Row], metric: str) -> Table:
    """Values by patient and draw: the mean over the classes of the mean over a patient's cases."""
    if metric not in BETTER:
        raise ConfigError("unknown measure", found=repr(metric), expected=", ".join(BETTER))
    cells: dict[tuple[str, int, str], list[float]] = {}
    for row in rows:
        value = getattr(row, metric)
        if value is not None:
            cells.setdefault((row.patient, row.draw, row.class_name), []).append(value)
    merged: dict[tuple[str, int], list[float]] = {}
    for (patient, draw, _), values in cells.items():
        merged.setdefault((patient, draw), []).append(sum(values) / len(values))
    patients = tuple(dict.fromkeys(patient for patient, _ in merged))
    draws = tuple(sorted({draw for _, draw in merged}))
    row_of, column_of = ({name: i for i, name in enumerate(names)} for names in (patients, draws))
    table = np.full((len(patients), len(draws)), np.nan)
    for (patient, draw), means in merged.items():
        table[row_of[patient], column_of[draw]] = sum(means) / len(means)
    return Table(patients, draws, table)


def _summary(
    arm: str,
    shots: int | None,
    class_name: str,
    metric: str,
    rows: Sequence[Row],
    table: Table,
    bootstrap: Bootstrap,
) -> Summary:
    """One line of the result."""
    each = table.patient_means()
    low, high = bootstrap.interval(table)
    q1, median, q3 = (float(q) for q in np.quantile(each, [0.25, 0.5, 0.75]))
    outcomes = [row.outcome for row in rows]
    return Summary(
        arm=arm,
        shots=shots,
        class_name=class_name,
        metric=metric,
        mean=table.mean(),
        low=low,
        high=high,
        sd=float(each.std(ddof=1)) if each.size > 1 else 0.0,
        median=median,
        q1=q1,
        q3=q3,
        n_patients=len(table.patients),
        n_draws=len(table.draws),
        draw_means=tuple(float(mean) for mean in np.nanmean(table.values, axis=0)),
        true_negatives=outcomes.count("true_negative"),
        missed=outcomes.count("missed"),
        false_alarms=outcomes.count("false_alarm"),
    )


def miou(rows: Iterable[Row]) -> dict[Literal["dataset", "image"], float]:
    """Mean IoU over classes of the rows of one arm, at both levels; the two are different numbers.

    "dataset" is the sum of intersections over the sum of unions of all cases (DatasetGAN's; a case weighs
    by its volume), "image" the mean over cases (S1's). Both in 0..1.
    """
    by_class: dict[str, list[Row]] = {}
    for row in rows:
        by_class.setdefault(row.class_name, []).append(row)
    of_dataset, of_image = [], []
    for members in by_class.values():
        sums = np.array([row.reference_ml + row.predicted_ml for row in members])
        shared = np.array([row.dice for row in members]) * sums / 2.0
        union = float((sums - shared).sum())
        of_dataset.append(float(shared.sum()) / union if union else 1.0)
        of_image.append(float(np.mean([row.iou for row in members])))
    return {"dataset": float(np.mean(of_dataset)), "image": float(np.mean(of_image))}


def _shots_text(shots: int | None) -> str:
    return "all masks" if shots is None else f"k = {shots}"
