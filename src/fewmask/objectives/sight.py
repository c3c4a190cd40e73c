"""The discriminator with all that stands before it: a fading blur and the augmentation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewmask.networks.stylegan2 import Discriminator
from fewmask.objectives.ada import AdaptiveAugmentation, Draw, apply
from fewmask.objectives.ada_filter import blur


@dataclass(frozen=True)
class Sight:
    """What the discriminator makes of images, real or drawn, during one minibatch.

    sigma: of the blur, in pixels; 0 for none.
    """

    discriminator: Discriminator
    augment: AdaptiveAugmentation | None
    sigma: float

    def chance(self, count: int, like: Tensor) -> Draw | None:
        """What happens to each of a minibatch's `count` images; None when nothing does."""
        return None if self.augment is None else self.augment.draw(count, like)

    def __call__(self, image: Tensor, label: Tensor | None, record: Draw | None) -> Tensor:
        """Logits (B, 1) of (B, C, H, W), changed by `record`; in float32 or better up to the network."""
        if self.sigma or record is not None:
            with torch.autocast(image.device.type, enabled=False):
                exact = torch.promote_types(image.dtype, torch.float32)
                image = blur(image.to(exact), self.sigma)
                image = image if record is None else apply(image, record)
        logits: Tensor = self.discriminator(image, label)
        return logits
