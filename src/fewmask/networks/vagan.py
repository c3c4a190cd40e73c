"""A generator that adds a map to an image.

Baumgartner et al. 2018, "Visual feature attribution using Wasserstein GANs" (VA-GAN), section 3.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from fewmask.networks.trunk import Trunk


class AdditiveMap(nn.Module):
    """x_h = x + M(x), with M a U-Net without a last non-linearity; M is 0 before it has learned.

    The released code has max pooling and batch normalisation where `Trunk` has strided convolutions and
    instance normalisation, so that an image's map does not depend on its neighbours in the batch; and it may
    end in tanh(x + M(x)), which no map could leave unchanged where an image is black.

    Args:
        channels: of the images.
        widths: channels per level, the finest first; (16, 32, 64, 128) as released.
    """

    def __init__(self, channels: int, *, widths: Sequence[int] = (16, 32, 64, 128)) -> None:
        super().__init__()
        self.trunk = Trunk(channels, channels, widths=widths, silent=True)

    def forward(self, image: Tensor) -> Tensor:
        """M: (B, C, H, W) in [-1, 1] -> (B, C, H, W), grey levels on the same scale."""
        added: Tensor = self.trunk(image)
        return added

    def heal(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The image x + M(x), (B, C, H, W), and the mean over channels of |M|, (B, H, W)."""
        added = self(image)
        return image + added, added.abs().mean(dim=1)
