"""Trains a small objective in processes that are killed: `kill_worker.py NAME FOLDER IMAGES EVERY KILLS`.

KILLS times a process is forked that trains and is ended by SIGKILL: in turn at a random moment, in the midst
of writing a checkpoint, and right after one was written. Then one more runs to the end.
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
from fewmask.data.batches import ArraySource, Batch, PatchSource, Stream
from fewmask.objectives.average import follow, share_kept
from fewmask.training import checkpoint
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
        follow(self.average, self.network, share_kept(len(batch), min(100, 0.5 * images_seen)))
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


def unet() -> tuple[object, Stream]:
    """The segmenter's network and objective with its moving average, strongly augmented patches."""
    from fewmask.data.augment import StrongAugment  # noqa: PLC0415 - MONAI takes seconds to import
    from fewmask.networks.unet import build_unet  # noqa: PLC0415
    from fewmask.objectives.segmentation import Schedule, SegmentationObjective  # noqa: PLC0415

    torch.manual_seed(integer(SEED, "initial"))
    network = build_unet(2, 1, 3, (4, 8))
    objective = SegmentationObjective(network, Schedule(1e-2, 600), classes=3, average=50)
    chance = stream(SEED, "images")
    images = [chance.random((1, 20 + n, 24), dtype=np.float32) for n in range(5)]
    masks = [(image[0] * 3).astype(np.uint8) for image in images]
    source = PatchSource(images, masks, (16, 16))
    return objective, Stream(source, 4, seed=SEED, name="train", augment=StrongAugment())


def stylegan2() -> tuple[object, Stream]:
    """A very small StyleGAN2 with mixing, R1, path length and adaptive augmentation at work."""
    from fewmask.networks.stylegan2 import Discriminator, Generator  # noqa: PLC0415
    from fewmask.objectives.ada import AdaptiveAugmentation  # noqa: PLC0415
    from fewmask.objectives.regularise import Regularisation  # noqa: PLC0415
    from fewmask.objectives.stylegan import StyleGANObjective  # noqa: PLC0415

    torch.manual_seed(integer(SEED, "initial"))
    small = {"channel_base": 64, "channel_max": 8}
    generator, average = (Generator(8, 8, 16, 1, mapping_layers=2, **small) for _ in range(2))
    objective = StyleGANObjective(
        generator,
        Discriminator(16, 1, **small),
        average,
        batch=4,
        augment=AdaptiveAugmentation(p=0.3, images=500),
        regularisation=Regularisation(r1_every=4, path_length_weight=2.0),
    )
    images = stream(SEED, "images").random((23, 1, 16, 16), dtype=np.float32) * 2 - 1
    return objective, Stream(ArraySource(images), 4, seed=SEED, name="train")


OBJECTIVES: dict[str, Callable] = {"tiny": tiny, "unet": unet, "stylegan2": stylegan2}


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


def die_while_writing(flush: int) -> None:
    """From now on this process kills itself at the given flush: 1 tensors, 2 numbers, 3 folder, 4 renamed."""
    flushed = []

    def flush_or_die(path: Path) -> None:
        flushed.append(path)
        if len(flushed) == flush:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint._flush = flush_or_die


def fork(work: Callable[[], None]) -> int:
    """Process id of a child that does the work."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
    return child


def kill(child: int, step: Step, how: str, delay: float) -> str:
    """Wait for the moment to kill the child, and do; returns how it ended: `how`, or "finished"."""

    def seen() -> set[object]:
        reports = step.stats_jsonl.read_text().count("\n") if step.stats_jsonl.exists() else 0
        return {reports} if how == "training" else set(step.checkpoints.glob("[0-9]*"))

    before = seen()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return how if os.WIFSIGNALED(status) else f"finished {status}"
        if how != "writing" and seen() - before:
            break
        time.sleep(1e-3)
    time.sleep(delay if how == "training" else 0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return how


def main(name: str, folder: str, images: str, every: str, kills: str) -> None:
    step = Step(Path(folder))
    OBJECTIVES[name]()  # import what it needs before the forks do, each anew
    torch.set_num_threads(1)

    def work(flush: int = 0) -> None:
        die_while_writing(flush)
        train(name, step.folder, int(images), int(every))

    for number in range(int(kills)):
        how = ("training", "writing", "written")[number % 3]
        child = fork(lambda flush=1 + number // 3 if how == "writing" else 0: work(flush))
        done = kill(child, step, how, delay=stream(SEED, "kill", number).uniform(0, 0.05))
        sys.stdout.write(f"{done}\n")
    _, status = os.waitpid(fork(lambda: train(name, step.folder, int(images), int(every))), 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(*sys.argv[1:])
