"""Labelling a generated image with ten heads, and training them: the concatenating way against ours.

    python -m benchmarks features                       (one thread; some ten minutes on a quiet core)
    python benchmarks/features.py [--only PART] [--rounds N]

"plain" is what the papers do: every map is enlarged to full size (bilinear), all are concatenated, and each
head reads the whole in turn. "ours" is networks/pixelhead.py. Weights and maps are random and the same in
both; the generator itself is not run. Logits are compared first (largest difference over the spread). Each
way is a process of its own and they take turns, so that both meet the same weather on a shared machine.

A labelling starts at the generator's maps. A training step is one update (cross-entropy and soft Dice, Adam)
on one labelled image; there "plain" has its concatenated features at hand and only ours starts at the maps.
"s" is the median with its range, "CPU s" the median; "x" compares CPU seconds, which a busy machine disturbs
least. "features" is what the heads read. "MiB" is what the process's largest resident size adds to a process
that only imported torch, maps included; "beyond maps" leaves the generator's maps out.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from _children import Child, begin, resident, serve
from torch import Tensor

from fewmask.data.batches import Batch
from fewmask.networks.pixelhead import PixelHead, resize
from fewmask.objectives.minimise import Alone
from fewmask.objectives.pixelhead import PixelHeadObjective
from fewmask.objectives.segmentation import cross_entropy, soft_dice_loss, targets_of

CLASSES, WIDTH = 4, 128
COARSE = tuple((512, size) for size in (8, 8, 16, 16, 32, 32, 64, 64))
LAYERS = {
    "A 128": (*COARSE, *[(256, 128)] * 3),
    "A 256": (*COARSE, *[(256, 128)] * 2, *[(128, 256)] * 3),
    "B 128": ((512, 4), *COARSE, (256, 128)),
    "B 256": ((512, 4), *COARSE, (256, 128), (128, 256)),
}
"""Channels and size of every map; 4864 channels at 128 px, 4992 at 256 px."""
ABOUT = """
StyleGAN2 config-f (channel base 32768, at most 512) has 4608 channels at 128 px and 4864 at 256 px in all its
convolutions but the one at 4 x 4. The asked 4864 and 4992 channels are reached in two ways:
A  all convolutions but the one at 4 x 4, and one more map of the finest size: the less favourable to ours,
   whose work is in the finest maps;
B  the convolution at 4 x 4, both up to 64 px, and one at each finer size.
Ours multiplies each map at its own size: A 128 takes 4.4 times less arithmetic in the first layer than plain,
A 256 8.4, B 128 8.2, B 256 18. That bounds what the exact float32 computation can gain; the convolutional
heads' 3 x 3 layers are the same in both. No bfloat16 is used, which would not hold 1e-5.
"""


@dataclass(frozen=True)
class Task:
    """A row pair of the table."""

    what: str
    layers: str
    kind: str
    heads: int

    @property
    def name(self) -> str:
        """As in the table."""
        heads = f"{self.heads} {self.kind} head{'s' if self.heads > 1 else ''}"
        return f"{self.what} {self.layers}, {heads}"

    @property
    def size(self) -> int:
        """Pixels along a side."""
        return int(self.layers.split()[1])


TASKS = [
    Task("label", "A 128", "mlp", 10),
    Task("label", "A 256", "mlp", 10),
    Task("label", "B 128", "mlp", 10),
    Task("label", "B 256", "mlp", 10),
    Task("label", "A 128", "S", 10),
    Task("label", "A 256", "S", 10),
    Task("train", "A 256", "mlp", 1),
    Task("train", "A 256", "mlp", 10),
    Task("train", "A 256", "S", 1),
]


def concatenated(maps: list[Tensor], size: int) -> Tensor:
    """All maps at full size, one after the other."""
    return torch.cat([resize(one, (size, size)) for one in maps], dim=1)


def dense(head: PixelHead, big: Tensor) -> Tensor:
    """The published computation of one head that does not standardise: logits (B, classes, H, W)."""
    first = F.conv2d(big, head.first.weight[:, :, None, None], head.first.bias)
    logits: Tensor = head.rest(first)
    return logits


class Worker:
    """One way of one task."""

    def __init__(self, task: Task, way: str) -> None:
        torch.manual_seed(0)
        self.task, self.way = task, way
        self.size = (task.size, task.size)
        self.maps = [torch.randn(1, channels, side, side) for channels, side in LAYERS[task.layers]]
        self.mask = torch.randint(0, CLASSES, (1, *self.size))
        self.maps_mib = resident()
        channels = [one.shape[1] for one in self.maps]
        head = PixelHead(channels, CLASSES, kind=task.kind, width=WIDTH, members=task.heads)
        head.initialise(*[torch.Generator().manual_seed(number) for number in range(task.heads)])
        self.features = sum(one.numel() * 4 for one in self.maps) / 2**20
        if way == "plain":
            self.features = sum(channels) * task.size**2 * 4 / 2**20
            self.heads = [head.member(number) for number in range(task.heads)]
        else:
            self.head = head
        if task.what == "train":  # only now: making an optimiser imports 60 MiB
            self.prepare()

    def prepare(self) -> None:
        """Optimisers, and plain's features."""
        if self.way == "plain":
            self.adams = [torch.optim.Adam(one.parameters(), 1e-3, weight_decay=1e-3) for one in self.heads]
            self.big = concatenated(self.maps, self.task.size)
        else:
            self.objective = PixelHeadObjective(self.head, lambda image, ws: self.maps, images=10**9)

    def label(self) -> Tensor:
        """Logits (heads, 1, classes, H, W)."""
        with torch.no_grad():
            if self.way == "ours":
                return self.head(self.maps, self.size)
            big = concatenated(self.maps, self.task.size)
            return torch.stack([dense(head, big) for head in self.heads])

    def train(self) -> Tensor:
        """The mean cross-entropy and Dice loss of the heads before the update."""
        if self.way == "ours":
            batch = Batch(torch.zeros(1, 1, *self.size), self.mask, torch.zeros(1, dtype=torch.long))
            told = self.objective.update(batch, 0, Alone())
            return torch.tensor([float(told["cross_entropy"]), float(told["dice_loss"])])
        losses = []
        target, judged = targets_of(self.mask, CLASSES)
        for head, adam in zip(self.heads, self.adams, strict=True):
            log_p = F.log_softmax(dense(head, self.big), dim=1)
            terms = cross_entropy(log_p, target), soft_dice_loss(log_p.exp(), target, judged)
            adam.zero_grad()
            sum(terms).backward()
            adam.step()
            losses.append(torch.stack(terms).detach())
        return torch.stack(losses).mean(dim=0)


def child(number: int, way: str, result: str) -> None:
    """Work once for every line on standard input; what was found goes to the file `result`."""
    base = begin()
    worker = Worker(TASKS[number], way)

    def work(_: str) -> Callable[[], object]:
        found = getattr(worker, worker.task.what)()
        return lambda: np.save(result, found.numpy())

    serve(work, worker.features, base, worker.maps_mib)


def measure(number: int, rounds: int) -> tuple[dict[str, Child], float]:
    """Both ways, taking turns; and the largest difference of what they found, over its spread."""
    with tempfile.TemporaryDirectory() as folder:
        results = {way: Path(folder) / f"{way}.npy" for way in ("plain", "ours")}
        children = {way: Child(__file__, number, way, path) for way, path in results.items()}
        for _ in range(rounds):
            for one in children.values():
                one.ask()
        for one in children.values():
            one.end()
        plain, ours = (np.load(path) for path in results.values())
    return children, float(np.abs(plain - ours).max() / plain.std())


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=3)
    asked = parser.parse_args()
    if asked.child:
        return child(int(asked.child[0]), *asked.child[1:])
    head = ("task", "way", "s", "(range)", "CPU s", "x", "features", "MiB", "beyond maps", "difference")
    form = "{:30} {:6} {:>7} {:>15} {:>7} {:>5} {:>9} {:>7} {:>12} {:>11}"
    print(form.format(*head), flush=True)
    for number, task in enumerate(TASKS):
        if asked.only not in task.name:
            continue
        children, error = measure(number, asked.rounds)
        assert error < (1e-5 if task.what == "label" else 1e-3), f"plain and ours differ by {error:.1e}"
        plain = children["plain"]
        for way, one in children.items():
            wall, (features, base, maps) = one.seconds("wall"), one.told
            cells = (
                f"{one.median('wall'):.3f}",
                f"({min(wall):.2f}-{max(wall):.2f})",
                f"{one.median('cpu'):.3f}",
                f"{plain.median('cpu') / one.median('cpu'):.1f}",
                f"{features:.0f}",
                f"{one.peak - base:.0f}",
                f"{one.peak - maps:.0f}",
                "" if way == "plain" else f"{error:.0e}",
            )
            print(form.format(task.name, way, *cells), flush=True)
    print(ABOUT)
    return None


if __name__ == "__main__":
    main()
