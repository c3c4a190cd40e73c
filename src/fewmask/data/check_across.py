"""What only shows across the cases of a cohort: copies, split patients, overlapping classes, empty masks."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from fewmask.core.errors import Problem
from fewmask.data.case import PART, Case, Cohort
from fewmask.data.check_case import CaseFindings

SWALLOWED = 0.5
"""Share of a class that may vanish under later classes before that is a fault."""

ODD, TIMES = 0.1, 5
"""Unlike the others: more than this share of a class vanishes in a case, and so many times the usual one."""


def few(words: Iterable[str], limit: int = 8) -> str:
    """The first `limit` of `words`, and how many more there are."""
    named = list(words)
    more = f" and {len(named) - limit} more" if len(named) > limit else ""
    return ", ".join(named[:limit]) + more


def plural(count: int, word: str) -> str:
    """A count with its word: no case, 1 case, 2 cases."""
    return f"{count or 'no'} {word}{'s' * (count != 1)}"


def parts(cases: Sequence[Case]) -> list[Problem]:
    """Patients whose cases stand in different parts."""
    known: dict[str, dict[str, str]] = defaultdict(dict)
    for case in cases:
        if case.tags.get(PART):
            known[case.patient].setdefault(case.tags[PART], case.name)
    return [
        Problem(
            "a patient in two parts",
            where=f"patient {patient}",
            found=", ".join(f"case {case} in {part}" for part, case in found.items()),
            expected="all cases of a patient in one part",
            mend="Correct the column `part`, or remove it: fewmask then splits by patient itself.",
        )
        for patient, found in known.items()
        if len(found) > 1
    ]


def duplicates(
    cases: Sequence[Case], findings: Sequence[CaseFindings]
) -> tuple[list[Problem], list[Problem]]:
    """Identical voxels under different names: a fault across patients, a remark within one patient."""
    by_hash: dict[str, list[tuple[Case, str]]] = defaultdict(list)
    for case, one in zip(cases, findings, strict=True):
        for modality, digest in one.hashes.items():
            by_hash[digest].append((case, modality))
    faults, remarks = [], []
    copies: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for same in by_hash.values():
        names = list(dict.fromkeys(case.name for case, _ in same))
        if len(names) < 2:
            if len(same) > 1:
                copies[tuple(modality for _, modality in same)].append(names[0])
            continue
        patients = sorted({case.patient for case, _ in same})
        if len(patients) > 1:
            faults.append(
                Problem(
                    "the same image under different patients",
                    where=f"cases {few(names)}",
                    found=f"identical voxels for patients {few(patients)}",
                    mend="Delete the copy, or give both the same patient: else it leaks into the test.",
                )
            )
        else:
            remarks.append(
                Problem(f"the same image twice, of patient {patients[0]}", where=f"cases {few(names)}")
            )
    for modalities, names in copies.items():
        what = f"{' and '.join(modalities)} are the same image in {len(names)} cases: {few(names)}"
        remarks.append(Problem(what, mend="A missing modality was probably filled with a copy."))
    return faults, remarks


def overlaps(cohort: Cohort, findings: Sequence[CaseFindings]) -> tuple[list[Problem], list[Problem]]:
    """Classes whose masks overlap: a remark with the count; a fault when most of a class vanishes."""
    drawn: dict[str, int] = defaultdict(int)
    over: dict[tuple[str, str], int] = defaultdict(int)
    cases: dict[tuple[str, str], int] = defaultdict(int)
    for one in findings:
        for name, count in one.drawn.items():
            drawn[name] += count
        for pair, count in one.painted_over.items():
            over[pair] += count
            cases[pair] += 1
    remarks = [
        Problem(
            f"masks of {earlier} and {later} overlap in {plural(cases[earlier, later], 'case')}: {count} "
            f"voxels, {count / drawn[earlier]:.1%} of {earlier}, count as {later}",
            mend="The class that is declared later wins.",
        )
        for (earlier, later), count in over.items()
    ]
    for pair, count in over.items():
        remarks += _unlike_the_others(pair, count / drawn[pair[0]], findings)
    order = sorted(cohort.classes, key=lambda name: -drawn.get(name, 0))
    proposal = ", ".join(f"{name}: {value}" for value, name in enumerate(order, start=1))
    faults = []
    for name in cohort.classes:
        larger = {pair[1]: n for pair, n in over.items() if pair[0] == name and drawn[pair[1]] > drawn[name]}
        if sum(larger.values()) > SWALLOWED * drawn[name]:
            share = sum(larger.values()) / drawn[name]
            faults.append(
                Problem(
                    f"{share:.0%} of {name} would vanish under {' and '.join(larger)}, declared later",
                    expected=f"larger classes declared first, as the later one wins: {{{proposal}}}",
                    mend="Declare the classes in that order (classes.json or classes=), or leave one out.",
                )
            )
    return faults, remarks


def _unlike_the_others(
    pair: tuple[str, str], usual: float, findings: Sequence[CaseFindings]
) -> list[Problem]:
    """The cases in which far more of a class vanishes than the `usual` share: drawn by another rule."""
    shares = {
        one.case: one.painted_over[pair] / one.drawn[pair[0]] for one in findings if pair in one.painted_over
    }
    odd = {case: share for case, share in shares.items() if share > max(ODD, TIMES * usual)}
    if not odd:
        return []
    told = few(f"{case} ({share:.0%} of {pair[0]})" for case, share in odd.items())
    return [
        Problem(
            f"masks of {pair[0]} and {pair[1]} overlap unlike the other cases in "
            f"{plural(len(odd), 'case')}: {told}",
            mend="Look at them: a single one of these among few labelled slices teaches another rule.",
        )
    ]


def empty(cohort: Cohort, findings: Sequence[CaseFindings]) -> list[Problem]:
    """Masks without any class, listed by reader; and classes that appear in no mask at all."""
    remarks = []
    for reader in cohort.readers:
        read = [one for one in findings if reader in one.voxels]
        nothing = [one.case for one in read if not sum(one.voxels[reader].values())]
        if nothing:
            by = f" by {reader}" if len(cohort.readers) > 1 else ""
            remarks.append(
                Problem(
                    f"{len(nothing)} of {len(read)} masks{by} are empty: {few(nothing)}",
                    mend="They count as normal cases: the structure was looked for and is not there.",
                )
            )
        never = [
            name for name in cohort.classes if read and not any(one.voxels[reader].get(name) for one in read)
        ]
        if never and len(nothing) < len(read):
            remarks.append(Problem(f"no mask by {reader} shows {', '.join(never)}"))
    return remarks


def grey(findings: Sequence[CaseFindings]) -> list[Problem]:
    """How many masks are anti-aliased pictures that were cut at half."""
    soft = [one for one in findings if one.grey]
    if not soft:
        return []
    total = sum(one.grey for one in soft)
    what = (
        f"masks with grey levels in {plural(len(soft), 'case')} ({total} voxels): cut at half of their range"
    )
    return [Problem(what, mend="Usual for anti-aliased outlines; look at the pictures.")]


def absent(findings: Sequence[CaseFindings]) -> list[Problem]:
    """Classes without a file in cases that have files of other classes."""
    lacking: dict[str, list[str]] = defaultdict(list)
    for one in findings:
        for name in one.absent:
            lacking[name].append(one.case)
    return [
        Problem(
            f"no mask of {name} in {plural(len(cases), 'labelled case')}: it counts as absent ({few(cases)})",
            mend="If it was not looked for in them, leave the class or these cases out.",
        )
        for name, cases in lacking.items()
    ]
