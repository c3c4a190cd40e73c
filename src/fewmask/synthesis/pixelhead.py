"""From k labelled images to a head that labels pixels by features (RepurposeGAN, Tritrong et al. 2021)."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.files import write_atomic
from fewmask.core.run import Step
from fewmask.core.seed import integer
from fewmask.core.volume import IGNORE
from fewmask.data.batches import ArraySource, Augment, Stream
from fewmask.networks.pixelhead import HeadKind, PixelHead
from fewmask.objectives.pixelhead import PixelHeadObjective
from fewmask.synthesis.features import ChannelStatistics, FeatureStack
from fewmask.training.launch import Fabric
from fewmask.training.loop import fit

Float = NDArray[np.float32]

Labeller = Callable[[Tensor, Tensor | None], Tensor]
"""Class probabilities (B, K, H, W) of images (B, C, H, W) in [-1, 1] with their latents or None."""


@dataclass(frozen=True, eq=False)
class Shots:
    """Labelled images for a head.

    images (N, C, H, W) in [-1, 1]; masks (N, H, W) uint8, `IGNORE` is unjudged; ws (N, num_ws, w_dim) their
    latents, or None when no source of the stack reads latents.
    """

    images: Float
    masks: NDArray[np.uint8]
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
    batch_size: int = 8,
    augment: Augment | None = None,
    class_weights: Sequence[float] = (),
    dice_weight: float = 1.0,
    label: str = "head",
) -> PixelHead:
    """Train a head on the features of a few labelled images.

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
        batch_size: images per update.
        augment: augmentation on the fly; only when the stack reads no latents, which belong to the image
            as it was inverted.
        class_weights: (classes,) weights of the cross-entropy, see `inverse_root_frequency`.
        dice_weight: weight of the soft Dice term.
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
    if not ((shots.masks > 0) & (shots.masks != IGNORE)).any():
        raise DataError(
            "no labelled image shows any class",
            found=f"{len(shots.masks)} empty masks",
            expected="at least one labelled pixel",
            mend="Choose other shots, or check the masks' values.",
        )
    sample = torch.from_numpy(np.array(shots.images[:1]))
    latents = None if shots.ws is None else torch.from_numpy(np.array(shots.ws))
    channels = stack.channels(sample, None if latents is None else latents[:1])
    head = PixelHead(channels, classes, kind=kind, width=width)
    head.initialise(torch.Generator().manual_seed(integer(seed, label, "weights")))
    head.standardise(statistics.mean, statistics.deviation)
    objective = PixelHeadObjective(
        head,
        stack.maps,
        images=images,
        latents=latents,
        class_weights=class_weights,
        dice_weight=dice_weight,
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
        checkpoint_every=images,
        report_every=max(images // 20, 1),
        label=label,
    )
    return head.eval()


def predict_head(
    heads: Sequence[PixelHead],
    stack: FeatureStack,
    images: Float,
    ws: Float | None = None,
    *,
    batch_size: int = 16,
) -> Float:
    """Class probabilities (N, K, H, W) float32 of images (N, C, H, W): the mean over the heads."""
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
    """Mean class probabilities (B, K, H, W) of the heads; the features are computed once for all."""
    size = (int(image.shape[2]), int(image.shape[3]))
    maps = stack.maps(image, ws)
    with torch.no_grad():
        return torch.stack([head(maps, size).softmax(dim=1) for head in heads]).mean(dim=0)


def inverse_root_frequency(masks: NDArray[np.uint8], classes: int) -> tuple[float, ...]:
    """Class weights (classes,) for rare classes: 1 / sqrt(share of judged pixels), scaled to mean 1.

    A class that no mask shows gets the weight of a single pixel.
    """
    counts = np.bincount(masks[masks != IGNORE].ravel(), minlength=classes)[:classes].clip(min=1)
    weights = 1.0 / np.sqrt(counts / counts.sum())
    return tuple(float(weight) for weight in weights / weights.mean())


def write_head(path: Path, head: PixelHead) -> Path:
    """Write a head's weights and settings as one safetensors file."""
    settings = {
        "channels": list(head.channels),
        "classes": head.classes,
        "kind": head.kind,
        "width": head.width,
    }
    about = {"settings": json.dumps(settings)}
    return write_atomic(path, lambda temporary: save_file(head.state_dict(), temporary, metadata=about))


def read_head(path: Path) -> PixelHead:
    """Read what `write_head` wrote. Raises `DataError` when the file is damaged or something else."""
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads((file.metadata() or {})["settings"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        head = PixelHead(**settings)
        head.load_state_dict(tensors)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise DataError("is not a pixel head that can be read", where=str(path), found=str(error)) from error
    return head.eval()
