"""Images to latents by optimisation: projection into W or W+ (Karras et al. 2020, appendix D).

By default the noise inputs of the generator are held constant: with them fixed there are no noise maps into
which an image could leak, and what the latents cannot say is visible in the residual (see `residual`). With
noise="optimised" the maps are unknowns too, under the published regularisation (see `noise`).

StyleGAN3's first styles place the image in its frame. By default they stay at the mean latent: otherwise an
inversion could explain an image by moving it, and its features would no longer lie where the image does.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fewmask.core.run import Step
from fewmask.core.seed import integer
from fewmask.inversion.admit import check_counts, check_images, check_latents
from fewmask.inversion.descent import (
    Descent,
    Frame,
    Goal,
    NoiseMaps,
    Projection,
    Space,
    descend_each,
    framed,
    frozen_styles,
    projection_loss,
)
from fewmask.inversion.place import device_of, on_device
from fewmask.inversion.result import Float, Inversion, joined, reconstruct
from fewmask.inversion.resume import array_key, network_key
from fewmask.networks.generator import ImageGenerator
from fewmask.objectives.perceptual import Distance

__all__ = ["Inversion", "LatentCloud", "draw_cloud", "joined", "nearest", "project", "reconstruct"]


@dataclass(frozen=True, eq=False)
class LatentCloud:
    """M random latents of a generator, on its device.

    w (M, w_dim); mean (w_dim,); spread, the root of their mean squared distance to the mean; thumbs (M, D),
    their images, small and flat, to find neighbours by.
    """

    w: Tensor
    mean: Tensor
    spread: float
    thumbs: Tensor


def project(
    generator: ImageGenerator,
    images: NDArray[np.floating],
    *,
    space: Space = "w+",
    noise: NoiseMaps = "constant",
    frame: Frame = "frozen",
    steps: int,
    perceptual: Distance,
    seed: int,
    start: Float | None = None,
    candidates: int = 1000,
    learning_rate: float = 0.2,
    pixel_weight: float = 1.0,
    perceptual_weight: float = 0.1,
    mean_penalty: float = 0.0,
    noise_factor: float = 0.01,
    noise_weight: float = 1e5,
    batch_size: int = 16,
    step: Step | None = None,
    save_every: int = 50,
    on_progress: Callable[[int, int], None] | None = None,
) -> Inversion:
    """Find the latents whose images come closest to `images`.

    Minimises perceptual_weight * P + pixel_weight * MSE + mean_penalty * |w - mean|^2 / spread^2 (and, with
    optimised noise, noise_weight * `noise_correlation`) by Adam. Every image is on its own: its chance
    follows from its pixels and `seed`, not from its neighbours. Works on the generator's device; the result
    is on the CPU.

    Args:
        generator: in evaluation mode; its weights do not change.
        images: (N, C, H, W) in [-1, 1], at the generator's resolution.
        space: "w" one latent per image for all layers, "w+" one per layer.
        noise: "constant" the generator's own pictures, "optimised" noise maps of each image. A generator
            without noise inputs (StyleGAN3) has nothing to optimise: both are then the same.
        frame: "frozen" the styles that place the image in its frame stay at the mean latent, "free" they are
            found like the others. StyleGAN2 has no such styles: both are then the same.
        steps: Adam steps per image; 0 gives back the start.
        perceptual: the distance P.
        seed: names the streams of chance.
        start: latents (N, num_ws, w_dim) to start from, an encoder's for instance. Without them each image
            starts from the nearest of `candidates` random latents (of their mean when 0).
        candidates: random latents to draw for the start.
        learning_rate: of Adam at its peak: a linear rise over the first 5 % of the steps, a cosine fall over
            the last 25 %.
        pixel_weight: weight of the mean squared error.
        perceptual_weight: weight of P. 1 is published for LPIPS; the discriminator's distance is about ten
            times as large.
        mean_penalty: weight of the squared distance to the mean latent, averaged over the layers.
        noise_factor: noise on the latents, in units of their spread; falls to 0 at 3/4 of the steps.
        noise_weight: weight of the noise regularisation (published: 1e5).
        batch_size: images optimised at once; changes speed and memory, not results (up to rounding).
        step: where to keep finished batches and the state of the one at work: called again with the same
            arguments after any death, the projection goes on and ends in the same bytes. None keeps nothing.
        save_every: steps between two states.
        on_progress: called with (image-steps done, image-steps in total).

    Raises:
        ShapeError: images that are not (N, C, R, R) for this generator, or a start of another shape.
        DataError: NaN or infinite values in the images or in the start.
        ConfigError: steps below 0, batch_size or save_every below 1.
        RunError: `step` holds a projection of other images or with other settings.
    """
    check_counts(steps, batch_size, save_every)
    check_images(generator, images)
    if start is not None:
        check_latents(generator, start, len(images))
    how = Projection(
        space=space,
        noise=noise,
        frame=frame,
        steps=steps,
        learning_rate=learning_rate,
        pixel_weight=pixel_weight,
        perceptual_weight=perceptual_weight,
        mean_penalty=mean_penalty,
        noise_factor=noise_factor,
        noise_weight=noise_weight,
    )
    made = _made(generator, how, perceptual, seed, candidates, step)

    @cache
    def cloud() -> LatentCloud:
        return draw_cloud(generator, max(candidates, 256), seed=seed, frame=frame)

    def begin(target: Tensor, which: slice) -> Descent:
        goal = Goal(target, perceptual.towards(target), cloud().mean, cloud().spread, seed)
        given = None if start is None else start[which]
        origin = _begin(generator, given, cloud(), target, candidates, how)
        return Descent(how.walk, generator, origin, goal, projection_loss(how, goal))

    def made_from(which: slice) -> dict[str, Any]:
        given = None if start is None else start[which]
        return {**made, "images": array_key(images[which]), "start": array_key(given)}

    return descend_each(
        generator,
        images,
        begin,
        made_from,
        steps=steps,
        batch_size=batch_size,
        step=step,
        save_every=save_every,
        on_progress=on_progress,
    )


def draw_cloud(generator: ImageGenerator, count: int, *, seed: int, frame: Frame = "frozen") -> LatentCloud:
    """Draw `count` random latents, untruncated, and their images; the same for every call with this seed.

    A generator with classes draws them all equally often. With frame="frozen" every latent is shown in the
    mean latent's frame, see `project`.
    """
    frozen = frozen_styles(generator, frame)
    with torch.no_grad():
        w = draw_styles(generator, count, seed=seed)
        mean = w.mean(dim=0)
        thumbs = [
            thumbnails(generator.synthesis(framed(some, generator.num_ws, frozen, mean), noise="constant"))
            for some in torch.split(w.unsqueeze(1), 32)
        ]
    return LatentCloud(w, mean, float((w - mean).square().sum(dim=1).mean().sqrt()), torch.cat(thumbs))


def draw_styles(generator: ImageGenerator, count: int, *, seed: int) -> Tensor:
    """The latents w (count, w_dim) of `draw_cloud`."""
    chance = torch.Generator().manual_seed(integer(seed, "project", "cloud"))
    z = torch.randn(count, generator.z_dim, generator=chance)
    label = None
    if generator.classes:
        drawn = torch.randint(generator.classes, (count,), generator=chance)
        label = F.one_hot(drawn, generator.classes).float().to(device_of(generator))
    with torch.no_grad():
        w: Tensor = generator.mapping(z.to(device_of(generator)), label)[:, 0]
    return w


def nearest(cloud: LatentCloud, images: Tensor) -> Tensor:
    """For each image (B, C, H, W) the latent (B, 1, w_dim) whose image is nearest by mean squared error."""
    best = torch.cdist(thumbnails(images), cloud.thumbs).argmin(dim=1)
    return cloud.w[best].unsqueeze(1)


def thumbnails(images: Tensor) -> Tensor:
    """Images (B, C, H, W) shrunk to at most 16 x 16 pixels and flattened: (B, D)."""
    return F.adaptive_avg_pool2d(images, min(16, images.shape[2])).flatten(1)


def _made(
    generator: ImageGenerator,
    how: Projection,
    perceptual: Distance,
    seed: int,
    candidates: int,
    step: Step | None,
) -> dict[str, Any]:
    """What a projection follows from besides the images, as JSON values; not worked out if none is kept."""
    if step is None:
        return {}
    return {
        "how": asdict(how),
        "seed": seed,
        "candidates": candidates,
        "distance": type(perceptual).__name__,
        "generator": network_key(generator),
    }


def _begin(
    generator: ImageGenerator,
    start: Float | None,
    cloud: LatentCloud,
    target: Tensor,
    candidates: int,
    how: Projection,
) -> Tensor:
    """Where a descent begins: (B, num_ws, w_dim) in W+, (B, 1, w_dim) in W."""
    if start is not None:
        begin = on_device(start, generator)
        if how.space == "w":
            begin = begin[:, frozen_styles(generator, how.frame) :].mean(dim=1, keepdim=True)
    elif candidates:
        begin = nearest(cloud, target)
    else:
        begin = cloud.mean.expand(len(target), 1, -1)
    return begin if how.space == "w" else begin.expand(-1, generator.num_ws, -1)
