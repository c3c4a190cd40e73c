"""Images to latents by optimisation: projection into W or W+ (Karras et al. 2020, appendix D).

The noise inputs of the generator are held constant: with them fixed there are no noise maps into which an
image could leak, so the noise regularisation of the original projector has nothing to act on and is left
out. What the latents cannot say is then visible in the residual (see `residual`).
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fewmask.core.errors import ConfigError, ShapeError
from fewmask.core.seed import integer
from fewmask.networks.stylegan2 import Generator
from fewmask.objectives.perceptual import Distance

Float = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Inversion:
    """Latents of N images and what the generator makes of them.

    ws (N, num_ws, w_dim); images (N, C, H, W), the reconstructions, in about [-1, 1]; mse (N,) mean squared
    error per image; perceptual (N,) the distance P per image.
    """

    ws: Float
    images: Float
    mse: Float
    perceptual: Float


@dataclass(frozen=True, eq=False)
class LatentCloud:
    """M random latents of a generator.

    w (M, w_dim); mean (w_dim,); spread, the root of their mean squared distance to the mean; thumbs (M, D),
    their images, small and flat, to find neighbours by.
    """

    w: Tensor
    mean: Tensor
    spread: float
    thumbs: Tensor


def project(
    generator: Generator,
    images: NDArray[np.floating],
    *,
    space: Literal["w", "w+"] = "w+",
    steps: int,
    perceptual: Distance,
    seed: int,
    start: Float | None = None,
    candidates: int = 1000,
    learning_rate: float = 0.1,
    pixel_weight: float = 1.0,
    perceptual_weight: float = 1.0,
    mean_penalty: float = 0.0,
    noise_factor: float = 0.01,
    batch_size: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
) -> Inversion:
    """Find the latents whose images come closest to `images`.

    Minimises perceptual_weight * P + pixel_weight * MSE + mean_penalty * |w - mean|^2 / spread^2 by Adam.
    Every image is on its own: its chance follows from its pixels and `seed`, not from its neighbours.

    Args:
        generator: in evaluation mode; its weights do not change.
        images: (N, C, H, W) in [-1, 1], at the generator's resolution.
        space: "w" one latent per image for all layers, "w+" one per layer.
        steps: Adam steps per image; 0 gives back the start.
        perceptual: the distance P.
        seed: names the streams of chance.
        start: latents (N, num_ws, w_dim) to start from, an encoder's for instance. Without them each image
            starts from the nearest of `candidates` random latents (of their mean when 0).
        candidates: random latents to draw for the start.
        learning_rate: of Adam at its peak: a linear rise over the first 5 % of the steps, a cosine fall over
            the last 25 %.
        pixel_weight: weight of the mean squared error.
        perceptual_weight: weight of P.
        mean_penalty: weight of the squared distance to the mean latent, averaged over the layers.
        noise_factor: noise on the latents, in units of their spread; falls to 0 at 3/4 of the steps.
        batch_size: images optimised at once; changes speed and memory, not results (up to rounding).
        on_progress: called with (image-steps done, image-steps in total).

    Raises:
        ShapeError: images that are not (N, C, R, R) for this generator, or a start of another shape.
        ConfigError: steps below 0 or batch_size below 1.
    """
    _check(generator, images, start, steps, batch_size)
    cloud = draw_cloud(generator, max(candidates, 256), seed=seed)
    parts: list[Inversion] = []
    for first in range(0, len(images), batch_size):
        part = slice(first, first + batch_size)
        target = torch.from_numpy(np.ascontiguousarray(images[part], dtype=np.float32))
        begin = nearest(cloud, target) if candidates else cloud.mean.expand(len(target), 1, -1)
        if start is not None:
            begin = torch.from_numpy(np.ascontiguousarray(start[part], dtype=np.float32))
        begin = begin.mean(dim=1, keepdim=True) if space == "w" else begin.expand(-1, generator.num_ws, -1)
        distance = perceptual.towards(target)

        def loss(
            ws: Tensor, target: Tensor = target, distance: Callable[[Tensor], Tensor] = distance
        ) -> Tensor:
            image: Tensor = generator.synthesis(ws.expand(-1, generator.num_ws, -1), noise="constant")
            total: Tensor = pixel_weight * (image - target).square().mean(dim=(1, 2, 3))
            if perceptual_weight:
                total = total + perceptual_weight * distance(image)
            if mean_penalty:
                far = (ws - cloud.mean).square().sum(dim=2).mean(dim=1) / cloud.spread**2
                total = total + mean_penalty * far
            return total.sum()

        def report(step: int, first: int = first, size: int = len(target)) -> None:
            if on_progress is not None:
                on_progress(first * steps + (step + 1) * size, len(images) * steps)

        chances = [torch.Generator().manual_seed(_image_seed(seed, image)) for image in target.numpy()]
        noise = noise_factor * cloud.spread
        ws = _descend(begin, loss, chances, steps=steps, rate=learning_rate, noise=noise, report=report)
        parts.append(reconstruct(generator, ws.expand(-1, generator.num_ws, -1), target, distance))
    return joined(parts)


def draw_cloud(generator: Generator, count: int, *, seed: int) -> LatentCloud:
    """Draw `count` random latents, untruncated, and their images; the same for every call with this seed."""
    chance = torch.Generator().manual_seed(integer(seed, "project", "cloud"))
    z = torch.randn(count, generator.z_dim, generator=chance)
    with torch.no_grad():
        ws = generator.mapping(z)
        thumbs = [thumbnails(generator.synthesis(some, noise="constant")) for some in ws.split(32)]
    w = ws[:, 0]
    mean = w.mean(dim=0)
    return LatentCloud(w, mean, float((w - mean).square().sum(dim=1).mean().sqrt()), torch.cat(thumbs))


def nearest(cloud: LatentCloud, images: Tensor) -> Tensor:
    """For each image (B, C, H, W) the latent (B, 1, w_dim) whose image is nearest by mean squared error."""
    best = torch.cdist(thumbnails(images), cloud.thumbs).argmin(dim=1)
    return cloud.w[best].unsqueeze(1)


def thumbnails(images: Tensor) -> Tensor:
    """Images (B, C, H, W) shrunk to at most 16 x 16 pixels and flattened: (B, D)."""
    return F.adaptive_avg_pool2d(images, min(16, images.shape[2])).flatten(1)


def reconstruct(
    generator: Generator, ws: Tensor, target: Tensor, distance: Callable[[Tensor], Tensor]
) -> Inversion:
    """What latents (B, num_ws, w_dim) give, beside the images (B, C, H, W) they stand for."""
    with torch.no_grad():
        image = generator.synthesis(ws, noise="constant")
        error = (image - target).square().mean(dim=(1, 2, 3))
        far = distance(image)
    return Inversion(ws.contiguous().numpy(), image.numpy(), error.numpy(), far.numpy())


def joined(parts: Sequence[Inversion]) -> Inversion:
    """Inversions one after the other."""
    return Inversion(
        np.concatenate([part.ws for part in parts]),
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.mse for part in parts]),
        np.concatenate([part.perceptual for part in parts]),
    )


def _descend(
    begin: Tensor,
    loss: Callable[[Tensor], Tensor],
    chances: Sequence[torch.Generator],
    *,
    steps: int,
    rate: float,
    noise: float,
    report: Callable[[int], None],
) -> Tensor:
    """Adam (betas 0.9, 0.999) on latents (B, L, w_dim); image i draws its noise from chances[i].

    Schedule of Karras et al. 2020, appendix D: the rate rises over the first 5 % of the steps and falls as
    a cosine over the last 25 %; the noise has deviation noise * max(0, 1 - t / 0.75)^2 at the fraction t.
    """
    ws = begin.detach().clone(memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam([ws], lr=rate)
    for step in range(steps):
        t = step / steps
        fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1.0 - t) / 0.25))
        optimizer.param_groups[0]["lr"] = rate * fall * min(1.0, (step + 1) / max(1.0, 0.05 * steps))
        width = noise * max(0.0, 1.0 - t / 0.75) ** 2
        tried = ws.clone()
        if width > 0:
            tried += width * torch.stack([torch.randn(ws.shape[1:], generator=chance) for chance in chances])
        (ws.grad,) = torch.autograd.grad(loss(tried.requires_grad_()), tried)
        optimizer.step()
        report(step)
    return ws.detach()


def _image_seed(seed: int, image: Float) -> int:
    """A seed that follows from the pixels, so that an image's chance does not depend on its neighbours."""
    return integer(seed, "project", "noise", hashlib.sha256(image.tobytes()).hexdigest())


def _check(
    generator: Generator, images: NDArray[np.floating], start: Float | None, steps: int, batch_size: int
) -> None:
    size = generator.resolution
    expected = ("N", generator.channels, size, size)
    if images.ndim != 4 or images.shape[1:] != expected[1:] or len(images) == 0:
        raise ShapeError(
            "these images cannot come from this generator",
            found=f"shape {images.shape}",
            expected=f"shape {expected}",
            mend="Prepare the images with the settings the generator was trained with.",
        )
    if start is not None and start.shape != (len(images), generator.num_ws, generator.w_dim):
        raise ShapeError(
            "the latents to start from do not fit",
            found=f"shape {start.shape}",
            expected=f"shape {(len(images), generator.num_ws, generator.w_dim)}",
        )
    if steps < 0 or batch_size < 1:
        raise ConfigError(
            "a projection needs steps >= 0 and batch_size >= 1",
            found=f"steps={steps}, batch_size={batch_size}",
        )
