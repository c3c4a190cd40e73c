"""Labelled pairs on the disk by a StyleGAN2 and ten heads: the concatenating way against ours.

    python -m benchmarks factory                        (one thread; some ten minutes on a quiet core)
    python benchmarks/factory.py [--only PART] [--rounds N]

A StyleGAN2 (channel base 32768, at most 512; random weights) draws, ten per-pixel classifiers (128, 32, 4
classes) vote, and `make_pairs` writes image, mask, soft labels and its journal; one pair per round. All ways
draw the same pairs and differ in nothing but what stands here:

"plain"       what DatasetGAN does: one pass of the generator, every map enlarged to full size into one array
              of all channels, which each head reads in turn (float32, no gradient);
"two passes"  our heads as they were asked at first: the generator draws, then runs again for its features;
"ours"        `PairMaker`: one pass for both, maps read at their own size, the heads side by side;
"images"      the generator alone, which no way can beat; nothing is labelled or written.

Each way is a process of its own and they take turns. "CPU s" is the median per pair, "s" that on the wall
with its range, "x" compares CPU seconds, which a busy machine disturbs least. "pairs/s" is one in CPU s: what
a quiet core makes; "10 000" the hours of two such cores, each with a shard. "MiB" is what the process's
largest resident size adds to a process that only imported torch, "working" what it adds to generator and
heads.
"""

import argparse
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _children import Child, begin, resident, serve
from features import dense
from torch import Tensor

from fewmask.networks.generator import Feature, ImageGenerator
from fewmask.networks.pixelhead import PixelHead, resize
from fewmask.networks.stylegan2 import Generator
from fewmask.synthesis.factory import make_pairs, open_pairs
from fewmask.synthesis.features import FeatureStack, GeneratorFeatures
from fewmask.synthesis.pairs import PairMaker, numbered_styles

SEED, MEMBERS, WIDTH = 5, 10, 128
CLASSES = {"lung": 1, "heart": 2, "lesion": 3}
WAYS = ("plain", "two passes", "ours", "images")
TASKS = ("A 128", "A 256", "B 128", "B 256")
CHANNELS = {"128": 4864, "256": 4992}
ABOUT = """
The 4864 (128 px) and 4992 (256 px) feature channels are reached as in features.py:
A  all convolutions but the one at 4 x 4, and the finest map once more (not held twice);
B  the convolution at 4 x 4, both up to 64 px, and one at each finer size.
"""


@dataclass(frozen=True)
class Chosen(GeneratorFeatures):
    """Layers A or B."""

    layers: str = "A"

    def read(self, features: list[Feature]) -> list[Tensor]:
        """As its parent."""
        if self.layers == "A":
            maps = super().read(features)
            return [*maps, maps[-1]]
        return [one.tensor for one in features if one.size <= 64 or one.name.endswith("conv1")]


class Concatenated(FeatureStack):
    """All maps at full size in one array."""

    def drawn(self, generator: ImageGenerator, ws: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As its parent, but one map."""
        image, maps = super().drawn(generator, ws)
        big = torch.empty(1, sum(one.shape[1] for one in maps), *image.shape[2:])
        for one, place in zip(maps, big.split([one.shape[1] for one in maps], dim=1), strict=True):
            place.copy_(resize(one, tuple(image.shape[2:])))
        return image, [big]


class TwoPasses(FeatureStack):
    """As it was: whoever draws the image does not keep its features."""

    def drawn(self, generator: ImageGenerator, ws: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As its parent."""
        image = generator.synthesis(ws, noise="constant").clamp(-1, 1)
        return image, self.maps(image, ws)


class Dense(torch.nn.Module):
    """One head that reads all channels at full size."""

    def __init__(self, head: PixelHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """As `PixelHead`."""
        return dense(self.head, maps[0])[None]


STACKS = {"plain": Concatenated, "two passes": TwoPasses}


def maker(task: str, way: str) -> PairMaker:
    """What draws pairs; its weights do not depend on the way."""
    layers, size = task.split()
    torch.manual_seed(0)
    generator = Generator(512, 512, int(size), 1).eval().requires_grad_(False)
    source = Chosen(generator, layers=layers)
    plan = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128}
    features = [
        Feature(f"conv{last}", side, torch.empty(1, channels, 0, 0))
        for side, channels in plan.items()
        for last in ((1,) if side == 4 else (0, 1))
        if side <= int(size)
    ]
    channels = [int(one.shape[1]) for one in source.read(features)]
    assert sum(channels) == CHANNELS[size]
    head = PixelHead(channels, len(CLASSES) + 1, kind="mlp", width=WIDTH, members=MEMBERS).eval()
    head.initialise(*[torch.Generator().manual_seed(number) for number in range(MEMBERS)])
    heads = [Dense(head.member(number)) for number in range(MEMBERS)] if way == "plain" else [head]
    return PairMaker(generator, heads, STACKS.get(way, FeatureStack)([source]), seed=SEED)


def child(task: str, way: str, folder: str) -> None:
    """Make the pair that is asked for, by number."""
    base = begin()
    draw = maker(task, way)

    def work(word: str) -> None:
        if way == "images":
            with torch.no_grad():
                how = {"truncation": draw.truncation, "truncated_layers": None, "labels": None}
                ws = numbered_styles(draw.generator, SEED, int(word), **how)
                draw.generator.synthesis(ws, noise="constant")
        else:
            make_pairs(Path(folder), draw, int(word) + 1, made_from={"task": task}, classes=CLASSES)

    serve(work, base, resident())


def hash_of(folder: Path) -> str:
    """Of every file."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def compare(plain: Path, ours: Path) -> str:
    """How far two folders of pairs are apart, in words, and how large a pair is."""
    one, other = open_pairs(plain), open_pairs(ours)
    numbers = list(one.records())
    assert numbers == list(other.records())
    masks = np.mean([one.mask(n) != other.mask(n) for n in numbers])
    soft = max(np.abs(one.soft(n)[0].astype(float) - other.soft(n)[0]).max() for n in numbers)
    assert masks < 1e-3, f"{masks:.1e} of the pixels have another class"
    assert soft < 5e-3, f"soft labels differ by {soft:.1e}"
    size = sum(path.stat().st_size for path in ours.glob("*/pair_*")) / len(numbers) / 1024
    return f"{masks:.0e} of pixels of another class, soft labels by {soft:.0e} at most; {size:.0f} KiB a pair"


def measure(task: str, rounds: int) -> tuple[dict[str, Child], str]:
    """All ways, taking turns; and how far plain's pairs are from ours."""
    with tempfile.TemporaryDirectory() as name:
        folders = {way: Path(name) / way for way in WAYS}
        children = {way: Child(__file__, task, way, folder) for way, folder in folders.items()}
        for number in range(rounds):
            for one in children.values():
                one.ask(str(number))
        for one in children.values():
            one.end()
        assert hash_of(folders["two passes"]) == hash_of(folders["ours"])
        return children, compare(folders["plain"], folders["ours"])


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=3)
    asked = parser.parse_args()
    if asked.child:
        return child(*asked.child)
    head = ("task", "way", "pairs/s", "CPU s", "x", "10 000", "s", "(range)", "MiB", "working")
    form = "{:6} {:11} {:>8} {:>7} {:>5} {:>7} {:>8} {:>15} {:>6} {:>8}"
    print(form.format(*head), flush=True)
    for task in TASKS:
        if asked.only not in task:
            continue
        children, apart = measure(task, asked.rounds)
        for way, one in children.items():
            cpu, wall, (base, ready) = one.median("cpu"), one.seconds("wall"), one.told
            cells = (
                f"{1 / cpu:.3f}",
                f"{cpu:.2f}",
                f"{children['plain'].median('cpu') / cpu:.1f}",
                f"{10_000 * cpu / 2 / 3600:.1f} h",
                f"{one.median('wall'):.2f}",
                f"({min(wall):.1f}-{max(wall):.1f})",
                f"{one.peak - base:.0f}",
                f"{one.peak - ready:.0f}",
            )
            print(form.format(task, way, *cells), flush=True)
        print(f"       plain and ours: {apart}\n", flush=True)
    print(ABOUT)
    return None


if __name__ == "__main__":
    main()
