"""One generator for every pair of domains, whose answer to an image's own domain is the image.

Rahman Siddiquee et al. 2019, "Learning fixed points in generative adversarial networks" (Fixed-Point GAN),
section 3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewmask.networks.trunk import Trunk

HEALTHY = 0
"""Number of the healthy domain; diseases follow from 1."""


class ResidualTranslator(nn.Module):
    """x_d = tanh(x + Delta(x, d)) for domain d of `domains`, the first of them healthy.

    The released network is a ResNet that is told the domain by constant planes; here a U-Net is told by its
    normalisation (`networks.trunk`).

    Args:
        channels: of the images.
        domains: healthy and the diseases, at least 2.
        widths: channels per level, the finest first.
    """

    def __init__(self, channels: int, domains: int, *, widths: Sequence[int] = (32, 64, 128)) -> None:
        super().__init__()
        self.domains = domains
        self.trunk = Trunk(channels, channels, widths=widths, domains=domains, silent=True)

    def forward(self, image: Tensor, domain: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] as they would look in `domain` (B, domains), one-hot."""
        return torch.tanh(image + self.trunk(image, domain))

    def heal(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The image in the healthy domain and the mean over channels of how far it moved, (B, H, W).

        |tanh(x + Delta) - x|, as the released code scores: |Delta| itself is not 0 where nothing changes.
        """
        target = torch.full((len(image),), HEALTHY, device=image.device)
        healthy = self(image, F.one_hot(target, self.domains))
        return healthy, (healthy - image).abs().mean(dim=1)
