"""A card beside its pairs: `card.json`, which is read back, and `card.md`, the same in words."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fewmask.core.errors import DataError
from fewmask.core.files import read_json, write_json, write_text
from fewmask.metrics.calibration import Bin, UncertaintyCurve
from fewmask.metrics.fidelity import Coverage
from fewmask.metrics.planted import Planted
from fewmask.metrics.shapes import ClassRow
from fewmask.synthesis.card import Card, CopyReport
from fewmask.synthesis.card_words import card_text

FORMAT = 1
CARD_JSON = "card.json"
CARD_MD = "card.md"


def write_card(folder: Path, card: Card, *, note: str = "") -> Path:
    """Write `card.json` and `card.md` into a folder; returns the first. `note`: put under the title."""
    write_text(folder / CARD_MD, card_text(card, note))
    told = {"format": FORMAT, **asdict(card)}
    if card.copies is not None:
        told["copies"] |= {"examined": _ranges(card.copies.examined)}
    return write_json(folder / CARD_JSON, told)


def read_card(folder: Path) -> Card | None:
    """The card in a folder; None without one. A `DataError` when it is damaged or of another format."""
    path = folder / CARD_JSON
    if not path.is_file():
        return None
    told = read_json(path)
    try:
        if told.pop("format") != FORMAT:
            raise ValueError("of another format")
        return _card(told)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            "is no card of generated pairs",
            where=str(path),
            found=str(error),
            mend="Make it again from the pairs; a card is not to be written by hand.",
        ) from error


def _card(told: dict[str, Any]) -> Card:
    copies, rows, covered, curve = (
        told.pop(name) for name in ("copies", "frequencies", "coverage", "uncertainty")
    )
    return Card(
        **(told | {"modalities": tuple(told["modalities"])}),
        copies=None if copies is None else _copy_report(copies),
        frequencies=None if rows is None else tuple(ClassRow(**_tupled(row)) for row in rows),
        coverage=None if covered is None else Coverage(**covered),
        uncertainty=None if curve is None else _curve(curve),
    )


def _copy_report(told: dict[str, Any]) -> CopyReport:
    planted = told["planted"]
    read = {
        "examined": _numbers(told["examined"]),
        "copies": tuple(told["copies"]),
        "planted": None if planted is None else Planted(**planted),
    }
    return CopyReport(**(told | read))


def _curve(told: dict[str, Any]) -> UncertaintyCurve:
    bins = tuple(Bin(**one) for one in told["bins"])
    return UncertaintyCurve(**(_tupled(told) | {"bins": bins}))


def _tupled(told: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}


def _ranges(numbers: Sequence[int]) -> str:
    """0, 1, 2, 5 as "0-2, 5"."""
    ends: list[list[int]] = []
    for number in numbers:
        if ends and number == ends[-1][1] + 1:
            ends[-1][1] = number
        else:
            ends.append([number, number])
    return ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in ends)


def _numbers(text: str) -> tuple[int, ...]:
    """The numbers that `_ranges` wrote."""
    found: list[int] = []
    for part in filter(None, text.split(", ")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)
