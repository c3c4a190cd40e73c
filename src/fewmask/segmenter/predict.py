"""A scan in, a mask on the scan's own grid out, with a confidence."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmask.core.errors import DataError
from fewmask.core.volume import Mask, Volume
from fewmask.data.augment_spatial import Axis
from fewmask.data.prepare import Prepared, Trace, prepare, undo_probabilities
from fewmask.segmenter.model import Segmenter
from fewmask.segmenter.windows import slide

SHIFT = 2
"""Voxels of the prepared image by which test-time augmentation moves it, where it may not mirror it."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a segmenter says about one case."""

    mask: Mask
    """Label values on the scan's own grid."""
    confidence: float
    """0..1: mean of `by_class`; sorts cases for review, the lowest first."""
    by_class: Mapping[str, float]
    """0..1 per class, see `class_confidence`."""
    trace: Trace
    """How the scan was prepared."""
    probabilities: NDArray[np.float16] | None
    """(K, Z, Y, X) on the prepared grid, when asked for."""


def predict(
    segmenter: Segmenter,
    images: Mapping[str, Volume],
    *,
    tta: bool = False,
    keep_probabilities: bool = False,
) -> Prediction:
    """Segment one case.

    Args:
        segmenter: the model.
        images: aligned scans by modality, all that the model names; others are left out.
        tta: average over mirrored copies where the model allows flips, else over small shifts.
        keep_probabilities: also return the probabilities on the prepared grid.

    Raises:
        DataError: a modality is missing, lies on another grid, or holds NaN or infinite values.
    """
    refuse_missing_modality(segmenter, images)
    prepared = prepare(images, segmenter.design.preparation)
    return segment_prepared(segmenter, prepared, tta=tta, keep_probabilities=keep_probabilities)


def segment_prepared(
    segmenter: Segmenter, prepared: Prepared, *, tta: bool = False, keep_probabilities: bool = False
) -> Prediction:
    """Segment a case that is already prepared as the model wants it."""
    probabilities = probabilities_of(segmenter, prepared.image, tta=tta)
    mask = undo_probabilities(probabilities, prepared.trace, labels=segmenter.design.labels)
    by_class = class_confidence(
        probabilities, tuple(segmenter.design.classes), may_be_absent=segmenter.design.may_be_absent
    )
    confidence = float(np.mean(list(by_class.values())))
    kept = probabilities if keep_probabilities else None
    return Prediction(mask, confidence, by_class, prepared.trace, kept)


def probabilities_of(
    segmenter: Segmenter, image: NDArray[np.float32], *, tta: bool = False, batch: int = 8
) -> NDArray[np.float16]:
    """Class probabilities (K, Z, Y, X) of a prepared image (C, Z, Y, X) in [-1, 1].

    A 2-D model sees the slices in batches, so only `batch` of them are held by the network at a time.
    """
    design, device = segmenter.design, segmenter.device
    segmenter.network.eval()
    probabilities = np.empty((len(design.labels), *image.shape[1:]), dtype=np.float16)
    if design.dims == 3:
        whole = torch.from_numpy(image)[None].to(device)
        probabilities[:] = _averaged(segmenter, whole, tta, max(1, batch // 4))[0].cpu().numpy()
        return probabilities
    for first in range(0, image.shape[1], batch):
        slices = torch.from_numpy(np.ascontiguousarray(image[:, first : first + batch].swapaxes(0, 1)))
        answer = _averaged(segmenter, slices.to(device), tta, batch)
        probabilities[:, first : first + batch] = answer.transpose(0, 1).cpu().numpy()
    return probabilities


def class_confidence(
    probabilities: NDArray[np.floating], classes: Sequence[str], *, may_be_absent: Sequence[str] = ()
) -> dict[str, float]:
    """How sure a model is of each class in one case, 0..1: the Dice that it expects of its own answer.

    2 sum(p a) / (sum(p) + sum(a)), with p the class's probability and a its most-probable voxels: Borges et
    al., "Soft Dice Confidence", arXiv:2402.10665, equation 6. A class that is found nowhere gets 0 - a person
    should look - unless it `may_be_absent`: then one minus its highest probability.

    `probabilities` is (K, Z, Y, X), the background first, then `classes` in order.
    """
    answer = probabilities.argmax(axis=0)
    result = {}
    for number, name in enumerate(classes, start=1):
        p, found = probabilities[number], answer == number
        voxels = int(found.sum())
        if voxels == 0:
            result[name] = float(1 - p.max()) if name in may_be_absent else 0.0
            continue
        both = float(p[found].sum(dtype=np.float64))
        result[name] = 2 * both / (float(p.sum(dtype=np.float64)) + voxels)
    return result


def refuse_missing_modality(segmenter: Segmenter, images: Mapping[str, object]) -> None:
    """Raise `DataError` unless every modality of the model is there."""
    missing = [name for name in segmenter.design.modalities if name not in images]
    if missing:
        raise DataError(
            f"the model needs a modality that the case does not have: {', '.join(missing)}",
            found=", ".join(images) or "no image",
            expected=", ".join(segmenter.design.modalities),
            mend="Add the scan, or train a model without this modality.",
        )


View = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""Another look at an image, and how to bring its answer back."""


def _averaged(segmenter: Segmenter, image: Tensor, tta: bool, batch: int) -> Tensor:
    """Probabilities (N, K, *S) of images (N, C, *S), averaged over views if `tta`."""
    design = segmenter.design
    views = _views(design.flips, design.dims) if tta else []

    def look(view: Tensor) -> Tensor:
        return slide(segmenter.network, view, design.patch, classes=len(design.labels), batch=batch)

    total = look(image)
    for do, undo in views:
        total += undo(look(do(image)))
    return total / (len(views) + 1)


def _views(flips: Sequence[Axis], dims: int) -> list[View]:
    """All mirrorings along the allowed axes; where none is allowed, four small diagonal shifts."""
    if flips:
        axes = [("z", "y", "x").index(axis) - 3 for axis in flips]
        chosen = [some for n in range(1, len(axes) + 1) for some in itertools.combinations(axes, n)]
        mirrors = [partial(torch.flip, dims=some) for some in chosen]
        return [(mirror, mirror) for mirror in mirrors]
    shifts = itertools.product((-SHIFT, SHIFT), repeat=2)
    return [(partial(_moved, dy=dy, dx=dx), partial(_moved, dy=-dy, dx=-dx)) for dy, dx in shifts]


def _moved(tensor: Tensor, *, dy: int, dx: int) -> Tensor:
    """`tensor` (..., Y, X) read `dy`, `dx` voxels further on; the border is repeated."""
    for axis, by in ((-2, dy), (-1, dx)):
        size = tensor.shape[axis]
        index = (torch.arange(size, device=tensor.device) + by).clamp(0, size - 1)
        tensor = tensor.index_select(axis, index)
    return tensor
