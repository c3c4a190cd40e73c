"""pix2pix's generator, a U-Net between paired images; its discriminator is `cyclegan.PatchDiscriminator`.

Isola et al. 2017, "Image-to-image translation with conditional adversarial networks", section 6.1.1. The
discriminator is given the image and its translation side by side, with batch norm.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewmask.core.errors import ConfigError
from fewmask.networks.cyclegan import SLOPE, Translator, initialise
from fewmask.networks.precise import in_float32


class UNetGenerator(Translator):
    """Convolutions that halve the image `depth` times, transposed ones back, with connections across.

    Args:
        channels_in: channels of the images.
        channels_out: channels of the answer.
        width: features of the first convolution (published: 64), doubled by each of the next up to 8 times.
        depth: halvings: 7 for images of 128 px ("unet_128"), 8 for 256 px ("unet_256").
        dropout: probability that a feature of the innermost levels is dropped; the paper's source of noise.

    Raises:
        ConfigError: fewer than five halvings, or no channel.
    """

    independent = False

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        width: int = 64,
        depth: int = 7,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels_in, channels_out, width, 0)
        if depth < 5 or not 0 <= dropout < 1:
            raise ConfigError(
                "a U-Net of pix2pix cannot be built",
                found=f"{depth} halvings, dropout {dropout}",
                expected="at least five halvings, dropout in [0, 1)",
            )
        self.depth, self.dropout, self.multiple = depth, dropout, 2**depth
        self.smallest = 2 ** (depth - 1)
        features = [width * min(2**n, 8) for n in range(depth)]
        before = [channels_in, *features[:-1]]
        after = [channels_out, *features[:-1]]
        self.down = nn.ModuleList(
            nn.Conv2d(b, f, 4, 2, padding=1, bias=False) for b, f in zip(before, features, strict=True)
        )
        self.down_norms = nn.ModuleList(nn.BatchNorm2d(f) for f in features[1:-1])
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(f * (1 if n + 1 == depth else 2), a, 4, 2, padding=1, bias=n == 0)
            for n, (f, a) in enumerate(zip(features, after, strict=True))
        )
        self.up_norms = nn.ModuleList(nn.BatchNorm2d(f) for f in after[1:])
        initialise(self)

    def translate(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W); H and W multiples of 2^depth."""
        across: list[Tensor] = []
        for level, down in enumerate(self.down):
            x = down(F.leaky_relu(x, SLOPE) if level else x)
            if 0 < level < self.depth - 1:
                x = self.down_norms[level - 1](x)
            across.append(F.relu(x))
        x = across.pop()
        for level in range(self.depth - 1, 0, -1):
            x = self.up_norms[level - 1](self.up[level](x))
            if 4 <= level < self.depth - 1:
                x = F.dropout(x, self.dropout, self.training)
            x = torch.cat([across.pop(), F.relu(x)], dim=1)
        return _squashed(self.up[0](x))


@in_float32
def _squashed(x: Tensor) -> Tensor:
    return torch.tanh(x)
