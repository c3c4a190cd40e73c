"""Numbers and names as they stand in the sentences of a verdict."""

from collections.abc import Sequence

from fewmask.metrics.statistics import Comparison, interval_text
from fewmask.report.tables import Line


def shots_words(shots: int | None, unit: str) -> str:
    """`3 labelled images`, `1 labelled patient`, `all labelled images`, `no labelled images`."""
    if shots is None:
        return f"all labelled {unit}s"
    return f"{shots or 'no'} labelled {unit}{'' if shots == 1 else 's'}"


def signed(one: Comparison) -> str:
    """`−0.070 [−0.090, −0.050]` with true minus signs."""
    return one.text().replace("-", "−")


def dice_words(line: Line) -> str:
    """`0.850 [0.820, 0.880]`."""
    return interval_text(line.dice.mean, line.dice.low, line.dice.high)


def k_words(shots: int | None) -> str:
    """`k = 3`, or `all masks`."""
    return "all masks" if shots is None else f"k = {shots}"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
