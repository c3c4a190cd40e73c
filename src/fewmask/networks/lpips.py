"""The network of LPIPS (Zhang et al. 2018) on AlexNet, for users who bring its weights; none are shipped."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST = 32
"""Side in pixels below which the last layers have no pixel left."""

_CONVOLUTIONS = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1))
_LAST = (256, 256, 3, 1, 1)


class LpipsNetwork(nn.Module):
    """AlexNet's five convolutions and a non-negative weight per channel of each.

    Images (B, 1 or 3, H, W) in [-1, 1]; a grey image is shown in all three colours.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(into, out, kernel, stride, padding)
            for into, out, kernel, stride, padding in (*_CONVOLUTIONS, _LAST)
        )
        self.weights = nn.ParameterList(
            nn.Parameter(torch.zeros(out)) for _, out, *_ in (*_CONVOLUTIONS, _LAST)
        )
        # From [-1, 1] to the mean and deviation of the photographs that AlexNet learned from.
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None])

    def forward(self, image: Tensor) -> list[Tensor]:
        """The activations (B, c, h, w) after every convolution, fine to coarse."""
        x = (image.expand(-1, 3, -1, -1) - self.shift) / self.scale
        found = []
        for number, convolution in enumerate(self.convolutions):
            x = F.relu(convolution(F.max_pool2d(x, 3, 2) if number in (1, 2) else x))
            found.append(x)
        return found


def published_names() -> dict[str, str]:
    """Our names of the parameters -> those of the published weights (package lpips, net "alex")."""
    places = ("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10")
    names = {
        f"convolutions.{n}.{kind}": f"net.{place}.{kind}"
        for n, place in enumerate(places)
        for kind in ("weight", "bias")
    }
    return {**names, **{f"weights.{n}": f"lin{n}.model.1.weight" for n in range(len(places))}}
