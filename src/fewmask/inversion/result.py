"""What an inversion gives: latents, what the generator makes of them, and how far that is from the images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmask.networks.generator import ImageGenerator
from fewmask.objectives.perceptual import ToTarget, multiscale_similarity

Float = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Inversion:
    """Latents of N images and what the generator makes of them.

    ws (N, num_ws, w_dim); images (N, C, H, W), the reconstructions, in about [-1, 1]; per image (N,): mse,
    the mean squared error, perceptual, the distance P, and ms_ssim, the multi-scale structural similarity (1
    for equal images). noise: the maps (N, 1, s, s) of every layer where they were optimised, otherwise empty
    (the generator's constant noise).
    """

    ws: Float
    images: Float
    mse: Float
    perceptual: Float
    ms_ssim: Float
    noise: tuple[Float, ...] = ()


def joined(parts: Sequence[Inversion]) -> Inversion:
    """Inversions one after the other."""
    return Inversion(
        np.concatenate([part.ws for part in parts]),
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.mse for part in parts]),
        np.concatenate([part.perceptual for part in parts]),
        np.concatenate([part.ms_ssim for part in parts]),
        tuple(np.concatenate(maps) for maps in zip(*(part.noise for part in parts), strict=True)),
    )


def reconstruct(
    generator: ImageGenerator,
    ws: Tensor,
    target: Tensor,
    distance: ToTarget,
    *,
    maps: Sequence[Tensor] = (),
) -> Inversion:
    """What latents (B, num_ws, w_dim) give, beside the images (B, C, H, W) they stand for.

    `maps` are the noise of every layer (B, 1, s, s); without them the generator's constant noise is added.
    """
    with torch.no_grad():
        image = generator.synthesis(ws, noise=maps or "constant")
        error = (image - target).square().mean(dim=(1, 2, 3))
        far, alike = distance(image), multiscale_similarity(image, target)
    noise = tuple(_plain(each) for each in maps)
    return Inversion(_plain(ws), _plain(image), _plain(error), _plain(far), _plain(alike), noise)


def _plain(value: Tensor) -> Float:
    return np.array(value.detach().cpu().numpy(), dtype=np.float32, order="C")
