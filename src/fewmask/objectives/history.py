"""Older generated images for a discriminator to learn from, so that it does not forget.

Shrivastava et al. 2017, "Learning from simulated and unsupervised images through adversarial training",
section 2.3, as CycleGAN uses it: while the history fills, it gives back what comes; afterwards every image
is, with probability 1/2, kept in exchange for a random older one.
"""

import torch
from torch import Tensor, nn

from fewmask.core.errors import ConfigError


class History(nn.Module):
    """The last images that were kept; buffers, so that a checkpoint holds them.

    Args:
        size: images to keep, 0 for none (published: 50).
        shape: (C, H, W) of an image.
    """

    images: Tensor
    held: Tensor

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        if size < 0:
            raise ConfigError("a history of images cannot be shorter than 0", found=f"{size}")
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("held", torch.zeros((), dtype=torch.int64))

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """From torch's global generator, for so many images: whether to exchange each, and for which."""
        return torch.rand(count) > 0.5, torch.randint(max(len(self.images), 1), (count,))

    @torch.no_grad()
    def exchange(self, images: Tensor, swap: Tensor, place: Tensor) -> Tensor:
        """Images (B, C, H, W) one after the other; returns what the discriminator is to see, (B, C, H, W).

        Args:
            images: new images.
            swap: (B,) bool; asks for an exchange where the history is full.
            place: (B,) int64; with which one.
        """
        given = images.detach().clone()
        held, size = int(self.held), len(self.images)
        for n in range(len(given)):
            if held < size:
                self.images[held] = given[n]
                held += 1
            elif size and bool(swap[n]):
                older = self.images[place[n]].clone()
                self.images[place[n]] = given[n]
                given[n] = older
        self.held.fill_(held)
        return given
