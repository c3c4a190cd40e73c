"""Trains a small objective in a process of its own, so that a test can kill it: `kill_worker.py NAME FOLDER IMAGES`.

Objectives are built by the functions in OBJECTIVES; each returns (objective, stream). Everything is a pure
function of the seed, so two processes that run to the end must leave the same bytes.
"""

import sys
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


def main(name: str, folder: str, images: str, checkpoint_every: str = "40") -> None:
    objective, batches = OBJECTIVES[name]()
    count, every = int(images), int(checkpoint_every)
    network = next(iter(objective.modules().values()))
    fit(
        objective,
        batches,
        Step(Path(folder)),
        images=count,
        seed=SEED,
        fabric=launch(device="cpu", threads=1),
        checkpoint_every=every,
        report_every=every // 2 + 3,
        sample_every=count // 2,
        validate=lambda: -float(sum(p.detach().abs().mean() for p in network.parameters())),
        validate_every=every,
        label=name,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
