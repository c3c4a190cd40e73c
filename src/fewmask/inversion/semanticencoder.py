"""An encoder for a generator with a mask branch: its latents should give back an image's mask too."""

from dataclasses import asdict

from fewmask.core.run import Step
from fewmask.data.batches import Stream
from fewmask.inversion.encoder import PASSES, refuse_training, train, untrained
from fewmask.inversion.resume import array_key, network_key
from fewmask.networks.encoder import LatentEncoder
from fewmask.networks.semanticgan import SemanticGenerator
from fewmask.objectives.perceptual import Distance
from fewmask.objectives.semanticencoder import SemanticEncoderObjective
from fewmask.objectives.semanticgan import EncoderWeights
from fewmask.training.launch import Fabric


def fit_semantic_encoder(
    generator: SemanticGenerator,
    stream: Stream,
    labelled: Stream,
    step: Step,
    *,
    perceptual: Distance | None,
    images: int,
    seed: int,
    fabric: Fabric,
    passes: int = PASSES,
    weights: EncoderWeights | None = None,
    learning_rate: float = 2e-3,
    width: int = 64,
    parts: int = 1,
    label: str = "semantic encoder",
) -> LatentEncoder:
    """Train an encoder into W+ on unlabelled and labelled images in turn; `encoder.encode` uses it.

    Args:
        generator: in evaluation mode, on the fabric's device; does not change.
        stream: unlabelled images (B, C, R, R) in [-1, 1].
        labelled: images with masks, class numbers or soft, in batches of the same size.
        step: where the training keeps its checkpoints; run again, it goes on.
        perceptual: the distance P, on the fabric's device, or None; on the scale of LPIPS, 0 to about 1, for
            the published weight of 10.
        images: length of the training in unlabelled images seen; as many labelled ones are shown.
        seed: names the streams of chance.
        fabric: from `training.launch.launch`.
        passes: over every image; 1 as published.
        weights: of the terms, see `SemanticEncoderObjective`.
        learning_rate: of both Adams at their peak.
        width: channels of the pyramid.
        parts: micro-batches of an update, to save memory.
        label: names the progress bar and the streams of chance.

    Raises:
        ConfigError: fewer than one pass; a generator on another device than the training's; labelled images
            without masks, or in batches of another size.
        ShapeError: images that this generator cannot draw.
        DataError: NaN or infinite values in the first batch.
        RunError: `step` holds an encoder of another generator, other labelled images or settings.
        TrainingError, StoppedError: see `training.loop.fit`.
    """
    for images_given in (stream, labelled):
        refuse_training(generator, images_given, fabric, passes)
    weights, first = weights or EncoderWeights(), labelled.at(0)
    mask = None if first.mask is None else first.mask.float().numpy()
    made_from = {
        "generator": network_key(generator),
        "labelled": [array_key(first.image.numpy()), array_key(mask)],
        "distance": type(perceptual).__name__,
        "weights": asdict(weights),
        "learning_rate": learning_rate,
        "images": images,
        "passes": passes,
        "width": width,
    }
    step.claim(made_from)
    encoder = untrained(generator, seed=seed, label=label, space="w+", width=width)
    objective = SemanticEncoderObjective(
        encoder,
        generator,
        labelled,
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
