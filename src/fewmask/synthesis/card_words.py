"""The card of a set of pairs in words: for whoever gets the pairs and wants to know what they are."""

import json
from collections.abc import Iterable, Sequence

from fewmask.metrics.planted import REQUIRED
from fewmask.metrics.shapes import ClassRow
from fewmask.synthesis.card import Card, CopyReport
from fewmask.synthesis.factory import name_of

_SHOWN = 20
"""At most so many copies are named."""


def card_text(card: Card, note: str = "") -> str:
    """The card as Markdown; `note` comes under the title."""
    head = [
        "# Card of generated pairs",
        "These images show no patient: a generator drew them, and trained heads drew their masks. "
        "They carry no diagnosis.",
    ]
    parts = [*head, *([note] if note else [])]
    for title, lines in card_sections(card):
        parts += [f"## {title}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def card_sections(card: Card) -> tuple[tuple[str, list[str]], ...]:
    """Every section of the card, as its title and its lines of Markdown; what is missing says so."""
    return (
        ("What they were made from", _made_from(card)),
        ("How many", _counts(card)),
        ("Copies of training images", _copies(card.copies)),
        ("Classes, real against generated", _frequencies(card.frequencies)),
        ("Coverage", _coverage(card)),
        ("Does the uncertainty know the errors?", _uncertainty(card)),
        ("Versions", [f"* {name} {number}" for name, number in card.versions.items()]),
    )


def _made_from(card: Card) -> list[str]:
    licence = card.licence or "not told. Ask whoever made the pairs before you pass them on."
    classes = ", ".join(f"{value} = {name}" for name, value in card.classes.items())
    lines = [
        f"* generator: {card.generator or 'not told'}",
        f"* licence: {licence}",
        f"* classes: 0 = background, {classes}",
        f"* channels: {', '.join(card.modalities)}",
    ]
    return lines + [
        f"* {name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in card.made_from.items()
        if name != "generator" or value != card.generator
    ]


def _counts(card: Card) -> list[str]:
    if card.kept is None or card.refused is None:
        return [
            f"{card.drawn} pairs were drawn. Missing: no choice was made among them, by uncertainty or shape."
        ]
    reasons = ", ".join(f"{reason} {count}" for reason, count in card.refused.items()) or "none"
    return [
        f"{card.drawn} pairs were drawn, {card.kept} kept. Refused: {reasons}"
        + (" (a pair may be refused for several reasons)." if card.refused else ".")
    ]


def _copies(report: CopyReport | None) -> list[str]:
    if report is None:
        return [
            "Missing: nobody looked for copies of training images. The pairs may repeat images of patients."
        ]
    named = ", ".join(name_of(number) for number in report.copies[:_SHOWN])
    more = f" and {len(report.copies) - _SHOWN} more" if len(report.copies) > _SHOWN else ""
    found = (
        f"**{len(report.copies)} of {len(report.examined)} pairs are copies of training images: "
        f"{named}{more}.**"
        if report.copies
        else f"No copy was found among {len(report.examined)} pairs."
    )
    return [
        f"{found} They were compared with {report.training} training images; how near an image may come is "
        f"told by {report.held_out} real images of patients that the generator never saw.",
        "",
        *_distances(report),
        "",
        _alarms(report),
        "",
        *_planted(report),
    ]


def _distances(report: CopyReport) -> list[str]:
    numbers = report.numbers
    names = [key.removeprefix("ratio_") for key in numbers if key.startswith("ratio_")]
    rows = [
        (
            name,
            *(f"{numbers[f'{kind}_{name}']:.3f}" for kind in ("generated", "held_out", "ratio", "threshold")),
        )
        for name in names
    ]
    head = (
        "distance to the nearest training image",
        "pairs (median)",
        "unseen real",
        "ratio",
        "a copy below",
    )
    return _table(head, rows)


def _alarms(report: CopyReport) -> str:
    if report.false_alarms is None:
        return "Missing: false alarms were not counted on patients who set no threshold."
    return f"False alarms: {report.false_alarms:.1%} of real images of other patients would be called copies."


def _planted(report: CopyReport) -> list[str]:
    planted = report.planted
    if planted is None:
        return ["Missing: no copies were planted. **The detector is unproven:** it may miss copies."]
    shares = ", ".join(f"{kind} {share:.1%}" for kind, share in planted.found.items())
    lines = [f"Planted copies found ({planted.copies} of each kind): {shares}."]
    if planted.proven:
        return [*lines, f"The detector is proven: it finds at least {REQUIRED:.0%} of each kind."]
    missed = ", ".join(kind for kind, share in planted.found.items() if share < REQUIRED)
    return [
        *lines,
        f"**The detector is unproven:** it finds less than {REQUIRED:.0%} of these: {missed}. "
        "That it found no copy of a kind it misses says nothing.",
    ]


def _frequencies(rows: Sequence[ClassRow] | None) -> list[str]:
    if rows is None:
        return ["Missing: classes were not counted against real masks."]
    head = ("class", "real masks that show it", "pairs that do", "area, real (quartiles)", "area, pairs")
    return _table(
        head,
        [
            (
                row.class_name,
                f"{row.real_present:.1%} of {row.real}",
                f"{row.made_present:.1%} of {row.made}",
                _area(row.real_area),
                _area(row.made_area),
            )
            for row in rows
        ],
    )


def _area(quartiles: tuple[float, float, float] | None) -> str:
    return "never" if quartiles is None else " / ".join(f"{each:.0f}" for each in quartiles) + " px"


def _coverage(card: Card) -> list[str]:
    found = card.coverage
    if found is None:
        return ["Missing: coverage of unseen real images was not measured."]
    line = (
        f"Generated images cover {found.covered:.1%} of the real images of unseen patients (recall), "
        f"and {found.inside:.1%} of them lie among these (precision), {found.images} images on each side."
    )
    if found.real_covered is not None:
        line += f" As many real training images cover {found.real_covered:.1%}: read the figure beside this."
    return [line]


def _uncertainty(card: Card) -> list[str]:
    curve = card.uncertainty
    if curve is None:
        return ["Missing: the uncertainty was not compared with errors on real masks."]
    rank = "undefined" if curve.rank is None else f"{curve.rank:.2f}{_interval(curve.rank_interval, '.2f')}"
    verdict = (
        "The score is of use here."
        if curve.useful
        else "The interval does not lie above 0: that the score is of use here is not shown."
    )
    lines = [
        f"Measured on {curve.images} real images of {curve.patients} unseen patients. Rank correlation of "
        f"uncertainty and error (1 - Dice): {rank}. Without the most uncertain {curve.dropped:.0%} the error "
        f"falls from {curve.error:.3f} to {curve.error_kept:.3f}, by "
        f"{curve.fall:.3f}{_interval(curve.fall_interval, '.3f')}; a perfect score would gain "
        f"{curve.best_fall:.3f}. {verdict}",
        "",
    ]
    head = ("uncertainty", "images", "error (mean)")
    rows = [(f"{one.low:.3f} to {one.high:.3f}", f"{one.images}", f"{one.error:.3f}") for one in curve.bins]
    return lines + _table(head, rows)


def _interval(ends: tuple[float, float] | None, form: str) -> str:
    return " (no interval: one patient)" if ends is None else f" [{ends[0]:{form}}, {ends[1]:{form}}]"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
