"""From k labelled images to heads that label pixels by features.

RepurposeGAN (Tritrong et al. 2021) trains one convolutional head, DatasetGAN (Zhang et al. 2021) ten that
look at single pixels; here either is an ensemble trained and read at once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.run import Step
from fewmask.core.seed import integer
from fewmask.core.volume import IGNORE
from fewmask.data.augment_spatial import SpatialRanges
from fewmask.data.batches import ArraySource, Augment, Stream
from fewmask.data.softmasks import MaskArray, is_soft
from fewmask.networks.generator import ImageGenerator
from fewmask.networks.pixelhead import HeadKind, PixelHead
from fewmask.objectives.pixelhead import PixelHeadObjective
from fewmask.synthesis.features import ChannelStatistics, FeatureStack
from fewmask.training.launch import Fabric
from fewmask.training.loop import fit

Float = NDArray[np.float32]

REMEMBER = 2**30
"""Bytes for the features of labelled images during a training."""

Labeller = Callable[[Tensor, Tensor | None], Tensor]
"""Class probabilities (B, K, H, W) of images (B, C, H, W) in [-1, 1] with their latents or None."""


@dataclass(frozen=True, eq=False)
class Shots:
    """Labelled images for a head.

    images (N, C, H, W) in [-1, 1]; masks (N, H, W) uint8, `IGNORE` is unjudged, or soft (N, K, H, W) as in
    `data.softmasks`; ws (N, num_ws, w_dim) their latents, or None when no source of the stack reads latents.
    """

    images: Float
    masks: MaskArray
    ws: Float | None = None


def augmented_copies(
    images: Float, masks: NDArray[np.uint8], augment: Augment, *, copies: int, seed: int
) -> tuple[Float, NDArray[np.uint8]]:
    """Every labelled image as it is and copies - 1 augmented ones after it: (N * copies, ...).

    To be inverted all together: then the head sees each labelled image the way a test image is seen, under
    many poses and exposures. Copy j of image i is the same whatever `copies` is.
    """
    if copies < 1:
        raise ConfigError("copies counts the image itself", found=f"copies={copies}", expected="at least 1")
    new_images, new_masks = [], []
    for number in range(len(images)):
        image = torch.from_numpy(np.array(images[number : number + 1], dtype=np.float32))
        mask = torch.from_numpy(np.array(masks[number : number + 1])).long()
        new_images.append(image)
        new_masks.append(mask)
        for copy in range(1, copies):
            chance = torch.Generator().manual_seed(integer(seed, "augmented copies", number, copy))
            warped, labels = augment(image, mask, chance)
            assert labels is not None
            new_images.append(warped)
            new_masks.append(labels)
    return torch.cat(new_images).numpy(), torch.cat(new_masks).numpy().astype(np.uint8)


def fit_head(
    stack: FeatureStack,
    shots: Shots,
    step: Step,
    *,
    classes: int,
    statistics: ChannelStatistics,
    images: int,
    seed: int,
    fabric: Fabric,
    kind: HeadKind = "S",
    width: int = 128,
    members: int = 1,
    batch_size: int = 8,
    augment: Augment | None = None,
    augment_features: SpatialRanges | None = None,
    class_weights: Sequence[float] = (),
    dice_weight: float = 1.0,
    watch: Callable[[PixelHead], Mapping[str, float]] | None = None,
    watch_every: int | None = None,
    remember: int = REMEMBER,
    label: str = "head",
) -> PixelHead:
    """Train heads on the features of a few labelled images.

    Args:
        stack: the frozen features.
        shots: labelled images, usually with their augmented copies.
        step: where the training keeps its checkpoints; run again, it goes on.
        classes: number of classes with the background.
        statistics: of the features over many images; they are folded into the first layer.
        images: length of the training in images seen.
        seed: names the streams of chance.
        fabric: from `training.launch.launch`.
        kind: size of the head: "S" and "M" for up to 3 shots, "L" for more; "mlp" looks at single pixels.
        width: channels after the projection.
        members: heads with their own first weights that learn side by side, without influence on each other.
        batch_size: images per update.
        augment: augmentation on the fly; only when the stack reads no latents, which belong to the image
            as it was inverted.
        augment_features: warps and flips of the features and the mask; they cost no inversion.
        class_weights: (classes,) weights of the cross-entropy, see `inverse_root_frequency`.
        dice_weight: weight of the soft Dice term.
        watch: numbers to report about the head as it is, e.g. its mean IoU on images kept aside; they choose
            nothing.
        watch_every: images between two of them; None: with every report.
        remember: bytes for the features of the labelled images, which are computed once while they fit.
        label: names the progress bar and the streams of chance.

    Raises:
        ConfigError: on-the-fly augmentation of images with latents.
        DataError: no labelled pixel of any class.
    """
    if augment is not None and shots.ws is not None:
        raise ConfigError(
            "latents belong to the image as it was inverted; it cannot be augmented afterwards",
            mend="Augment first (augmented_copies), then project; or use an encoder.",
        )
    _refuse_empty(shots.masks)
    latents = None if shots.ws is None else torch.from_numpy(np.array(shots.ws))
    sample = torch.from_numpy(np.array(shots.images[:1]))
    channels = stack.channels(sample, None if latents is None else latents[:1])
    head = PixelHead(channels, classes, kind=kind, width=width, members=members)
    head.initialise(*chances(seed, label, members))
    head.standardise(statistics.mean, statistics.deviation)
    objective = PixelHeadObjective(
        head,
        stack.maps,
        images=images,
        latents=latents,
        class_weights=class_weights,
        dice_weight=dice_weight,
        augment_features=augment_features,
        remember=remember,
        numbered=augment is None,
    )
    source = ArraySource(shots.images, shots.masks)
    stream = Stream(source, batch_size, seed=seed, name=label, augment=augment)
    fit(
        objective,
        stream,
        step,
        images=images,
        seed=seed,
        fabric=fabric,
        checkpoint_every=max(images // 4, 1),
        report_every=max(images // 20, 1),
        observe=None if watch is None else lambda: watch(head),
        observe_every=watch_every,
        label=label,
    )
    return head.eval()


def chances(seed: int, label: str, members: int) -> list[torch.Generator]:
    """What each member draws its first weights from: the same however many members there are."""
    names = [("weights",), *(("weights", number) for number in range(1, members))]
    return [torch.Generator().manual_seed(integer(seed, label, *name)) for name in names]


def _refuse_empty(masks: MaskArray) -> None:
    if not ((masks[:, 1:] > 0) if is_soft(masks) else (masks > 0) & (masks != IGNORE)).any():
        raise DataError(
            "no labelled image shows any class",
            found=f"{len(masks)} empty masks",
            expected="at least one labelled pixel",
            mend="Choose other shots, or check the masks' values.",
        )


@dataclass(frozen=True, eq=False)
class Judgement:
    """What an ensemble says of N images.

    probabilities (N, K, H, W) float32, the mean over the members; disagreement (N, H, W) float32 in [0, 1],
    see `disagreement`.
    """

    probabilities: Float
    disagreement: Float

    @property
    def uncertainty(self) -> Float:
        """(N,) mean disagreement over the pixels of each image; DatasetGAN leaves out the worst tenth."""
        return np.asarray(self.disagreement.mean(axis=(1, 2)), dtype=np.float32)


def read_images(
    heads: Sequence[PixelHead],
    stack: FeatureStack,
    images: Float,
    ws: Float | None = None,
    *,
    batch_size: int = 16,
) -> Judgement:
    """Probabilities and disagreement of all members of the heads on images (N, C, H, W)."""

    def label(image: Tensor, w: Tensor | None) -> Tensor:
        each = member_probabilities(heads, stack, image, w)
        return torch.cat([each.mean(dim=0), disagreement(each)[:, None]], dim=1)

    both = in_batches(label, images, ws, batch_size)
    return Judgement(both[:, :-1], both[:, -1])


def predict_head(
    heads: Sequence[PixelHead],
    stack: FeatureStack,
    images: Float,
    ws: Float | None = None,
    *,
    batch_size: int = 16,
) -> Float:
    """Class probabilities (N, K, H, W) float32 of images (N, C, H, W): the mean over all members."""
    return in_batches(lambda image, w: probabilities(heads, stack, image, w), images, ws, batch_size)


def in_batches(label: Labeller, images: Float, ws: Float | None, batch_size: int) -> Float:
    """What `label` gives for images (N, C, H, W) with their latents, `batch_size` at a time: (N, K, H, W)."""
    parts = []
    for first in range(0, len(images), batch_size):
        part = slice(first, first + batch_size)
        image = torch.from_numpy(np.array(images[part], dtype=np.float32))
        latents = None if ws is None else torch.from_numpy(np.array(ws[part], dtype=np.float32))
        parts.append(label(image, latents).numpy())
    return np.concatenate(parts)


def probabilities(
    heads: Sequence[PixelHead], stack: FeatureStack, image: Tensor, ws: Tensor | None
) -> Tensor:
    """Mean class probabilities (B, K, H, W) of all members; the features are computed once for all."""
    return member_probabilities(heads, stack, image, ws).mean(dim=0)


def member_probabilities(
    heads: Sequence[PixelHead], stack: FeatureStack, image: Tensor, ws: Tensor | None
) -> Tensor:
    """Class probabilities (M, B, K, H, W) of every member of every head."""
    return _every_member(heads, stack.maps(image, ws), image)


def draw_and_read(
    heads: Sequence[PixelHead], stack: FeatureStack, generator: ImageGenerator, ws: Tensor
) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) in [-1, 1] that a generator draws, with `member_probabilities` of them.

    ws (B, num_ws, w_dim) are their latents. One pass of the generator gives both.
    """
    image, maps = stack.drawn(generator, ws)
    return image, _every_member(heads, maps, image)


def _every_member(heads: Sequence[PixelHead], maps: Sequence[Tensor], image: Tensor) -> Tensor:
    size = (int(image.shape[2]), int(image.shape[3]))
    with torch.no_grad():
        return torch.cat([head(maps, size) for head in heads]).softmax(dim=2)


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy (..., H, W) of probabilities (..., K, H, W), in units of log K: 0 sure, 1 nothing known."""
    found: Tensor = -torch.xlogy(probabilities, probabilities).sum(dim=-3)
    return found / math.log(max(probabilities.shape[-3], 2))


def disagreement(each: Tensor) -> Tensor:
    """Jensen-Shannon divergence (B, H, W) of the members' probabilities (M, B, K, H, W), in units of log K.

    JS = H(mean p) - mean H(p) with H the entropy (Zhang et al. 2021, "DatasetGAN", section 3.2): 0 where all
    members say the same, however unsure they are; at most 1.
    """
    return (entropy(each.mean(dim=0)) - entropy(each).mean(dim=0)).clamp_min(0)


def uncertainty(each: Tensor) -> Tensor:
    """How unsure the members (M, B, K, H, W) are of each pixel: (B, H, W) in [0, 1].

    Their Jensen-Shannon divergence (`disagreement`); the entropy where there is a single member.
    """
    return disagreement(each) if len(each) > 1 else entropy(each[0])


def inverse_root_frequency(masks: MaskArray, classes: int) -> tuple[float, ...]:
    """Class weights (classes,) for rare classes: 1 / sqrt(share of judged pixels), scaled to mean 1.

    Masks (N, H, W), or soft (N, classes, H, W), whose shares are added up. A class that no mask shows gets
    the weight of a single pixel.
    """
    if is_soft(masks):
        counts = masks.sum(axis=(0, *range(2, masks.ndim)), dtype=np.float64).clip(min=1)
    else:
        counts = np.bincount(masks[masks != IGNORE].ravel(), minlength=classes)[:classes].clip(min=1)
    weights = 1.0 / np.sqrt(counts / counts.sum())
    return tuple(float(weight) for weight in weights / weights.mean())


def without_class_weights(probabilities: Tensor, class_weights: Sequence[float]) -> Tensor:
    """Probabilities (..., K, H, W) as a network would give them that was trained without class weights.

    The mean of -sum_k w_k t_k log q_k is least at q_k = w_k p_k / sum_j w_j p_j, with p the true
    probabilities: rare classes come out too probable. Undone by p_k = (q_k / w_k) / sum_j (q_j / w_j).
    `class_weights` (K,) are those of the training, the background first; empty: nothing to undo.

    Raises:
        ConfigError: another number of weights than classes, or one that is not above 0.
    """
    if not class_weights:
        return probabilities
    if len(class_weights) != probabilities.shape[-3] or min(class_weights) <= 0:
        raise ConfigError(
            "there must be one class weight above 0 per class, the background first",
            found=f"{tuple(class_weights)}",
            expected=f"{probabilities.shape[-3]} weights",
        )
    weighed = probabilities / probabilities.new_tensor(class_weights).view(-1, 1, 1)
    return weighed / weighed.sum(dim=-3, keepdim=True)
