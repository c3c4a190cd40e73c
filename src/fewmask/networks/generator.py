"""What every image generator offers, whichever network it is: a mapping, a synthesis and its activations.

A latent z is N(0, I); its style w is one vector per synthesis layer: ws (B, num_ws, w_dim). Images are
(B, C, H, W) in about [-1, 1], square.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from fewmask.networks.mapping import MappingNetwork

Noise = Literal["random", "constant", "none"] | Sequence[Tensor]
"""What is added to the activations: new for every call, the learned pictures, nothing, or given pictures, one
(B or 1, 1, size, size) per layer as `noise_sizes` tells, of unit variance."""

Mean = Callable[[Tensor], Tensor]
"""How to take the mean of a number over all processes."""


@dataclass(frozen=True)
class Feature:
    """One activation: the layer's `name`, its `size` in pixels and the `tensor` (B, c, size, size).

    `margin` pixels on each side lie outside of the image (StyleGAN3); crop them before resizing to the image.
    """

    name: str
    size: int
    tensor: Tensor
    margin: int = 0


class Synthesis(nn.Module, ABC):
    """From styles to an image.

    num_ws: styles per image; frame_ws: how many of the first styles place the image in its frame rather than
    draw it (StyleGAN3's input transform: 1, StyleGAN2: 0); noise_sizes: the side in pixels of each layer's
    noise picture, empty without noise.
    """

    num_ws: int
    frame_ws: int = 0
    noise_sizes: tuple[int, ...] = ()

    @abstractmethod
    def trace(self, ws: Tensor, noise: Noise) -> tuple[list[Feature], Tensor]:
        """From ws (B, num_ws, w_dim), the activations of every convolution, coarse to fine, and the image."""

    def forward(self, ws: Tensor, noise: Noise = "random", *, update_average: Mean | None = None) -> Tensor:
        """(B, num_ws, w_dim) -> image (B, C, resolution, resolution), not clipped to [-1, 1].

        update_average: move the running magnitudes of the activations, where there are any (StyleGAN3),
        towards this batch's, whose mean over processes it takes; None leaves them alone.
        """
        return self.trace(ws, noise)[1]


class ImageGenerator(nn.Module, ABC):
    """A generator with a style per layer.

    z_dim, w_dim: lengths of z and w; num_ws: styles per image; resolution: side of the images in pixels;
    channels: of the images; classes: length of the label vector, 0 for none.
    """

    z_dim: int
    w_dim: int
    num_ws: int
    resolution: int
    channels: int
    classes: int
    mapping: MappingNetwork
    synthesis: Synthesis

    def forward(
        self, z: Tensor, label: Tensor | None = None, truncation: float = 1.0, noise: Noise = "random"
    ) -> Tensor:
        """(B, z_dim) -> image (B, C, resolution, resolution)."""
        image: Tensor = self.synthesis(self.mapping(z, label, truncation), noise)
        return image

    def features(self, ws: Tensor, noise: Noise = "constant") -> list[Feature]:
        """From ws (B, num_ws, w_dim), the activations of every synthesis convolution, coarse to fine."""
        return self.synthesis.trace(ws, noise)[0]
