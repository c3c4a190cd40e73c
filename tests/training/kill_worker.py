"""Trains a small objective in processes that are killed: `kill_worker.py NAME FOLDER IMAGES EVERY KILLS`.

KILLS times a process is forked that trains and is ended by SIGKILL: at a random moment, while it writes a
checkpoint, or right after it wrote one. Then one more runs to the end. With KILLS = 0 nothing is killed.
Objectives are built by the functions in OBJECTIVES; each returns (objective, stream). Everything is a pure
function of the seed, so whatever was killed on the way, the same bytes must be left.
"""

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fewmask.core.run import Step
from fewmask.core.seed import integer, stream
from fewmask.data.batches import ArraySource, Batch, Stream
from fewmask.training.ema import average_weights
from fewmask.training.launch import launch
from fewmask.training.loop import Minimise, fit

SEED = 7


class TinyObjective:
    """A conv net with batch norm, dropout, an averaged copy, Adam, and a number of its own."""

    def __init__(self, *, width: int = 4, spoil_at: int | None = None) -> None:
        torch.manual_seed(integer(SEED, "initial"))
        self.network = self._build(width)
        self.average = self._build(width).requires_grad_(False)
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-2, betas=(0.5, 0.99))
        self.heat = 0.0
        self.spoil_at = spoil_at

    @staticmethod
    def _build(width: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.Dropout(0.2), nn.Conv2d(width, 2, 1)
        )

    def modules(self) -> Mapping[str, nn.Module]:
        return {"network": self.network, "average": self.average}

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"network": self.optimizer}

    def state(self) -> Mapping[str, float]:
        return {"heat": self.heat}

    def load_state(self, state: Mapping[str, float]) -> None:
        self.heat = state["heat"]

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        noisy = batch.image + 0.1 * torch.randn_like(batch.image)
        loss = nn.functional.cross_entropy(self.network(noisy), batch.mask) * (1 + 0.01 * self.heat)
        if self.spoil_at is not None and images_seen >= self.spoil_at:
            loss = loss * float("nan")
        minimise(loss, self.optimizer)
        average_weights(
            self.average, self.network, batch=len(batch), images_seen=images_seen, half_life=100, ramp=0.5
        )
        self.heat = 0.9 * self.heat + 0.1 * float(loss.detach())
        return {"loss": loss, "heat": self.heat}

    def samples(self) -> Tensor:
        return torch.tanh(self.average(torch.randn(4, 1, 16, 16)))[:, :1]


def tiny_stream() -> Stream:
    chance = stream(SEED, "images")
    images = chance.standard_normal((23, 1, 16, 16), dtype=np.float32).clip(-1, 1)
    return Stream(ArraySource(images, (images[:, 0] > 0).astype(np.uint8)), 4, seed=SEED, name="train")


def tiny() -> tuple[TinyObjective, Stream]:
    return TinyObjective(), tiny_stream()


OBJECTIVES: dict[str, Callable] = {"tiny": tiny}


def train(name: str, folder: Path, images: int, every: int) -> None:
    objective, batches = OBJECTIVES[name]()
    network = next(iter(objective.modules().values()))
    fit(
        objective,
        batches,
        Step(folder),
        images=images,
        seed=SEED,
        fabric=launch(device="cpu", threads=1),
        checkpoint_every=every,
        report_every=max(every // 2 - 1, 1),
        sample_every=max(images // 2, 1),
        validate=lambda: math.sin(20 * sum(p.abs().mean().item() for p in network.parameters())),
        validate_every=every,
        label=name,
    )


def fork(name: str, folder: Path, images: int, every: int) -> int:
    """Process id of a child that trains to the end."""
    child = os.fork()
    if child == 0:
        try:
            train(name, folder, images, every)
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
    return child


def alive(child: int) -> bool:
    return os.waitpid(child, os.WNOHANG) == (0, 0)


def kill(child: int, step: Step, how: str, after: float) -> str:
    """Kill the child; returns what it was doing: "training", "writing", "written" or "finished"."""
    before = set(step.checkpoints.glob("[0-9]*"))
    deadline = time.monotonic() + after
    while alive(child):
        writing = any(step.checkpoints.glob(".0*.tmp"))
        written = bool(set(step.checkpoints.glob("[0-9]*")) - before)
        if (how == "training" and time.monotonic() > deadline) or (how == "writing" and writing):
            break
        if how == "written" and written:
            break
    else:
        return "finished"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "writing" if any(step.checkpoints.glob(".0*.tmp")) else how


def main(name: str, folder: str, images: str, every: str, kills: str) -> None:
    step = Step(Path(folder))
    torch.set_num_threads(1)
    for number in range(int(kills)):
        how = ("training", "writing", "written")[number % 3]
        child = fork(name, step.folder, int(images), int(every))
        done = kill(child, step, how, after=stream(SEED, "kill", number).uniform(0.1, 0.8))
        sys.stdout.write(f"{done}\n")
    child = fork(name, step.folder, int(images), int(every))
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
