"""A small classifier of images that ends in the mean over positions, so that its evidence has a place."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from fewmask.core.errors import ConfigError
from fewmask.networks.residual import ResidualBlock
from fewmask.networks.trunk import reflected


class Classifier(nn.Module):
    """Image (B, C, H, W) -> logits (B, K), for any height and width.

    Residual stages, each after the first halving the image; then maps f_k, their means over positions and one
    linear layer (Zhou et al. 2016, "Learning deep features for discriminative localization", section 2). The
    last maps are rectified and not normalised: over one image normalisation would make all evidence alike.
    The linear layer starts at 0. With two classes, their gradients being opposite, so remain their weights,
    and the map of the one class is half the map of the log odds instead of that and a random rest.

    Args:
        channels: C.
        classes: K.
        widths: channels of the stages, the finest first; n stages see one position per 2^(n-1) pixels.
        blocks: residual blocks per stage.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self, channels: int, classes: int = 2, *, widths: Sequence[int] = (16, 32, 64), blocks: int = 1
    ) -> None:
        super().__init__()
        if channels < 1 or classes < 2 or blocks < 1 or not widths or min(widths) < 1:
            raise ConfigError(
                "a classifier cannot be built",
                found=f"{channels} channels, {classes} classes, widths {tuple(widths)}, {blocks} blocks",
                expected="at least one channel, two classes, one stage and one block",
            )
        self.channels, self.stride = channels, 2 ** (len(widths) - 1)
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(before, after, stride=2 if number else 1),
                *(ResidualBlock(after, after) for _ in range(blocks - 1)),
            )
            for number, (before, after) in enumerate(pairwise((widths[0], *widths)))
        )
        self.out = nn.Linear(widths[-1], classes)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> logits (B, K)."""
        return self.decide(self.maps(image), len(self.stages))

    def maps(self, image: Tensor, stages: int | None = None) -> Tensor:
        """The maps after so many stages, None for all: (B, widths[stages - 1], h, w).

        The image is first continued by reflection, below and to the right, to multiples of `stride`.
        """
        x: Tensor = self.stem(reflected(image, self.stride))
        for stage in self.stages[:stages]:
            x = stage(x)
        return F.relu(x) if stages in (None, len(self.stages)) else x

    def decide(self, maps: Tensor, stages: int) -> Tensor:
        """Logits (B, K) of the maps after so many stages."""
        for stage in self.stages[stages:]:
            maps = stage(maps)
        seen = maps if stages == len(self.stages) else F.relu(maps)
        logits: Tensor = self.out(seen.mean(dim=(2, 3)))
        return logits.float()
