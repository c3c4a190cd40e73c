"""Auto-shot segmentation: the head labels generated images, and a U-Net learns from them.

Tritrong et al. 2021, section 3.4. At test time the U-Net needs no inversion. The labels are soft; pixels
and images the head is unsure of can be left out. Other networks may vote beside the head (`others`): a head
on other features and a U-Net on the same masks err elsewhere, and their mean errs least.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmask.core.errors import ConfigError
from fewmask.core.seed import integer
from fewmask.core.volume import IGNORE
from fewmask.data.softmasks import MaskArray, is_soft, soft_targets
from fewmask.networks.generator import ImageGenerator
from fewmask.networks.pixelhead import PixelHead
from fewmask.synthesis.features import FeatureStack
from fewmask.synthesis.pixelhead import Labeller, in_batches, probabilities

Float = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LabelledSamples:
    """Images that a network labelled: generated ones, or real ones that nobody has labelled.

    images (N, C, H, W) float32 in [-1, 1]; probabilities (N, K, H, W) float16, the soft labels.
    """

    images: Float
    probabilities: NDArray[np.float16]

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(N, H, W) the most probable class."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.uint8)

    @property
    def confidence(self) -> Float:
        """(N, H, W) in [0, 1]: the probability of the most probable class."""
        return np.asarray(self.probabilities.max(axis=1), dtype=np.float32)

    def uncertainty(self) -> Float:
        """(N,) mean entropy of the pixels of an image, in units of log K: 0 sure, 1 nothing known."""
        each = [_entropy(one).mean() for one in self.probabilities]
        return np.asarray(each, dtype=np.float32)

    def take(self, rows: NDArray[np.intp]) -> "LabelledSamples":
        """Some of the samples."""
        return LabelledSamples(self.images[rows], self.probabilities[rows])


def sample_labelled(
    generator: ImageGenerator,
    heads: Sequence[PixelHead],
    stack: FeatureStack,
    count: int,
    *,
    seed: int,
    others: Sequence[Labeller] = (),
    truncation: float = 1.0,
    mixing: float = 0.0,
    batch_size: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[LabelledSamples]:
    """Generate `count` images and label them with the heads, batch by batch.

    Args:
        generator: in evaluation mode.
        heads: one or more heads on `stack`; their probabilities are averaged.
        stack: the features the heads read; the generator's come from the true latents of each image.
        count: images in total.
        seed: sample n is fixed by (seed, n), whatever the batch size.
        others: networks that vote beside the heads, each with the weight of all heads together.
        truncation: psi of the latents; 1 is the full variety.
        mixing: share of images made from two latents, the second from a random layer on.
        batch_size: images at once.
        on_progress: called with (images done, images in total).

    Yields:
        Batches of labelled samples; `collect` joins them.

    Raises:
        ConfigError: no sample asked for, or a share outside of [0, 1].
    """
    if count < 1 or not 0 <= mixing <= 1:
        raise ConfigError(
            "auto-shot needs at least one sample, and a share of mixed ones in [0, 1]",
            found=f"count={count}, mixing={mixing}",
        )
    for first in range(0, count, batch_size):
        numbers = range(first, min(first + batch_size, count))
        z, cuts = _draw(numbers, generator, seed, mixing)
        with torch.no_grad():
            one, two = (generator.mapping(part, truncation=truncation) for part in z)
            layer = torch.arange(generator.num_ws).view(1, -1, 1)
            ws = torch.where(layer < cuts.view(-1, 1, 1), one, two)
            image = generator.synthesis(ws, noise="constant").clamp(-1, 1)
        soft = _votes(heads, stack, others, image, ws)
        if on_progress is not None:
            on_progress(numbers.stop, count)
        yield LabelledSamples(image.numpy(), soft.numpy().astype(np.float16))


def label_images(
    heads: Sequence[PixelHead],
    stack: FeatureStack,
    images: Float,
    ws: Float | None = None,
    *,
    others: Sequence[Labeller] = (),
    batch_size: int = 16,
) -> LabelledSamples:
    """Label real images (N, C, H, W) with the heads and `others`, as `sample_labelled` does."""
    soft = in_batches(lambda image, w: _votes(heads, stack, others, image, w), images, ws, batch_size)
    return LabelledSamples(images, soft.astype(np.float16))


def collect(batches: Iterator[LabelledSamples]) -> LabelledSamples:
    """All batches in one; 64 x 64 pixels and 4 classes take 48 KiB an image."""
    every = list(batches)
    return LabelledSamples(
        np.concatenate([one.images for one in every]), np.concatenate([one.probabilities for one in every])
    )


def most_certain(samples: LabelledSamples, share: float) -> LabelledSamples:
    """The `share` (0, 1] of the samples with the lowest mean entropy, in their old order."""
    if not 0 < share <= 1:
        raise ConfigError("the share of samples to keep must lie in (0, 1]", found=f"{share}")
    keep = np.argsort(samples.uncertainty(), kind="stable")[: max(1, round(share * len(samples.images)))]
    return samples.take(np.sort(keep))


def judged_labels(samples: LabelledSamples, *, min_confidence: float = 0.0) -> NDArray[np.uint8]:
    """Labels (N, H, W) in which pixels below `min_confidence` are `IGNORE`."""
    return np.where(samples.confidence >= min_confidence, samples.labels, np.uint8(IGNORE))


def weighed_labels(
    samples: LabelledSamples, confidence: Literal["none", "entropy"] = "entropy"
) -> NDArray[np.float16]:
    """Soft labels (N, K, H, W) in which a pixel counts as much as the network was sure of it.

    "entropy": w p with w = 1 - H(p) / log K and H(p) = -sum_k p_k log p_k per pixel: one of which nothing
    is known counts 0, a sure one 1. "none": p as it is, every pixel counts alike.
    """
    if confidence == "none":
        return samples.probabilities
    weighed = np.empty_like(samples.probabilities)
    for row, soft in zip(weighed, samples.probabilities, strict=True):
        row[:] = soft * (1 - _entropy(soft)).clip(0, 1)
    return weighed


def mix_with_real(
    samples: LabelledSamples,
    labels: MaskArray,
    images: Float,
    masks: NDArray[np.uint8],
    *,
    real_share: float = 0.5,
) -> tuple[Float, MaskArray, NDArray[np.float64]]:
    """Generated and real labelled images as one training set.

    Args:
        samples: N generated images.
        labels: what they show: (N, H, W) uint8, or soft (N, K, H, W) as from `weighed_labels`.
        images: (k, C, H, W) real ones.
        masks: (k, H, W) what these show, in the same numbers; class numbers where `labels` is soft, and they
            become one-hot.
        real_share: how much of what a training sees is real, in [0, 1].

    Returns:
        images (N + k, C, H, W), masks (N + k, [K,] H, W) and sampling weights (N + k,): the arguments of
        `ArraySource` and `Stream`.

    Raises:
        ConfigError: the share is out of range.
        DataError: soft labels, and a mask holds a number that is no class.
    """
    if not 0 <= real_share <= 1:
        raise ConfigError("the share of real images must lie in [0, 1]", found=f"{real_share}")
    weights = np.concatenate(
        [
            np.full(len(labels), (1 - real_share) / len(labels)),
            np.full(len(masks), real_share / len(masks)),
        ]
    )
    drawn: MaskArray = soft_targets(masks, labels.shape[1]) if is_soft(labels) else masks
    return np.concatenate([samples.images, images]), np.concatenate([labels, drawn]), weights


def _entropy(probabilities: NDArray[np.float16]) -> Float:
    """Entropy (H, W) of probabilities (K, H, W), in units of log K."""
    p = probabilities.astype(np.float32).clip(1e-6, 1.0)
    return np.asarray(-(p * np.log(p)).sum(axis=0) / np.log(len(p)), dtype=np.float32)


def _votes(
    heads: Sequence[PixelHead],
    stack: FeatureStack,
    others: Sequence[Labeller],
    image: Tensor,
    ws: Tensor | None,
) -> Tensor:
    """Mean probabilities (B, K, H, W) of the heads and the others."""
    with torch.no_grad():
        votes = [probabilities(heads, stack, image, ws), *(other(image, ws) for other in others)]
        return torch.stack(votes).mean(dim=0)


def _draw(
    numbers: range, generator: ImageGenerator, seed: int, mixing: float
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Two latents per sample and the layer where the second takes over (num_ws: never)."""
    first, second, cuts = [], [], []
    for number in numbers:
        chance = torch.Generator().manual_seed(integer(seed, "autoshot", number))
        first.append(torch.randn(generator.z_dim, generator=chance))
        second.append(torch.randn(generator.z_dim, generator=chance))
        mixed = float(torch.rand((), generator=chance)) < mixing
        cut = int(torch.randint(1, generator.num_ws, (), generator=chance))
        cuts.append(cut if mixed else generator.num_ws)
    return (torch.stack(first), torch.stack(second)), torch.tensor(cuts)
