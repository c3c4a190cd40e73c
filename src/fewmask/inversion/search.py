"""The mask of an image by a search for its latents: SemanticGAN's optimisation at test time.

Li et al., CVPR 2021, "Semantic segmentation with generative models", with the schedule and weights released
with the paper. The latents of all layers (W+) and the noise maps of the generator move until it draws the
image; what its mask branch then says is the answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmask.core.run import Step
from fewmask.inversion.admit import check_counts, check_images
from fewmask.inversion.descent import Descent, Goal, Loss, NoiseMaps, Walk, descend_each
from fewmask.inversion.encoder import PASSES, refuse_passes
from fewmask.inversion.place import on_device
from fewmask.inversion.project import draw_styles
from fewmask.inversion.result import Float, Inversion
from fewmask.inversion.resume import array_key, network_key
from fewmask.networks.encoder import LatentEncoder, refinements
from fewmask.networks.semanticgan import SemanticGenerator
from fewmask.objectives.perceptual import Distance
from fewmask.objectives.semanticgan import (
    FROM_MEAN,
    Anchors,
    SearchWeights,
    log_probabilities,
    search_loss,
    search_terms,
)

MEAN_OF = 10_000
"""So many random latents make the mean one, as published."""

BATCH = 16


@dataclass(frozen=True, eq=False)
class Found:
    """Latents of N images, and what the mask branch says there.

    inversion: latents, noise maps and what the generator draws of them; probabilities: (N, K, H, W) float32,
    each class's, the background first.
    """

    inversion: Inversion
    probabilities: Float


def search(
    generator: SemanticGenerator,
    images: NDArray[np.floating],
    *,
    perceptual: Distance,
    seed: int,
    steps: int = 100,
    encoder: LatentEncoder | None = None,
    passes: int = PASSES,
    weights: SearchWeights | None = None,
    noise: NoiseMaps = "optimised",
    learning_rate: float = 0.1,
    temperature: float | None = None,
    batch_size: int = BATCH,
    step: Step | None = None,
    save_every: int = 50,
    on_progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Find the latents whose images come closest to `images`, and their masks.

    Minimises `objectives.semanticgan.search_loss` by Adam. Every image is on its own: its noise maps follow
    from its pixels and `seed`, not from its neighbours. Works on the generator's device; the result is on the
    CPU.

    Args:
        generator: in evaluation mode; its weights do not change.
        images: (N, C, R, R) in [-1, 1], at the generator's resolution.
        perceptual: the distance P; on the scale of LPIPS, 0 to about 1, for the published weights.
        seed: names the streams of chance.
        steps: Adam steps per image; 0 gives what the encoder says, with the generator's constant noise;
            published: 100, to 500.
        encoder: from `fit_semantic_encoder` or `fit_encoder`: says where each search starts, and by the
            published weights draws it towards what it says of the image drawn so far (on its first pass).
            Without one a search starts at the mean latent.
        passes: of the encoder, for the start.
        weights: of the terms; None for the published ones, `SearchWeights()` with an encoder and `FROM_MEAN`
            without.
        noise: "optimised" the noise maps too, from white noise on; "constant" the generator's own.
        learning_rate: of Adam at its peak: a linear rise over the first 5 % of the steps, a cosine fall over
            the last 25 %.
        temperature: divides the mask's logits; None for the published 0.1, for one channel 0.3.
        batch_size: images at once; changes speed and memory, not results (up to rounding).
        step: where to keep finished batches and the state of the one at work: called again with the same
            arguments after any death, the search goes on and ends in the same bytes. None keeps nothing.
        save_every: steps between two states.
        on_progress: called with (image-steps done, image-steps in total).

    Raises:
        ShapeError: images that are not (N, C, R, R) for this generator.
        DataError: NaN or infinite values in the images.
        ConfigError: steps below 0, batch_size, passes or save_every below 1.
        RunError: `step` holds a search of other images or with other settings.
    """
    check_counts(steps, batch_size, save_every)
    refuse_passes(passes)
    check_images(generator, images)
    how = weights or (FROM_MEAN if encoder is None else SearchWeights())
    walk = Walk(noise if steps else "constant", "free", steps, learning_rate)
    told = {"weights": asdict(how), "seed": seed, "passes": passes, "distance": type(perceptual).__name__}
    made = {} if step is None else {"how": asdict(walk), **told, **_keys(generator, encoder)}

    @cache
    def mean() -> Tensor:
        return draw_styles(generator, MEAN_OF, seed=seed).mean(dim=0)

    def begin(target: Tensor, which: slice) -> Descent:
        goal = Goal(target, perceptual.towards(target), mean(), 0.0, seed)
        start = mean().expand(len(target), generator.num_ws, -1)
        if encoder is not None:
            with torch.no_grad():
                *_, (start, _) = refinements(encoder, generator, target, passes)
        loss = _loss(goal, start, encoder, how)
        return Descent(walk, generator, start, goal, loss)

    def made_from(which: slice) -> dict[str, Any]:
        return {**made, "images": array_key(images[which])}

    inversion = descend_each(
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
    return Found(inversion, probabilities_of(generator, inversion, temperature=temperature))


def probabilities_of(
    generator: SemanticGenerator,
    inversion: Inversion,
    *,
    temperature: float | None = None,
    batch_size: int = BATCH,
) -> Float:
    """What the mask branch says at the latents and noise maps of an inversion: (N, K, H, W), K at least 2."""
    found = []
    for first in range(0, len(inversion.ws), batch_size):
        which = slice(first, first + batch_size)
        maps = [on_device(each[which], generator) for each in inversion.noise]
        with torch.no_grad():
            _, logits = generator.pair(on_device(inversion.ws[which], generator), maps or "constant")
            found.append(log_probabilities(logits, temperature).exp().cpu().numpy())
    return np.concatenate(found)


def _loss(goal: Goal, start: Tensor, encoder: LatentEncoder | None, weights: SearchWeights) -> Loss:
    """What is minimised; an anchor that weighs nothing is not computed."""
    anchors = Anchors(
        encode=partial(_said, encoder) if encoder is not None and weights.encoder else None,
        start=start if weights.start else None,
        mean=goal.centre if weights.mean else None,
    )

    def loss(image: Tensor, ws: Tensor, maps: Sequence[Tensor]) -> Tensor:
        terms = search_terms(image, goal.images, goal.distance(image), maps, ws, anchors)
        return search_loss(terms, weights)

    return loss


@torch.no_grad()
def _said(encoder: LatentEncoder, image: Tensor) -> Tensor:
    return encoder.look(image)


def _keys(generator: SemanticGenerator, encoder: LatentEncoder | None) -> dict[str, str]:
    return {
        "generator": network_key(generator),
        "encoder": "" if encoder is None else network_key(encoder),
    }
