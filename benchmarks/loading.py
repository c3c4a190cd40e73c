"""How many images per second `Stream` hands out, by source.

OMP_NUM_THREADS=1 .venv/bin/python benchmarks/loading.py
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from fewmask.core.seed import stream
from fewmask.data.batches import ArraySource, PatchSource, Stream
from fewmask.training.memory import keep_freed_blocks

BATCH, BATCHES = 16, 60


def images_per_second(source: ArraySource | PatchSource) -> float:
    batches = Stream(source, BATCH, seed=0, name="loading")
    batches.at(0)
    started = time.perf_counter()
    for n in range(BATCHES):
        batches.at(n * BATCH)
    return BATCHES * BATCH / (time.perf_counter() - started)


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_blocks()
    chance = stream(0, "loading")
    images = chance.random((1000, 1, 128, 128), dtype=np.float32)
    masks = (images[:, 0] > 0.5).astype(np.uint8)
    volumes = [chance.random((1, 64, 160 + n, 160), dtype=np.float32) for n in range(4)]
    labels = [(volume[0] > 0.99).astype(np.uint8) for volume in volumes]
    print(f"array 128^2, in memory       {images_per_second(ArraySource(images, masks)):9.0f} images/s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, images)
        mapped = np.load(path, mmap_mode="r")
        print(f"array 128^2, memory-mapped   {images_per_second(ArraySource(mapped, masks)):9.0f} images/s")
    patches = PatchSource(volumes, labels, (32, 96, 96))
    print(f"patches 32 x 96^2 of volumes {images_per_second(patches):9.0f} patches/s")


if __name__ == "__main__":
    main()
