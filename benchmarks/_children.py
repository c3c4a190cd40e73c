"""Processes that work when asked: ways of doing one thing take turns, and each has its own memory."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Literal

import psutil
import torch

from fewmask.training.memory import keep_freed_blocks

MIB = 2**20


@dataclass(frozen=True)
class Work:
    """What one asking took, in seconds on the wall and of the processor, and the largest MiB held by then."""

    wall: float
    cpu: float
    peak: float


def resident() -> float:
    """MiB that this process holds."""
    return float(psutil.Process().memory_info().rss / MIB)


def begin() -> float:
    """Set a child up as a training is; the MiB it holds, having only imported."""
    base = resident()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    keep_freed_blocks()
    return base


def serve(work: Callable[[str], Callable[[], object] | None], *told: float) -> None:
    """Say `told`, then work for every line of standard input; what `work` returns is done untimed."""
    print(*told, flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        after = work(line.strip())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
        if after is not None:
            after()
        print(wall, cpu, peak, flush=True)


class Child:
    """`script --child WORDS...` in a process of its own.

    told: what it said when it was ready; done: what it was asked for, in turn, and what that took.
    """

    def __init__(self, script: str, *words: object, threads: int = 1) -> None:
        self.process = subprocess.Popen(
            [sys.executable, script, "--child", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))},
        )
        self.done: list[tuple[str, Work]] = []
        self.told = self._answer()

    def ask(self, what: str = "") -> None:
        """Once, remembered."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        self.done.append((what, Work(*self._answer())))

    def seconds(self, clock: Literal["wall", "cpu"], what: str | None = None) -> list[float]:
        """Of every time it was asked, or asked for that."""
        return [getattr(work, clock) for asked, work in self.done if what in (None, asked)]

    def median(self, clock: Literal["wall", "cpu"]) -> float:
        """Of `seconds`."""
        return median(self.seconds(clock))

    @property
    def peak(self) -> float:
        """MiB, the largest resident size so far."""
        return self.done[-1][1].peak

    def end(self) -> None:
        """Nothing more is asked."""
        self.process.communicate()

    def _answer(self) -> list[float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a child process ended early")
        return [float(word) for word in line.split()]
