"""Batches that can be asked for by number: image n of a training is fixed by (seed, name, n).

Nothing here moves forward, so nothing has to be saved: a training that saw 4096 images resumes by asking
for the batch that starts at image 4096.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.core.seed import integer, stream
from fewmask.core.volume import IGNORE
from fewmask.data.softmasks import MaskArray, refuse_mask

BLACK = -1.0
"""Value of voxels outside a prepared image."""

Augment = Callable[[Tensor, Tensor | None, torch.Generator], tuple[Tensor, Tensor | None]]
"""(image (B,C,*S), mask (B,*S) or soft (B,K,*S) or None, CPU generator) -> the same, augmented. Draws first,
then applies."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What one update learns from.

    image: (B,C,H,W) or (B,C,D,H,W) float32 in [-1,1]; mask: (B,H,W) or (B,D,H,W) int64, or soft (B,K,*S)
    float32 (see `data.softmasks`), or None;
    index: (B,) int64, which item of the source each image is; label: (B,K) float32 one-hot, or None.
    """

    image: Tensor
    mask: Tensor | None
    index: Tensor
    label: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        return self._each(lambda part: part.to(device))

    def take(self, which: slice) -> "Batch":
        """Some rows of the batch."""
        return self._each(lambda part: part[which].contiguous())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        mask = None if self.mask is None else change(self.mask)
        label = None if self.label is None else change(self.label)
        return Batch(change(self.image), mask, change(self.index), label)


class Source(Protocol):
    """Numbered images, with masks or without."""

    def __len__(self) -> int: ...

    def fetch(
        self, indices: Sequence[int], chance: np.random.Generator
    ) -> tuple[NDArray[np.float32], MaskArray | None]:
        """Images (B,C,*S) float32 in [-1,1]; masks (B,*S) uint8, soft (B,K,*S), or None.

        `chance` draws patches.
        """


@runtime_checkable
class Labelled(Protocol):
    """A source whose images have class labels."""

    def labels_of(self, indices: Sequence[int]) -> Tensor | None:
        """(B,K) float32 one-hot, or None when the source was built without."""


class ArraySource:
    """Images of one size, held in memory or in a memory-mapped file.

    images: (N,C,*S), floats in [-1,1], or any numbers with `scale`; masks: (N,*S) uint8, or soft (N,K,*S)
    float16 or float32 (see `data.softmasks`), or None; labels: (N,K) one-hot, or None; scale: (factor,
    offset) with factor * value + offset in [-1,1], so that a large cohort may stay uint8, uint16 or float16.
    Raises `ShapeError`, `ConfigError`.
    """

    def __init__(
        self,
        images: NDArray[Any],
        masks: MaskArray | None = None,
        labels: NDArray[np.floating] | None = None,
        *,
        scale: tuple[float, float] | None = None,
    ) -> None:
        if images.ndim not in (4, 5) or len(images) == 0:
            raise ShapeError(
                "training images must be a non-empty array",
                found=f"{images.shape}",
                expected="(N, C, [D,] H, W)",
            )
        refuse_mask(masks, (len(images), *images.shape[2:]), soft=True)
        _refuse_labels(labels, len(images))
        _refuse_scale(images.dtype, scale)
        self.images, self.masks, self.scale = images, masks, scale
        self.labels = None if labels is None else torch.from_numpy(np.array(labels, dtype=np.float32))

    def __len__(self) -> int:
        return len(self.images)

    def fetch(
        self, indices: Sequence[int], chance: np.random.Generator
    ) -> tuple[NDArray[np.float32], MaskArray | None]:
        """The images and masks of `indices`, whole; `chance` is not used."""
        which = np.asarray(indices)
        masks = None if self.masks is None else np.asarray(self.masks[which])
        images = np.asarray(self.images[which], dtype=np.float32)
        if self.scale is not None:
            images = images * np.float32(self.scale[0]) + np.float32(self.scale[1])
        return images, masks

    def labels_of(self, indices: Sequence[int]) -> Tensor | None:
        """(B,K) float32 one-hot, or None."""
        return None if self.labels is None else self.labels[torch.tensor(indices)]


class PatchSource:
    """Random patches of images of any size; one image of the source gives one patch per visit.

    images: arrays (C,H,W) or (C,D,H,W) in [-1,1]; masks: arrays (H,W) or (D,H,W) uint8, or None;
    patch_size: (h,w) or (d,h,w) in voxels; foreground: share in [0,1] of patches centred on a random voxel
    of a random class that is present. Images smaller than the patch are padded on both sides, black and
    with `IGNORE` in the mask.
    """

    CENTRES = 10_000  # voxels remembered per image and class

    def __init__(
        self,
        images: Sequence[NDArray[np.floating]],
        masks: Sequence[NDArray[np.uint8]] | None,
        patch_size: Sequence[int],
        *,
        foreground: float = 0.33,
    ) -> None:
        self.patch_size = tuple(int(n) for n in patch_size)
        if len(self.patch_size) not in (2, 3) or min(self.patch_size) < 1:
            raise ConfigError("a patch has two or three sizes of at least 1", found=f"{self.patch_size}")
        if not 0 <= foreground <= 1:
            raise ConfigError("the share of foreground patches must lie in [0, 1]", found=f"{foreground}")
        if len(images) == 0 or (masks is not None and len(masks) != len(images)):
            raise ShapeError(
                "every training image needs its mask",
                found=f"{len(images)} images, {'no' if masks is None else len(masks)} masks",
            )
        for number, image in enumerate(images):
            if image.ndim != len(self.patch_size) + 1 or image.shape[0] != images[0].shape[0]:
                raise ShapeError(
                    "a training image does not fit the patch",
                    where=f"image {number}",
                    found=f"{image.shape}",
                    expected=f"{images[0].shape[0]} channels and {len(self.patch_size)} more axes",
                )
            refuse_mask(None if masks is None else masks[number], image.shape[1:])
        self.images, self.masks, self.foreground = images, masks, foreground
        self._centres = None if masks is None else [_centres(mask, self.CENTRES) for mask in masks]

    def __len__(self) -> int:
        return len(self.images)

    def fetch(
        self, indices: Sequence[int], chance: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        """One random patch of each image of `indices`: (B,C,*patch_size) and masks (B,*patch_size)."""
        channels = self.images[0].shape[0]
        images = np.full((len(indices), channels, *self.patch_size), BLACK, dtype=np.float32)
        masks = None if self.masks is None else np.full((len(indices), *self.patch_size), IGNORE, np.uint8)
        for row, index in enumerate(indices):
            shape = self.images[index].shape[1:]
            start = self._start(index, shape, chance)
            inside, within = zip(*map(_overlap, start, self.patch_size, shape), strict=True)
            images[(row, slice(None), *within)] = self.images[index][(slice(None), *inside)]
            if masks is not None and self.masks is not None:
                masks[(row, *within)] = self.masks[index][inside]
        return images, masks

    def _start(self, index: int, shape: tuple[int, ...], chance: np.random.Generator) -> list[int]:
        """First voxel of the patch per axis; negative where the image is smaller and will be padded."""
        # every patch draws the same numbers, whether it uses them or not
        wants_foreground, which_class, which_voxel, *position = chance.random(3 + len(shape))
        room = [size - patch for size, patch in zip(shape, self.patch_size, strict=True)]
        start = [int(u * (free + 1)) for u, free in zip(position, room, strict=True)]
        classes = [] if self._centres is None else self._centres[index]
        if classes and wants_foreground < self.foreground:
            voxels = classes[int(which_class * len(classes))]
            centre = np.unravel_index(voxels[int(which_voxel * len(voxels))], shape)
            start = [int(c) - patch // 2 for c, patch in zip(centre, self.patch_size, strict=True)]
        return [
            min(max(first, 0), free) if free >= 0 else free // 2
            for first, free in zip(start, room, strict=True)
        ]


class Stream:
    """The endless sequence of batches of one training.

    Image n is `source[order(n)]`, where every `len(source)` images the order is a new permutation - or, with
    `weights` (N,) >= 0, that many draws with replacement. What a source or an augmentation draws is fixed by
    (seed, name, number of the batch's first image).
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        seed: int,
        name: str,
        augment: Augment | None = None,
        weights: Sequence[float] | NDArray[np.floating] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError("the batch size must be at least 1", found=f"{batch_size}")
        if len(source) == 0:
            raise ShapeError("there is no image to train on", where=name)
        self.source, self.batch_size, self.seed, self.name = source, batch_size, seed, name
        self.augment = augment
        self.weights = None if weights is None else _shares(weights, len(source))
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def at(
        self, images_seen: int, *, rank: int = 0, ranks: int = 1, device: torch.device | str = "cpu"
    ) -> Batch:
        """The batch that starts at image `images_seen`; process `rank` of `ranks` gets `rows` of it.

        Augmentation runs on `device`, with its draws made by a CPU generator. What is drawn does not depend
        on the number of processes: each augments the whole batch and keeps its rows. Raises `ConfigError`.
        """
        mine = rows(self.batch_size, rank, ranks)
        indices = [self.index(n) for n in range(images_seen, images_seen + self.batch_size)]
        if self.augment is None and isinstance(self.source, ArraySource):
            indices, mine = indices[mine], slice(None)  # it draws nothing, so the other rows are not read
        image, mask = self.source.fetch(indices, stream(self.seed, self.name, "fetch", images_seen))
        batch = Batch(
            torch.from_numpy(np.ascontiguousarray(image)),
            None if mask is None else _tensor(mask),
            torch.tensor(indices),
            self.source.labels_of(indices) if isinstance(self.source, Labelled) else None,
        )
        if self.augment is None:
            return batch.take(mine).to(device)
        batch = batch.to(device)
        chance = torch.Generator().manual_seed(integer(self.seed, self.name, "augment", images_seen))
        new_image, new_mask = self.augment(batch.image, batch.mask, chance)
        return replace(batch, image=new_image, mask=new_mask).take(mine)

    def index(self, n: int) -> int:
        """Which item of the source image `n` of the training is."""
        epoch, place = divmod(n, len(self.source))
        if self._order is None or self._order[0] != epoch:
            chance = stream(self.seed, self.name, "order", epoch)
            count = len(self.source)
            order = (
                chance.permutation(count)
                if self.weights is None
                else chance.choice(count, size=count, p=self.weights)
            )
            self._order = epoch, order
        return int(self._order[1][place])


def rows(count: int, rank: int, ranks: int) -> slice:
    """Which rows of a batch of `count` belong to share `rank` of `ranks`: every `ranks`-th from `rank` on.

    The shares may be processes or micro-batches; raises `ConfigError` unless they are equally large.
    """
    if count % ranks:
        raise ConfigError(
            "the batch size must be a multiple of the number of devices and of micro-batches",
            found=f"{count} images, {ranks} shares",
            expected="images = devices x micro-batches x a whole number",
            mend="Change the batch size, the number of devices or the number of micro-batches.",
        )
    return slice(rank, count, ranks)


def _overlap(start: int, patch: int, size: int) -> tuple[slice, slice]:
    """Where a patch lies in an image along one axis: slice of the image, slice of the patch."""
    low, high = max(start, 0), min(start + patch, size)
    return slice(low, high), slice(low - start, high - start)


def _centres(mask: NDArray[np.uint8], most: int) -> list[NDArray[np.int64]]:
    """Flat indices of up to `most` evenly picked voxels of each class that is present."""
    flat = np.asarray(mask).reshape(-1)
    voxels = [np.flatnonzero(flat == label) for label in np.unique(flat) if label not in (0, IGNORE)]
    return [v[np.linspace(0, len(v) - 1, min(len(v), most)).astype(np.int64)] for v in voxels]


def _shares(weights: Sequence[float] | NDArray[np.floating], count: int) -> NDArray[np.float64]:
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (count,) or not np.isfinite(values).all() or values.min() < 0 or values.sum() <= 0:
        raise ConfigError(
            "sampling weights must be one finite number >= 0 per image, not all zero",
            found=f"shape {values.shape}, sum {values.sum():g}",
            expected=f"({count},)",
        )
    return np.asarray(values / values.sum())


def _tensor(mask: MaskArray) -> Tensor:
    """int64 class numbers, or float32 shares."""
    values = torch.from_numpy(np.ascontiguousarray(mask))
    return values.float() if values.is_floating_point() else values.long()


def _refuse_labels(labels: NDArray[np.floating] | None, count: int) -> None:
    if labels is None:
        return
    if labels.ndim != 2 or len(labels) != count:
        raise ShapeError(
            "class labels do not fit their images", found=f"{labels.shape}", expected=f"({count}, classes)"
        )
    if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
        raise ShapeError(
            "class labels must be one-hot", found="rows that are not", expected="one 1 per row, else 0"
        )


def _refuse_scale(kind: np.dtype[Any], scale: tuple[float, float] | None) -> None:
    """Whole numbers without a scale are never in [-1,1]: somebody forgot it."""
    if scale is None and not np.issubdtype(kind, np.floating):
        raise ConfigError(
            "images of whole numbers need their scale",
            found=f"{kind}",
            expected="scale=(factor, offset) with factor * value + offset in [-1, 1]",
            mend="For 8 bits, scale=(2 / 255, -1).",
        )
    if scale is not None and not (np.isfinite(scale).all() and scale[0] != 0):
        raise ConfigError("the scale of images must be finite and not zero", found=f"{scale}")
