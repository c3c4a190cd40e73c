"""The block that classifiers, autoencoders and diffusion networks are built of."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

GROUPS, FEWEST = 8, 4
"""Groups of channels that are normalised together, fewer where channels do not divide so; and channels of the
smallest group, since alone a channel would forget how large it was."""


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), (B, before, H, W) -> (B, after, H / stride, W / stride).

    He et al. 2016, "Identity mappings in deep residual networks", with group normalisation (Wu & He 2018), so
    that an image's answer depends on no other image; what goes around the block is not normalised and keeps
    grey levels. Where a vector is told, it gives the second normalisation's gain and shift (Dhariwal & Nichol
    2021, "Diffusion models beat GANs", equation 3); added before it, some of it would be normalised away.

    Args:
        before: channels of x.
        after: channels of the answer.
        stride: 1, or 2 to halve an image of even sides.
        told: length of a vector that is told with the image; 0 for none.
    """

    def __init__(self, before: int, after: int, *, stride: int = 1, told: int = 0) -> None:
        super().__init__()
        self.first_norm = group_norm(before)
        # a kernel of 4 where the image is halved: a position then lies amid its four pixels
        self.first = nn.Conv2d(before, after, 4 if stride == 2 else 3, stride=stride, padding=1)
        self.told = nn.Linear(told, 2 * after) if told else None
        self.second_norm = group_norm(after)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]
        self.around = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        self.stride = stride

    def forward(self, x: Tensor, told: Tensor | None = None) -> Tensor:
        """x: (B, before, H, W); told: (B, told), or None for a block that is told nothing."""
        y = self.first(F.silu(self.first_norm(x)))
        y = self.second_norm(y)
        if self.told is not None and told is not None:
            gain, shift = self.told(F.silu(told))[:, :, None, None].chunk(2, dim=1)
            y = y * (1 + gain) + shift
        y = self.second(F.silu(y))
        around = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        answer: Tensor = self.around(around) + y
        return answer


def group_norm(channels: int) -> nn.GroupNorm:
    """Mean 0 and deviation 1 over an image and a group of its channels, then a gain and a shift."""
    return nn.GroupNorm(math.gcd(GROUPS, max(channels // FEWEST, 1), channels), channels)
