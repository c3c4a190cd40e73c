"""Images to latents in a few passes of a network, learned once per generator and used for every image."""

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError
from fewmask.core.run import Step
from fewmask.core.seed import integer
from fewmask.data.batches import Stream
from fewmask.inversion.admit import check_images
from fewmask.inversion.descent import Space, framed
from fewmask.inversion.place import device_of, on_device, without_gradients
from fewmask.inversion.project import draw_cloud
from fewmask.inversion.result import Inversion, joined, reconstruct
from fewmask.inversion.resume import network_key
from fewmask.networks.encoder import LatentEncoder, refinements
from fewmask.networks.generator import ImageGenerator
from fewmask.objectives.encoder import EncoderObjective, EncoderWeights
from fewmask.objectives.perceptual import Distance
from fewmask.training.launch import Fabric
from fewmask.training.loop import Objective, fit

PASSES = 3
"""Passes of the encoder over every image, in training and in use."""

CLOUD = 1000
"""Random latents whose mean an encoder starts from: those of `project`, so that both mean the same frame."""


def fit_encoder(
    generator: ImageGenerator,
    stream: Stream,
    step: Step,
    *,
    perceptual: Distance | None,
    images: int,
    seed: int,
    fabric: Fabric,
    space: Space = "w+",
    passes: int = PASSES,
    weights: EncoderWeights | None = None,
    learning_rate: float = 2e-3,
    width: int = 64,
    parts: int = 1,
    label: str = "encoder",
) -> LatentEncoder:
    """Train an encoder on unlabelled training images and on images of the generator.

    Args:
        generator: in evaluation mode, on the fabric's device; does not change.
        stream: unlabelled images (B, C, R, R) in [-1, 1], augmented as those will be that are to be encoded.
        step: where the training keeps its checkpoints; run again, it goes on.
        perceptual: the distance P beside the mean squared error, on the fabric's device, or None.
        images: length of the training in real images seen; as many generated ones are seen.
        seed: names the streams of chance.
        fabric: from `training.launch.launch`.
        space: "w+" a style per layer, "w" one style for all layers.
        passes: over every image; each starts from what the last one found.
        weights: of the terms of the loss, see `EncoderObjective`.
        learning_rate: of Adam at its peak.
        width: channels of the pyramid; the trunk's and the heads' are twice as many at most.
        parts: micro-batches of an update, to save memory.
        label: names the progress bar and the streams of chance.

    Raises:
        ConfigError: fewer than one pass; a generator on another device than the training's.
        ShapeError: images that this generator cannot draw.
        DataError: NaN or infinite values in the first batch.
        RunError: `step` holds an encoder of another generator or with other settings.
        TrainingError, StoppedError: see `training.loop.fit`.
    """
    refuse_training(generator, stream, fabric, passes)
    weights = weights or EncoderWeights()
    made_from = {
        "generator": network_key(generator),
        "distance": type(perceptual).__name__,
        "weights": asdict(weights),
        "learning_rate": learning_rate,
        "images": images,
        "passes": passes,
        "space": space,
        "width": width,
    }
    step.claim(made_from)
    encoder = untrained(generator, seed=seed, label=label, space=space, width=width)
    objective = EncoderObjective(
        encoder,
        generator,
        perceptual=perceptual,
        images=images,
        passes=passes,
        weights=weights,
        learning_rate=learning_rate,
    )
    train(
        objective, generator, stream, step, images=images, seed=seed, fabric=fabric, parts=parts, label=label
    )
    return encoder.eval()


def train(
    objective: Objective,
    generator: ImageGenerator,
    stream: Stream,
    step: Step,
    *,
    images: int,
    seed: int,
    fabric: Fabric,
    parts: int,
    label: str,
) -> None:
    """Run an encoder's objective; the generator does not change. See `fit_encoder`."""
    with without_gradients(generator):
        fit(
            objective,
            stream,
            step,
            images=images,
            seed=seed,
            fabric=fabric,
            checkpoint_every=max(images // 10, 1),
            report_every=max(images // 20, 1),
            parts=parts,
            label=label,
        )


def encode(
    encoder: LatentEncoder,
    generator: ImageGenerator,
    images: NDArray[np.floating],
    *,
    perceptual: Distance,
    passes: int = PASSES,
    batch_size: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
) -> Inversion:
    """Latents of images (N, C, R, R) in [-1, 1]: the start of a `project`, or all of it.

    Args:
        encoder: from `fit_encoder`, on the generator's device.
        generator: the one it was trained for.
        images: at the generator's resolution.
        perceptual: the distance P that the result tells.
        passes: as many as in training, or fewer.
        batch_size: images at once; changes speed and memory, not results (up to rounding).
        on_progress: called with (images done, images in total).

    Raises:
        ShapeError: images that are not (N, C, R, R) for this generator.
        DataError: NaN or infinite values in the images.
        ConfigError: fewer than one pass, or a batch_size below 1.
    """
    refuse_passes(passes)
    check_images(generator, images)
    if batch_size < 1:
        raise ConfigError("at least one image is encoded at once", found=f"batch_size={batch_size}")
    parts = []
    for first in range(0, len(images), batch_size):
        target = on_device(images[first : first + batch_size], generator)
        with torch.no_grad():
            *_, (ws, _) = refinements(encoder, generator, target, passes)
        parts.append(reconstruct(generator, ws, target, perceptual.towards(target)))
        if on_progress is not None:
            on_progress(first + len(target), len(images))
    return joined(parts)


def untrained(generator: ImageGenerator, *, seed: int, label: str, space: Space, width: int) -> LatentEncoder:
    """An encoder that says the mean latent of this generator."""
    cloud = draw_cloud(generator, CLOUD, seed=seed)
    centre = cloud.mean[None, None]
    with torch.no_grad():
        start = generator.synthesis(framed(centre, generator.num_ws, 0, cloud.mean), noise="constant")[0]
    encoder = LatentEncoder(
        generator.channels,
        generator.resolution,
        generator.num_ws,
        cloud.mean,
        start,
        spread=cloud.spread,
        frame_ws=generator.synthesis.frame_ws,
        shared=space == "w",
        width=width,
    )
    encoder.initialise(torch.Generator().manual_seed(integer(seed, label, "weights")))
    return encoder


def refuse_training(generator: ImageGenerator, stream: Stream, fabric: Fabric, passes: int) -> None:
    """Raise what `fit_encoder` says of its generator, images and passes."""
    refuse_passes(passes)
    _refuse_elsewhere(generator, fabric)
    check_images(generator, stream.at(0).image.cpu().numpy())


def refuse_passes(passes: int) -> None:
    """A `ConfigError` on fewer than one pass."""
    if passes < 1:
        raise ConfigError("an encoder looks at an image at least once", found=f"passes={passes}")


def _refuse_elsewhere(generator: ImageGenerator, fabric: Fabric) -> None:
    if device_of(generator).type != fabric.device.type:
        raise ConfigError(
            "the generator is on another device than the training of its encoder",
            found=f"{device_of(generator)} and {fabric.device}",
            mend="Move generator and perceptual distance to the fabric's device first.",
        )
