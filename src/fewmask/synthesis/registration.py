"""Registration of slices, and masks that travel with them from a labelled slice to an unlabelled one.

Warped onto an unlabelled slice, a labelled one takes on another patient's shape and its mask stays exact; and
where its mask lies then is a first guess for the unlabelled slice, to be voted on when several slices are
labelled (multi-atlas segmentation; Iglesias & Sabuncu, Medical Image Analysis 24:205, 2015). Zhao et al.,
"Data augmentation using learned transformations for one-shot medical image segmentation", CVPR 2019, teach a
network with such warps. Their registration is learned; here it is computed slice by slice: affine by
normalised correlation, then symmetric demons (Thirion, Medical Image Analysis 2:243, 1998; Vercauteren et
al., MICCAI 2007), both by SimpleITK.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.data.batches import BLACK
from fewmask.data.itkfiles import quiet_itk

Float = NDArray[np.floating]

LEAST_AREA, MOST_AREA = 0.25, 4.0
"""An affine map that shrinks or grows areas beyond these, or mirrors, has lost its way, and is left out."""

AFFINE_STEPS = 60
"""At most so many steps at half and at full size."""

GREYS = 255
"""Levels by which grey values are told apart."""

AT_ONCE = 16
"""So many slices are warped at a time, for the memory it takes."""


@dataclass(frozen=True)
class Demons:
    """How slices are registered.

    side: pixels of the longer side at which it is done; larger slices are shrunk, for the time it takes.
    smoothness: standard deviation of the Gaussian that smooths the displacements after each step, in pixels.
    steps: iterations of the demons.
    """

    side: int = 64
    smoothness: float = 1.0
    steps: int = 100

    def __post_init__(self) -> None:
        """Refuse what no registration can use."""
        if self.side < 16 or self.smoothness <= 0 or self.steps < 0:
            raise ConfigError(
                "a registration needs a side of 16 pixels, a smoothness above 0 and no negative steps",
                found=f"side={self.side}, smoothness={self.smoothness:g}, steps={self.steps}",
            )


def register(fixed: Float, moving: Float, how: Demons | None = None) -> NDArray[np.float32]:
    """Where each pixel of one slice lies in another.

    Args:
        fixed: (C, H, W) in [-1, 1]; channels are averaged.
        moving: (C, H, W), the slice that is to look like `fixed`.
        how: settings.

    Returns:
        (2, h, w) displacements along x and y, in halves of the slice's width and height, as `carry` takes
        them; h and w are those at which the registration was done. The same slices give the same bits.

    Raises:
        ShapeError: the slices differ in size.
    """
    how = how or Demons()
    if fixed.ndim != 3 or fixed.shape[1:] != moving.shape[1:]:
        raise ShapeError(
            "slices of two sizes cannot be registered",
            found=f"{fixed.shape} and {moving.shape}",
            expected="(C, H, W) and (C, H, W)",
        )
    with quiet_itk():  # a slice without contrast is no reason to warn
        whole = _registered(_gray(fixed, how.side), _gray(moving, how.side), how)
    pixels = np.moveaxis(sitk.GetArrayFromImage(whole), -1, 0)
    halves = 2 / np.array(whole.GetSize(), dtype=np.float64)
    return np.asarray(pixels * halves[:, None, None], dtype=np.float32)


def carry(images: Float, displacements: Float, *, outside: Sequence[float]) -> NDArray[np.float32]:
    """Slices as they look on the grid of those that they were registered with.

    Args:
        images: (N, C, H, W).
        displacements: (N, 2, h, w) of `register`, of any size.
        outside: (C,) what lies beyond the border.

    Returns:
        (N, C, H, W), interpolated linearly.
    """
    beyond = torch.tensor(outside, dtype=torch.float32)[:, None, None]
    carried = np.empty(images.shape, dtype=np.float32)
    for first in range(0, len(images), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        pixels = torch.from_numpy(np.array(images[part], dtype=np.float32)) - beyond
        field = torch.from_numpy(np.array(displacements[part], dtype=np.float32))
        field = functional.interpolate(field, pixels.shape[2:], mode="bilinear", align_corners=False)
        there = functional.grid_sample(pixels, _identity(pixels) + field.movedim(1, -1), align_corners=False)
        carried[part] = (there + beyond).numpy()
    return carried


def carried_slices(images: Float, displacements: Float) -> NDArray[np.float32]:
    """`carry` for slices (N, C, H, W) in [-1, 1]: black beyond the border."""
    return carry(images, displacements, outside=[BLACK] * images.shape[1])


def carried_shares(shares: Float, displacements: Float) -> NDArray[np.float32]:
    """`carry` for soft masks (N, K, H, W): background beyond the border. Shares stay in [0, 1]."""
    beyond = [1.0] + [0.0] * (shares.shape[1] - 1)
    carried = carry(shares, displacements, outside=beyond)
    return carried.clip(0, 1, out=carried)


def voted(shares: Float, displacements: Sequence[Float]) -> NDArray[np.float32]:
    """What the carried masks say of every target: their mean.

    Args:
        shares: (k, K, H, W) soft masks of the labelled slices, 0 in every class where nobody judged.
        displacements: for each of them (N, 2, h, w), onto the same N targets.

    Returns:
        (N, K, H, W); a pixel that few of the masks judge adds up to less than 1.
    """
    total = np.zeros((len(displacements[0]), *shares.shape[1:]), dtype=np.float32)
    for share, field in zip(shares, displacements, strict=True):
        total += carried_shares(np.broadcast_to(share, total.shape), field)
    return np.asarray(total / len(shares), dtype=np.float32)


def warped(images: Float, shares: Float, displacements: Sequence[Float]) -> tuple[NDArray[np.float32], ...]:
    """One labelled slice warped onto each target, in turns: slices (N, C, H, W) and soft masks (N, K, H, W).

    Target n gets labelled slice n modulo k; arguments as of `voted`, with the slices (k, C, H, W).
    """
    count = len(displacements[0])
    who = np.arange(count) % len(images)
    field = np.stack([displacements[slice_][target] for target, slice_ in enumerate(who.tolist())])
    return carried_slices(images[who], field), carried_shares(shares[who], field)


def agreed(votes: Float, answers: Float) -> NDArray[np.float32]:
    """The mean of two soft masks (N, K, H, W), adding up to 1: both count as much as they judge a pixel."""
    both = votes + answers
    return np.asarray(both / np.maximum(both.sum(axis=1, keepdims=True), 1e-6), dtype=np.float32)


def _identity(images: Tensor) -> Tensor:
    """The sampling grid (N, H, W, 2) that changes nothing."""
    same = torch.eye(2, 3).expand(len(images), 2, 3)
    return functional.affine_grid(same, list(images.shape), align_corners=False)


def _gray(image: Float, side: int) -> sitk.Image:
    """The mean of the channels, its longer side at most `side` pixels."""
    mean = torch.from_numpy(np.asarray(image, dtype=np.float32)).mean(0, keepdim=True)
    longest = max(mean.shape[1:])
    if longest > side:
        small = [max(1, round(n * side / longest)) for n in mean.shape[1:]]
        mean = functional.interpolate(mean[None], small, mode="area")[0]
    return sitk.GetImageFromArray(evened(mean[0].numpy()))


def _registered(still: sitk.Image, moved: sitk.Image, how: Demons) -> sitk.Image:
    """The displacements in pixels: the affine map, and the demons on what it leaves."""
    affine = _affine(still, moved)
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfThreads(1)  # so that sums have one order
    demons.SetNumberOfIterations(how.steps)
    demons.SetSmoothDisplacementField(True)
    demons.SetStandardDeviations(how.smoothness)
    near = sitk.Resample(moved, still, affine, sitk.sitkLinear, BLACK)
    bent = sitk.DisplacementFieldTransform(demons.Execute(still, near))
    both = sitk.CompositeTransform([affine, bent])  # the last is applied first
    return sitk.TransformToDisplacementField(both, sitk.sitkVectorFloat64, still.GetSize())


def evened(image: Float) -> NDArray[np.float32]:
    """A slice (H, W) by which to register: exposure taken out, so that an overexposed film still has edges.

    The mean of two pictures in [-1, 1]: ranks of the grey levels (histogram equalisation), and
    tanh((x - m) / (s + 0.1)), with mean m and deviation s in a Gaussian of 1/16 of the longer side (local
    contrast normalisation; Jarrett et al., ICCV 2009).
    """
    pixels = np.asarray(image, dtype=np.float64)
    near = max(pixels.shape) / 16
    levels = np.round(pixels * GREYS / 2)  # else rounding would order what is flat
    ranks = rankdata(levels).reshape(pixels.shape) / pixels.size * 2 - 1
    beside = pixels - gaussian_filter(pixels, near)
    local = beside / (np.sqrt(gaussian_filter(beside**2, near)) + 0.1)
    return np.asarray((ranks + np.tanh(local)) / 2, dtype=np.float32)


def _affine(still: sitk.Image, moved: sitk.Image) -> sitk.Transform:
    """The affine map of highest normalised correlation; none where it finds nothing to hold on to."""
    start = sitk.CenteredTransformInitializer(
        still, moved, sitk.AffineTransform(2), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    search = sitk.ImageRegistrationMethod()
    search.SetNumberOfThreads(1)
    search.SetMetricAsCorrelation()
    search.SetInterpolator(sitk.sitkLinear)
    search.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, AFFINE_STEPS)
    search.SetOptimizerScalesFromPhysicalShift()
    search.SetShrinkFactorsPerLevel([2, 1])
    search.SetSmoothingSigmasPerLevel([2, 1])
    search.SetInitialTransform(start)
    nothing = sitk.AffineTransform(2)
    try:
        found = search.Execute(still, moved)
    except RuntimeError:  # a slice without contrast
        return nothing
    affine = sitk.AffineTransform(sitk.CompositeTransform(found).GetNthTransform(0))
    xx, xy, yx, yy = affine.GetMatrix()
    area = xx * yy - xy * yx  # below 0 where it mirrors
    there = np.isfinite(affine.GetParameters()).all()
    return affine if there and LEAST_AREA <= area <= MOST_AREA else nothing
