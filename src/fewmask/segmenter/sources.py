"""What a segmenter learns from: images with masks, from one origin or several, as the network's classes."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, DataError, ShapeError
from fewmask.core.volume import IGNORE
from fewmask.data.batches import ArraySource, PatchSource, Source
from fewmask.data.softmasks import MaskArray, is_soft
from fewmask.segmenter.model import Design


@dataclass(frozen=True, eq=False)
class Labelled:
    """Prepared images (C, *S) in [-1, 1] with masks (*S) uint8 of label values, 255 unjudged; of any sizes.

    S is (H, W) for slices, (D, H, W) for volumes. Arrays (N, C, *S) and (N, *S) will do as well.
    """

    images: Sequence[NDArray[np.floating]]
    masks: Sequence[NDArray[np.uint8]]

    def __post_init__(self) -> None:
        """Check that every image has a mask of its size."""
        object.__setattr__(self, "images", list(self.images))
        object.__setattr__(self, "masks", list(self.masks))
        if len(self.images) == 0 or len(self.images) != len(self.masks):
            raise ShapeError(
                "every training image needs its mask",
                found=f"{len(self.images)} images, {len(self.masks)} masks",
                expected="the same number, at least one",
            )
        for number, (image, mask) in enumerate(zip(self.images, self.masks, strict=True)):
            if image.shape[1:] != mask.shape:
                raise ShapeError(
                    "a mask has another size than its image",
                    where=f"image {number}",
                    found=f"image {image.shape}, mask {mask.shape}",
                    expected="(C, H, W) and (H, W), or (C, D, H, W) and (D, H, W)",
                )


def encode(mask: NDArray[np.uint8], labels: Sequence[int], where: str) -> NDArray[np.uint8]:
    """Label values as the network's class numbers; `IGNORE` stays. `DataError` on an undeclared value."""
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[list(labels)] = np.arange(len(labels))
    strange = sorted(set(np.unique(mask).tolist()) - {*labels, IGNORE})
    if strange:
        raise DataError(
            "a mask holds label values that no class declares",
            where=where,
            found=", ".join(map(str, strange)),
            expected=f"{', '.join(map(str, labels))} or {IGNORE} (unjudged)",
            mend="Declare the class, or set these voxels to 0 or 255.",
        )
    return np.asarray(table[mask])


class EncodedSource:
    """Another source whose masks come as the network's class numbers.

    Soft masks hold shares of the network's classes already, the background first, and stay as they are.
    """

    def __init__(self, source: Source, labels: Sequence[int]) -> None:
        if isinstance(source, ArraySource) and source.masks is not None and is_soft(source.masks):
            _refuse_classes(source.masks, labels)
        self.source, self.labels = source, labels

    def __len__(self) -> int:
        return len(self.source)

    def fetch(
        self, indices: Sequence[int], chance: np.random.Generator
    ) -> tuple[NDArray[np.float32], MaskArray | None]:
        """Images (B, C, *S) and masks, (B, *S) uint8 or soft (B, K, *S)."""
        images, masks = self.source.fetch(indices, chance)
        if masks is None:
            return images, None
        if is_soft(masks):
            _refuse_classes(masks, self.labels)
            return images, masks
        return images, encode(masks.astype(np.uint8, copy=False), self.labels, f"training images {indices}")


def _refuse_classes(masks: MaskArray, labels: Sequence[int]) -> None:
    if masks.shape[1] != len(labels):
        raise ShapeError(
            "soft masks have another number of classes than the network",
            found=f"{masks.shape[1]}",
            expected=f"{len(labels)}, the background first",
        )


def with_unlabelled(
    images: NDArray[np.floating],
    masks: MaskArray,
    pool: NDArray[np.floating],
    *,
    labelled_share: float = 0.5,
) -> tuple[ArraySource, list[float]]:
    """Labelled and unlabelled images as one training set, for a mean teacher.

    Args:
        images: (k, C, *S) in [-1, 1].
        masks: (k, *S) uint8, or soft (k, K, *S).
        pool: (N, C, *S) in [-1, 1]; nobody judged any of its voxels.
        labelled_share: how much of what a training sees is labelled, in (0, 1).

    Returns:
        The source, and how often each image is drawn: `data` and `weights` of `fit_segmenter`.

    Raises:
        ConfigError: the share is out of range.
        ShapeError: images and pool do not fit, or one of them is empty.
    """
    if not 0 < labelled_share < 1:
        raise ConfigError(
            "the share of labelled images must lie between 0 and 1",
            found=f"{labelled_share}",
            where="teacher",
        )
    if images.shape[1:] != pool.shape[1:] or not len(images) or not len(pool):
        raise ShapeError(
            "a teacher needs labelled and unlabelled images of one size",
            found=f"{images.shape} and {pool.shape}",
        )
    unjudged = 0 if is_soft(masks) else IGNORE
    none = np.full((len(pool), *masks.shape[1:]), unjudged, dtype=masks.dtype)
    source = ArraySource(np.concatenate([images, pool]), np.concatenate([masks, none]))
    weights = [labelled_share / len(images)] * len(images) + [(1 - labelled_share) / len(pool)] * len(pool)
    return source, weights


def source_of(data: Labelled | Source, design: Design, *, foreground: float) -> Source:
    """Whole images where all have the patch's size, else patches; with class numbers for label values."""
    if not isinstance(data, Labelled):
        return EncodedSource(data, design.labels)
    encoded = encoded_masks(data, design.labels, "training")
    if not any(((mask > 0) & (mask != IGNORE)).any() for mask in encoded.masks):
        raise DataError(
            "no training mask shows any class",
            found=f"{len(encoded.masks)} empty masks",
            expected=f"some of {', '.join(design.classes)}",
            mend="Choose other labelled images.",
        )
    if all(image.shape[1:] == design.patch for image in encoded.images):
        return ArraySource(np.stack(encoded.images), np.stack(encoded.masks))
    return PatchSource(encoded.images, encoded.masks, design.patch, foreground=foreground)


def encoded_masks(data: Labelled, labels: Sequence[int], part: str) -> Labelled:
    """The same images, with class numbers in the masks; `part` names them in errors."""
    masks = [encode(mask, labels, f"{part} mask {number}") for number, mask in enumerate(data.masks)]
    return Labelled(data.images, masks)


def told(data: Labelled | Source) -> str:
    """What the data are: their fingerprint; of a source that makes its images on the way, how many."""
    if isinstance(data, ArraySource) and data.masks is not None:
        print_of = fingerprint(data.images, data.masks)
        return print_of if data.scale is None else f"{print_of} x {data.scale}"
    if isinstance(data, Labelled):
        return fingerprint(data.images, data.masks)
    return f"{len(data)} images of a source"


def fingerprint(images: Iterable[NDArray[np.generic]], masks: Iterable[NDArray[np.generic]]) -> str:
    """SHA-256 over sizes and values of all images and masks."""
    digest = hashlib.sha256()
    for image, mask in zip(images, masks, strict=True):
        for array in (image, mask):
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
