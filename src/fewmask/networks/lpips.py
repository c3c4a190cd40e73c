"""The network of LPIPS (Zhang et al. 2018), for users who bring its weights; none are shipped.

AlexNet (Krizhevsky et al. 2012) or VGG-16 (Simonyan and Zisserman 2015), their convolutions alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST = 32
"""Side in pixels below which the last layers have no pixel left."""

Backbone = Literal["alex", "vgg"]


@dataclass(frozen=True)
class _Layer:
    """A convolution: channels, kernel, stride, padding; `pool` pixels are pooled by 2 before it.

    place: its number in the published sequence of layers; tap: whether its activation is compared.
    """

    into: int
    out: int
    kernel: int
    place: int
    stride: int = 1
    pool: int = 0
    tap: bool = True


_ALEX = (
    _Layer(3, 64, 11, 0, stride=4),
    _Layer(64, 192, 5, 3, pool=3),
    _Layer(192, 384, 3, 6, pool=3),
    _Layer(384, 256, 3, 8),
    _Layer(256, 256, 3, 10),
)
_VGG = (
    _Layer(3, 64, 3, 0, tap=False),
    _Layer(64, 64, 3, 2),
    _Layer(64, 128, 3, 5, pool=2, tap=False),
    _Layer(128, 128, 3, 7),
    _Layer(128, 256, 3, 10, pool=2, tap=False),
    _Layer(256, 256, 3, 12, tap=False),
    _Layer(256, 256, 3, 14),
    _Layer(256, 512, 3, 17, pool=2, tap=False),
    _Layer(512, 512, 3, 19, tap=False),
    _Layer(512, 512, 3, 21),
    _Layer(512, 512, 3, 24, pool=2, tap=False),
    _Layer(512, 512, 3, 26, tap=False),
    _Layer(512, 512, 3, 28),
)
_LAYERS: Mapping[Backbone, tuple[_Layer, ...]] = {"alex": _ALEX, "vgg": _VGG}


class LpipsNetwork(nn.Module):
    """The convolutions, and a non-negative weight per channel of the five activations that are compared.

    Images (B, 1 or 3, H, W) in [-1, 1]; a grey image is shown in all three colours.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone = "alex") -> None:
        super().__init__()
        self.backbone = backbone
        self._layers = _LAYERS[backbone]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(one.into, one.out, one.kernel, one.stride, 2 if one.kernel > 3 else 1)
            for one in self._layers
        )
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(one.out)) for one in self._layers if one.tap)
        # From [-1, 1] to the mean and deviation of the photographs that the network learned from.
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None])

    def forward(self, image: Tensor) -> list[Tensor]:
        """The five activations (B, c, h, w) that are compared, fine to coarse."""
        x = (image.expand(-1, 3, -1, -1) - self.shift) / self.scale
        found = []
        for layer, convolution in zip(self._layers, self.convolutions, strict=True):
            x = F.relu(convolution(F.max_pool2d(x, layer.pool, 2) if layer.pool else x))
            if layer.tap:
                found.append(x)
        return found


def published_names(backbone: Backbone = "alex") -> dict[str, str]:
    """Our names of the parameters -> those of the published weights (package lpips)."""
    names, part = {}, 1
    layers = _LAYERS[backbone]
    for n, layer in enumerate(layers):
        for kind in ("weight", "bias"):
            names[f"convolutions.{n}.{kind}"] = f"net.slice{part}.{layer.place}.{kind}"
        part += layer.tap
    return {**names, **{f"weights.{n}": f"lin{n}.model.1.weight" for n in range(part - 1)}}


def classifier_names(backbone: Backbone) -> dict[str, str]:
    """Our names of the convolutions' parameters -> those in a classifier's file (torchvision)."""
    return {
        f"convolutions.{n}.{kind}": f"features.{layer.place}.{kind}"
        for n, layer in enumerate(_LAYERS[backbone])
        for kind in ("weight", "bias")
    }
