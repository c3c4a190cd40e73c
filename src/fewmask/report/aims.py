"""Sentences on what a run with shots aims at: the best arm at each k, and how near it comes to all masks."""

from collections.abc import Mapping, Sequence

from fewmask.metrics.statistics import MINIMUM_PATIENTS, Comparison
from fewmask.report.content import ArmKind, Report, Sentence, Verdict
from fewmask.report.tables import Key, Line, best_line, shots_order
from fewmask.report.words import dice_words, k_words, listed, shots_words, signed

NEARLY_ALL = 0.95
"""The share of full supervision that is aimed at with the fewest shots."""

ALPHA = 0.05
"""A difference whose corrected p is above this is called weak."""

_SAID: dict[str, str] = {
    "a": "beats",
    "b": "does not beat",
    "none": "cannot be told apart from",
    "too few patients": "cannot be judged, on too few patients, against",
}
_KINDS: dict[str, Verdict] = {"a": "better", "b": "worse", "none": "undecided", "too few patients": "caution"}


def best_at_each_k(table: Sequence[Line], compared: Sequence[Comparison], report: Report) -> list[Sentence]:
    """One sentence per number of shots: the best arm on trial against the rival and the best baseline.

    `table` holds the lines of the mean over classes.
    """
    pair = {((c.arm_a, c.shots_a), (c.arm_b, c.shots_b)): c for c in compared}
    kinds = _on_trial(table)
    rival = next((line.arm for line in table if line.kind == "baseline"), "")
    by_key: dict[Key, Line] = {(line.arm, line.shots): line for line in table}
    told = []
    for k in sorted({line.shots for line in table if line.kind in kinds}, key=shots_order):
        first, other = best_line(table, k, kinds), best_line(table, k, ("baseline",))
        if first is None:
            continue
        keys: list[Key] = [(rival, k), *([(other.arm, k)] if other is not None else [])]
        a = (first.arm, k)
        sides = [(by_key[b], pair[a, b]) for b in dict.fromkeys(keys) if (a, b) in pair]
        if sides:
            count = sum((line.kind, line.shots) == (first.kind, k) for line in table)
            told.append(_best(first, count, sides, report))
    return told


def _on_trial(table: Sequence[Line]) -> tuple[ArmKind, ...]:
    """The kind of arm that is on trial: ours, or the baselines of a run without any of ours."""
    return ("ours",) if any(line.kind == "ours" for line in table) else ("baseline",)


def _best(first: Line, count: int, sides: Sequence[tuple[Line, Comparison]], report: Report) -> Sentence:
    """The best of `count` arms against the rival, and against a better baseline where there is one."""
    labels = shots_words(first.shots, report.shots_unit)
    which = f"the best of {count} methods on trial, the" if count > 1 else "the"
    (line, one), *more = sides
    advice = {"b": f"; use the {line.name}", "none": f"; nothing speaks against the simpler {line.name}"}
    if one.p_holm is not None and one.p_holm > ALPHA:
        advice["a"] = f"; weak, since p = {one.p_holm:.2f} after Holm's correction"
    comma = "," if count > 1 else ""
    text = (
        f"With {labels} {which} {first.name} (Dice {dice_words(first)}){comma} {_SAID[one.claim]} the "
        f"{line.name} on the same {report.shots_unit}s ({dice_words(line)}): difference {signed(one)}"
        f"{advice.get(one.claim, '')}."
    )
    for line, one in more:
        text += (
            f" The best baseline is the {line.name} ({dice_words(line)}); it {_SAID[one.claim]} that one: "
            f"difference {signed(one)}."
        )
    return Sentence(text, _kind_of([one for _, one in sides]))


def _kind_of(compared: Sequence[Comparison]) -> Verdict:
    """What several comparisons say together: only a win makes them mixed."""
    claims = {one.claim for one in compared}
    if len(claims) == 1:
        return _KINDS[claims.pop()]
    if "too few patients" in claims:
        return "caution"
    return "mixed" if "a" in claims else "worse"


def rival_at_each_k(compared: Sequence[Comparison], report: Report, rival: str) -> list[Sentence]:
    """All arms on trial against the rival in one sentence: how many are above it and below, at each k."""
    own = [
        c
        for c in compared
        if (c.arm_b, c.shots_b) == (rival, c.shots_a) and report.kind_of(c.arm_a) == "ours"
    ]
    if any(one.claim == "too few patients" for one in own) or not own:
        return []
    parts = []
    for k in dict.fromkeys(one.shots_a for one in own):
        here = [one.claim for one in own if one.shots_a == k]
        parts.append(
            f"{here.count('a') or 'none'} of {len(here)} at {k_words(k)} ({here.count('b')} below it)"
        )
    return [
        Sentence(
            f"Methods on trial above the {report.name_of(rival)} with an interval that excludes 0: "
            f"{listed(parts)}; the table marks which.",
            _kind_of(own),
        )
    ]


def share_of_all(table: Sequence[Line], full: Line, report: Report) -> list[Sentence]:
    """Whether the best arm with the fewest shots comes near full supervision."""
    kinds = _on_trial(table)
    few = [line.shots for line in table if line.kind in kinds and line.shots]
    best = best_line(table, min(few), kinds) if few else None
    if best is None or best.share is None:
        return []
    share, aim = best.share, f"{100 * NEARLY_ALL:.0f} %"
    kind: Verdict
    if share.low is None or share.high is None or share.n_patients < MINIMUM_PATIENTS:
        kind, end = "caution", f"too few patients to decide about {aim}"
    elif share.low >= NEARLY_ALL:
        kind, end = "better", f"at least {aim}, at the lower end of the interval too"
    elif share.value >= NEARLY_ALL:
        kind, end = "mixed", f"{aim} is reached, but not at the lower end of the interval"
    elif share.high >= NEARLY_ALL:
        kind, end = "undecided", f"short of {aim}, though the interval reaches it"
    else:
        kind, end = "worse", f"short of {aim}"
    return [
        Sentence(
            f"With {shots_words(best.shots, report.shots_unit)} the {best.name} reaches {share.text()} of "
            f"the Dice of full supervision ({full.name}, {shots_words(None, report.shots_unit)}: "
            f"{full.dice.mean:.3f}): {end}.",
            kind,
        )
    ]


def against_all(one: Comparison, a: Line, b: Line, report: Report) -> Sentence:
    """An arm with few shots against what all masks give: better, no worse, or worse."""
    labels, every = (shots_words(shots, report.shots_unit) for shots in (one.shots_a, one.shots_b))
    text = (
        f"With {labels} the {a.name} reaches Dice {dice_words(a)}; {every} give {dice_words(b)} "
        f"({b.name}): difference {signed(one)}"
    )
    ends: Mapping[str, tuple[str, Verdict]] = {
        "a": (", better than full supervision.", "better"),
        "b": (", worse than full supervision.", "worse" if a.kind == "ours" else "note"),
        "none": (
            ", not told apart from full supervision: no worse as far as these patients show.",
            "undecided",
        ),
        "too few patients": (", on too few patients to decide.", "caution"),
    }
    end, kind = ends[one.claim]
    return Sentence(text + end, kind)


def chosen_on_the_test(table: Sequence[Line]) -> list[Sentence]:
    """What choosing the best of several arms by the same test patients does to its lead."""
    count = len({line.arm for line in table if line.kind == "ours"})
    if count < 2:
        return []
    return [
        Sentence(
            f"Which of the {count} methods is best was read off the same test patients, which flatters its "
            "lead a little; the comparisons of single methods are not touched by that.",
            "caution",
        )
    ]
