"""A network over an image larger than its patch: overlapping windows, blended by a Gaussian.

The numbers are nnU-Net's (Isensee et al., Nature Methods 2021): half a patch per step, sigma an eighth of it.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from fewmask.data.batches import BLACK

Window = tuple[int, tuple[slice, ...]]
"""Number of the image, and the voxels seen."""


@lru_cache(maxsize=16)
def gaussian(patch: tuple[int, ...]) -> NDArray[np.float32]:
    """Weights (*patch) in (0, 1] of a window's voxels: a Gaussian of sigma patch / 8, 1 in the middle."""
    delta = np.zeros(patch, dtype=np.float64)
    delta[tuple(n // 2 for n in patch)] = 1
    weights = ndimage.gaussian_filter(delta, [n / 8 for n in patch], mode="constant", cval=0)
    weights /= weights.max()
    weights[weights == 0] = weights[weights > 0].min()
    return np.asarray(weights, dtype=np.float32)


def starts(size: int, patch: int, step: float = 0.5) -> list[int]:
    """First voxels of the windows along an axis: evenly spread, at most `step` patches apart."""
    if size <= patch:
        return [0]
    count = int(np.ceil((size - patch) / (patch * step))) + 1
    return [int(np.round((size - patch) / (count - 1) * i)) for i in range(count)]


@torch.no_grad()
def slide(network: nn.Module, image: Tensor, patch: Sequence[int], *, classes: int, batch: int = 8) -> Tensor:
    """Class probabilities (N, K, *S) float32 of images (N, C, *S), each looked at in windows of `patch`.

    Axes smaller than the patch are padded with black on both sides, as in training. An image of one window is
    given to the network as it is. At most `batch` windows are in the network at a time.
    """
    size = image.shape[2:]
    padding = [max(0, p - n) for n, p in zip(size, patch, strict=True)]
    if any(padding):
        pairs = [(n // 2, n - n // 2) for n in padding]
        flat = [n for pair in reversed(pairs) for n in pair]
        inner = tuple(slice(a, a + n) for (a, _), n in zip(pairs, size, strict=True))
        padded = functional.pad(image, flat, value=BLACK)
        answer = slide(network, padded, patch, classes=classes, batch=batch)
        return answer[(slice(None), slice(None), *inner)]
    places = [starts(n, p) for n, p in zip(size, patch, strict=True)]
    if all(len(place) == 1 for place in places):
        groups = [image[n : n + batch] for n in range(0, len(image), batch)]
        return torch.cat([torch.softmax(network(group).float(), dim=1) for group in groups])
    weight = torch.from_numpy(gaussian(tuple(patch))).to(image.device)
    total = torch.zeros(len(image), classes, *size, device=image.device)
    share = torch.zeros(size, device=image.device)
    windows: list[Window] = [(n, w) for w in _windows(places, patch) for n in range(len(image))]
    for some in _groups(windows, batch):
        parts = torch.stack([image[n][(slice(None), *window)] for n, window in some])
        answers = torch.softmax(network(parts).float(), dim=1) * weight
        for (n, window), answer in zip(some, answers, strict=True):
            total[n][(slice(None), *window)] += answer
            if n == 0:
                share[window] += weight
    return total.div_(share)


def _windows(places: Sequence[Sequence[int]], patch: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    for first in itertools.product(*places):
        yield tuple(slice(start, start + p) for start, p in zip(first, patch, strict=True))


def _groups(windows: Sequence[Window], size: int) -> Iterator[Sequence[Window]]:
    for first in range(0, len(windows), size):
        yield windows[first : first + size]
