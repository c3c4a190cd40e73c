"""Inversions that are really killed: the hash of what is left, beside that of an inversion that never was.

OMP_NUM_THREADS=1 .venv/bin/python benchmarks/kill_inversion.py [--kills 10] [--only NAME]

For a projection with optimised noise, a shared and a per-image pivotal tuning of a very small StyleGAN2: one
process works to its end; then, in another folder, processes are ended by SIGKILL, every second one after a
random time, the others in the midst of writing a checkpoint, until enough were; one more works to its end.
Prints a line each. Leaves with 1 if any two hashes differ.
"""

import argparse
import hashlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _killing import dying_at, ended, fork

from fewmask.core.run import Step
from fewmask.core.seed import integer, stream
from fewmask.inversion.keep import write_inversion
from fewmask.inversion.project import Inversion, project
from fewmask.inversion.pti import Locality, tune_each, tune_together
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.objectives.perceptual import DiscriminatorDistance
from fewmask.training import checkpoint

SEED = 3
IMAGES = 6


def made() -> tuple[Generator, DiscriminatorDistance, np.ndarray]:
    torch.manual_seed(integer(SEED, "kill inversion"))
    small = {"channel_base": 128, "channel_max": 8}
    generator = Generator(8, 8, 16, 1, mapping_layers=2, **small).eval()
    discriminator = Discriminator(16, 1, **small).eval()
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.2)
    images = stream(SEED, "images").uniform(-1, 1, (IMAGES, 1, 16, 16)).astype(np.float32)
    return generator, DiscriminatorDistance(discriminator, layers=2), images


def projection(step: Step, steps: int) -> Inversion:
    generator, distance, images = made()
    return project(
        generator,
        images,
        noise="optimised",
        steps=steps,
        perceptual=distance,
        seed=SEED,
        candidates=0,
        batch_size=4,
        step=step,
        save_every=3,
    )


def shared(step: Step, steps: int) -> Inversion:
    generator, distance, images = made()
    pivot = project(generator, images, steps=2, perceptual=distance, seed=SEED, candidates=0)
    how = {"perceptual": distance, "seed": SEED, "steps": steps, "locality": Locality(), "save_every": 3}
    return tune_together(generator, images, pivot, batch_size=4, step=step, **how).inversion


def each(step: Step, steps: int) -> Inversion:
    generator, distance, images = made()
    pivot = project(generator, images, steps=2, perceptual=distance, seed=SEED, candidates=0)
    how = {"perceptual": distance, "seed": SEED, "steps": steps // IMAGES, "save_every": 3}
    return tune_each(generator, images, pivot, keep_weights=True, step=step, **how).inversion


WORKS: dict[str, Callable[[Step, int], Inversion]] = {
    "projection": projection,
    "shared": shared,
    "each": each,
}


def hash_of(folder: Path) -> str:
    """Of all tensors that are left, by path: latents, pictures, tuned weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def start(name: str, folder: Path, steps: int, *, die_at_flush: int = 0) -> int:
    """Process id of a child that works; it kills itself in the midst of writing, if told so."""

    def work() -> None:
        checkpoint._flush = dying_at(die_at_flush)
        write_inversion(folder / "found.safetensors", WORKS[name](Step(folder / "step"), steps))

    return fork(work)


def trial(name: str, folder: Path, steps: int, kills: int) -> bool:
    started = time.monotonic()
    assert ended(start(name, folder / "whole", steps)) == 0
    seconds = time.monotonic() - started
    killed = tries = 0
    while killed < kills:
        tries += 1
        writing = tries % 2 == 0
        chance = stream(SEED, name, tries)
        child = start(
            name, folder / "killed", steps, die_at_flush=int(chance.integers(1, 12)) if writing else 0
        )
        if not writing:
            time.sleep(chance.uniform(0.1, 1.5) * seconds / kills)
            os.kill(child, signal.SIGKILL)
        code = ended(child)
        if code == 0:  # it was done already: begin anew
            assert hash_of(folder / "killed") == hash_of(folder / "whole")
            folder = folder / "again"
            assert ended(start(name, folder / "whole", steps)) == 0
        killed += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL)
    assert ended(start(name, folder / "killed", steps)) == 0
    hashes = [hash_of(folder / which) for which in ("whole", "killed")]
    same = hashes[0] == hashes[1]
    verdict = "same" if same else "DIFFERENT"
    print(f"{name:10s} whole {hashes[0]}   killed {killed} times {hashes[1]}   {verdict}", flush=True)
    return same


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--only", choices=tuple(WORKS), nargs="*", default=tuple(WORKS))
    told = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        same = [trial(name, Path(folder) / name, told.steps, told.kills) for name in told.only]
    sys.exit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
