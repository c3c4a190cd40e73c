"""A critic of images without normalisation, so that the gradient penalty means one image at a time."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from fewmask.core.errors import ConfigError

_SLOPE = 0.2
"""Of the leaky ReLU."""


class Critic(nn.Module):
    """Image (B, C, H, W) -> one number each, (B,): the mean over overlapping patches, of any size.

    3 x 3 convolutions that halve the image, with leaky ReLU, as in the critics of Baumgartner et al. 2018
    (VA-GAN: convolutional throughout, its map averaged) and of StarGAN. No normalisation over a batch:
    Gulrajani et al. 2017, "Improved training of Wasserstein GANs", section 4.

    Args:
        channels: C.
        widths: channels after each halving.
        classes: numbers of a second head that says which domain an image is of; 0 for none.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(self, channels: int, *, widths: Sequence[int], classes: int = 0) -> None:
        super().__init__()
        if channels < 1 or classes < 0 or not widths or min(widths) < 1:
            raise ConfigError(
                "a critic cannot be built",
                found=f"{channels} channels, widths {tuple(widths)}, {classes} classes",
                expected="at least one channel and one level",
            )
        self.down = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1)
            for before, after in pairwise((channels, *widths))
        )
        self.look = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.score = nn.Conv2d(widths[-1], 1, 1)
        self.classes = nn.Linear(widths[-1], classes) if classes else None
        for layer in (*self.down, self.look):
            # torch's own choice loses half the signal per layer: the slope would begin near 0
            nn.init.kaiming_normal_(layer.weight, _SLOPE)
            nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B,)."""
        return self.patches(image).mean(dim=(1, 2, 3))

    def patches(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> a number per patch, (B, 1, h, w)."""
        answer: Tensor = self.score(self._seen(image))
        return answer.float()

    def judge(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` says, and logits (B, classes) of the domain."""
        if self.classes is None:
            raise ConfigError("this critic was built without classes", expected="classes above 0")
        seen = self._seen(image)
        logits: Tensor = self.classes(seen.mean(dim=(2, 3)))
        return self.score(seen).float().mean(dim=(1, 2, 3)), logits.float()

    def _seen(self, image: Tensor) -> Tensor:
        for down in self.down:
            image = F.leaky_relu(down(image), _SLOPE)
        return F.leaky_relu(self.look(image), _SLOPE)
