"""Who trains, who validates, who tests: by patient, never by scan; and which few masks may be used.

A split fixes the part of every patient. Shots are drawn from the training patients: `draws` independent
orders, of which the first k are the k-shot set, so that 1 shot is among the 3, and those among the 8.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.files import read_json, write_json
from fewmask.core.seed import stream
from fewmask.data.case import PART, Case, Cohort
from fewmask.data.shots import Shot, Shots, draw_shots

__all__ = [
    "Part",
    "Shot",
    "Shots",
    "Split",
    "draw_shots",
    "read_split",
    "refuse_leak",
    "split_by_patient",
    "write_split",
]

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

_PART_WORDS: Mapping[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Split:
    """The patients of each part, sorted. No patient is in two: checked whenever one is made or read."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse a leak."""
        refuse_leak(self.parts())

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Patients by the name of their part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def cases(self, cohort: Cohort, part: Part) -> tuple[Case, ...]:
        """All cases of the patients of `part`, labelled or not, in the cohort's order."""
        patients = set(self.parts()[part])
        return tuple(case for case in cohort.cases if case.patient in patients)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {name: list(patients) for name, patients in self.parts().items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Split":
        """From `to_json`'s values. Raises `DataError` for a leak or for a missing part."""
        _require(value, PARTS, "a split")
        return cls(*(tuple(value[name]) for name in PARTS))


def split_by_patient(
    cases: Sequence[Case],
    *,
    seed: int,
    test: float = 0.3,
    validation: float = 0.1,
    stratify: str | None = None,
    reader: str | None = None,
) -> Split:
    """Deal the patients out to training, validation and test.

    Only patients with a mask are drawn for validation and test, unlabelled ones train; in a cohort without
    any mask all patients are dealt out, as for a generator that needs unseen scans. Both parts get
    their share rounded, at least one patient if their share is not 0, and leave at least one to train on.
    If cases come with the tag `part`, that is kept: patients marked validation or test are in these parts,
    and more are drawn only for a part of which no marked patient has a mask.

    Args:
        cases: of one cohort.
        seed: of the draw.
        test: share of the labelled patients, 0 <= test < 1.
        validation: share of the labelled patients; together with `test` below 1.
        stratify: a tag (e.g. "site"); each of its values gets its share, by largest remainders.
        reader: count only masks of this reader as labels; default: anybody's.

    Raises:
        ConfigError: shares out of range, an unknown tag, or fewer labelled patients than parts.
        DataError: a patient in two parts, or a `part` that is no part.
    """
    if not (0 <= test < 1 and 0 <= validation < 1 and test + validation < 1):
        raise ConfigError(
            "the shares of test and validation must be at least 0 and leave something to train on",
            found=f"test {test}, validation {validation}",
        )
    marked = _marked_parts(cases)
    everybody = {case.patient for case in cases}
    labelled = sorted({case.patient for case in cases if _is_labelled(case, reader)})
    unlabelled = not any(case.masks for case in cases)
    if unlabelled:
        labelled = sorted(everybody)
    free = [patient for patient in labelled if marked.get(patient, "train") == "train"]
    strata = _strata(cases, free, stratify)
    drawn: dict[str, list[str]] = {"validation": [], "test": []}
    kept = {part for patient, part in marked.items() if patient in set(labelled)}
    todo = [(part, share) for part, share in (("test", test), ("validation", validation)) if part not in kept]
    for part, share in todo:
        wanted = max(1, int(len(labelled) * share + 0.5)) if share > 0 else 0
        still = sum(1 for other, its in todo if its > 0 and not drawn[other] and other != part)
        most = sum(len(patients) for patients in strata.values()) - 1 - still
        if wanted and most < 1:
            raise ConfigError(
                f"{len(labelled)} {'patients' if unlabelled else 'labelled patients'} "
                f"are too few for a {part} part",
                expected="one in every part at least",
                mend="Add patients with masks, or set its share to 0.",
            )
        drawn[part] = _deal(strata, min(wanted, most), seed, part) if wanted else []
    members = {
        part: tuple(sorted({p for p in everybody if marked.get(p) == part} | set(drawn[part])))
        for part in drawn
    }
    train = tuple(sorted(everybody - set(members["validation"]) - set(members["test"])))
    return Split(train, members["validation"], members["test"])


def _is_labelled(case: Case, reader: str | None) -> bool:
    return bool(case.masks if reader is None else case.masks_of(reader))


def _marked_parts(cases: Sequence[Case]) -> dict[str, Part]:
    """The part of each patient by the tag `part`; a patient in two parts is refused."""
    marked: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        word = case.tags.get(PART, "")
        if word and word.lower() not in _PART_WORDS:
            raise DataError(
                f"{word!r} is no part",
                where=f"case {case.name}, column {PART}",
                expected="train, validation or test",
                mend="Correct it, or leave it empty.",
            )
        if word:
            marked[case.patient].add(_PART_WORDS[word.lower()])
    refuse_leak({part: [p for p, words in marked.items() if part in words] for part in PARTS})
    return {patient: _PART_WORDS[next(iter(words))] for patient, words in marked.items()}


def _strata(cases: Sequence[Case], patients: Iterable[str], tag: str | None) -> dict[str, list[str]]:
    """Patients by their value of `tag` (several values of one patient are joined)."""
    if tag is None:
        return {"": list(patients)} if patients else {}
    values: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        if tag in case.tags:
            values[case.patient].add(case.tags[tag])
    if not values:
        known = sorted({name for case in cases for name in case.tags})
        raise ConfigError(
            f"no case has the tag {tag!r}",
            where="stratify",
            expected=", ".join(known) or "a cohort with tags",
        )
    strata: dict[str, list[str]] = defaultdict(list)
    for patient in patients:
        strata["+".join(sorted(values.get(patient, {""})))].append(patient)
    return dict(strata)


def _deal(strata: dict[str, list[str]], wanted: int, seed: int, part: str) -> list[str]:
    """Take `wanted` patients out of `strata`, from each in proportion."""
    total = sum(len(patients) for patients in strata.values())
    exact = {name: wanted * len(strata[name]) / total for name in sorted(strata)}
    counts = {name: int(value) for name, value in exact.items()}
    order = [
        sorted(strata)[number] for number in stream(seed, "split", part, "strata").permutation(len(strata))
    ]
    rest = sorted(order, key=lambda name: counts[name] - exact[name])
    for name in rest[: wanted - sum(counts.values())]:
        counts[name] += 1
    taken: list[str] = []
    for name in sorted(strata):
        patients = strata[name]
        shuffled = stream(seed, "split", part, name).permutation(len(patients))
        chosen = {patients[number] for number in shuffled[: counts[name]]}
        taken += sorted(chosen)
        strata[name] = [patient for patient in patients if patient not in chosen]
    return taken


def refuse_leak(parts: Mapping[str, Iterable[str]]) -> None:
    """Refuse patients that stand in two of `parts` (names of parts to patients).

    Raises:
        DataError: with the patients' names and where they stand.
    """
    where: dict[str, list[str]] = defaultdict(list)
    for part, patients in parts.items():
        for patient in sorted(set(patients)):
            where[patient].append(part)
    leaking = {patient: found for patient, found in where.items() if len(found) > 1}
    if leaking:
        kinds = Counter(" and ".join(found) for found in leaking.values())
        names = list(leaking)
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        raise DataError(
            f"patients in two parts: {shown}",
            found="; ".join(f"{count} in {kind}" for kind, count in kinds.items()),
            expected="every patient in one part only: else the test measures memory",
            mend="Put all cases of a patient into one part.",
        )


def write_split(path: Path, split: Split, shots: Shots | None = None) -> Path:
    """Write a split, with the draws of shots if given, as JSON."""
    return write_json(path, {**split.to_json(), **({"shots": shots.to_json()} if shots else {})})


def read_split(path: Path) -> tuple[Split, Shots | None]:
    """The split and shots that `write_split` wrote.

    Raises:
        RunError: no readable JSON.
        DataError: a leak (also of shots into validation or test), or something missing.
    """
    value = read_json(path)
    _require(value, PARTS, "a split")
    split = Split.from_json(value)
    shots = Shots.from_json(value["shots"]) if "shots" in value else None
    if shots:
        refuse_leak({"shots": shots.patients, "validation": split.validation, "test": split.test})
    return split, shots


def _require(value: Any, keys: Iterable[str], what: str) -> None:
    missing = [key for key in keys if not isinstance(value, Mapping) or key not in value]
    if missing:
        raise DataError(f"is not {what}: it has no {', '.join(missing)}", mend="Draw it again.")
