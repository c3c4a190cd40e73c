"""Two processes against one: how far apart a StyleGAN2 is after 50 steps at the same global batch.

OMP_NUM_THREADS=1 .venv/bin/python benchmarks/two_processes.py [--steps 50]

A very small StyleGAN2 with R1, path length, mixed styles, the minibatch deviation, adaptive augmentation and
averages is trained in one process, in two (gloo) and in two micro-batches. Prints the largest relative
difference of a weight tensor, |a - b| / |a|, for float32 and float64.
"""

import argparse
import os
import socket
import tempfile
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewmask.core.run import Step
from fewmask.core.seed import integer, stream
from fewmask.data.batches import ArraySource, Batch, Stream
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.objectives.ada import AdaptiveAugmentation
from fewmask.objectives.minimise import Minimise
from fewmask.objectives.regularise import Regularisation
from fewmask.objectives.stylegan import StyleGANObjective
from fewmask.training.checkpoint import read_tensors
from fewmask.training.launch import launch
from fewmask.training.loop import fit

SEED = 7
TRIALS = (("float32", 16), ("float64", 16), ("float32", 8), ("float64", 8))


@dataclass(frozen=True)
class Training:
    """One training: its numbers, its global batch, and how the batch is divided."""

    dtype: str
    batch: int
    steps: int
    processes: int = 1
    parts: int = 1


class Cast(StyleGANObjective):
    """The objective with images in the type of its networks."""

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> dict[str, Tensor | float]:
        """As its parent."""
        dtype = next(self.generator.parameters()).dtype
        return super().update(replace(batch, image=batch.image.to(dtype)), images_seen, minimise)


def train(folder: Path, told: Training) -> None:
    """What every process of a training does."""
    fabric = launch(devices=told.processes, threads=1)
    torch.manual_seed(integer(SEED, "initial"))
    small = {"channel_base": 64, "channel_max": 8}
    dtype = getattr(torch, told.dtype)
    generator, average = (Generator(8, 8, 16, 1, mapping_layers=2, **small).to(dtype) for _ in range(2))
    objective = Cast(
        generator,
        Discriminator(16, 1, **small).to(dtype),
        average,
        batch=told.batch,
        augment=AdaptiveAugmentation(p=0.3, images=500),
        regularisation=Regularisation(r1_every=4, path_length_weight=2.0),
    )
    images = stream(SEED, "images").random((50, 1, 16, 16), dtype=np.float32) * 2 - 1
    fit(
        objective,
        Stream(ArraySource(images), told.batch, seed=SEED, name="train"),
        Step(folder),
        images=told.batch * told.steps,
        seed=SEED,
        fabric=fabric,
        checkpoint_every=told.batch * told.steps,
        report_every=told.batch * told.steps,
        parts=told.parts,
        label="training",
    )


def weights(folder: Path, told: Training) -> dict[str, Tensor]:
    """All weights and buffers at the end of a training, which is done in forks of this process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(told.processes):
        children.append(os.fork())
        if children[-1] == 0:
            count = told.processes
            words = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
            words |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            words |= {"TORCHELASTIC_RUN_ID": "two"}
            os.environ.update({key: str(value) for key, value in words.items()} if count > 1 else {})
            work(folder, told)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert set(codes) == {0}, codes
    found = read_tensors(Step(folder).checkpoint(told.batch * told.steps).tensors)
    return {key: value.double() for key, value in found.items() if key.startswith("module/")}


def work(folder: Path, told: Training) -> None:
    """What a fork does; it never returns."""
    code = 99
    try:
        train(folder, told)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest relative difference of a tensor."""
    assert one.keys() == other.keys()
    return max(float((one[k] - other[k]).norm() / one[k].norm().clamp(min=1e-3)) for k in one)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=50)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    print(f"{steps} steps of StyleGAN2, largest relative difference of a weight tensor to one process\n")
    print(f"{'numbers':9s}{'batch':>6s}{'two processes':>16s}{'two micro-batches':>20s}", flush=True)
    for dtype, batch in TRIALS:
        told = Training(dtype, batch, steps)
        with tempfile.TemporaryDirectory() as folder:
            whole = weights(Path(folder) / "whole", told)
            pair = weights(Path(folder) / "pair", replace(told, processes=2))
            parts = weights(Path(folder) / "parts", replace(told, parts=2))
        two, pieces = (f"{difference(whole, other):.0e}" for other in (pair, parts))
        print(f"{dtype:9s}{batch:6d}{two:>16s}{pieces:>20s}", flush=True)


if __name__ == "__main__":
    main()
