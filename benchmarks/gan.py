"""One training step of StyleGAN2 and StyleGAN3 against the plain way: seconds, images per second, memory.

    python -m benchmarks gan                            (two threads; under ten minutes on two quiet cores)
    python benchmarks/gan.py [--quick] [--only PART] [--threads N]

Each kind of a row is a process of its own, all with the same weights. "plain" is plain_stylegan2.py and
plain_stylegan3.py, the papers without our shortcuts (outputs are compared with ours first). The processes
take turns step by step, so that all meet the same weather on a shared machine; medians are told. A step is
that of the public code: generator update, discriminator update, in every 16th minibatch R1 (its time enters
with 1/16), exponential average; new images are drawn for each network, as published. "ours, reuse" hands
the discriminator the images that the generator was just judged on (`reuse_fakes`); "ours, bf16" computes
under autocast, R1 excepted. "x plain" compares CPU seconds, which a busy machine disturbs least. Memory is
the process's largest resident size; in brackets, what it adds to a process that only imported torch.
"""

import argparse
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from statistics import median
from typing import Any, Literal

import torch
import torch.nn.functional as F
from _children import Child, begin, serve
from torch import Tensor

BATCH, R1_EVERY, GAMMA, LATENT = 8, 16, 1.0, 512
KINDS = ("plain", "ours", "ours, reuse", "ours, bf16")
TRIED = """
What was tried, and what it gave (CPU time unless said otherwise):
* Winograd's F(4x4, 3x3) as batched matrix products, from 128 channels on: 1.7 x on 3 x 3 convolutions of
  256 channels, a quarter off the wide step. Nothing at 64 channels, so not used there. networks/winograd.py.
* One weight for the batch, styles on the input and demodulation on the output, no weight per image.
* Leaky ReLU's gain folded into weight and bias, in place. No clamp in float32, where nothing can overflow:
  four passes over memory per layer, 8 % of the narrow step ("plain" has it, as published).
* torch.use_deterministic_algorithms fills fresh memory: 3-4 % of a step; switched off in training/launch.py.
* bfloat16 by autocast: convolutions 2 x faster. The binomial filter with a stride of two and its transpose
  are slow in bfloat16 (downsampling's gradient 23 ms against 3, upsampling 80 ms against 5), which made the
  narrow step slower than float32; they stay float32. Gradients of fresh networks agree with float32 to a
  cosine of 0.998-0.999 (4096, 64), 0.986 for G and 0.996 for D (8192, 128): usable, and not parity.
* Channels last against contiguous: equal for stride 1 (within 5 %), 1.2-1.7 x faster for transposed
  convolutions, and 1.9 x slower for 512 channels at 32 px, which Winograd's way takes over.
* Downsampling as [1, 2, 1] and average pooling: slower than one depthwise 4 x 4 pass.
* Not done: torch.compile (needs a compiler on the user's machine); one forward pass of the discriminator on
  drawn images for both losses (a twelfth of the arithmetic, but both networks would be updated at once, which
  is not the published order).
"""


@dataclass(frozen=True)
class Case:
    """Which network, how many pixels, channel base and most channels."""

    network: str
    size: int
    base: int
    most: int

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.network} {self.size} px ({self.base}, {self.most})"

    @property
    def built(self) -> bool:
        """Whether both ways of this network exist."""
        return all(
            find_spec(module) is not None
            for module in (f"fewmask.networks.{self.network}", f"plain_{self.network}")
        )


CASES = [
    Case("stylegan2", 64, 4096, 64),
    Case("stylegan2", 128, 4096, 64),
    Case("stylegan2", 64, 16384, 256),
    Case("stylegan2", 128, 16384, 256),
    Case("stylegan3", 64, 4096, 64),
    Case("stylegan3", 128, 4096, 64),
]


def networks(case: Case, kind: str) -> tuple[Any, Any, Any]:
    """Generator, its average and discriminator; the weights do not depend on `kind`."""
    widths: dict[str, Any] = {"channel_base": case.base, "channel_max": case.most}
    layers = {"stylegan2": 8, "stylegan3": 2}[case.network]
    built = []
    for name in ("Generator", "Generator", "Discriminator"):
        module = "stylegan2" if name == "Discriminator" else case.network
        drawing = name == "Generator"
        shape = (LATENT, LATENT, case.size, 1) if drawing else (case.size, 1)
        settings = widths | ({"mapping_layers": layers} if drawing else {})
        torch.manual_seed(0)
        network = getattr(import_module(f"fewmask.networks.{module}"), name)(*shape, **settings)
        if kind == "plain":
            plain = getattr(import_module(f"plain_{module}"), name)(*shape, **settings)
            plain.load_state_dict(network.state_dict())
            network = plain
        built.append(network)
    return built[0], built[1], built[2]


class Step:
    """The training step of the public code, without data, augmentation, style mixing and path length."""

    def __init__(self, case: Case, kind: str) -> None:
        self.generator, self.average, self.discriminator = networks(case, kind)
        self.reuse = kind == "ours, reuse"
        fused = kind != "plain"
        self.adam_g, self.adam_d = (
            torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.0, 0.99), fused=fused)
            for network in (self.generator, self.discriminator)
        )
        self.real = torch.rand(BATCH, 1, case.size, case.size) * 2 - 1
        self.bf16 = kind == "ours, bf16"

    def arithmetic(self) -> AbstractContextManager[Any]:
        """bf16 products where asked for."""
        return torch.autocast("cpu", torch.bfloat16) if self.bf16 else nullcontext()

    def draw(self) -> Tensor:
        """New images."""
        image: Tensor = self.generator.synthesis(self.generator.mapping(torch.randn(BATCH, LATENT)))
        return image.float()

    def judge(self, image: Tensor, sign: float) -> Tensor:
        """softplus(sign * D(image))."""
        with self.arithmetic():
            logits = self.discriminator(image)
        return F.softplus(sign * logits.float()).mean()

    def main(self) -> None:
        """Generator and discriminator once."""
        self.discriminator.requires_grad_(False)
        with self.arithmetic():
            fake = self.draw()
        self.adam_g.zero_grad()
        self.judge(fake, -1).backward()
        self.adam_g.step()
        self.discriminator.requires_grad_(True)
        fake = fake.detach()
        if not self.reuse:
            with torch.no_grad(), self.arithmetic():
                fake = self.draw()
        self.adam_d.zero_grad()
        self.judge(fake, 1).backward()
        self.judge(self.real, -1).backward()
        self.adam_d.step()
        with torch.no_grad():
            torch._foreach_lerp_([*self.average.parameters()], [*self.generator.parameters()], 1e-3)

    def r1(self) -> None:
        """R1, an update of its own, in float32."""
        self.adam_d.zero_grad()
        real = self.real.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.discriminator(real).sum(), real, create_graph=True)
        (gradient.square().sum(dim=(1, 2, 3)).mean() * (GAMMA / 2 * R1_EVERY)).backward()
        self.adam_d.step()


def check(case: Case) -> float:
    """Largest error of "plain" against "ours", relative to the spread; images and logits."""
    pairs = [networks(case, kind) for kind in ("ours", "plain")]
    z = torch.randn(2, LATENT)
    found = []
    with torch.no_grad():
        for generator, _, discriminator in pairs:
            image = generator.synthesis(generator.mapping(z), "constant")
            found.append((image, discriminator(pairs[0][0].synthesis(pairs[0][0].mapping(z), "none"))))
    errors = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True)]
    return max(errors)


def child(case: Case, kind: str) -> None:
    """Take a step for every line on standard input, "main" or "r1"."""
    base = begin()
    torch.use_deterministic_algorithms(kind != "plain")
    torch.utils.deterministic.fill_uninitialized_memory = False
    step = Step(case, kind)

    def work(what: str) -> None:
        getattr(step, what)()

    serve(work, base)


def seconds(one: Child, clock: Literal["wall", "cpu"]) -> float:
    """Median of a step with its share of R1; the first of each only warms up."""
    main, lazy = (median(one.seconds(clock, what)[1:]) for what in ("main", "r1"))
    return main + lazy / R1_EVERY


def measure(number: int, rounds: int, threads: int) -> dict[str, Child]:
    """All kinds of a row, taking turns; at least two steps each, so that the first is left out."""
    children = {kind: Child(__file__, number, kind, threads=threads) for kind in KINDS}
    for turn in range(rounds + 1):
        for one in children.values():
            one.ask("main")
        if turn < max(2, rounds // 2):
            for one in children.values():
                one.ask("r1")
    for one in children.values():
        one.end()
    return children


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
    head = (
        "network, pixels, (base, max)",
        "kind",
        "s/step",
        "x plain",
        "CPU s",
        "images/s",
        "MiB (added)",
        "x",
    )
    print("{:34} {:12} {:>7} {:>7} {:>7} {:>8} {:>13} {:>5}".format(*head), flush=True)
    for number, case in enumerate(CASES):
        if asked.only not in case.name:
            continue
        if not case.built:
            print(f"{case.name:34} not built yet")
            continue
        error = check(case)
        assert error < 1e-4, f"plain and ours differ by {error:.1e}"
        wide = case.base > 4096 or case.network == "stylegan3"
        children = measure(
            number, (2 if asked.quick else 4) if wide else (5 if asked.quick else 12), asked.threads
        )
        plain = children["plain"]
        for kind, one in children.items():
            wall, cpu, added = seconds(one, "wall"), seconds(one, "cpu"), one.peak - one.told[0]
            print(
                f"{case.name:34} {kind:12} {wall:7.3f} {seconds(plain, 'cpu') / cpu:7.2f} {cpu:7.2f}"
                f" {BATCH / wall:8.1f} {one.peak:6.0f} ({added:.0f})"
                f" {added / (plain.peak - plain.told[0]):5.2f}",
                flush=True,
            )
    print(TRIED)
    return None


if __name__ == "__main__":
    main()
