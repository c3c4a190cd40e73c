"""Images to latents in one pass: a small encoder, learned once per GAN, then used for every image."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from fewmask.core.run import Step
from fewmask.core.seed import integer
from fewmask.data.batches import Stream
from fewmask.inversion.project import Inversion, draw_cloud, joined, reconstruct
from fewmask.networks.encoder import LatentEncoder
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.objectives.encoder import EncoderObjective
from fewmask.objectives.perceptual import Distance
from fewmask.training.launch import Fabric
from fewmask.training.loop import fit


def fit_encoder(
    generator: Generator,
    discriminator: Discriminator,
    stream: Stream,
    step: Step,
    *,
    perceptual: Distance | None,
    images: int,
    seed: int,
    fabric: Fabric,
    hidden: int = 64,
    label: str = "encoder",
) -> LatentEncoder:
    """Train an encoder on unlabelled training images and on images of the generator.

    Args:
        generator: in evaluation mode; does not change.
        discriminator: the encoder's trunk; does not change.
        stream: unlabelled images (B, C, H, W) in [-1, 1], augmented as the labelled ones will be.
        step: where the training keeps its checkpoints; run again, it goes on.
        perceptual: the distance P beside the mean squared error, or None.
        images: length of the training in real images seen.
        seed: names the streams of chance.
        fabric: from `training.launch.launch`.
        hidden: size of the regression, see `LatentEncoder`.
        label: names the progress bar and the streams of chance.
    """
    cloud = draw_cloud(generator, 1000, seed=seed)
    encoder = LatentEncoder(discriminator, generator.num_ws, cloud.mean, hidden=hidden)
    encoder.initialise(torch.Generator().manual_seed(integer(seed, label, "weights")))
    objective = EncoderObjective(
        encoder, generator, perceptual=perceptual, images=images, spread=cloud.spread
    )
    fit(
        objective,
        stream,
        step,
        images=images,
        seed=seed,
        fabric=fabric,
        checkpoint_every=max(images // 4, 1),
        report_every=max(images // 20, 1),
        label=label,
    )
    return encoder.eval()


def encode(
    encoder: LatentEncoder,
    generator: Generator,
    images: NDArray[np.floating],
    *,
    perceptual: Distance,
    batch_size: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
) -> Inversion:
    """Latents of images (N, C, H, W) in [-1, 1] by one pass each: the start of a `project`, or all of it."""
    parts = []
    for first in range(0, len(images), batch_size):
        target = torch.from_numpy(np.array(images[first : first + batch_size], dtype=np.float32))
        with torch.no_grad():
            ws = encoder(target)
        parts.append(reconstruct(generator, ws, target, perceptual.towards(target)))
        if on_progress is not None:
            on_progress(min(first + batch_size, len(images)), len(images))
    return joined(parts)
