"""The verdict in plain words, from the numbers alone. What lost is said as loudly as what won."""

from collections.abc import Sequence

from fewmask.metrics.score import Row
from fewmask.metrics.statistics import MEAN, MINIMUM_PATIENTS, Comparison, interval_text
from fewmask.report.content import Report, Sentence, Verdict
from fewmask.report.tables import Line, comparisons, empty_lines, lines, shots_order

_ALPHA = 0.05
_KINDS: dict[str, Verdict] = {"a": "better", "b": "worse", "none": "undecided", "too few patients": "caution"}


def verdict(rows: Sequence[Row], report: Report, *, resamples: int = 10_000) -> tuple[Sentence, ...]:
    """All sentences: on each pair of methods over all shots, then on each comparison, then cautions."""
    table = [line for line in lines(rows, report, resamples=resamples) if line.class_name == MEAN]
    return verdict_of(rows, report, table, comparisons(rows, report, resamples=resamples))


def verdict_of(
    rows: Sequence[Row], report: Report, table: Sequence[Line], compared: Sequence[Comparison]
) -> tuple[Sentence, ...]:
    """The same from tables that are already there; `table` holds the lines of the mean over classes."""
    by_key = {(line.arm, line.shots): line for line in table}
    against: dict[tuple[str, str], list[Comparison]] = {}
    for one in compared:
        if one.shots_a == one.shots_b:
            against.setdefault((one.arm_a, one.arm_b), []).append(one)
    few = [one for one in compared if one.shots_a is not None]
    most = {one.arm_a: max(shots_order(o.shots_a) for o in few if o.arm_a == one.arm_a) for one in few}
    sentences = [_headline(members, report) for members in against.values()]
    for one in compared:
        lines_of = (by_key[one.arm_a, one.shots_a], by_key[one.arm_b, one.shots_b])
        if one.shots_a == one.shots_b:
            sentences.append(_same_shots(one, *lines_of, report, len(compared)))
        elif one.shots_a == most.get(one.arm_a):
            sentences.append(_against_all(one, *lines_of, report))
    if not compared:
        sentences += [_alone(line, report) for line in table]
    return (*sentences, *_cautions(rows, report, table), *report.remarks)


def shots_words(shots: int | None, unit: str) -> str:
    """`3 labelled images`, `1 labelled patient`, `all labelled images`."""
    if shots is None:
        return f"all labelled {unit}s"
    return f"{shots} labelled {unit}{'' if shots == 1 else 's'}"


def _headline(members: Sequence[Comparison], report: Report) -> Sentence:
    """One sentence on a method against another, over all numbers of shots."""
    ours, other = report.name_of(members[0].arm_a), report.name_of(members[0].arm_b)
    where = {claim: [_k(one) for one in members if one.claim == claim] for claim in _KINDS}
    tried = _and([_k(one) for one in members])
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
            least = "" if len(where["b"]) == len(members) else f" (worse at {_and(where['b'])})"
            return Sentence(
                f"The {ours} did not beat the {other} at {tried}{least}: use the {other}.", "worse"
            )
        return Sentence(
            f"The {ours} and the {other} cannot be told apart at {tried}: use the {other}, the simpler one.",
            "undecided",
        )
    rest = [f"was worse at {_and(where['b'])}"] if where["b"] else []
    rest += [f"cannot be told from it at {_and(where['none'])}"] if where["none"] else []
    return Sentence(f"The {ours} beat the {other} at {_and(where['a'])}, {' and '.join(rest)}.", "mixed")


def _same_shots(one: Comparison, a: Line, b: Line, report: Report, count: int) -> Sentence:
    """An arm on trial against a baseline on the same masks."""
    labels = shots_words(one.shots_a, report.shots_unit)
    ours, other = f"{a.name} (Dice {_dice(a)})", f"{b.name} on the same {report.shots_unit}s ({_dice(b)})"
    difference = f"difference {signed(one)}"
    if one.claim == "a":
        weak = one.p_holm is not None and one.p_holm > _ALPHA
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


def _against_all(one: Comparison, a: Line, b: Line, report: Report) -> Sentence:
    """An arm with few shots against what all masks give."""
    labels = shots_words(one.shots_a, report.shots_unit)
    every = shots_words(one.shots_b, report.shots_unit)
    text = (
        f"With {labels} the {a.name} reaches Dice {_dice(a)}; {every} give {_dice(b)} "
        f"({b.name}): difference {signed(one)}"
    )
    ends = {
        "a": ", better than all masks.",
        "b": ".",
        "none": ", not to be told apart.",
        "too few patients": ", on too few patients to decide.",
    }
    return Sentence(text + ends[one.claim], "note")


def _alone(line: Line, report: Report) -> Sentence:
    """An arm that nothing can be set against."""
    labels = shots_words(line.shots, report.shots_unit)
    return Sentence(f"With {labels} the {line.name} reaches Dice {_dice(line)}.")


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
                Sentence(f"No better than an empty mask (Dice {empty[-1].dice:.3f}): {_and(poor)}.", "worse")
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
        found.append(Sentence(f"Failed checks: {_and(bad)}. Read them before using any number.", "caution"))
    return found


def signed(one: Comparison) -> str:
    """`−0.070 [−0.090, −0.050]` with true minus signs."""
    return one.text().replace("-", "−")


def _dice(line: Line) -> str:
    return interval_text(line.dice.mean, line.dice.low, line.dice.high)


def _k(one: Comparison) -> str:
    return "all masks" if one.shots_a is None else f"k = {one.shots_a}"


def _and(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
