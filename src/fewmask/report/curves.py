"""Training curves from `stats.jsonl`."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from fewmask.report.content import Curve

_NOT_LOSSES = ("images", "seconds", "images_per_second")
_POINTS = 240


def read_curve(name: str, stats_jsonl: Path, *, points: int = _POINTS) -> Curve | None:
    """The series of one training, averaged down to at most `points`; None when there is nothing to show.

    Times, speeds and memory are left out; so is a last line that a crash cut in two.
    """
    lines = read_numbers(stats_jsonl)
    names = dict.fromkeys(key for line in lines for key in line if _is_series(key))
    if not lines or not names:
        return None
    width = math.ceil(len(lines) / points)
    chunks = [lines[start : start + width] for start in range(0, len(lines), width)]
    return Curve(
        name=name,
        images=tuple(float(chunk[-1]["images"]) for chunk in chunks),
        series={key: tuple(_mean(chunk, key) for chunk in chunks) for key in names},
    )


def read_numbers(path: Path) -> list[dict[str, float]]:
    """Every whole line of numbers of a training's log; one that a crash cut in two is left out."""
    if not path.exists():
        return []
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("images"), int | float):
            kept.append({key: value for key, value in line.items() if isinstance(value, int | float)})
    return kept


def _is_series(key: str) -> bool:
    return key not in _NOT_LOSSES and not key.endswith("_mb")


def _mean(chunk: Sequence[Mapping[str, float]], key: str) -> float | None:
    """Mean of the finite values of one series; None where there is none."""
    values = [line[key] for line in chunk if key in line and math.isfinite(line[key])]
    return sum(values) / len(values) if values else None
