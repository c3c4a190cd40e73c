"""Which few masks may be used: nested k-shot draws of patients or of slices.

The rule of a draw, for patients and slices alike: patients come in random order. As long as a class has
not been shown, the next `LOOK_AHEAD` patients are looked at and the one is taken that shows most of the
missing classes (the earliest, if several do), as a person would who chooses what to draw. Then patients
come as they are. For slices, the patient's slice is the one with most missing classes, chance deciding
among equals; slices without any class are never taken, and a patient gives a second slice only when every
patient has given one.

That is the choice "random". The choice "coverage" looks at images instead of chance and masks: the shots are
medoids (`coverage`) of the embeddings of the slices of all training cases, so that whatever is common in the
images, labelled or not, has a labelled slice near to it. What is to be covered are the embedded slices, at
most `PER_PATIENT` of one patient and `MOST_COVERED` of all (chosen by chance, the same for all draws); any
embedded slice may be taken. No mask is looked at, so a class may be missing; only a slice without any class
is passed over, as above (who chooses by images alone would have drawn nothing on it and taken the next).
Each draw chooses among `CANDIDATES` of the labelled patients, half of them, drawn at random, else all draws
were the same; the others come when each of these has given a shot. Draws still share much: the best patient
of all is in every second draw, so that five draws of k = 1 hold about three different slices.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, DataError, ShapeError
from fewmask.core.seed import stream
from fewmask.data.case import Case, Cohort
from fewmask.data.case_voxels import read_case_mask
from fewmask.data.coverage import Coverage
from fewmask.data.slices import spread

Unit = Literal["patient", "slice"]
ReadLabels = Callable[[Case], NDArray[np.generic]]
"""The label map (Z, Y, X) of a case whose slices are counted along Z."""
Choice = Literal["random", "coverage"]
Embed = Callable[[Case], tuple[Sequence[int], NDArray[np.floating]]]
"""The slices of a case that are worth a look: their numbers in the label map, and a vector of each (n, d)."""
LOOK_AHEAD = 16
CANDIDATES = 0.5
"""A draw by coverage chooses among this share of the labelled patients."""
PER_PATIENT = 60
"""Slices of one patient that are to be covered, at most: nobody counts more for a longer scan."""
MOST_COVERED = 5_000
"""Slices that are to be covered, at most: a candidate is compared with each."""


@dataclass(frozen=True)
class Shot:
    """One labelled thing: a whole patient (`case` None), or slice `z` of a case."""

    patient: str
    case: str | None = None
    z: int | None = None


@dataclass(frozen=True)
class Shots:
    """Nested k-shot draws. `draws[d]` is an order of shots; its first k are the k-shot set of draw d."""

    unit: Unit
    counts: tuple[int, ...]
    draws: tuple[tuple[Shot, ...], ...]
    choice: Choice = "random"

    def take(self, draw: int, count: int) -> tuple[Shot, ...]:
        """The first `count` shots of a draw.

        Raises:
            ConfigError: more than were drawn.
        """
        if count > len(self.draws[draw]):
            raise ConfigError(f"{count} shots asked for, {len(self.draws[draw])} were drawn")
        return self.draws[draw][:count]

    def cases(self, cohort: Cohort, draw: int, count: int) -> tuple[Case, ...]:
        """The labelled cases among the first `count` shots of a draw; for slices, each case once."""
        shots = self.take(draw, count)
        patients = {shot.patient for shot in shots if shot.case is None}
        names = {shot.case for shot in shots}
        return tuple(case for case in cohort.labelled if case.name in names or case.patient in patients)

    def slices(self, draw: int, count: int) -> dict[str, tuple[int, ...]]:
        """The chosen slices by case, sorted; empty for shots of whole patients."""
        chosen: dict[str, list[int]] = {}
        for shot in self.take(draw, count):
            if shot.case is not None and shot.z is not None:
                chosen.setdefault(shot.case, []).append(shot.z)
        return {case: tuple(sorted(numbers)) for case, numbers in chosen.items()}

    @property
    def patients(self) -> tuple[str, ...]:
        """Every patient of any draw, sorted."""
        return tuple(sorted({shot.patient for draw in self.draws for shot in draw}))

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        draws = [[[shot.patient, shot.case, shot.z] for shot in draw] for draw in self.draws]
        return {"unit": self.unit, "counts": list(self.counts), "draws": draws, "choice": self.choice}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Shots":
        """From `to_json`'s values; a `DataError` when they are not."""
        try:
            draws = tuple(tuple(Shot(*shot) for shot in draw) for draw in value["draws"])
            return cls(value["unit"], tuple(value["counts"]), draws, value.get("choice", "random"))
        except (KeyError, TypeError) as error:
            raise DataError(f"is not a record of shots ({error})", mend="Draw them again.") from error


def draw_shots(
    cases: Sequence[Case],
    cohort: Cohort,
    *,
    shots: Sequence[int],
    draws: int,
    seed: int,
    unit: Unit = "patient",
    reader: str | None = None,
    labels: ReadLabels | None = None,
    choice: Choice = "random",
    embed: Embed | None = None,
) -> Shots:
    """Draw which training patients, or which slices of them, count as labelled.

    Only as many masks are read as the rule above needs.

    Args:
        cases: of the training part (`Split.cases(cohort, "train")`); unlabelled ones are never chosen, but
            by coverage they are among those to be covered.
        cohort: for the meaning of the masks.
        shots: the wanted k, e.g. (1, 3, 8).
        draws: how many independent orders.
        seed: of the draws.
        unit: "patient": all labelled cases of k patients; "slice": k slices.
        reader: whose masks; default: the cohort's.
        labels: the label map of a case, if slices are to be counted on another grid than the stored one
            (a prepared one); default: the stored mask.
        choice: "random", or "coverage" of the images.
        embed: a case's slices and their vectors, for the choice by coverage; asked once for every case.

    Raises:
        ConfigError: k below 1, or larger than the number of labelled patients (or slices); a choice by
            coverage without `embed`.
        DataError: the masks of a k-shot set are all empty.
        ShapeError: vectors that are not one per slice, or not finite.
    """
    if not shots or min(shots) < 1 or draws < 1:
        raise ConfigError("shots and draws must be at least 1", found=f"shots {list(shots)}, draws {draws}")
    whose = reader or cohort.reader
    pool = _Pool(
        cases, cohort, whose, unit, labels or (lambda case: read_case_mask(case, cohort, reader=whose).voxels)
    )
    covered = _Covered(cases, pool, embed) if choice == "coverage" else None
    most = max(shots)
    if unit == "patient" and most > len(pool.cases):
        raise _too_many(most, len(pool.cases), "labelled training patients")
    orders = []
    for draw in range(draws):
        order = tuple(_order(pool, most, seed, draw) if covered is None else covered.order(most, seed, draw))
        if len(order) < most and pool.all_empty():
            raise _empty(min(shots), draw, "all masks of the training part are empty")
        if len(order) < most:
            raise _too_many(most, len(order), "labelled slices with any class")
        if not any(pool.classes_of(shot) for shot in order[: min(shots)]):
            names = ", ".join(shot.patient for shot in order[: min(shots)])
            raise _empty(min(shots), draw, f"the masks of {names}")
        orders.append(order)
    return Shots(unit, tuple(shots), tuple(orders), choice)


def _too_many(wanted: int, there: int, what: str) -> ConfigError:
    return ConfigError(
        f"{wanted} shots, but only {there} {what}",
        expected=f"at most {there}",
        mend="Ask for fewer shots, label more patients, or give less to validation and test.",
    )


def _empty(count: int, draw: int, found: str) -> DataError:
    return DataError(
        f"the masks are empty in all {count} shots of draw {draw}",
        found=found,
        expected="at least one labelled voxel to learn from",
        mend="Use more shots, or check that the masks show the declared classes.",
    )


class _Pool:
    """The labelled training patients and which classes each slice of theirs shows, read when asked for."""

    def __init__(
        self, cases: Sequence[Case], cohort: Cohort, reader: str, unit: Unit, labels: ReadLabels
    ) -> None:
        self.cohort = cohort
        self.labels = labels
        self.unit = unit
        self.cases: dict[str, list[Case]] = {}
        for case in sorted(cases, key=lambda one: one.name):
            if case.masks_of(reader):
                self.cases.setdefault(case.patient, []).append(case)
        self._shown: dict[str, dict[int, frozenset[int]]] = {}
        self.depths: dict[str, int] = {}

    def slices(self, case: Case) -> dict[int, frozenset[int]]:
        """The label values of every slice of a case that has any."""
        if case.name not in self._shown:
            voxels = self.labels(case)
            self.depths[case.name] = len(voxels)
            values = sorted(self.cohort.classes.values())
            present = np.stack([(voxels == value).any(axis=(1, 2)) for value in values], axis=1)
            self._shown[case.name] = {
                int(z): frozenset(values[column] for column in np.flatnonzero(present[z]))
                for z in np.flatnonzero(present.any(axis=1))
            }
        return self._shown[case.name]

    def candidates(self, patient: str) -> dict[Shot, frozenset[int]]:
        """What may be taken of a patient, with the label values that it shows."""
        if self.unit == "slice":
            return {
                Shot(patient, case.name, z): shown
                for case in self.cases[patient]
                for z, shown in self.slices(case).items()
            }
        shown = [values for case in self.cases[patient] for values in self.slices(case).values()]
        return {Shot(patient): frozenset().union(*shown)}

    def classes_of(self, shot: Shot) -> frozenset[int]:
        """The label values that a shot shows."""
        return self.candidates(shot.patient)[shot]

    def all_empty(self) -> bool:
        """Whether no case shows any class."""
        return not any(self.slices(case) for cases in self.cases.values() for case in cases)


def _order(pool: _Pool, count: int, seed: int, draw: int) -> Iterator[Shot]:
    """The first `count` shots of a draw; fewer when there are no more."""
    names = sorted(pool.cases)
    waiting = [names[number] for number in stream(seed, "shots", pool.unit, draw).permutation(len(names))]
    missing = set(pool.cohort.classes.values())
    taken: set[Shot] = set()
    later: list[str] = []
    while len(taken) < count and (waiting or later):
        if not waiting:
            waiting, later = later, []
        patient = _next_patient(pool, waiting, missing, taken)
        waiting.remove(patient)
        left = {shot: shown for shot, shown in pool.candidates(patient).items() if shot not in taken}
        if not left:
            continue
        shot = _best(left, missing, seed, draw, len(taken))
        missing -= left[shot]
        taken.add(shot)
        if pool.unit == "slice":
            later.append(patient)
        yield shot


def _next_patient(pool: _Pool, waiting: Sequence[str], missing: set[int], taken: set[Shot]) -> str:
    """The first waiting patient; while classes are missing, the one of the next few that shows most."""
    if not missing:
        return waiting[0]
    best, most = waiting[0], 0
    for patient in waiting[:LOOK_AHEAD]:
        left = [shown for shot, shown in pool.candidates(patient).items() if shot not in taken]
        new = max((len(shown & missing) for shown in left), default=0)
        if new > most:
            best, most = patient, new
        if most == len(missing):
            break
    return best


def _best(left: Mapping[Shot, frozenset[int]], missing: set[int], seed: int, draw: int, number: int) -> Shot:
    """The shot with most missing classes; chance decides among equals."""
    most = max(len(shown & missing) for shown in left.values())
    equal = [shot for shot, shown in left.items() if len(shown & missing) == most]
    chance = stream(seed, "shots", "slice", draw, number)
    return equal[int(chance.integers(len(equal)))]


class _Covered:
    """The embedded slices of all training cases, and orders of shots that cover them."""

    def __init__(self, cases: Sequence[Case], pool: _Pool, embed: Embed | None) -> None:
        if embed is None:
            raise ConfigError(
                "a choice by coverage needs an embedding of the slices",
                mend='Give `embed`, or take the choice "random".',
            )
        self.pool = pool
        ordered = sorted(cases, key=lambda one: one.name)
        found = [_vectors(case, *embed(case)) for case in ordered]
        if len({vectors.shape[1] for _, vectors in found}) > 1:
            raise ShapeError(
                "the vectors of an embedding differ in length",
                found=", ".join(str(length) for length in sorted({one.shape[1] for _, one in found})),
                expected="one length for all cases",
            )
        self.vectors = np.concatenate([one for _, one in found]) if found else np.empty((0, 0))
        self.rows: dict[str, dict[int, int]] = {}
        """Row of each slice of a case, by its number."""
        patients: dict[str, list[int]] = {}
        rows = iter(range(len(self.vectors)))
        for case, (numbers, _) in zip(ordered, found, strict=True):
            self.rows[case.name] = dict(zip(numbers, rows, strict=False))
            patients.setdefault(case.patient, []).extend(self.rows[case.name].values())
        every = [[own[n] for n in spread(len(own), PER_PATIENT)] for own in patients.values()]
        self.covered = np.array([row for own in every for row in own], dtype=np.intp)

    def order(self, count: int, seed: int, draw: int) -> Iterator[Shot]:
        """The first `count` shots of a draw; fewer when there are no more."""
        names = sorted(self.pool.cases)
        if not names:
            return
        chance = stream(seed, "shots", "coverage", self.pool.unit, draw)
        mixed = [names[number] for number in chance.permutation(len(names))]
        first = max(1, round(CANDIDATES * len(names)))
        waiting = [sorted(mixed[:first]), sorted(mixed[first:])]
        coverage = Coverage(self.vectors, self._covered(seed))
        taken: set[Shot] = set()
        given: list[str] = []
        while len(taken) < count and waiting:
            shot = self._next(coverage, waiting[0], taken)
            if shot is None:
                waiting.pop(0)
            else:
                coverage.take(self._rows_of(shot))
                waiting[0].remove(shot.patient)
                given.append(shot.patient)
                taken.add(shot)
                yield shot
            if not any(waiting) and self.pool.unit == "slice":
                waiting, given = [sorted(given)] if given else [], []
        if self.pool.unit == "patient":
            yield from [Shot(name) for name in mixed if Shot(name) not in taken][: count - len(taken)]

    def _covered(self, seed: int) -> Sequence[int]:
        """The points to be covered, or a random choice of them where there are many."""
        order = stream(seed, "shots", "coverage", "covered").permutation(len(self.covered))
        return [int(row) for row in self.covered[np.sort(order[:MOST_COVERED])]]

    def _next(self, coverage: Coverage, patients: Sequence[str], taken: set[Shot]) -> Shot | None:
        """Of these patients the shot that covers most and shows any class; None when there is none."""
        shots = [shot for patient in patients for shot in self._shots_of(patient) if shot not in taken]
        for number in coverage.ranked([self._rows_of(shot) for shot in shots]):
            shot = shots[number]
            if self.pool.candidates(shot.patient).get(shot):
                return self._checked(shot)
        return None

    def _checked(self, shot: Shot) -> Shot:
        """The shot; a `ShapeError` when slices of its patient were embedded that the masks do not have."""
        for case in self.pool.cases[shot.patient]:
            if max(self.rows[case.name]) >= self.pool.depths[case.name]:
                raise ShapeError(
                    "an embedding counts more slices than the mask has",
                    where=f"case {case.name}",
                    found=f"slice {max(self.rows[case.name])}",
                    expected=f"at most {self.pool.depths[case.name] - 1}",
                    mend="Embed slices of the grid that `labels` reads.",
                )
        return shot

    def _shots_of(self, patient: str) -> list[Shot]:
        """What could be taken of a patient, if it showed anything."""
        if self.pool.unit == "patient":
            return [Shot(patient)]
        cases = self.pool.cases[patient]
        return [Shot(patient, case.name, z) for case in cases for z in self.rows[case.name]]

    def _rows_of(self, shot: Shot) -> Sequence[int]:
        """The points that are labelled with a shot."""
        if shot.case is not None and shot.z is not None:
            return [self.rows[shot.case][shot.z]]
        return [row for case in self.pool.cases[shot.patient] for row in self.rows[case.name].values()]


def _vectors(
    case: Case, numbers: Sequence[int], found: NDArray[np.floating]
) -> tuple[list[int], NDArray[np.floating]]:
    """The numbers and vectors (n, d) of a case's slices as they are, if they are that."""
    plain = sorted({int(number) for number in numbers})
    fit = found.ndim == 2 and len(plain) > 0 and len(found) == len(plain) and plain == list(numbers)
    if not fit or not np.isfinite(found).all():
        raise ShapeError(
            "an embedding is one vector of finite numbers per slice",
            where=f"case {case.name}",
            found=f"{len(numbers)} slices, vectors of shape {found.shape}",
            expected="n slices, at least one, in order, and vectors (n, d)",
        )
    return plain, found
