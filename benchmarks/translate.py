"""One training step of CycleGAN and pix2pix against the plain way: seconds, memory, at 128 px.

    python -m benchmarks translate                      (two threads; some minutes on two quiet cores)
    python benchmarks/translate.py [--quick] [--only PART] [--threads N]

Each kind of a row is a process of its own, all with the same weights and images. "plain" is
plain_cyclegan.py: the published networks and passes in the published order. The processes take turns step by
step, so that all meet the same weather on a shared machine; medians are told. "ours" is the update that a
training makes (`CycleGANObjective`, `Pix2PixObjective`), history and optimisers included; "ours, bf16"
computes under autocast. The second "x plain" compares CPU seconds, which a busy machine disturbs least.
Memory is the process's largest resident size; in brackets, what it adds to a process that only imported.
"""

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import plain_cyclegan as plain
import torch
from _children import Child, begin, serve
from torch import Tensor

from fewmask.data.batches import ArraySource, Batch, Stream
from fewmask.networks.cyclegan import PatchDiscriminator, ResNetGenerator
from fewmask.networks.cyclegan_names import (
    from_published_discriminator,
    from_published_generator,
    from_published_unet,
)
from fewmask.networks.pix2pix import UNetGenerator
from fewmask.objectives.cyclegan import CycleGANObjective, Players, Rate
from fewmask.objectives.minimise import Alone
from fewmask.objectives.pix2pix import Pix2PixObjective

SIZE = 128
KINDS = ("plain", "ours", "ours, bf16")
RATE = Rate(2e-4, 10**6)
TRIED = """
Where the time goes, and what was tried (CPU time of one core with AVX-512):
* Winograd's F(4x4, 3x3) with reflected borders for the residual blocks, 85 % of the arithmetic: a block's
  convolution of 256 channels at 32 px, there and back, 33 ms against 42 for one image, 23 against 43 for two,
  19 against 35 for four. The transform of the weights is paid per pass, hence larger batches.
* What enters one translator together (a to be translated, b to be kept) goes through it as one batch; real
  and older fakes go through a discriminator as one. With batch norm they do not.
* The last 7 x 7 convolution, to one channel, as a matrix product and a sum of shifts: 19 ms against 51.
* Channels last: transposed convolutions 22 ms against 33, strided ones 22 against 34.
* Adam fused.
* Memory: each way's graph is freed before the next way is computed.
* Not done: fewer passes than the loss asks for; half precision is a row of its own.
"""


@dataclass(frozen=True)
class Case:
    """Which method, images per batch."""

    name: str
    batch: int


CASES = [
    Case("CycleGAN resnet_6, batch 1", 1),
    Case("CycleGAN resnet_6, batch 4", 4),
    Case("pix2pix unet_128, batch 4", 4),
]


def images(case: Case) -> tuple[Tensor, Tensor]:
    """Of both domains, (B, 1, 128, 128)."""
    chance = torch.Generator().manual_seed(0)
    a, b = (torch.rand(2, case.batch, 1, SIZE, SIZE, generator=chance) * 2 - 1).unbind()
    return a, b


def cycle_step(case: Case, kind: str) -> Callable[[], object]:
    """One update of CycleGAN."""
    torch.manual_seed(0)
    networks = plain.resnet(1), plain.resnet(1), plain.patches(1), plain.patches(1)
    a, b = images(case)
    if kind == "plain":
        step = plain.CycleStep(*networks)
        return lambda: step(a, b)
    players = Players(ResNetGenerator(1, 1, blocks=6), ResNetGenerator(1, 1, blocks=6), *judges())
    for ours, theirs in zip(players.named().values(), networks, strict=True):
        rename = (
            from_published_generator if isinstance(ours, ResNetGenerator) else from_published_discriminator
        )
        ours.load_state_dict(rename(theirs.state_dict()))
    other = Stream(ArraySource(b.numpy()), case.batch, seed=0, name="b")
    learner = CycleGANObjective(players, other, size=(SIZE, SIZE), rate=RATE, judge_rate=RATE)
    batch = Batch(a, None, torch.arange(case.batch))
    return lambda: learner.update(batch, 0, Alone())


def judges() -> tuple[PatchDiscriminator, PatchDiscriminator]:
    """Two."""
    return PatchDiscriminator(1), PatchDiscriminator(1)


def pair_step(case: Case, kind: str) -> Callable[[], object]:
    """One update of pix2pix."""
    torch.manual_seed(0)
    networks = plain.unet(1), plain.patches(2, batch_norm=True)
    a, b = images(case)
    if kind == "plain":
        step = plain.PairStep(*networks)
        return lambda: step(a, b)
    translator, judge = UNetGenerator(1, 1), PatchDiscriminator(2, norm="batch")
    translator.load_state_dict(from_published_unet(networks[0].state_dict()))
    judge.load_state_dict(from_published_discriminator(networks[1].state_dict()))
    learner = Pix2PixObjective(translator, judge, rate=RATE)
    batch = Batch(torch.cat([a, b], dim=1), None, torch.arange(case.batch))
    return lambda: learner.update(batch, 0, Alone())


def child(case: Case, kind: str) -> None:
    """Take a step for every line on standard input."""
    base = begin()
    torch.use_deterministic_algorithms(kind != "plain")
    torch.utils.deterministic.fill_uninitialized_memory = False
    step = (pair_step if case.name.startswith("pix2pix") else cycle_step)(case, kind)
    arithmetic = torch.autocast("cpu", torch.bfloat16) if kind.endswith("bf16") else nullcontext()

    def work(_: str) -> None:
        with arithmetic:
            step()

    serve(work, base)


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs=2)
    asked = parser.parse_args()
    if asked.child:
        return child(CASES[int(asked.child[0])], asked.child[1])
    head = ("128 px", "kind", "s/step", "x plain", "CPU s", "x plain", "MiB (added)", "x")
    print("{:28} {:12} {:>7} {:>7} {:>7} {:>7} {:>13} {:>5}".format(*head), flush=True)
    for number, case in enumerate(CASES):
        if asked.only not in case.name:
            continue
        children = {kind: Child(__file__, number, kind, threads=asked.threads) for kind in KINDS}
        for _ in range(3 if asked.quick else 10):
            for one in children.values():
                one.ask()
        for one in children.values():
            one.end()
        tell(case, children)
    print(TRIED)
    return None


def tell(case: Case, children: dict[str, Child]) -> None:
    """The rows of a case; the first step of each only warms up."""
    figures = {}
    for kind, one in children.items():
        del one.done[0]
        figures[kind] = one.median("wall"), one.median("cpu"), one.peak - one.told[0]
    for kind, (wall, cpu, added) in figures.items():
        slow = figures["plain"]
        print(
            f"{case.name:28} {kind:12} {wall:7.3f} {slow[0] / wall:7.2f} {cpu:7.2f} {slow[1] / cpu:7.2f}"
            f" {children[kind].peak:6.0f} ({added:.0f}) {added / slow[2]:5.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
