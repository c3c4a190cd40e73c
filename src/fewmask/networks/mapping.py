"""The mapping network of StyleGAN: from a latent to a style, with the truncation trick."""

import torch
from torch import Tensor, nn

from fewmask.networks.equalised import EqualLinear


def normalise(z: Tensor) -> Tensor:
    """Scale each vector to unit mean square ("pixel norm", Karras et al. 2018, section 4.2)."""
    return z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class MappingNetwork(nn.Module):
    """z (and a label) -> w; the running mean of w serves the truncation trick (Karras et al. 2019, B).

    Args:
        z_dim: length of z; 0 when only a label is mapped (the discriminator's conditioning).
        w_dim: length of w.
        layers: fully connected layers.
        classes: length of the label vector; 0 for none.
        num_ws: how many copies of w to return.
    """

    w_avg: Tensor

    def __init__(self, z_dim: int, w_dim: int, *, layers: int = 8, classes: int = 0, num_ws: int = 1) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.num_ws = num_ws
        self.embed = EqualLinear(classes, w_dim) if classes else None
        first = z_dim + (w_dim if classes else 0)
        self.layers = nn.ModuleList(
            EqualLinear(first if n == 0 else w_dim, w_dim, activate=True, lr_multiplier=0.01)
            for n in range(layers)
        )
        if z_dim:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        label: Tensor | None = None,
        truncation: float = 1.0,
        *,
        truncated_layers: int | None = None,
        centre: Tensor | None = None,
        update_average: bool = False,
    ) -> Tensor:
        """Styles of every synthesis layer.

        Args:
            z: (B, z_dim), N(0, I); None if z_dim is 0.
            label: (B, classes) float, usually one-hot; None without classes.
            truncation: psi; w is pulled to its mean, w_avg + psi (w - w_avg). 1 leaves w alone.
            truncated_layers: pull only the first this many; None for all.
            centre: (B, w_dim) what w is pulled to instead of w_avg, e.g. the mean of its class.
            update_average: move the running mean of w by 0.002 towards this batch's mean.

        Returns:
            ws, (B, num_ws, w_dim).
        """
        parts = []
        if self.z_dim:
            assert z is not None, "this mapping needs a latent"
            parts.append(normalise(z))
        if self.embed is not None:
            assert label is not None, "this mapping needs a label"
            parts.append(normalise(self.embed(label)))
        w = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        for layer in self.layers:
            w = layer(w)
        if update_average:
            self.w_avg.lerp_(w.detach().mean(dim=0).to(self.w_avg), 1 - 0.998)
        ws = w[:, None].expand(-1, self.num_ws, -1)
        if truncation == 1.0:
            return ws
        mean = self.w_avg if centre is None else centre[:, None]
        pulled = mean.lerp(ws, truncation)
        if truncated_layers is None:
            return pulled
        return torch.cat([pulled[:, :truncated_layers], ws[:, truncated_layers:]], dim=1)
