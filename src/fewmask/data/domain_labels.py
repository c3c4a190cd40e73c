"""Which slices are diseased and which healthy: by a tag of their case, or by whether their mask is empty.

Masks are looked at to know whether they are empty, slice by slice; nothing else of them is handed on.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, DataError, Problem
from fewmask.core.volume import IGNORE
from fewmask.data.case import Case, Cohort
from fewmask.data.case_voxels import read_case_mask, read_image_grid
from fewmask.data.orientation import Turn, nearest_turn

HEALTHY, DISEASED, NEITHER = 0, 1, -1
"""What a slice can be."""

Labels = NDArray[np.int8]
"""Of each slice (Z,) of a prepared case: `HEALTHY`, `DISEASED` or `NEITHER`."""


@dataclass(frozen=True)
class LabelRule:
    """What makes a slice diseased or healthy.

    With several diseases each translator has its own rule: the domain of disease k against "healthy", or,
    with `without`, against "without disease k", where the other diseases are among the healthy slices.
    """

    tag: str | None = None
    """A tag of the cases, such as "label"; cases are pictures then. None: masks decide."""
    healthy: tuple[str, ...] = ()
    """Values of the tag that mean healthy."""
    diseased: tuple[str, ...] = ()
    """Values of the tag that mean the disease in question."""
    others: tuple[str, ...] = ()
    """Values of the tag, or without a tag classes of the masks, that mean other diseases."""
    without: bool = False
    """Whether slices with other diseases only count as healthy ("without disease k") or are left out."""
    separator: str = "|"
    """Between the values of a case with several labels: "Effusion|Mass"."""
    lesions: tuple[str, ...] | None = None
    """Classes of the masks that show the disease. Without a tag they decide; with one, a mask that shows any
    of them contradicts "healthy", and one that shows none "diseased". None: all classes but `others`; ():
    masks are not looked at, for a tag only."""
    least_share: float = 0.0
    """Without a tag: slices whose lesions are smaller than this share of the slice are left out."""

    def __post_init__(self) -> None:
        """Refuse a rule that contradicts itself."""
        groups = (self.healthy, self.diseased, self.others)
        twice = sorted(
            value for value, count in Counter(v for g in groups for v in set(g)).items() if count > 1
        )
        if twice:
            raise ConfigError(
                "a label cannot mean two things",
                where="domains",
                found=", ".join(twice),
                expected="each value in one of healthy, diseased and others",
            )
        if self.tag is not None and not (self.healthy and self.diseased):
            raise ConfigError(
                f"which values of the tag {self.tag!r} are healthy, which diseased?",
                where="domains",
                found=f"healthy {list(self.healthy)}, diseased {list(self.diseased)}",
                expected="one value of each at least",
            )
        if self.tag is None and (self.healthy or self.diseased or self.lesions == ()):
            raise ConfigError(
                "without a tag masks decide who is diseased",
                where="domains",
                found=f"healthy {list(self.healthy)}, diseased {list(self.diseased)}, lesions {self.lesions}",
                expected="a tag, or classes in lesions",
                mend="Set domains.tag, or leave healthy and diseased empty and name the classes.",
            )
        if not 0 <= self.least_share < 1:
            raise ConfigError("least_share is a share", where="domains", found=f"{self.least_share:g}")


def stack_of(case: Case, orientation: str) -> tuple[int, Turn]:
    """Slices of a case once it is prepared, and how it is turned; from the header of its first image."""
    grid = read_image_grid(next(iter(case.images.values())))
    turn = nearest_turn(grid, orientation)
    return turn.grid(grid).shape[0], turn


def label_slices(
    cases: Sequence[Case], cohort: Cohort, rule: LabelRule, *, orientation: str
) -> dict[str, Labels]:
    """The labels of each case's slices, by its name; a case without tag or mask is not in it.

    Raises:
        ConfigError: no case has the tag (a mask); a value, or a class, that is not known; a tag of cases that
            are no pictures.
        DataError: labels that contradict masks or themselves, all told at once.
    """
    if rule.tag is None:
        return _by_masks(cases, cohort, rule, orientation)
    return _by_tag(cases, cohort, rule, rule.tag, orientation)


def _by_masks(cases: Sequence[Case], cohort: Cohort, rule: LabelRule, orientation: str) -> dict[str, Labels]:
    masked = [case for case in cases if case.masks_of(cohort.reader)]
    if not masked:
        raise ConfigError(
            "masks cannot tell who is diseased: there is none",
            where="domains.tag",
            found=f"{len(cases)} cases without a mask",
            mend="Name a tag of the cases in domains.tag, and which of its values are healthy.",
        )
    lesions, others = _values(cohort, rule)
    return {
        case.name: _of_mask(case, cohort, lesions, others, rule, stack_of(case, orientation)[1])
        for case in masked
    }


def _of_mask(
    case: Case, cohort: Cohort, lesions: list[int], others: list[int], rule: LabelRule, turn: Turn
) -> Labels:
    """Diseased: a lesion, large enough; healthy: no lesion, no other disease (or so be it), all judged."""
    voxels = turn.do(read_case_mask(case, cohort).voxels)
    flat = voxels.reshape(len(voxels), -1)
    ill = np.isin(flat, lesions).sum(axis=1)
    other = np.isin(flat, others).any(axis=1) if others and not rule.without else np.zeros(len(flat), bool)
    well = (ill == 0) & ~other & ~(flat == IGNORE).any(axis=1)
    labels = np.full(len(flat), NEITHER, dtype=np.int8)
    labels[well] = HEALTHY
    labels[(ill > 0) & (ill >= rule.least_share * flat.shape[1])] = DISEASED
    return labels


def _values(cohort: Cohort, rule: LabelRule) -> tuple[list[int], list[int]]:
    """Label values of the lesions, and without a tag those of other diseases."""
    others = rule.others if rule.tag is None else ()
    lesions = rule.lesions
    if lesions is None:
        lesions = tuple(name for name in cohort.classes if name not in rule.others)
    unknown = [name for name in (*lesions, *others) if name not in cohort.classes]
    if unknown:
        raise ConfigError(
            "masks cannot be searched for classes that they do not have",
            where="domains",
            found=", ".join(unknown),
            expected=f"some of {', '.join(cohort.classes)}",
        )
    return [cohort.classes[name] for name in lesions], [cohort.classes[name] for name in others]


def _by_tag(
    cases: Sequence[Case], cohort: Cohort, rule: LabelRule, tag: str, orientation: str
) -> dict[str, Labels]:
    tagged = [case for case in cases if case.tags.get(tag)]
    if not tagged:
        raise ConfigError(
            f"no case has the tag {tag!r}",
            where="domains.tag",
            expected=", ".join(sorted({name for case in cases for name in case.tags}))
            or "a cohort with tags",
            mend="Give the label as a column of cases.csv or index.csv.",
        )
    _refuse_unknown_values(tagged, rule, tag)
    faults: list[Problem] = []
    labels = {case.name: _of_values(case, rule, tag, faults) for case in tagged}
    depths = {case.name: stack_of(case, orientation)[0] for case in tagged}
    _refuse_stacks([name for name, label in labels.items() if label == DISEASED and depths[name] > 1], tag)
    faults += _contradicted(tagged, labels, cohort, rule, tag)
    if faults:
        raise DataError.of(faults, title=f"{len(faults)} labels contradict" if len(faults) > 1 else "")
    return {name: np.full(depths[name], label, dtype=np.int8) for name, label in labels.items()}


def _of_values(case: Case, rule: LabelRule, tag: str, faults: list[Problem]) -> int:
    """What a case is by the values of its tag."""
    values = set(_split(case.tags[tag], rule))
    ill, well = values & set(rule.diseased), values & set(rule.healthy)
    if well and values - well:
        faults.append(
            Problem(
                "is labelled healthy and diseased at once",
                where=f"case {case.name}",
                found=f"{tag}={case.tags[tag]}",
                mend="Correct the label, or leave the case out.",
            )
        )
    if ill:
        return DISEASED
    return HEALTHY if well or rule.without else NEITHER


def _split(cell: str, rule: LabelRule) -> list[str]:
    parts = cell.split(rule.separator) if rule.separator else [cell]
    return [part.strip() for part in parts if part.strip()]


def _refuse_unknown_values(cases: Sequence[Case], rule: LabelRule, tag: str) -> None:
    found = Counter(value for case in cases for value in set(_split(case.tags[tag], rule)))
    known = {*rule.healthy, *rule.diseased, *rule.others}
    unknown = {value: count for value, count in found.items() if value not in known}
    if unknown:
        raise ConfigError(
            f"values of the tag {tag!r} that nobody explained",
            where="domains",
            found=", ".join(f"{value!r} ({count} cases)" for value, count in sorted(unknown.items())),
            expected=f"healthy: {', '.join(rule.healthy)}; diseased: {', '.join(rule.diseased)}; "
            f"others: {', '.join(rule.others) or 'none'}",
            mend="Add them to domains.healthy, domains.diseased or domains.others.",
        )


def _refuse_stacks(names: list[str], tag: str) -> None:
    if names:
        raise ConfigError(
            f"the tag {tag!r} is of whole cases, and does not tell which slices are diseased",
            where="domains.tag",
            found=f"{len(names)} diseased cases of several slices: {', '.join(names[:6])}",
            expected="cases that are pictures",
            mend="Make each slice a case; or leave domains.tag out, so that masks decide.",
        )


def _contradicted(
    cases: Sequence[Case], labels: dict[str, int], cohort: Cohort, rule: LabelRule, tag: str
) -> list[Problem]:
    """Labels that the masks of their cases contradict."""
    lesions, _ = _values(cohort, rule) if rule.lesions != () else ([], [])
    faults: list[Problem] = []
    for case in cases if lesions else ():
        label = labels[case.name]
        if label == NEITHER or not case.masks_of(cohort.reader):
            continue
        voxels = read_case_mask(case, cohort).voxels
        count = int(np.isin(voxels, lesions).sum())
        if (label == HEALTHY) == (count > 0) and not (label == DISEASED and (voxels == IGNORE).any()):
            word = "healthy, but its mask shows disease" if count else "diseased, but its mask is empty"
            faults.append(
                Problem(
                    f"is labelled {word}",
                    where=f"case {case.name}",
                    found=f"{tag}={case.tags[tag]}, {count} pixels",
                    mend="Correct the label or the mask; or name in domains.lesions the classes that show "
                    "disease, none if no class does.",
                )
            )
    return faults
