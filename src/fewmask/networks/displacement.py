"""A generator that moves what it finds, for disease that displaces organs rather than adding tissue.

An experiment: x_h = warp(x, u) + m, with a field u that is smooth by construction and a sparse map m. Warps
by a learned field as in Balakrishnan et al. 2019, "VoxelMorph", section III.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewmask.networks.trunk import Trunk

_CELL = 4
"""The field is averaged over so many pixels along each axis, then interpolated."""


@dataclass(frozen=True, eq=False)
class Moved:
    """What a generator did to B images.

    healthy: (B, C, H, W); field: (B, 2, H, W), pixels down and to the right, from where each pixel was read;
    added: (B, C, H, W), grey levels on the scale of [-1, 1].
    """

    healthy: Tensor
    field: Tensor
    added: Tensor


class Displacer(nn.Module):
    """x_h = warp(x, u) + m; both are 0 before the network has learned.

    Args:
        channels: of the images.
        widths: channels per level, the finest first.
        reach: longest displacement along an axis, in pixels.
        grey_in_pixels: how many pixels of displacement a change of 1 grey level (half the range) counts as.
    """

    def __init__(
        self,
        channels: int,
        *,
        widths: Sequence[int] = (16, 32, 64, 128),
        reach: float = 8.0,
        grey_in_pixels: float = 4.0,
    ) -> None:
        super().__init__()
        self.reach, self.grey_in_pixels = reach, grey_in_pixels
        self.trunk = Trunk(channels, channels + 2, widths=widths, silent=True)

    def forward(self, image: Tensor) -> Moved:
        """Images (B, C, H, W) in [-1, 1]."""
        raw = self.trunk(image)
        field = smooth(self.reach * torch.tanh(raw[:, :2]))
        return Moved(warp(image, field) + raw[:, 2:], field, raw[:, 2:])

    def heal(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The healthy image, and |u| + `grey_in_pixels` times the mean over channels of |m|, (B, H, W)."""
        moved = self(image)
        length = moved.field.square().sum(dim=1).sqrt()
        return moved.healthy, length + self.grey_in_pixels * moved.added.abs().mean(dim=1)


def smooth(field: Tensor) -> Tensor:
    """Averages over cells of 4 x 4 pixels, interpolated linearly between their centres; (B, 2, H, W)."""
    height, width = field.shape[2:]
    coarse = F.avg_pool2d(field, _CELL, ceil_mode=True)
    fine = F.interpolate(coarse, scale_factor=float(_CELL), mode="bilinear", align_corners=False)
    return fine[:, :, :height, :width]


def warp(image: Tensor, field: Tensor) -> Tensor:
    """Read pixel p of the answer at p + u(p), linearly; beyond the border the last row or column goes on.

    image: (B, C, H, W); field u: (B, 2, H, W) in pixels, down and to the right.
    """
    height, width = image.shape[2:]
    down = torch.arange(height, device=field.device)[:, None] + field[:, 0]
    right = torch.arange(width, device=field.device) + field[:, 1]
    grid = torch.stack([(2 * right + 1) / width - 1, (2 * down + 1) / height - 1], dim=-1)
    return F.grid_sample(image.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def folded(field: Tensor) -> Tensor:
    """Share of pixels, (B,) in 0..1, where p + u(p) turns over: a Jacobian determinant of 0 or less.

    By differences to the next pixel (VoxelMorph, section IV.C counts the same); field: (B, 2, H, W), pixels.
    """
    along_y = field[:, :, 1:, :-1] - field[:, :, :-1, :-1]
    along_x = field[:, :, :-1, 1:] - field[:, :, :-1, :-1]
    determinant = (1 + along_y[:, 0]) * (1 + along_x[:, 1]) - along_y[:, 1] * along_x[:, 0]
    return (determinant <= 0).float().mean(dim=(1, 2))
