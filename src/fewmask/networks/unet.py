"""The U-Net of every segmenter here, of MONAI's blocks: plain convolutions, instance norm, leaky ReLU.

Ronneberger et al., "U-Net", MICCAI 2015, with the blocks of Isensee et al., "nnU-Net", Nature Methods 2021
(two 3-convolutions per level, strided convolutions down, transposed convolutions up). MONAI's own DynUNet
holds its blocks a second time in `skip_layers`, which doubles a file of weights: the levels are joined here.
"""

from collections.abc import Sequence
from itertools import pairwise

from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetOutBlock, UnetUpBlock
from torch import Tensor, nn

from fewmask.core.errors import ConfigError

WIDTHS = (24, 48, 96, 192)
"""Channels per level, the finest first: what 64 px need."""

_NORM = ("INSTANCE", {"affine": True})
_ACTIVATION = ("leakyrelu", {"negative_slope": 0.01, "inplace": True})


class UNet(nn.Module):
    """Image (B, C, *S) in [-1, 1] -> logits (B, K, *S); every size in S a multiple of `multiple`.

    Each level after the first halves every axis. 2-D or 3-D by `dims`.
    """

    def __init__(self, dims: int, in_channels: int, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.multiple = 2 ** (len(widths) - 1)

        def block(before: int, after: int, stride: int) -> nn.Module:
            made: nn.Module = UnetBasicBlock(dims, before, after, 3, stride, _NORM, _ACTIVATION)
            return made

        def up(below: int, here: int) -> nn.Module:
            made: nn.Module = UnetUpBlock(dims, below, here, 3, 1, 2, _NORM, _ACTIVATION)
            return made

        self.down = nn.ModuleList(
            [block(in_channels, widths[0], 1)] + [block(a, b, 2) for a, b in pairwise(widths)]
        )
        self.up = nn.ModuleList([up(b, a) for a, b in reversed(list(pairwise(widths)))])
        self.out = UnetOutBlock(dims, widths[0], classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, *S) of images (B, C, *S)."""
        levels = self.levels(image)
        image = levels.pop()
        for up in self.up:
            image = up(image, levels.pop())
        logits: Tensor = self.out(image)
        return logits

    def levels(self, image: Tensor) -> list[Tensor]:
        """The activations on the way down, one per level, the finest first: (B, widths[l], *S / 2^l)."""
        found = []
        for down in self.down:
            image = down(image)
            found.append(image)
        return found


def build_unet(dims: int, in_channels: int, classes: int, widths: Sequence[int] = WIDTHS) -> UNet:
    """A U-Net with random weights from torch's global generator.

    Args:
        dims: 2 or 3 spatial axes.
        in_channels: channels of the image.
        classes: number of classes, the background included.
        widths: channels per level, the finest first; at least two levels.

    Raises:
        ConfigError: a number is out of range.
    """
    if dims not in (2, 3):
        raise ConfigError("a U-Net has 2 or 3 dimensions", found=f"{dims}")
    if in_channels < 1 or classes < 2:
        raise ConfigError(
            "a U-Net needs an input channel and two classes, the background included",
            found=f"{in_channels} channels, {classes} classes",
        )
    if len(widths) < 2 or min(widths) < 1:
        raise ConfigError(
            "a U-Net needs at least two levels with a channel each", found=f"widths {tuple(widths)}"
        )
    return UNet(dims, in_channels, classes, tuple(widths))
