"""The verdict in plain words, from the numbers alone. What lost is said as loudly as what won."""

from collections.abc import Sequence

from fewmask.metrics.score import Row
from fewmask.metrics.statistics import MEAN, MINIMUM_PATIENTS, Comparison
from fewmask.report import aims
from fewmask.report.content import Report, Sentence, Verdict
from fewmask.report.tables import (
    Line,
    comparisons,
    empty_lines,
    full_supervision,
    lines,
    rival_of,
    shots_order,
)
from fewmask.report.words import dice_words, k_words, listed, shots_words, signed

_KINDS: dict[str, Verdict] = {"a": "better", "b": "worse", "none": "undecided", "too few patients": "caution"}


def verdict(rows: Sequence[Row], report: Report, *, resamples: int = 10_000) -> tuple[Sentence, ...]:
    """All sentences: who is better on the same masks, how near to all masks, then cautions."""
    found = lines(rows, report, measures=("dice",), resamples=resamples)
    table = [line for line in found if line.class_name == MEAN]
    return verdict_of(rows, report, table, comparisons(rows, report, resamples=resamples))


def verdict_of(
    rows: Sequence[Row], report: Report, table: Sequence[Line], compared: Sequence[Comparison]
) -> tuple[Sentence, ...]:
    """The same from tables that are already there; `table` holds the lines of the mean over classes.

    Two methods are told comparison by comparison; several by the best of them at each number of shots.
    """
    skilled = [line for line in table if line.kind != "trivial"]
    if not compared:
        sentences = [_alone(line, report) for line in skilled]
    else:
        skilled = [line for line in skilled if not report.own_masks(line.arm)]
        same = [one for one in compared if one.shots_a == one.shots_b]
        several = len({(one.arm_a, one.arm_b) for one in same}) > 1
        sentences = (
            _several(rows, skilled, same, report) if several else _two(skilled, same, report, len(compared))
        )
        sentences += _of_all(rows, skilled, compared, report)
        sentences += aims.chosen_on_the_test(skilled)
    return (*sentences, *_cautions(rows, report, table), *report.remarks)


def _two(table: Sequence[Line], same: Sequence[Comparison], report: Report, count: int) -> list[Sentence]:
    """One method against another: over all numbers of shots, then one by one."""
    by_key = {(line.arm, line.shots): line for line in table}
    each = [
        _same_shots(one, by_key[one.arm_a, one.shots_a], by_key[one.arm_b, one.shots_b], report, count)
        for one in same
    ]
    return [_headline(same, report), *each] if same else []


def _several(
    rows: Sequence[Row], table: Sequence[Line], same: Sequence[Comparison], report: Report
) -> list[Sentence]:
    """Many methods: the best of them at each number of shots, then all of them in one sentence."""
    rival = rival_of(rows, report)
    all_of_them = aims.rival_at_each_k(same, report, rival) if rival is not None else []
    return [*aims.best_at_each_k(table, same, report), *all_of_them]


def _of_all(
    rows: Sequence[Row], table: Sequence[Line], compared: Sequence[Comparison], report: Report
) -> list[Sentence]:
    """How near the fewest shots come to all masks, and whether the most shots are no worse."""
    by_key = {(line.arm, line.shots): line for line in table}
    full = full_supervision(rows, report)
    few = [one for one in compared if one.shots_a != one.shots_b]
    most = max((one.shots_a for one in few), key=shots_order, default=None)
    told = [
        aims.against_all(one, by_key[one.arm_a, one.shots_a], by_key[one.arm_b, one.shots_b], report)
        for one in few
        if one.shots_a == most
    ]
    return [*told, *(aims.share_of_all(table, by_key[full], report) if full in by_key else [])]


def _headline(members: Sequence[Comparison], report: Report) -> Sentence:
    """One sentence on a method against another, over all numbers of shots."""
    ours, other = report.name_of(members[0].arm_a), report.name_of(members[0].arm_b)
    where = {claim: [k_words(one.shots_a) for one in members if one.claim == claim] for claim in _KINDS}
    tried = listed([k_words(one.shots_a) for one in members])
    if where["too few patients"]:
        count = max(one.n_patients for one in members)
        return Sentence(
            f"{count} test patient{'' if count == 1 else 's'} cannot decide between the {ours} and the "
            f"{other}: at least {MINIMUM_PATIENTS} are needed.",
            "caution",
        )
    if len(where["a"]) == len(members):
        return Sentence(f"The {ours} beat the {other} at {tried}.", "better")
    if not where["a"]:
        if where["b"]:
            least = "" if len(where["b"]) == len(members) else f" (worse at {listed(where['b'])})"
            return Sentence(
                f"The {ours} did not beat the {other} at {tried}{least}: use the {other}.", "worse"
            )
        return Sentence(
            f"The {ours} and the {other} cannot be told apart at {tried}: use the {other}, the simpler one.",
            "undecided",
        )
    rest = [f"was worse at {listed(where['b'])}"] if where["b"] else []
    rest += [f"cannot be told from it at {listed(where['none'])}"] if where["none"] else []
    return Sentence(f"The {ours} beat the {other} at {listed(where['a'])}, {' and '.join(rest)}.", "mixed")


def _same_shots(one: Comparison, a: Line, b: Line, report: Report, count: int) -> Sentence:
    """An arm on trial against a baseline on the same masks."""
    labels = shots_words(one.shots_a, report.shots_unit)
    ours, other = (
        f"{a.name} (Dice {dice_words(a)})",
        f"{b.name} on the same {report.shots_unit}s ({dice_words(b)})",
    )
    difference = f"difference {signed(one)}"
    if one.claim == "a":
        weak = one.p_holm is not None and one.p_holm > aims.ALPHA
        doubt = (
            f"; weak, since p = {one.p_holm:.2f} after Holm's correction for {count} tests" if weak else ""
        )
        return Sentence(f"With {labels} the {ours} beat the {other}: {difference}{doubt}.", "better")
    if one.claim == "b":
        return Sentence(
            f"With {labels} the {ours} did not beat the {other}: {difference}; use the {b.name}.", "worse"
        )
    if one.claim == "none":
        return Sentence(
            f"With {labels} the {ours} and the {other} cannot be told apart: {difference}; "
            f"nothing speaks against the simpler {b.name}.",
            "undecided",
        )
    return Sentence(
        f"With {labels}: {ours}, {other}; {difference}. {one.n_patients} patients decide nothing.", "caution"
    )


def _alone(line: Line, report: Report) -> Sentence:
    """An arm that nothing can be set against."""
    labels = shots_words(line.shots, report.shots_unit)
    return Sentence(f"With {labels} the {line.name} reaches Dice {dice_words(line)}.")


def _cautions(rows: Sequence[Row], report: Report, table: Sequence[Line]) -> list[Sentence]:
    """What a reader must know before believing any of it."""
    found = []
    empty = empty_lines(rows)
    if empty:
        poor = [
            f"{line.name} with {shots_words(line.shots, report.shots_unit)}"
            for line in table
            if line.kind != "trivial" and line.dice.mean <= empty[-1].dice
        ]
        if poor:
            found.append(
                Sentence(
                    f"No better than an empty mask (Dice {empty[-1].dice:.3f}): {listed(poor)}.", "worse"
                )
            )
    if table and all(line.dice.n_draws == 1 for line in table):
        found.append(
            Sentence(
                "Every arm ran with one draw of shots: another choice of labelled "
                f"{report.shots_unit}s may give other numbers, and the intervals do not show it.",
                "caution",
            )
        )
    bad = [check.name for check in report.checks if check.outcome == "failed"]
    if bad:
        found.append(Sentence(f"Failed checks: {listed(bad)}. Read them before using any number.", "caution"))
    return found
