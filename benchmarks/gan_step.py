"""One update of StyleGAN2 on chest-sized pictures: images per CPU second, on one thread, and peak memory.

OMP_NUM_THREADS=1 .venv/bin/python benchmarks/gan_step.py [RESULT.json]

CPU seconds, not wall seconds: on a machine that does nothing else on that core they are the same, and on a
busy one only they can be compared. The mean over a whole interval of lazy regularisation is given.
"""

import sys
import time
from pathlib import Path

import torch

from fewmask.core.files import write_json
from fewmask.core.seed import integer
from fewmask.data.batches import Batch
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.objectives.ada import AdaptiveAugmentation
from fewmask.objectives.minimise import Alone
from fewmask.objectives.regularise import Regularisation
from fewmask.objectives.stylegan import StyleGANObjective
from fewmask.training.memory import keep_freed_blocks, memory_mb

CASES = (
    ("64 px, 1024/128, batch 16", 64, 1024, 128, 16, 0.2, 0.0),
    ("64 px, 1024/128, batch 16, no ADA", 64, 1024, 128, 16, None, 0.0),
    ("64 px, 1024/128, batch 16, path length", 64, 1024, 128, 16, 0.2, 2.0),
    ("64 px, 1024/128, batch 8", 64, 1024, 128, 8, 0.2, 0.0),
    ("64 px, 2048/64, batch 8", 64, 2048, 64, 8, 0.2, 0.0),
    ("64 px, 4096/128, batch 8", 64, 4096, 128, 8, 0.2, 0.0),
    ("128 px, 2048/128, batch 8", 128, 2048, 128, 8, 0.2, 0.0),
)
"""Name, pixels, channel_base, channel_max, batch, ADA's p (None: no ADA), path length weight."""

INTERVAL = 8


def measure(size: int, base: int, most: int, batch: int, p: float | None, paths: float) -> float:
    """Images per CPU second over one interval of lazy regularisation, after a first update that warms up."""
    torch.manual_seed(integer(0, "benchmark"))
    generator, average = (
        Generator(128, 128, size, 1, channel_base=base, channel_max=most, mapping_layers=2) for _ in range(2)
    )
    discriminator = Discriminator(size, 1, channel_base=base, channel_max=most)
    learner = StyleGANObjective(
        generator,
        discriminator,
        average,
        batch=batch,
        augment=None if p is None else AdaptiveAugmentation(p=p, images=10**9),
        regularisation=Regularisation(r1_every=INTERVAL, path_length_weight=paths),
    )
    image = torch.rand(batch, 1, size, size) * 2 - 1
    pictures = Batch(image, None, torch.arange(batch))
    started = 0.0
    for number in range(INTERVAL + 1):
        if number == 1:
            started = time.process_time()
        learner.update(pictures, number * batch, Alone())
    return INTERVAL * batch / (time.process_time() - started)


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_blocks()
    rows = []
    for name, *case in CASES:
        rate = measure(*case)
        peak = memory_mb(torch.device("cpu"))["peak_memory_mb"]
        rows.append(
            {"case": name, "images_per_cpu_second": round(rate, 1), "peak_memory_mb_so_far": round(peak)}
        )
        print(f"{name:40} {rate:6.1f} images per CPU second; peak so far {peak:.0f} MB", flush=True)
    if len(sys.argv) > 1:
        write_json(Path(sys.argv[1]), rows)


if __name__ == "__main__":
    main()
