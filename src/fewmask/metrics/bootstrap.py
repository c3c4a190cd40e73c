"""Means over patients and draws, and their percentile bootstrap (Efron 1979) with both resampled.

For a table x of patients by draws a resample draws patients with replacement (w_p times each) and, apart
from them, draws (v_d times each); its mean is sum(w_p v_d x_pd) / sum(w_p v_d) over the scored cells.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmask.core.seed import stream

_CELLS_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class Table:
    """Values by patient and draw: (patients, draws), NaN where a patient was not scored in a draw."""

    patients: tuple[str, ...]
    draws: tuple[int, ...]
    values: NDArray[np.float64]

    def of(self, patients: Sequence[str]) -> "Table":
        """Only these patients, in this order, and the draws that scored any of them."""
        place = {patient: index for index, patient in enumerate(self.patients)}
        values = self.values[[place[p] for p in patients]]
        scored = np.flatnonzero(np.isfinite(values).any(axis=0))
        return Table(tuple(patients), tuple(self.draws[i] for i in scored), values[:, scored])

    def patient_means(self) -> NDArray[np.float64]:
        """Mean over draws of every patient, (patients,)."""
        return np.asarray(np.nanmean(self.values, axis=1), dtype=np.float64)

    def mean(self) -> float:
        """Mean over patients and draws."""
        return float(np.nanmean(self.values))


class Bootstrap:
    """Percentile intervals of means over resampled patients and draws; weights are made once per shape."""

    def __init__(self, resamples: int, level: float, seed: int) -> None:
        self.resamples, self.level, self.seed = resamples, level, seed
        self._kept: dict[tuple[str, int], NDArray[np.float64]] = {}

    def interval(self, table: Table) -> tuple[float | None, float | None]:
        """Ends of the interval of the mean; None with a single patient."""
        if len(table.patients) < 2:
            return None, None
        return self._ends(self._means(table, "draws"))

    def difference(self, a: Table, b: Table) -> tuple[float | None, float | None]:
        """Ends of the interval of mean(a) - mean(b), both over the same patients."""
        if len(a.patients) < 2:
            return None, None
        other = "draws" if a.draws == b.draws else "draws of b"
        return self._ends(self._means(a, "draws") - self._means(b, other))

    def ratio(self, a: Table, b: Table) -> tuple[float | None, float | None]:
        """Ends of the interval of mean(a) / mean(b), both over the same patients; None where b may be 0."""
        if len(a.patients) < 2:
            return None, None
        other = "draws" if a.draws == b.draws else "draws of b"
        below = self._means(b, other)
        if not (below > 0).all():
            return None, None
        return self._ends(self._means(a, "draws") / below)

    def of_figure(
        self, patients: int, figure: Callable[[NDArray[np.float64]], float]
    ) -> tuple[float | None, float | None]:
        """Ends of the interval of a figure that is no mean, such as an area under a curve.

        Args:
            patients: how many there are; with fewer than two the ends are None.
            figure: from (patients,), how often each is drawn, to the figure; NaN where it has no value then,
                as with no positive. Such resamples are left out.
        """
        if patients < 2:
            return None, None
        found = np.array([figure(row) for _, _, weights in self._patient_blocks(patients) for row in weights])
        return self._ends(found[np.isfinite(found)]) if np.isfinite(found).any() else (None, None)

    def _means(self, table: Table, draws: str) -> NDArray[np.float64]:
        """Mean of every resample, (resamples,): sum of w_p v_d x_pd over the sum of w_p v_d where scored."""
        patients, count = table.values.shape
        scored = np.isfinite(table.values)
        filled = np.where(scored, table.values, 0.0)
        of_draws = self._weights(draws, count)
        parts = []
        for start, stop, of_patients in self._patient_blocks(patients):
            v = of_draws[start:stop]
            above = ((of_patients @ filled) * v).sum(axis=1)
            below = ((of_patients @ scored.astype(np.float64)) * v).sum(axis=1)
            parts.append(np.divide(above, below, out=np.full(stop - start, np.nan), where=below > 0))
        return np.concatenate(parts)

    def _patient_blocks(self, patients: int) -> Iterable[tuple[int, int, NDArray[np.float64]]]:
        """Weights of the patients for runs of resamples, so that many patients need little memory."""
        step = max(1, min(self.resamples, _CELLS_AT_ONCE // patients))
        for start in range(0, self.resamples, step):
            stop = min(start + step, self.resamples)
            if step == self.resamples:
                yield start, stop, self._weights("patients", patients)
            else:
                yield start, stop, self._drawn(stop - start, patients, "patients", start)

    def _weights(self, name: str, count: int) -> NDArray[np.float64]:
        """How often each of `count` items is drawn in each resample, (resamples, count)."""
        if (name, count) not in self._kept:
            self._kept[name, count] = self._drawn(self.resamples, count, name, 0)
        return self._kept[name, count]

    def _drawn(self, rows: int, count: int, name: str, start: int) -> NDArray[np.float64]:
        chance = stream(self.seed, "bootstrap", name, count, start)
        picks = chance.integers(0, count, size=(rows, count))
        picks += np.arange(rows)[:, None] * count
        return np.bincount(picks.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)

    def _ends(self, means: NDArray[np.float64]) -> tuple[float, float]:
        tail = (1.0 - self.level) / 2.0
        low, high = np.nanquantile(means, [tail, 1.0 - tail])
        return float(low), float(high)
