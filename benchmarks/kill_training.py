"""GAN trainings that are really killed: the hash of what is left, beside that of a training that never was.

OMP_NUM_THREADS=1 .venv/bin/python benchmarks/kill_training.py [--kills 10] [--only NAME]

A very small StyleGAN2 with R1, path length, mixed styles, adaptive augmentation and averages is trained to
its end. Then, in another folder, trainings are ended by SIGKILL at random moments (every third one in the
midst of writing a checkpoint, every fourth one by SIGTERM, which writes a checkpoint first), until enough
were; one more works to its end. "bf16" is the same in bfloat16, "pair" in two processes of which one is
killed. Prints a line each. Leaves with 1 if any two hashes differ.
"""

import argparse
import hashlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _killing import dying_at, ended, fork

from fewmask.core.run import Step
from fewmask.core.seed import integer, stream
from fewmask.data.batches import ArraySource, Stream
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.objectives.ada import AdaptiveAugmentation
from fewmask.objectives.regularise import Regularisation
from fewmask.objectives.stylegan import StyleGANObjective
from fewmask.training import checkpoint
from fewmask.training.launch import alone, launch
from fewmask.training.loop import fit

SEED, BATCH = 3, 8
NAMES = ("single", "bf16", "pair")


def made() -> tuple[StyleGANObjective, Stream]:
    torch.manual_seed(integer(SEED, "kill training"))
    small = {"channel_base": 64, "channel_max": 8}
    generator, average = (Generator(8, 8, 16, 1, mapping_layers=2, **small) for _ in range(2))
    objective = StyleGANObjective(
        generator,
        Discriminator(16, 1, **small),
        average,
        batch=BATCH,
        augment=AdaptiveAugmentation(p=0.3, images=500),
        regularisation=Regularisation(r1_every=4, path_length_weight=2.0),
    )
    images = stream(SEED, "images").uniform(-1, 1, (50, 1, 16, 16)).astype(np.float32)
    return objective, Stream(ArraySource(images), BATCH, seed=SEED, name="train")


def train(name: str, folder: Path, images: int) -> None:
    fabric = (
        launch(devices=2, threads=1) if name == "pair" else alone("cpu", "bf16" if name == "bf16" else "fp32")
    )
    objective, batches = made()
    fit(
        objective,
        batches,
        Step(folder),
        images=images,
        seed=SEED,
        fabric=fabric,
        checkpoint_every=images // 12,
        report_every=images // 6,
        label=name,
    )


def hash_of(folder: Path, images: int) -> str:
    """Of the last checkpoint: weights, optimisers, ADA, sums of the log; only the seconds are left out."""
    last = Step(folder).checkpoint(images)
    numbers = json.loads(last.numbers.read_text())["state"]
    del numbers["progress"]["seconds"]
    digest = hashlib.sha256(last.tensors.read_bytes() + json.dumps(numbers, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def start(name: str, folder: Path, images: int, *, die_at_flush: int = 0) -> list[int]:
    """Process ids of the training's processes; the first kills itself in the midst of writing, if told so."""
    ranks = 2 if name == "pair" else 1
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def work(rank: int) -> None:
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        told |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        told |= {"TORCHELASTIC_RUN_ID": "kill"}
        os.environ.update({key: str(value) for key, value in told.items()} if ranks > 1 else {})
        checkpoint._flush = dying_at(die_at_flush)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # progress and messages of the killed
        train(name, folder, images)

    return [fork(partial(work, rank)) for rank in range(ranks)]


def every_end(children: list[int]) -> list[int]:
    return [ended(child) for child in children]


def trial(name: str, folder: Path, images: int, kills: int) -> bool:
    started = time.monotonic()
    assert set(every_end(start(name, folder / "whole", images))) == {0}
    seconds = time.monotonic() - started
    expected, killed, stopped, tries = hash_of(folder / "whole", images), 0, 0, 0
    same = True
    while killed < kills:
        tries += 1
        chance = stream(SEED, name, tries)
        writing, softly = tries % 3 == 0, tries % 4 == 0
        flush = int(chance.integers(1, 9)) if writing else 0
        children = start(name, folder / "killed", images, die_at_flush=flush)
        if not writing:
            time.sleep(chance.uniform(0.05, 2) * seconds / kills)
            os.kill(children[-1], signal.SIGTERM if softly else signal.SIGKILL)
        codes = every_end(children)
        killed += codes[0 if writing else -1] == -signal.SIGKILL
        stopped += codes[-1] == 75
        assert all(code in (0, 1, 75, -signal.SIGKILL, -signal.SIGTERM) for code in codes), codes
        if set(codes) == {0}:  # it was done already: look, and begin anew
            same = same and hash_of(folder / "killed", images) == expected
            (folder / "killed").rename(folder / f"done-{tries}")
    assert set(every_end(start(name, folder / "killed", images))) == {0}
    found = hash_of(folder / "killed", images)
    same = same and found == expected
    verdict = "same" if same else "DIFFERENT"
    print(
        f"{name:7s} whole {expected}   killed {killed} and stopped {stopped} times {found}   {verdict}",
        flush=True,
    )
    return same


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--images", type=int, default=960)
    parser.add_argument("--only", choices=NAMES, nargs="*", default=NAMES)
    told = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    with tempfile.TemporaryDirectory() as folder:
        same = [trial(name, Path(folder) / name, told.images, told.kills) for name in told.only]
    sys.exit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
