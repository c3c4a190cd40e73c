"""The tables of the page, as plain records worked out from the rows; and one of them for the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from fewmask.metrics.score import Row
from fewmask.metrics.share import Share, share_of
from fewmask.metrics.statistics import (
    BETTER,
    MEAN,
    Comparison,
    Summary,
    compare,
    interval_text,
    summarise,
    with_holm,
)
from fewmask.report.content import EMPTY_ARM, ArmKind, Report

MEASURES = ("dice", "iou", "slice_dice", "slice_iou", "assd_mm", "hd95_mm", "ceiling", "pixel_accuracy")
"""What the tables of arms show."""

KINDS: tuple[ArmKind, ...] = ("ours", "baseline", "reference", "control", "trivial")
"""The order of the arms in every table."""

Key = tuple[str, int | None]
"""An arm with its number of shots."""


@dataclass(frozen=True)
class Line:
    """One arm at one number of shots, for one class or the mean over classes."""

    arm: str
    name: str
    kind: ArmKind
    shots: int | None
    class_name: str
    of: dict[str, Summary]
    """Summary by measure; a measure that nobody took is absent."""
    share: Share | None = None
    """Of the Dice of full supervision; only for the mean over classes, where a run has full supervision."""

    @property
    def dice(self) -> Summary:
        """The Dice of the arm."""
        return self.of["dice"]


@dataclass(frozen=True)
class EmptyLine:
    """What an empty mask scores on the same test cases."""

    class_name: str
    dice: float
    """Share of test cases in which the class is absent: Dice is 1 there and 0 elsewhere."""
    pixel_accuracy: float
    """High for small structures, with nothing found."""


def lines(
    rows: Sequence[Row], report: Report, *, measures: Sequence[str] = MEASURES, resamples: int = 10_000
) -> list[Line]:
    """One line per arm, shots and class: by kind, then the report's order, then shots from few to all."""
    found = [summary for metric in measures for summary in summarise(rows, metric, resamples=resamples)]
    table: dict[tuple[Key, str], dict[str, Summary]] = {}
    for summary in found:
        key = (summary.arm, summary.shots)
        table.setdefault((key, summary.class_name), {})[summary.metric] = summary
    full = full_supervision(rows, report)

    def line(key: Key, class_name: str) -> Line:
        arm, shots = key
        kind = report.kind_of(arm)
        counts = full is not None and class_name == MEAN and key != full and kind != "trivial"
        share = share_of(rows, key, full, resamples=resamples) if full is not None and counts else None
        return Line(arm, report.name_of(arm), kind, shots, class_name, table[key, class_name], share)

    ranks = {key: rank for rank, key in enumerate(arms_of(rows, report))}
    return [line(*one) for one in sorted(table, key=lambda one: ranks[one[0]])]


def arms_of(rows: Sequence[Row], report: Report) -> list[Key]:
    """Every (arm, shots) with rows: by kind, then the report's order, then shots from few to all."""
    have = list(dict.fromkeys((row.arm, row.shots) for row in rows))
    known = [arm.key for arm in report.arms]
    place = {arm: i for i, arm in enumerate(dict.fromkeys([*known, *(arm for arm, _ in have)]))}
    have.sort(key=lambda one: (KINDS.index(report.kind_of(one[0])), place[one[0]], shots_order(one[1])))
    return have


def full_supervision(rows: Sequence[Row], report: Report) -> Key | None:
    """What had all masks and shares refer to: the first reference, else the first baseline, with all."""
    every = [key for key in arms_of(rows, report) if key[1] is None]
    for kind in ("reference", "baseline"):
        for key in every:
            if report.kind_of(key[0]) == kind:
                return key
    return None


def rival_of(rows: Sequence[Row], report: Report) -> str | None:
    """The arm that each arm on trial is set against on the same masks: the first baseline."""
    return next((arm for arm, _ in arms_of(rows, report) if report.kind_of(arm) == "baseline"), None)


def best_line(table: Sequence[Line], shots: int | None, kinds: Sequence[ArmKind] = KINDS) -> Line | None:
    """The highest mean Dice over classes at one number of shots; None without such an arm."""
    own = [line for line in table if (line.class_name, line.shots) == (MEAN, shots) and line.kind in kinds]
    return max(own, key=lambda line: line.dice.mean, default=None)


def class_names(rows: Sequence[Row]) -> list[str]:
    """The classes in order of first appearance."""
    return list(dict.fromkeys(row.class_name for row in rows))


def empty_lines(rows: Sequence[Row]) -> list[EmptyLine]:
    """What the empty mask scores, per class and as the mean over classes (last)."""
    unique = {(row.case, row.class_name): row for row in rows}.values()
    made = []
    for name in class_names(rows):
        own = [row for row in unique if row.class_name == name]
        absent = sum(row.outcome in ("true_negative", "false_alarm") for row in own)
        accuracy = sum(row.empty_accuracy for row in own) / len(own)
        made.append(EmptyLine(name, absent / len(own), accuracy))
    if made:
        dice = sum(line.dice for line in made) / len(made)
        made.append(EmptyLine(MEAN, dice, sum(line.pixel_accuracy for line in made) / len(made)))
    return made


def comparisons(
    rows: Sequence[Row], report: Report, metric: str = "dice", *, resamples: int = 10_000
) -> list[Comparison]:
    """The comparisons that a run is for, on the same test patients; p-values by Holm over all of them.

    Every arm on trial and every other baseline against the rival (the first baseline) on the same shots; at
    each number of shots the best arm on trial against the best baseline, where that is another one, and
    against what all masks give. Best by the mean on these test patients. An arm with masks of its own is
    compared with none, since its number of shots counts other slices. Without an arm on trial (a
    `supervised` run) the best baseline at k shots is set against all masks.
    """
    pairs = [pair for pair in _pairs(rows, report, metric) if _share_patients(rows, *pair)]
    return with_holm([compare(rows, a, b, metric, resamples=resamples) for a, b in pairs])


def _pairs(rows: Sequence[Row], report: Report, metric: str) -> list[tuple[Key, Key]]:
    """Which (arm, shots) are compared, by number of shots; those with full supervision at the end."""
    sign = 1.0 if BETTER[metric] == "higher" else -1.0
    summaries = summarise(rows, metric, resamples=1)
    score = {(one.arm, one.shots): sign * one.mean for one in summaries if one.class_name == MEAN}
    have = [key for key in arms_of(rows, report) if key in score and not report.own_masks(key[0])]
    have.sort(key=lambda one: shots_order(one[1]))
    kind = {key: report.kind_of(key[0]) for key in have}
    ours = [key for key in have if kind[key] == "ours"]
    baselines = [key for key in have if kind[key] == "baseline"]
    full, rival = full_supervision(rows, report), rival_of(rows, report)
    references = [key for key in have if kind[key] == "reference"] or ([full] if full is not None else [])
    tried = ours or [key for key in baselines if key not in references]

    def best(keys: Sequence[Key], shots: int | None) -> list[Key]:
        return sorted((key for key in keys if key[1] == shots), key=lambda key: -score[key])[:1]

    counts = list(dict.fromkeys(key[1] for key in tried))
    against_rival = [*ours, *(key for key in baselines if key[0] != rival)]
    pairs = [(a, b) for a in against_rival for b in baselines if b == (rival, a[1])]
    pairs += [(a, b) for k in counts for a in best(ours, k) for b in best(baselines, k)]
    pairs += [(a, b) for k in counts for a in best(tried, k) for b in references]
    return list(dict.fromkeys(pairs))


def _share_patients(rows: Sequence[Row], a: Key, b: Key) -> bool:
    """Whether the two arms have scored any patient both."""
    of = [{row.patient for row in rows if (row.arm, row.shots) == one} for one in (a, b)]
    return bool(of[0] & of[1])


def choose_cases(
    rows: Sequence[Row], arm: str, shots: int | None, *, draw: int = 0, worst: int = 5
) -> list[tuple[str, Row, float]]:
    """Which test cases to show: (rank, a row of the case, its mean Dice over classes), worst first.

    Chosen by the mean Dice over classes: the `worst` lowest, the median and the best, each case once.
    """
    own = [row for row in rows if (row.arm, row.shots, row.draw) == (arm, shots, draw)]
    of_case: dict[str, list[Row]] = {}
    for row in own:
        of_case.setdefault(row.case, []).append(row)
    scored = sorted(
        ((sum(r.dice for r in members) / len(members), members[0]) for members in of_case.values()),
        key=lambda one: (one[0], one[1].case),
    )
    if not scored:
        return []
    last = len(scored) - 1
    ranks = {last: "best"}
    ranks.setdefault(last // 2, "median")
    for index in range(min(worst, len(scored))):
        ranks.setdefault(index, "worst")
    return [(ranks[index], scored[index][1], scored[index][0]) for index in sorted(ranks)]


def shots_order(shots: int | None) -> float:
    """Sorts numbers of shots, all of them last."""
    return float("inf") if shots is None else float(shots)


def shots_text(shots: int | None) -> str:
    """`8`, `all`, or `none` for a method that needs no mask."""
    return "all" if shots is None else str(shots or "none")


def plain_table(rows: Sequence[Row], report: Report, *, resamples: int = 10_000) -> str:
    """The table of arms (mean over classes) as lines of text, for a terminal."""
    body = [("arm", "shots", "Dice [95 % interval]", "ASSD mm", "HD95 mm", "ceiling", "patients")]
    shown = ("dice", "assd_mm", "hd95_mm", "ceiling")
    for line in lines(rows, report, measures=shown, resamples=resamples):
        if line.class_name == MEAN:
            ceiling = line.of.get("ceiling")
            body.append(
                (
                    line.name,
                    shots_text(line.shots),
                    line.dice.text(),
                    interval_text(line.of["assd_mm"].mean, None, None, 2),
                    interval_text(line.of["hd95_mm"].mean, None, None, 2),
                    f"{ceiling.mean:.3f}" if ceiling else "-",
                    str(line.dice.n_patients),
                )
            )
    if all(row.arm != EMPTY_ARM.key for row in rows):
        body += [(EMPTY_ARM.name, "none", f"{e.dice:.3f}", *"----") for e in empty_lines(rows)[-1:]]
    widths = [max(len(cells[i]) for cells in body) for i in range(len(body[0]))]
    text = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        for cells in body
    ]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def lesion_lines(rows: Sequence[Row], report: Report | None = None) -> list[str]:
    """One line per arm, shots and class that was scored by lesion: outlined, hit, invented per patient.

    `report` gives the arms their names.
    """
    groups: dict[tuple[str, int | None, str], list[Row]] = {}
    for row in rows:
        if row.lesions is not None:
            groups.setdefault((row.arm, row.shots, row.class_name), []).append(row)
    told = []
    for (arm, shots, name), members in groups.items():
        there, hit, outlined, invented = (
            sum(getattr(row, field) or 0 for row in members)
            for field in ("lesions", "lesions_hit", "lesions_outlined", "lesions_invented")
        )
        named = arm if report is None else report.name_of(arm)
        patients = len({(row.patient, row.draw) for row in members})
        told.append(
            f"{named}, {shots_text(shots)} shots, {name}: of {there} lesions {hit} hit, {outlined} outlined, "
            f"{invented / patients:.2f} invented per patient"
        )
    return told
