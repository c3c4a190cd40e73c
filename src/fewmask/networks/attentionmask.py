"""A generator that says where it changes an image: content and a mask of attention.

Pumarola et al. 2018, "GANimation", equation 1; Mejjati et al. 2018, "Unsupervised attention-guided
image-to-image translation".
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewmask.networks.trunk import Trunk

_CLOSED = -1.0
"""Where a mask begins, before the sigmoid."""


class MaskedTranslator(nn.Module):
    """x_h = a c + (1 - a) x with content c in [-1, 1] and mask a in [0, 1], one for all channels.

    Masks begin more closed than open, at about 0.27, so that an image begins mostly as itself.

    Args:
        channels: of the images.
        widths: channels per level, the finest first.
    """

    def __init__(self, channels: int, *, widths: Sequence[int] = (32, 64, 128)) -> None:
        super().__init__()
        self.channels = channels
        self.trunk = Trunk(channels, channels + 1, widths=widths)
        assert self.trunk.out.bias is not None
        with torch.no_grad():
            self.trunk.out.bias[-1] = _CLOSED

    def parts(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Content (B, C, H, W) and mask (B, 1, H, W) of images (B, C, H, W) in [-1, 1]."""
        raw = self.trunk(image)
        return torch.tanh(raw[:, :-1]), torch.sigmoid(raw[:, -1:])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The translated image (B, C, H, W) in [-1, 1] and the mask (B, 1, H, W)."""
        content, mask = self.parts(image)
        return blend(content, mask, image), mask

    def heal(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The translated image, (B, C, H, W), and the mask, (B, H, W)."""
        healthy, mask = self(image)
        return healthy, mask[:, 0]


def blend(content: Tensor, mask: Tensor, image: Tensor) -> Tensor:
    """The image a c + (1 - a) x (GANimation, equation 1, with a where the paper has 1 - A)."""
    return mask * content + (1 - mask) * image
