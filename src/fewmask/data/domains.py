"""Two domains of slices, diseased and healthy, out of a cohort with image-level labels or masks.

    cases -> labels of slices (domain_labels) -> one domain per patient -> alike in height (domain_heights)

No patient is in two parts or in both domains of the test part; no voxel is read, but masks where they decide.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, DataError, Problem
from fewmask.core.seed import stream
from fewmask.data.case import Case, Cohort
from fewmask.data.domain_heights import Heights, match_heights, slice_heights
from fewmask.data.domain_labels import DISEASED, HEALTHY, LabelRule, Labels, label_slices, stack_of
from fewmask.data.slices import SliceRef, SliceSet
from fewmask.data.split import PARTS, Part, Split, refuse_leak

__all__ = [
    "ChosenDomains",
    "DomainRule",
    "DomainSlice",
    "LabelRule",
    "TwoDomains",
    "choose_domains",
    "images_of",
]


@dataclass(frozen=True)
class DomainRule:
    """How the two domains are chosen."""

    labels: LabelRule = field(default_factory=LabelRule)
    """What makes a slice diseased or healthy."""
    disjoint: tuple[Part, ...] = PARTS
    """Parts in which a patient with slices of both kinds is in one domain only, by chance, so that the
    domains grow alike. In other parts it is in both; a test part with such a patient is refused."""
    matched: tuple[Part, ...] = ("train",)
    """Parts in which the domains are made alike in the height of their slices."""
    bins: int = 10
    """Bins of height, for that."""
    repeats: int = 1
    """So often a slice may be shown, for that, where its domain has fewer at its height; 1 cuts the other
    domain down instead, which on stacks with lesions in the middle leaves about half of all slices."""
    stratify: str | None = None
    """A tag, such as "site": of its values as many slices go into either domain, so that scanners do not tell
    the domains apart. For patients of both domains, where `disjoint` holds."""
    position: str | None = None
    """Where cases are pictures of a stack: the tag with the slice's number, or "number/total"."""

    def __post_init__(self) -> None:
        """Refuse unknown parts."""
        wrong = [part for part in (*self.disjoint, *self.matched) if part not in PARTS]
        if wrong or min(self.bins, self.repeats) < 1:
            raise ConfigError(
                "the domains cannot be chosen so",
                where="domains",
                found=f"{', '.join(wrong) or f'{self.bins} bins, {self.repeats} repeats'}",
                expected=f"parts {', '.join(PARTS)}; at least one bin, shown at least once",
            )


@dataclass(frozen=True)
class DomainSlice:
    """One slice of a domain; its height is 0..1 in its volume, None where nobody knows."""

    ref: SliceRef
    patient: str
    height: float | None


@dataclass(frozen=True)
class TwoDomains:
    """The diseased and the healthy slices of one part, in order of the cohort's cases and z.

    A slice stands there several times where `DomainRule.repeats` says so.
    """

    diseased: tuple[DomainSlice, ...] = ()
    healthy: tuple[DomainSlice, ...] = ()

    @property
    def every(self) -> tuple[DomainSlice, ...]:
        """All slices, the diseased ones first."""
        return self.diseased + self.healthy

    @property
    def is_diseased(self) -> NDArray[np.bool_]:
        """Of `every` slice."""
        return np.arange(len(self.every)) < len(self.diseased)

    @property
    def patients(self) -> tuple[str, ...]:
        """Whose slice each of `every` is."""
        return tuple(one.patient for one in self.every)

    @property
    def heights(self) -> Heights:
        """Of `every` slice, NaN where nobody knows: what a shortcut check looks at."""
        return np.array([np.nan if one.height is None else one.height for one in self.every])

    @property
    def in_both(self) -> tuple[str, ...]:
        """Patients who are in both domains, sorted."""
        ill, well = ({one.patient for one in domain} for domain in (self.diseased, self.healthy))
        return tuple(sorted(ill & well))


@dataclass(frozen=True)
class ChosenDomains:
    """The domains of each part. Making one refuses a patient in two parts or in both domains' test.

    left_out: how many slices (cases, where so said) were not taken, by reason.
    """

    train: TwoDomains
    validation: TwoDomains
    test: TwoDomains
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a leak."""
        refuse_leak({name: part.patients for name, part in self.parts().items()})
        if self.test.in_both:
            names = self.test.in_both
            raise DataError(
                "patients are in both domains' test",
                found=", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else ""),
                expected="each test patient in one domain: nobody is the healthy control of oneself",
                mend="Add test to domains.disjoint, so that each of them is taken into one domain by chance.",
            )

    def parts(self) -> dict[Part, TwoDomains]:
        """The domains by the name of their part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def to_json(self) -> dict[str, Any]:
        """Counts and references as plain JSON values, for a run's record."""
        told: dict[str, Any] = {"left_out": dict(self.left_out)}
        for name, part in self.parts().items():
            told[name] = {
                kind: {
                    "patients": len({one.patient for one in domain}),
                    "slices": [[one.ref.case, one.ref.z] for one in domain],
                }
                for kind, domain in (("diseased", part.diseased), ("healthy", part.healthy))
            }
        return told


def choose_domains(
    cohort: Cohort,
    split: Split,
    rule: DomainRule,
    *,
    seed: int,
    slices: Sequence[SliceRef] | None = None,
    orientation: str = "LPS",
) -> ChosenDomains:
    """The diseased and the healthy slices of training, validation and test.

    Args:
        cohort: with the tags, or the masks, that tell.
        split: who is in which part.
        rule: how to choose.
        seed: of the domain of mixed patients, and of the draw that makes heights alike.
        slices: only these, e.g. those with content (`prepare_slices` without masks); None: all.
        orientation: of the preparation, which says what a slice of a volume is.

    Raises:
        ConfigError: a label value, tag or class that is not known.
        DataError: labels that contradict masks; a patient in both domains' test; cases of the two domains
            with other modalities; a domain without slices.
    """
    cases = [case for part in PARTS for case in split.cases(cohort, part)]
    labels = label_slices(cases, cohort, rule.labels, orientation=orientation)
    labelled = [case for case in cases if case.name in labels]
    _refuse_other_modalities(labelled, labels)
    depths = {case.name: stack_of(case, orientation)[0] for case in labelled}
    heights = slice_heights(labelled, depths, rule.position)
    wanted = None if slices is None else set(slices)
    left_out: Counter[str] = Counter()
    left_out["cases without a label"] += len(cases) - len(labelled)
    parts: dict[Part, TwoDomains] = {}
    for part in PARTS:
        mine = [case for case in labelled if case.patient in set(split.parts()[part])]
        both = _gather(mine, labels, heights, wanted, left_out)
        if part in rule.disjoint:
            both = _apart(both, _strata(mine, rule.stratify), seed, part, left_out)
        if part in rule.matched:
            both = _alike(both, rule, seed, part, left_out)
        parts[part] = both
    told = {reason: count for reason, count in left_out.items() if count}
    _refuse_empty(parts, split, told)
    return ChosenDomains(parts["train"], parts["validation"], parts["test"], told)


def images_of(slices: SliceSet, domain: Sequence[DomainSlice]) -> NDArray[np.floating]:
    """The prepared images (N, C, H, W) of a domain's slices, in their order."""
    place = {ref: row for row, ref in enumerate(slices.refs)}
    return np.asarray(slices.images[[place[one.ref] for one in domain]])


def _gather(
    cases: Sequence[Case],
    labels: Mapping[str, Labels],
    heights: Mapping[str, Heights],
    wanted: set[SliceRef] | None,
    left_out: Counter[str],
) -> TwoDomains:
    """All slices of a part by their label."""
    found: dict[int, list[DomainSlice]] = {DISEASED: [], HEALTHY: []}
    for case in cases:
        for z, (label, height) in enumerate(zip(labels[case.name], heights[case.name], strict=True)):
            ref = SliceRef(case.name, z)
            if wanted is not None and ref not in wanted:
                left_out["slices without content"] += 1
            elif int(label) not in found:
                left_out["slices that are neither"] += 1
            else:
                known = None if np.isnan(height) else float(height)
                found[int(label)].append(DomainSlice(ref, case.patient, known))
    return TwoDomains(tuple(found[DISEASED]), tuple(found[HEALTHY]))


def _strata(cases: Sequence[Case], tag: str | None) -> dict[str, str]:
    """The stratum of each patient: the values of a tag, joined; "" without a tag."""
    if tag is not None and cases and not any(tag in case.tags for case in cases):
        raise ConfigError(
            f"no case has the tag {tag!r}",
            where="domains.stratify",
            expected=", ".join(sorted({name for case in cases for name in case.tags}))
            or "a cohort with tags",
        )
    values: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        values[case.patient].add(case.tags.get(tag or "", ""))
    return {patient: "+".join(sorted(found)) for patient, found in values.items()}


def _apart(
    both: TwoDomains, strata: Mapping[str, str], seed: int, part: Part, left_out: Counter[str]
) -> TwoDomains:
    """Each mixed patient in one domain: one after the other, in random order, into the smaller domain.

    Which one is smaller is asked within the patient's stratum first, then in all.
    """
    mixed = list(both.in_both)
    counts = {
        kind: Counter(one.patient for one in domain)
        for kind, domain in ((DISEASED, both.diseased), (HEALTHY, both.healthy))
    }
    total: Counter[tuple[int, str | None]] = Counter()
    for kind, counted in counts.items():
        for patient, count in counted.items():
            if patient not in set(mixed):
                total.update({(kind, strata[patient]): count, (kind, None): count})
    kind_of: dict[str, int] = {}
    for number in stream(seed, "domains", part).permutation(len(mixed)):
        patient = mixed[number]
        stratum = strata[patient]
        kind = min((HEALTHY, DISEASED), key=lambda k: (total[k, stratum], total[k, None]))
        kind_of[patient] = kind
        total.update({(kind, stratum): counts[kind][patient], (kind, None): counts[kind][patient]})
    diseased, healthy = (
        tuple(one for one in domain if kind_of.get(one.patient, kind) == kind)
        for kind, domain in ((DISEASED, both.diseased), (HEALTHY, both.healthy))
    )
    left_out[f"slices of patients in the other domain ({part})"] += (
        len(both.every) - len(diseased) - len(healthy)
    )
    return TwoDomains(diseased, healthy)


def _alike(both: TwoDomains, rule: DomainRule, seed: int, part: Part, left_out: Counter[str]) -> TwoDomains:
    """As many slices of both domains at every height."""
    heights, count = both.heights, len(both.diseased)
    ill, well = match_heights(
        heights[:count], heights[count:], bins=rule.bins, repeats=rule.repeats, seed=seed, name=part
    )
    left_out[f"slices at heights of which the other domain has fewer ({part})"] += (
        len(both.every) - len(set(ill.tolist())) - len(set(well.tolist()))
    )
    return TwoDomains(
        tuple(both.diseased[int(row)] for row in ill), tuple(both.healthy[int(row)] for row in well)
    )


def _refuse_other_modalities(cases: Sequence[Case], labels: Mapping[str, Labels]) -> None:
    """Both domains must have the same channels: a translator learns from both."""
    kinds: dict[int, Counter[tuple[str, ...]]] = {DISEASED: Counter(), HEALTHY: Counter()}
    for case in cases:
        for kind, found in kinds.items():
            found[tuple(sorted(case.images))] += int((labels[case.name] == kind).any())
    known = {modalities for found in kinds.values() for modalities, count in found.items() if count}
    if len(known) > 1:
        raise DataError(
            "the slices of the domains have different channels",
            where="domains",
            found="; ".join(
                f"{name}: "
                + ", ".join(
                    f"{'+'.join(m)} ({count} cases)" for m, count in sorted(kinds[kind].items()) if count
                )
                for name, kind in (("diseased", DISEASED), ("healthy", HEALTHY))
            ),
            expected="the same modalities in all cases",
            mend="Add the missing sequences, or leave out those that not all cases have.",
        )


def _refuse_empty(parts: Mapping[Part, TwoDomains], split: Split, left_out: Mapping[str, int]) -> None:
    """Every part that has patients needs healthy slices; training and test need diseased ones too."""
    needed = {
        "train": ("diseased", "healthy"),
        "validation": ("healthy",),
        "test": ("diseased", "healthy"),
    }
    problems = [
        Problem(
            f"the {kind} domain is empty",
            where=part,
            found=f"{len(parts[part].diseased)} diseased and {len(parts[part].healthy)} healthy slices of "
            f"{len(split.parts()[part])} patients",
            expected="slices of both kinds",
            mend="Check the labels and the split; left out: "
            + ("; ".join(f"{count} {reason}" for reason, count in left_out.items()) or "nothing"),
        )
        for part in PARTS
        for kind in needed[part]
        if split.parts()[part] and not getattr(parts[part], kind)
    ]
    if problems:
        raise DataError.of(problems, title=f"{len(problems)} domains are empty" if len(problems) > 1 else "")
