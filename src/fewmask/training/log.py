"""What a training tells: lines of numbers, a progress bar or plain lines, and grids of pictures."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from fewmask.core.files import make_folder, write_atomic, write_error, write_text
from fewmask.training.memory import memory_mb


class Mean:
    """Averages of logged numbers since the last report. Its sums are part of a checkpoint."""

    def __init__(self, sums: Mapping[str, tuple[float, int]] | None = None) -> None:
        self.sums = {name: (float(total), int(count)) for name, (total, count) in (sums or {}).items()}

    def add(self, numbers: Mapping[str, float]) -> None:
        """Count one more value of each."""
        for name, value in numbers.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = total + value, count + 1

    def take(self) -> dict[str, float]:
        """The averages, and start again."""
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means


class Log:
    """stats.jsonl and the terminal. Only the first process writes.

    On a terminal a bar shows remaining time, speed and memory; elsewhere every report is one plain line.
    """

    def __init__(
        self, path: Path, *, label: str, images: int, images_seen: int, active: bool, device: torch.device
    ) -> None:
        self.path, self.label, self.images, self.active, self.device = path, label, images, active, device
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self.mark = (time.monotonic(), images_seen)
        self.rate = 0.0
        if not active:
            return
        _drop_lines_after(path, images_seen)
        if self.console.is_terminal and images_seen < images:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(20),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task(label, total=images, completed=images_seen, note="")
            self.bar.start()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance(self, images_seen: int) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(self.task, completed=images_seen)

    def report(self, images_seen: int, seconds: float, means: Mapping[str, float]) -> None:
        """Write one line of numbers and show the most important of them."""
        if not self.active:
            return
        now = time.monotonic()
        rate = (images_seen - self.mark[1]) / max(now - self.mark[0], 1e-9)
        self.mark = now, images_seen
        memory = memory_mb(self.device)
        line: dict[str, Any] = {
            "images": images_seen,
            "seconds": round(seconds, 3),
            "images_per_second": round(rate, 3),
        }
        line |= {name: round(value, 1) for name, value in memory.items()} | dict(means)
        _append(self.path, json.dumps(line))
        shown = " ".join(f"{name} {value:.4g}" for name, value in list(means.items())[:6])
        speed = f"{rate:.1f} images/s, {memory['memory_mb']:.0f} MB"
        if self.bar is not None:
            self.bar.update(self.task, note=speed)
            self.say(f"{images_seen} images: {shown}")
            return
        left = (self.images - images_seen) / max(rate, 1e-9)
        self.say(f"{self.label} {images_seen}/{self.images} images, {speed}, {duration(left)} left: {shown}")

    def say(self, text: str) -> None:
        """One plain line on the terminal."""
        if self.active:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as "1:02:03"."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def save_grid(path: Path, images: Tensor, *, columns: int | None = None) -> Path:
    """Write images (N,C,H,W) in [-1,1] as one PNG; C = 1 or 3 as it is, else the first channel in grey."""
    pixels = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    if pixels.shape[1] != 3:
        pixels = pixels[:, :1]
    count, channels, height, width = pixels.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * columns, channels, height, width), dtype=np.uint8)
    sheet[:count] = pixels
    grid = sheet.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    picture = grid.reshape(rows * height, columns * width, channels)
    image = Image.fromarray(picture if channels == 3 else picture[..., 0])
    return write_atomic(path, lambda temporary: image.save(temporary, format="PNG"))


def _append(path: Path, line: str) -> None:
    make_folder(path.parent)
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
    except OSError as error:
        raise write_error(path, error) from error


def _drop_lines_after(path: Path, images_seen: int) -> None:
    """Keep the whole lines up to `images_seen`, so that a resumed training writes the rest once more."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            images = json.loads(line)["images"]
        except (ValueError, KeyError, TypeError):
            break
        if images <= images_seen:
            kept.append(line + "\n")
    write_text(path, "".join(kept))
