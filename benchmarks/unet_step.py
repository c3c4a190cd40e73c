"""One update of the segmenter on one thread: CPU seconds of the U-Net step and of its augmentation.

OMP_NUM_THREADS=1 .venv/bin/python benchmarks/unet_step.py [RESULT.json]
"""

import sys
import time
from pathlib import Path

import torch

from fewmask.core.files import write_json
from fewmask.core.seed import integer
from fewmask.data.augment import StrongAugment
from fewmask.data.batches import Batch
from fewmask.networks.unet import build_unet
from fewmask.objectives.segmentation import Schedule, SegmentationObjective
from fewmask.training.memory import keep_freed_blocks, memory_mb

CASES = (
    ("2-D 64 px", 8, (64, 64), (24, 48, 96, 192), False),
    ("2-D 64 px, bf16", 8, (64, 64), (24, 48, 96, 192), True),
    ("2-D 64 px, narrow", 8, (64, 64), (16, 32, 64, 128), False),
    ("2-D 128 px", 8, (128, 128), (24, 48, 96, 192), False),
    ("2-D 256 px", 2, (256, 256), (24, 48, 96, 192), False),
    ("3-D 40 x 56 x 40", 2, (40, 56, 40), (16, 32, 64, 128), False),
)
"""Name, images per update, their size, widths, bf16."""

CLASSES, UPDATES = 4, 5


def step(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def measure(count: int, size: tuple[int, ...], widths: tuple[int, ...], bf16: bool) -> tuple[float, float]:
    """CPU milliseconds per image of the fastest update: network, augmentation."""
    network = build_unet(len(size), 1, CLASSES, widths)
    learner = SegmentationObjective(network, Schedule(1e-3, 1000), classes=CLASSES)
    chance = torch.Generator().manual_seed(integer(0, "benchmark"))
    image = torch.rand(count, 1, *size, generator=chance) * 2 - 1
    mask = torch.randint(0, CLASSES, (count, *size), generator=chance)
    learning, augmenting = [], []
    for number in range(UPDATES):
        started = time.process_time()
        batch = Batch(*StrongAugment()(image, mask, chance), torch.arange(count))
        middle = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            learner.update(batch, number * count, step)
        augmenting.append(middle - started)
        learning.append(time.process_time() - middle)
    return min(learning) * 1e3 / count, min(augmenting) * 1e3 / count


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_blocks()
    rows = []
    for name, count, size, widths, bf16 in CASES:
        network, augment = measure(count, size, widths, bf16)
        peak = memory_mb(torch.device("cpu"))["peak_memory_mb"]
        rows.append({"case": name, "network_ms": round(network, 2), "augment_ms": round(augment, 3)})
        print(
            f"{name:20} U-Net {network:7.1f} ms per image, augmentation {augment:6.2f} ms; peak {peak:.0f} MB"
        )
    if len(sys.argv) > 1:
        write_json(Path(sys.argv[1]), rows)


if __name__ == "__main__":
    main()
