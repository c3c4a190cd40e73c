"""A generator and an ensemble of heads as a source of labelled images: pair n is fixed by (seed, n).

DatasetGAN (Zhang et al. 2021): the ensemble labels what the generator draws. The mask is the vote of its
members, their disagreement says how far the pair may be trusted, and their mean is kept as a soft label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmask.core.errors import ConfigError
from fewmask.core.seed import integer
from fewmask.networks.generator import ImageGenerator
from fewmask.networks.pixelhead import PixelHead
from fewmask.synthesis.features import FeatureStack
from fewmask.synthesis.pixelhead import draw_and_read, uncertainty, without_class_weights

Float = NDArray[np.float32]

CENTRE_OF = 4096
"""Latents over which the mean style of a class is taken."""

WORST_SHARE = 0.1
"""An image is as uncertain as the mean over this share of its pixels, the most uncertain ones."""


@dataclass(frozen=True, eq=False)
class Pair:
    """One generated image with its labels.

    number: its place in the factory; image (C, H, W) float32 in [-1, 1]; mask (H, W) uint8 class numbers,
    0 background; soft (K, H, W) float16, what each class is given, adding up to 1; uncertain (H, W) float32
    in [0, 1]; score: `image_score` of it, in [0, 1].
    """

    number: int
    image: Float
    mask: NDArray[np.uint8]
    soft: NDArray[np.float16]
    uncertain: Float
    score: float


def numbered_styles(
    generator: ImageGenerator,
    seed: int,
    number: int,
    *,
    truncation: float,
    truncated_layers: int | None,
    labels: Tensor | None,
    centres: Tensor | None = None,
) -> Tensor:
    """The styles (1, num_ws, w_dim) of pair `number`, on the generator's device; see `PairMaker`.

    centres: `class_centres` of a generator with classes.
    """
    device = next(generator.parameters()).device
    chance = torch.Generator().manual_seed(integer(seed, "pairs", number))
    z = torch.randn(1, generator.z_dim, generator=chance).to(device)
    label = None if labels is None else numbered_label(labels, seed, number).to(device)
    return styles(
        generator,
        z,
        label,
        truncation=truncation,
        truncated_layers=truncated_layers,
        centres=centres,
    )


def numbered_label(labels: Tensor, seed: int, number: int) -> Tensor:
    """Which row (1, classes) of `labels` (M, classes) pair `number` is drawn with."""
    row = integer(seed, "pairs", "label", number) % len(labels)
    return labels[row : row + 1]


def styles(
    generator: ImageGenerator,
    z: Tensor,
    label: Tensor | None,
    *,
    truncation: float,
    truncated_layers: int | None,
    centres: Tensor | None,
) -> Tensor:
    """Truncated styles (B, num_ws, w_dim) of latents (B, z_dim) and labels (B, classes)."""
    centre = None if label is None or centres is None else label @ centres.to(label)
    ws: Tensor = generator.mapping(z, label, truncation, truncated_layers=truncated_layers, centre=centre)
    return ws


def class_centres(generator: ImageGenerator) -> Tensor | None:
    """The mean style (classes, w_dim) of each class, what truncation pulls to; None without classes.

    The running mean of a generator is that of all classes: pulled there, every image would be half of another
    class (as Mokady et al. 2022, "Self-distilled StyleGAN", found for clusters of images).
    """
    if not generator.classes:
        return None
    like = next(generator.parameters())
    chance = torch.Generator().manual_seed(integer(0, "pairs", "class centres"))
    z = torch.randn(CENTRE_OF, generator.z_dim, generator=chance).to(like)
    rows = torch.eye(generator.classes).to(like)
    with torch.no_grad():
        means = [generator.mapping(z, row.expand(len(z), -1))[:, 0].mean(dim=0) for row in rows]
    return torch.stack(means)


def refuse_draws(generator: ImageGenerator, truncation: float, labels: Tensor | None) -> None:
    """A `ConfigError` on a truncation outside [0, 1] or labels that do not fit the generator."""
    if not 0 <= truncation <= 1:
        raise ConfigError(
            "pairs cannot be drawn so", found=f"truncation {truncation:g}", expected="truncation 0 to 1"
        )
    rows = 0 if labels is None else int(labels.shape[1])
    if rows != generator.classes:
        raise ConfigError(
            "the labels to draw from do not fit the generator",
            found=f"{rows} numbers a row",
            expected=f"{generator.classes}",
        )


@dataclass(frozen=True, eq=False)
class PairMaker:
    """Draws pair n, whatever was drawn before it.

    Every pair is computed by itself: the sums inside a convolution depend on the size of a batch, in the last
    digits, and so would the bytes of the pairs. The members of the ensemble are one batched computation.
    The same bytes are promised for the same machine, library and number of threads.

    generator: in evaluation mode; heads: one or more on `stack`, all their members vote; seed: names the
    latents; truncation: psi of the latents, 0.7 as in the paper; truncated_layers: only the first so many
    styles are pulled, None for all; class_weights: those the heads were trained with, see
    `pixelhead.without_class_weights`; labels (M, classes): for a generator with classes, each pair gets one
    of these rows (see `numbered_label`), and is pulled to the mean style of its class.

    Raises `ConfigError` on a truncation outside [0, 1], no head, or labels that do not fit the generator.
    """

    generator: ImageGenerator
    heads: Sequence[PixelHead]
    stack: FeatureStack
    seed: int
    truncation: float = 0.7
    truncated_layers: int | None = None
    class_weights: Sequence[float] = ()
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse settings that cannot draw a pair."""
        refuse_draws(self.generator, self.truncation, self.labels)
        if not self.heads:
            raise ConfigError("pairs cannot be drawn so", found="no head", expected="at least one head")

    @cached_property
    def _centres(self) -> Tensor | None:
        return class_centres(self.generator)

    def __call__(self, number: int) -> Pair:
        """Pair `number`, at least 0."""
        with torch.no_grad():
            ws = numbered_styles(
                self.generator,
                self.seed,
                number,
                truncation=self.truncation,
                truncated_layers=self.truncated_layers,
                labels=self.labels,
                centres=self._centres,
            )
            image, each = draw_and_read(self.heads, self.stack, self.generator, ws)
            each = without_class_weights(each, self.class_weights)
            unsure = uncertainty(each)
        return Pair(
            number,
            image[0].cpu().numpy(),
            vote(each)[0].cpu().numpy().astype(np.uint8),
            each.mean(dim=0)[0].cpu().numpy().astype(np.float16),
            unsure[0].cpu().numpy(),
            float(image_score(unsure)[0]),
        )


def vote(each: Tensor) -> Tensor:
    """The class (B, H, W) that most members give, from their probabilities (M, B, K, H, W).

    Of classes with as many votes the one with the larger mean probability wins; if that is the same too, the
    smaller class number.
    """
    classes = each.shape[2]
    chosen = each.argmax(dim=2)
    votes = torch.stack([(chosen == number).sum(dim=0) for number in range(classes)], dim=1)
    mean = each.mean(dim=0)
    return mean.masked_fill(votes < votes.amax(dim=1, keepdim=True), -1).argmax(dim=1)


def image_score(uncertain: Tensor) -> Tensor:
    """How uncertain each image is, (B,): the mean over its most uncertain tenth of pixels, from (B, H, W)."""
    flat = uncertain.flatten(1)
    return flat.topk(max(1, int(WORST_SHARE * flat.shape[1])), dim=1).values.mean(dim=1)
