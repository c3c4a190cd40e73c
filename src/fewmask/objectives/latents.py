"""What a generator draws a minibatch from: latents, labels, mixed styles and noise pictures.

Chance is drawn for the whole minibatch; a process and a micro-batch take their rows of it (`Latents.rows`),
so that the images do not depend on how the minibatch is divided. Noise pictures are large and therefore drawn
row by row, from one seed per image, when they are needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewmask.core.seed import integer
from fewmask.networks.generator import ImageGenerator, Noise

HIGHEST = 2**62


@dataclass(frozen=True)
class Latents:
    """Of N images: z (2, N, z_dim), the second for mixing; label (N, K) or None; one noise seed per image.

    cut: the first layer that takes the second z's style; None when styles are not mixed.
    """

    z: Tensor
    label: Tensor | None
    cut: int | None
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.seeds)

    def rows(self, which: slice) -> "Latents":
        """Some of the images."""
        label = None if self.label is None else self.label[which]
        return Latents(self.z[:, which], label, self.cut, self.seeds[which])


def draw_latents(
    generator: ImageGenerator, count: int, *, mixing: float, labels: Tensor | None, like: Tensor
) -> Latents:
    """Draw for `count` images from torch's global generators.

    Args:
        generator: for which network.
        count: images in the whole minibatch.
        mixing: probability that from a random layer on the style is another one (Karras et al. 2019, 3.1).
        labels: (N, K), the training images' labels, from which `count` are drawn; None without classes.
        like: gives the latents' device and type.
    """
    z = torch.randn(2, count, generator.z_dim, dtype=like.dtype, device=like.device)
    mixed, cut = float(torch.rand(())), int(torch.randint(1, generator.num_ws, ()))
    seeds = torch.randint(HIGHEST, (count,)).tolist()
    chosen = None
    if labels is not None:
        chosen = labels[torch.randint(len(labels), (count,)).to(labels.device)].to(like)
    return Latents(z, chosen, cut if mixed < mixing else None, tuple(seeds))


def styles(generator: ImageGenerator, latents: Latents) -> Tensor:
    """ws, (N, num_ws, w_dim)."""
    ws: Tensor = generator.mapping(latents.z[0], latents.label)
    if latents.cut is None:
        return ws
    other: Tensor = generator.mapping(latents.z[1], latents.label)
    return torch.cat([ws[:, : latents.cut], other[:, latents.cut :]], dim=1)


def noises(generator: ImageGenerator, latents: Latents) -> Noise:
    """The noise pictures of every layer, (N, 1, size, size) each; "none" for a generator without noise."""
    sizes = generator.synthesis.noise_sizes
    if not sizes:
        return "none"
    count = [size * size for size in sizes]
    flat = normal_rows(latents.seeds, "noise", sum(count), latents.z)
    parts = torch.split(flat, count, dim=1)
    return [part.view(-1, 1, size, size) for part, size in zip(parts, sizes, strict=True)]


def normal_rows(seeds: Sequence[int], purpose: str, length: int, like: Tensor) -> Tensor:
    """N(0, 1), (len(seeds), length), every row from its own seed and the word what it is for."""
    chance = torch.Generator(like.device)
    rows = []
    for seed in seeds:
        chance.manual_seed(integer(seed, purpose))
        rows.append(torch.randn(length, generator=chance, dtype=like.dtype, device=like.device))
    return torch.stack(rows)


def show_latents(generator: ImageGenerator, count: int, seed: int) -> Latents:
    """Fixed latents of `count` images to look at: with classes, every class in turn."""
    like = next(generator.parameters())
    chance = torch.Generator().manual_seed(integer(seed, "shown"))
    z = torch.randn(2, count, generator.z_dim, generator=chance).to(like)
    label = None
    if generator.classes:
        label = torch.eye(generator.classes)[torch.arange(count) % generator.classes].to(like)
    return Latents(z, label, None, tuple(range(count)))
