"""Random warps of image and mask: affine and elastic at once, drawn first, applied in one resampling.

Coordinates are in half lengths of the longest side (in mm when a spacing is given), from the centre, in the
order of the array's axes; so a rotation is rigid also on a grid that is not square.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from fewmask.core.volume import IGNORE
from fewmask.data.batches import BLACK

Axis = Literal["z", "y", "x"]
"""A spatial axis of an image by its name; a 2-D image has "y" and "x"."""


@dataclass(frozen=True)
class SpatialRanges:
    """How far a warp may go. Every image gets its own draw; no axis is flipped unless `flips` names it."""

    rotate_deg: float = 12.0
    """Largest angle, uniform on both sides; in 3-D also about the other two axes, a third as far."""
    scale: float = 1.25
    """Largest enlargement; shrinking goes to its inverse (log-uniform, all axes together)."""
    stretch: float = 1.2
    """Largest further enlargement of a single axis."""
    shear: float = 0.1
    """Largest shear, as the tangent of its angle."""
    shift: float = 0.1
    """Largest translation, as a fraction of the longest side."""
    elastic: float = 0.05
    """Standard deviation of the elastic displacement, as a fraction of the longest side; 0 for none."""
    elastic_cells: int = 4
    """Cells of the control grid along an axis; more cells, finer bends."""
    probability: float = 0.95
    """Share of images that are warped at all."""
    spacing: tuple[float, ...] = ()
    """Voxel spacing of the axes, in any unit; empty for cubes and squares."""
    flips: tuple[Axis, ...] = ()
    """Axes that may be mirrored, each in half of the images. Anatomy is asymmetric: none unless asked."""


@dataclass(frozen=True)
class Warp:
    """A drawn warp of B images with d axes: where each output voxel is read from."""

    matrix: Tensor
    """(B, d, d): output coordinates to input coordinates."""
    shift: Tensor
    """(B, d), half lengths."""
    control: Tensor | None
    """(B, d, n, ...): displacements at control points of a cubic B-spline, half lengths; None for none."""


def draw_warp(count: int, dims: int, ranges: SpatialRanges, generator: torch.Generator) -> Warp:
    """Draw `count` warps of `dims` (2 or 3) axes from `generator`."""
    device = generator.device

    def symmetric(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator, device=device) - 1

    on = (torch.rand(count, generator=generator, device=device) < ranges.probability).float()
    matrix = _rotations(on[:, None] * symmetric(count, 3) * math.radians(ranges.rotate_deg), dims)
    shear = torch.triu(symmetric(count, dims, dims), diagonal=1) * on[:, None, None] * ranges.shear
    matrix = matrix @ (torch.eye(dims, device=device) + shear)
    zoom = math.log(ranges.scale) * symmetric(count, 1) + math.log(ranges.stretch) * symmetric(count, dims)
    flip = torch.ones(count, dims, device=device)
    for axis in _axes(ranges.flips, dims):
        flip[:, axis] = torch.randint(0, 2, (count,), generator=generator, device=device) * 2.0 - 1.0
    matrix = matrix * (flip * torch.exp(-on[:, None] * zoom))[:, None, :]
    shift = on[:, None] * symmetric(count, dims) * (2 * ranges.shift)
    control = None
    if ranges.elastic > 0:
        points = (ranges.elastic_cells + 3,) * dims
        noise = torch.randn(count, dims, *points, generator=generator, device=device)
        amplitude = on * torch.rand(count, generator=generator, device=device) * math.sqrt(3.0)
        gain = 2 * ranges.elastic / _SPLINE_SD**dims
        control = noise * (gain * amplitude).view(count, *(1,) * (dims + 1))
    return Warp(matrix, shift, control)


_SPLINE_SD = math.sqrt(0.479)
"""Root mean square of a cubic B-spline's four weights: how much it calms white noise along one axis."""


def _rotations(angles: Tensor, dims: int) -> Tensor:
    """Rotation matrices (B, d, d) from (B, 3) radians; the first angle turns the last two axes (in plane)."""
    count = len(angles)
    planes = ((dims - 2, dims - 1),) if dims == 2 else ((1, 2), (0, 2), (0, 1))
    result = torch.eye(dims, device=angles.device).expand(count, dims, dims)
    for number, (i, j) in enumerate(planes):
        angle = angles[:, number] / (1.0 if number == 0 else 3.0)
        turn = torch.eye(dims, device=angles.device).repeat(count, 1, 1)
        turn[:, i, i] = turn[:, j, j] = torch.cos(angle)
        turn[:, i, j], turn[:, j, i] = -torch.sin(angle), torch.sin(angle)
        result = result @ turn
    return result


def _axes(flips: Sequence[Axis], dims: int) -> list[int]:
    """Positions of the named axes among the last `dims` axes of an array."""
    names = ("z", "y", "x")[-dims:]
    return [names.index(axis) for axis in flips if axis in names]


def spline_basis(size: int, cells: int) -> Tensor:
    """Weights (size, cells + 3) of the control points of a uniform cubic B-spline at `size` voxel centres."""
    position = (torch.arange(size, dtype=torch.float64) + 0.5) / size * cells
    cell = position.floor().clamp(max=cells - 1)
    t = position - cell
    weights = torch.stack(
        ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3), dim=1
    )
    basis = torch.zeros(size, cells + 3, dtype=torch.float64)
    basis.scatter_(1, cell.long()[:, None] + torch.arange(4), weights / 6)
    return basis.float()


def along_axes(values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply the last axes of `values` (B, C, ...) by one matrix each, (out, in) or (B, 1, out, in)."""
    for axis, matrix in zip(range(-len(matrices), 0), matrices, strict=True):
        if axis == -1:
            values = torch.matmul(values, matrix.transpose(-1, -2))
            continue
        tail = values.shape[axis + 1 :]
        flat = torch.matmul(matrix, values.flatten(axis + 1))
        values = flat.view(*flat.shape[:-1], *tail)
    return values


def smooth_field(control: Tensor, size: Sequence[int]) -> Tensor:
    """Cubic B-spline field (B, C, *size) of the control values (B, C, n, ...)."""
    return along_axes(control, [spline_basis(n, control.shape[-1] - 3).to(control.device) for n in size])


def sampling_grid(warp: Warp, size: Sequence[int], spacing: Sequence[float] = ()) -> Tensor:
    """Where to read (B, *size, d), as `grid_sample` wants it: x first, -1..1 from border to border."""
    dims = len(size)
    device = warp.matrix.device
    length = torch.tensor([n * s for n, s in zip(size, spacing or (1.0,) * dims, strict=True)], device=device)
    half = length / length.max()
    axes = [(2 * torch.arange(n, device=device) + 1 - n) / n * h for n, h in zip(size, half, strict=True)]
    here = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    there = torch.matmul(warp.matrix, here) + warp.shift[:, :, None]
    there = there.view(len(there), dims, *size)
    if warp.control is not None:
        there = there + smooth_field(warp.control, size)
    there = there / half.view(1, dims, *(1,) * dims)
    return there.movedim(1, -1).flip(-1)


def apply_warp(
    image: Tensor, mask: Tensor | None, warp: Warp, *, spacing: Sequence[float] = (), outside: int = IGNORE
) -> tuple[Tensor, Tensor | None]:
    """Resample images (B, C, *S) linearly and masks by the same warp.

    Integer masks (B, *S) are read from the nearest voxel; soft masks (B, K, *S) linearly. Beyond the border
    the image is black (-1) and the mask is class `outside`: a share of 1 in a soft mask, where `IGNORE` is 0
    in every class.
    """
    grid = sampling_grid(warp, image.shape[2:], spacing).to(image.device)
    warped = functional.grid_sample(image - BLACK, grid, mode="bilinear", align_corners=False) + BLACK
    if mask is None:
        return warped, None
    if mask.is_floating_point():
        beyond = torch.zeros(mask.shape[1], *(1,) * (mask.ndim - 2), dtype=mask.dtype, device=mask.device)
        if outside != IGNORE:
            beyond[outside] = 1
        shares = functional.grid_sample(mask - beyond, grid, mode="bilinear", align_corners=False)
        return warped, (shares + beyond).clamp(min=0)
    lifted = (mask - outside).unsqueeze(1).to(image.dtype)
    labels = functional.grid_sample(lifted, grid, mode="nearest", align_corners=False)
    return warped, labels.squeeze(1).round().to(mask.dtype) + outside


@dataclass(frozen=True)
class SpatialAugment:
    """An `Augment` that only moves: (image, mask, generator) -> (image, mask), one warp per image."""

    ranges: SpatialRanges
    outside: int = 0
    """Class of what the warp brings in from beyond the border."""

    def __call__(
        self, image: Tensor, mask: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Images (B, C, *S) in [-1, 1] and masks, as `apply_warp` takes them."""
        warp = draw_warp(len(image), image.ndim - 2, self.ranges, generator)
        return apply_warp(image, mask, warp, spacing=self.ranges.spacing, outside=self.outside)
