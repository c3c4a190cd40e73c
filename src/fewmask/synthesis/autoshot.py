"""Auto-shot segmentation: the head labels generated images, and a U-Net learns from them.

Tritrong et al. 2021, section 3.4. At test time the U-Net needs no inversion. The labels are soft; a pixel can
count as much as the head is sure of it, and the images it is least sure of can be left out.
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
from fewmask.data.softmasks import MaskArray, is_soft, soft_targets
from fewmask.networks.generator import ImageGenerator
from fewmask.networks.pixelhead import PixelHead
from fewmask.synthesis.features import FeatureStack
from fewmask.synthesis.pixelhead import draw_and_read, entropy, uncertainty, without_class_weights

Float = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LabelledSamples:
    """Generated images that heads labelled.

    images (N, C, H, W) float32 in [-1, 1]; probabilities (N, K, H, W) float16, the soft labels; uncertain
    (N,) float32 in [0, 1], how unsure the heads are of each image: the mean over its pixels of the
    disagreement of their members (`pixelhead.disagreement`), or of the entropy where there is only one.
    """

    images: Float
    probabilities: NDArray[np.float16]
    uncertain: Float

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(N, H, W) the most probable class."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.uint8)

    def take(self, rows: NDArray[np.intp]) -> "LabelledSamples":
        """Some of the samples."""
        return LabelledSamples(self.images[rows], self.probabilities[rows], self.uncertain[rows])


def sample_labelled(
    generator: ImageGenerator,
    heads: Sequence[PixelHead],
    stack: FeatureStack,
    count: int,
    *,
    seed: int,
    class_weights: Sequence[float] = (),
    truncation: float = 1.0,
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
        class_weights: those that the heads were trained with, (K,): the minimiser of the weighted
            cross-entropy is q_k ~ w_k p_k, so that every head's q is turned into p_k ~ q_k / w_k before it
            votes (`pixelhead.without_class_weights`). Empty: none.
        truncation: psi of the latents; 1 is the full variety.
        batch_size: images at once.
        on_progress: called with (images done, images in total).

    Yields:
        Batches of labelled samples; `collect` joins them.

    Raises:
        ConfigError: no sample asked for, or class weights that do not fit the classes.
    """
    if count < 1:
        raise ConfigError("auto-shot needs at least one sample", found=f"count={count}")
    for first in range(0, count, batch_size):
        numbers = range(first, min(first + batch_size, count))
        z = torch.stack([_draw(number, generator, seed) for number in numbers])
        with torch.no_grad():
            ws = generator.mapping(z, truncation=truncation)
            image, each = draw_and_read(heads, stack, generator, ws)
            each = without_class_weights(each, class_weights)
            soft = each.mean(dim=0)
            unsure = uncertainty(each)
        if on_progress is not None:
            on_progress(numbers.stop, count)
        yield LabelledSamples(image.numpy(), soft.numpy().astype(np.float16), unsure.mean(dim=(1, 2)).numpy())


def collect(batches: Iterator[LabelledSamples]) -> LabelledSamples:
    """All batches in one; 64 x 64 pixels and 4 classes take 48 KiB an image."""
    every = list(batches)
    return LabelledSamples(
        np.concatenate([one.images for one in every]),
        np.concatenate([one.probabilities for one in every]),
        np.concatenate([one.uncertain for one in every]),
    )


def most_certain(samples: LabelledSamples, share: float) -> LabelledSamples:
    """The `share` (0, 1] of the samples that are least `uncertain`, in their old order."""
    if not 0 < share <= 1:
        raise ConfigError("the share of samples to keep must lie in (0, 1]", found=f"{share}")
    keep = np.argsort(samples.uncertain, kind="stable")[: max(1, round(share * len(samples.images)))]
    return samples.take(np.sort(keep))


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
        unsure = entropy(torch.from_numpy(soft.astype(np.float32))).numpy()
        row[:] = soft * (1 - unsure).clip(0, 1)
    return weighed


def mix_with_real(
    generated: NDArray[np.floating],
    labels: MaskArray,
    images: NDArray[np.floating],
    masks: NDArray[np.uint8],
    *,
    real_share: float = 0.5,
) -> tuple[NDArray[np.floating], MaskArray, NDArray[np.float64]]:
    """Generated and real labelled images as one training set.

    Args:
        generated: (N, C, H, W) images.
        labels: what they show: (N, H, W) uint8, or soft (N, K, H, W) as from `weighed_labels`.
        images: (k, C, H, W) real ones, of the same type of numbers.
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
    return np.concatenate([generated, images]), np.concatenate([labels, drawn]), weights


def _draw(number: int, generator: ImageGenerator, seed: int) -> Tensor:
    """The latent (z_dim,) of one sample."""
    chance = torch.Generator().manual_seed(integer(seed, "autoshot", number))
    return torch.randn(generator.z_dim, generator=chance)
