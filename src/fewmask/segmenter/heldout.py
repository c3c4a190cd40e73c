"""How well a network does on held-out images while it is trained."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fewmask.core.volume import IGNORE
from fewmask.metrics.overlap import Overlap, miou_image, overlap
from fewmask.objectives.segmentation import SegmentationObjective
from fewmask.objectives.teacher import MeanTeacherObjective
from fewmask.segmenter.model import Design
from fewmask.segmenter.sources import Labelled
from fewmask.segmenter.windows import slide

Learner = SegmentationObjective | MeanTeacherObjective


@torch.no_grad()
def pooled_dice(network: nn.Module, data: Labelled, design: Design) -> float:
    """Mean over classes of the Dice over all voxels of all images together, 0..1; unjudged voxels left out.

    `data` holds the network's class numbers. A class that is neither there nor found counts as 1.
    """
    count = len(design.labels)
    table = np.zeros((count, count), dtype=np.int64)
    for answer, mask in _answers(network, data, design):
        judged = mask != IGNORE
        pairs = answer[judged] * count + mask[judged]
        table += np.bincount(pairs.ravel(), minlength=count**2).reshape(count, count)
    both = np.diagonal(table)[1:]
    either = (table.sum(axis=0) + table.sum(axis=1))[1:]
    return float(np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0).mean())


@torch.no_grad()
def mean_iou(network: nn.Module, data: Labelled, design: Design) -> float:
    """`iou_of` what the network answers; `data` holds its class numbers."""
    return iou_of(_answers(network, data, design), len(design.labels))


def iou_of(pairs: Iterable[tuple[NDArray[np.integer], NDArray[np.uint8]]], classes: int) -> float:
    """Mean over classes of the mean IoU over images, 0..1 (`metrics.overlap.miou_image`).

    `pairs`: answer and mask (*S) of each image, both class numbers below `classes`. Every image weighs the
    same; unjudged voxels are left out, and so are images without any judged voxel.
    """
    by_class = {number: list[Overlap]() for number in range(1, classes)}
    for answer, mask in pairs:
        judged = mask != IGNORE
        for number, found in by_class.items():
            if judged.any():
                found.append(overlap(answer == number, mask == number, judged))
    return miou_image({str(number): found for number, found in by_class.items()})


def _answers(
    network: nn.Module, data: Labelled, design: Design
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """The most probable class of every voxel of each image (*S), and its mask."""
    network.eval()
    device = next(network.parameters()).device
    for image, mask in zip(data.images, data.masks, strict=True):
        pixels = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None].to(device)
        soft = slide(network, pixels, design.patch, classes=len(design.labels))[0]
        yield soft.argmax(dim=0).cpu().numpy(), mask
