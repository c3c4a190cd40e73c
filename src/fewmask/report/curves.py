"""Training curves from `stats.jsonl`."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from fewmask.report.content import Curve, Watched

WATCHED = "watched_iou"
"""Name under which a training logs the mean IoU that is watched and chooses nothing."""

_NOT_LOSSES = ("images", "seconds", "images_per_second", WATCHED)
_POINTS = 240


def read_curve(name: str, stats_jsonl: Path, *, points: int = _POINTS) -> Curve | None:
    """The series of one training, averaged down to at most `points`; None when there is nothing to show.

    Times, speeds, memory and the watched IoU are left out; so is a last line that a crash cut in two.
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


def read_watched(step: str, arm: str, shots: int | None, stats_jsonl: Path) -> Watched | None:
    """The watched IoU of one training over the share of its images; None when it was not watched."""
    lines = read_numbers(stats_jsonl)
    points = [line for line in lines if math.isfinite(line.get(WATCHED, math.nan))]
    last = max((line["images"] for line in lines), default=0.0)
    if not points or last <= 0:
        return None
    done = tuple(line["images"] / last for line in points)
    return Watched(step, arm, shots, done, tuple(line[WATCHED] for line in points))


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
