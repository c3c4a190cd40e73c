"""From an image to the latents of a generator in one pass.

The trunk is the GAN's own discriminator, frozen: it has seen the domain for as long as the generator. Only a
small regression on its blocks is learned, which a CPU does in minutes. Its shape - a common w from the whole
image and an offset per layer - is that of Richardson et al. 2021 ("Encoding in style") and Tov et al. 2021.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewmask.networks.equalised import EqualLinear
from fewmask.networks.stylegan2 import Discriminator

_CELLS = 4
"""Every block's activation is averaged down to 4 x 4 cells."""


class LatentEncoder(nn.Module):
    """Images (B, C, H, W) in [-1, 1] -> ws (B, num_ws, w_dim) = centre + common offset + offset per layer.

    Args:
        discriminator: the trunk; it is not copied, does not learn and is not part of the weights.
        num_ws: latents per image.
        centre: (w_dim,) the generator's mean latent, where the encoder starts.
        hidden: channels per cell and block, and a quarter of the hidden layer.
    """

    centre: Tensor

    def __init__(
        self, discriminator: Discriminator, num_ws: int, centre: Tensor, *, hidden: int = 64
    ) -> None:
        super().__init__()
        self._trunk = (discriminator,)  # a tuple, so that it is not registered as a part of this network
        blank = torch.zeros(1, discriminator.channels, discriminator.resolution, discriminator.resolution)
        sizes = [feature.tensor.shape[1] for feature in discriminator.features(blank)[:-1]]
        self.num_ws, self.w_dim = num_ws, len(centre)
        self.register_buffer("centre", centre.detach().clone())
        self.squeeze = nn.ModuleList(EqualLinear(size, hidden, activate=True) for size in sizes)
        self.mix = EqualLinear(len(sizes) * hidden * _CELLS**2, 4 * hidden, activate=True)
        self.common = EqualLinear(4 * hidden, self.w_dim)
        self.offsets = EqualLinear(4 * hidden, num_ws * self.w_dim)

    def initialise(self, chance: torch.Generator) -> None:
        """Draw all weights from `chance`; the offsets per layer start at 0."""
        with torch.no_grad():
            for layer in self.modules():
                if isinstance(layer, EqualLinear):
                    layer.weight.copy_(torch.randn(layer.weight.shape, generator=chance))
                    layer.bias.zero_()
            self.offsets.weight.zero_()

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, num_ws, w_dim)."""
        cells = []
        with torch.no_grad():
            features = self._trunk[0].features(image)[:-1]
        for squeeze, feature in zip(self.squeeze, features, strict=True):
            small = F.adaptive_avg_pool2d(feature.tensor, _CELLS).movedim(1, 3)
            cells.append(squeeze(small.flatten(0, 2)).view(len(image), -1))
        mixed = self.mix(torch.cat(cells, dim=1))
        offsets = self.offsets(mixed).unflatten(1, (self.num_ws, self.w_dim))
        ws: Tensor = self.centre + self.common(mixed)[:, None] + offsets
        return ws
