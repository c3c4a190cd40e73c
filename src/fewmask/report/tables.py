"""The tables of the page, as plain records worked out from the rows; and one of them for the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from fewmask.metrics.score import Row
from fewmask.metrics.statistics import (
    MEAN,
    Comparison,
    Summary,
    compare,
    interval_text,
    summarise,
    with_holm,
)
from fewmask.report.content import ArmKind, Report

MEASURES = ("dice", "iou", "assd_mm", "hd95_mm", "ceiling", "pixel_accuracy")
"""The columns of the table of arms."""

EMPTY = "empty mask"
"""Name of the arm that marks nothing. It needs no run: its scores follow from the references."""


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


def lines(rows: Sequence[Row], report: Report, *, resamples: int = 10_000) -> list[Line]:
    """One line per arm, shots and class: the order of the report's arms, then shots from few to all."""
    found = [summary for metric in MEASURES for summary in summarise(rows, metric, resamples=resamples)]
    table: dict[tuple[str, int | None, str], dict[str, Summary]] = {}
    for summary in found:
        key = (summary.arm, summary.shots, summary.class_name)
        table.setdefault(key, {})[summary.metric] = summary
    known = [arm.key for arm in report.arms]
    place = {arm: index for index, arm in enumerate(dict.fromkeys([*known, *(arm for arm, _, _ in table)]))}
    made = [
        Line(arm, report.name_of(arm), report.kind_of(arm), shots, class_name, of)
        for (arm, shots, class_name), of in table.items()
    ]
    return sorted(made, key=lambda line: (place[line.arm], shots_order(line.shots)))


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
    """Every arm on trial against every baseline on the same shots, and against all masks; Holm over all.

    Without an arm on trial (a `supervised` run) every baseline at k shots is set against the references.
    """
    have = list(dict.fromkeys((row.arm, row.shots) for row in rows))
    have.sort(key=lambda one: shots_order(one[1]))
    kinds = {arm: report.kind_of(arm) for arm, _ in have}
    on_trial = [one for one in have if kinds[one[0]] == "ours"]
    baselines = [one for one in have if kinds[one[0]] == "baseline"]
    references = [one for one in have if kinds[one[0]] == "reference"]
    if not references:
        references = [one for one in baselines if one[1] is None]
    pairs = [(a, b) for a in on_trial for b in baselines if a[1] == b[1]]
    tried = on_trial or [one for one in baselines if one not in references]
    pairs += [(a, b) for a in tried for b in references if (a, b) not in pairs]
    made = [compare(rows, a, b, metric, resamples=resamples) for a, b in pairs if _share_patients(rows, a, b)]
    return with_holm(made)


def _share_patients(rows: Sequence[Row], a: tuple[str, int | None], b: tuple[str, int | None]) -> bool:
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
    """`8`, or `all`."""
    return "all" if shots is None else str(shots)


def plain_table(rows: Sequence[Row], report: Report, *, resamples: int = 10_000) -> str:
    """The table of arms (mean over classes) as lines of text, for a terminal."""
    body = [("arm", "shots", "Dice [95 % interval]", "ASSD mm", "HD95 mm", "ceiling", "patients")]
    for line in lines(rows, report, resamples=resamples):
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
    body += [(EMPTY, "0", f"{e.dice:.3f}", "-", "-", "-", "-") for e in empty_lines(rows)[-1:]]
    widths = [max(len(cells[i]) for cells in body) for i in range(len(body[0]))]
    shown = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        )
        for cells in body
    ]
    return "\n".join([shown[0], "-" * len(shown[0]), *shown[1:]])


def lesion_lines(rows: Sequence[Row]) -> list[str]:
    """One line per arm, shots and class that was scored by lesion: found of all, invented per patient."""
    groups: dict[tuple[str, int | None, str], list[Row]] = {}
    for row in rows:
        if row.lesions is not None:
            groups.setdefault((row.arm, row.shots, row.class_name), []).append(row)
    told = []
    for (arm, shots, name), members in groups.items():
        there, hit, invented = (
            sum(getattr(row, field) or 0 for row in members)
            for field in ("lesions", "lesions_hit", "lesions_invented")
        )
        patients = len({(row.patient, row.draw) for row in members})
        told.append(
            f"{arm}, {shots_text(shots)} shots, {name}: {hit} of {there} lesions found, "
            f"{invented / patients:.2f} invented per patient"
        )
    return told
