"""Noise maps as unknowns of an inversion, kept noise (Karras et al. 2020, appendix D).

A generator that adds noise to its activations can hide an image in it. A map that is optimised is therefore
pushed back to white noise: neighbouring pixels must not be correlated, at any scale, and after every step the
map has zero mean and unit variance again.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST = 8
"""Side in pixels down to which a map is halved for its regularisation."""


def draw_maps(sizes: Sequence[int], chances: Sequence[torch.Generator]) -> list[Tensor]:
    """White noise (B, 1, s, s) for every side s of `sizes`; image i draws its own from chances[i]."""
    return [renormalised(torch.stack([torch.randn(1, s, s, generator=c) for c in chances])) for s in sizes]


def renormalised(noise: Tensor) -> Tensor:
    """Each image's map of (B, 1, s, s) at zero mean and unit variance."""
    centred = noise - noise.mean(dim=(1, 2, 3), keepdim=True)
    return centred * (centred.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-8).rsqrt()


def noise_correlation(maps: Sequence[Tensor]) -> Tensor:
    """How far from white the maps (B, 1, s, s) of each image are: (B,), 0 for none.

    Karras et al. 2020, appendix D: the sum over the maps, and over their halvings down to 8 px, of
    mean(n * shift_x(n))^2 + mean(n * shift_y(n))^2, where shifts go around the edge by one pixel. A halving
    averages 2 x 2 pixels and multiplies by 2, so that white noise keeps its variance.
    """
    terms = []
    for noise in maps:
        while True:
            for axis in (2, 3):
                terms.append((noise * noise.roll(1, dims=axis)).mean(dim=(1, 2, 3)).square())
            if noise.shape[2] <= SMALLEST:
                break
            noise = F.avg_pool2d(noise, 2) * 2
    return torch.stack(terms).sum(dim=0)
