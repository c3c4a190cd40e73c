"""Pivotal tuning (Roich et al. 2022): a latent is found first, then the generator bends to draw its image.

Step 1 is `project`; its latents are the pivots. Step 2 here: with the pivots held, the weights of the
synthesis descend perceptual_weight * P + pixel_weight * MSE. The mapping, the constant noise and StyleGAN3's
running magnitudes do not change, nor does what moves StyleGAN3's frame.

What reads features of tuned generators must read all of them so. `tune_together` gives one generator for all
images (labelled and unlabelled ones together); `tune_each` one per image, and `Each.generator` gives it back.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError
from fewmask.core.run import Step
from fewmask.core.seed import integer, stream
from fewmask.inversion.admit import check_counts, check_images, check_latents
from fewmask.inversion.place import on_device
from fewmask.inversion.result import Inversion, joined, reconstruct
from fewmask.inversion.resume import Part, array_key, network_key, part_name
from fewmask.inversion.tuning import SYNTHESIS, Locality, Tuning, TuningRates
from fewmask.networks.generator import ImageGenerator
from fewmask.objectives.perceptual import Distance, LpipsDistance
from fewmask.training.checkpoint import load_best, write_best

__all__ = ["Each", "Locality", "Together", "tune_each", "tune_together"]


@dataclass(frozen=True, eq=False)
class Together:
    """All images by one tuned generator: their inversions, the generator, and how many updates it took."""

    inversion: Inversion
    generator: ImageGenerator
    updates: int


@dataclass(frozen=True, eq=False)
class Each:
    """Every image by its own tuned generator: their inversions, and the updates (N,) that each took."""

    inversion: Inversion
    updates: NDArray[np.int64]
    steps: tuple[Step, ...] = ()

    def generator(self, original: ImageGenerator, image: int) -> ImageGenerator:
        """The generator that was tuned on an image: a copy of the `original` with that image's weights.

        Raises:
            ConfigError: the weights were not kept.
            RunError: the kept file is damaged, or of another architecture.
        """
        if not self.steps:
            raise ConfigError(
                "the weights of the tuned generators were not kept",
                mend="Tune with keep_weights=True and a step to keep them in.",
            )
        tuned = _frozen_copy(original)
        load_best(self.steps[image], {SYNTHESIS: tuned.synthesis})
        return tuned


def tune_each(
    generator: ImageGenerator,
    images: NDArray[np.floating],
    pivot: Inversion,
    *,
    perceptual: Distance,
    seed: int,
    steps: int = 350,
    learning_rate: float = 1e-3,
    perceptual_weight: float = 0.1,
    pixel_weight: float = 1.0,
    locality: Locality | None = None,
    keep_weights: bool = False,
    step: Step | None = None,
    save_every: int = 100,
    on_progress: Callable[[int, int], None] | None = None,
) -> Each:
    """Tune the generator to every image on its own, one after the other.

    An image's tuning ends after `steps` updates, or earlier, see `Tuning.ended`. Its chance follows from
    its pixels and `seed`, so its neighbours do not matter.

    Args:
        generator: in evaluation mode; it does not change.
        images: (N, C, R, R) in [-1, 1].
        pivot: their inversions by `project`, with constant noise.
        perceptual: the distance P.
        seed: names the streams of chance (of the locality's latents).
        steps: updates per image at most (published: 350).
        learning_rate: of Adam, constant. 3e-4 is published; small networks gain faster with 1e-3 (chest films
            of 64 px, 60 updates: mean squared error 0.0073 instead of 0.0103).
        perceptual_weight: weight of P. 1 is published for LPIPS; the discriminator's distance is about ten
            times as large.
        pixel_weight: weight of the mean squared error.
        locality: keep what lies around the pivot as it was; None, as published, does not.
        keep_weights: keep every image's tuned weights in `step`, for `Each.generator`; as large as the
            synthesis, per image.
        step: where to keep finished images and the state of the one at work: called again with the same
            arguments after any death, the tuning goes on and ends in the same bytes.
        save_every: updates between two states.
        on_progress: called with (images done, images in total).

    Raises:
        ShapeError: images or pivots that do not fit the generator or each other.
        DataError: NaN or infinite values in them.
        ConfigError: senseless counts, pivots with optimised noise, keep_weights without a step.
        RunError: `step` holds a tuning of other images or with other settings.
    """
    _check(generator, images, pivot, steps, 1, save_every)
    if keep_weights and step is None:
        raise ConfigError("tuned weights need a step to be kept in", where="keep_weights")
    rates = TuningRates(steps, learning_rate, perceptual_weight, pixel_weight, locality)
    made = _made(generator, rates, perceptual, seed, step)
    parts: list[Inversion] = []
    updates: list[int] = []
    kept: list[Step] = []
    for n in range(len(images)):
        one = slice(n, n + 1)
        inputs = {**made, "images": array_key(images[one]), "pivot": array_key(pivot.ws[one])}
        part = Part(step, part_name(n), {**inputs, "weights": keep_weights}, every=save_every)
        finished = part.finished()
        if finished is None:
            chance = integer(seed, "pti", inputs["images"])
            tuning = _tuning(generator, images[one], pivot.ws[one], rates, perceptual, chance)
            for _ in _updates(tuning, part, lambda _: [0]):
                pass
            finished = _finish(tuning, part, perceptual, batch_size=1, keep_weights=keep_weights)
        parts.append(finished[0])
        updates.append(int(finished[1]["updates"]))
        if keep_weights and part.step is not None:
            kept.append(part.step)
        if on_progress is not None:
            on_progress(n + 1, len(images))
    return Each(joined(parts), np.array(updates, dtype=np.int64), tuple(kept))


def tune_together(
    generator: ImageGenerator,
    images: NDArray[np.floating],
    pivot: Inversion,
    *,
    perceptual: Distance,
    seed: int,
    steps: int = 350,
    learning_rate: float = 1e-3,
    perceptual_weight: float = 0.1,
    pixel_weight: float = 1.0,
    locality: Locality | None = None,
    batch_size: int = 8,
    step: Step | None = None,
    save_every: int = 50,
    on_progress: Callable[[int, int], None] | None = None,
) -> Together:
    """Tune one generator to all images: every update sees `batch_size` of them, every round each once.

    Arguments and errors as in `tune_each`; `steps` counts updates, `on_progress` too.
    """
    _check(generator, images, pivot, steps, batch_size, save_every)
    rates = TuningRates(steps, learning_rate, perceptual_weight, pixel_weight, locality)
    inputs = {
        **_made(generator, rates, perceptual, seed, step),
        "images": array_key(images),
        "pivot": array_key(pivot.ws),
        "batch_size": batch_size,
    }
    part = Part(step, "together", inputs, every=save_every)
    finished = part.finished()
    if finished is not None and part.step is not None:
        tuned = _frozen_copy(generator)
        load_best(part.step, {SYNTHESIS: tuned.synthesis})
        return Together(finished[0], tuned, int(finished[1]["updates"]))
    chance = integer(seed, "pti", "together")
    tuning = _tuning(generator, images, pivot.ws, rates, perceptual, chance)
    rounds = math.ceil(len(images) / batch_size)

    def rows(update: int) -> Sequence[int]:
        order = stream(chance, "order", update // rounds).permutation(len(images)).tolist()
        first = update % rounds * batch_size
        return sorted(order[first : first + batch_size])

    for update in _updates(tuning, part, rows):
        if on_progress is not None:
            on_progress(update, steps)
    inversion, told = _finish(tuning, part, perceptual, batch_size=batch_size, keep_weights=True)
    return Together(inversion, tuning.tuned.requires_grad_(False), int(told["updates"]))


def _tuning(
    generator: ImageGenerator,
    images: NDArray[np.floating],
    pivots: NDArray[np.floating],
    rates: TuningRates,
    perceptual: Distance,
    seed: int,
) -> Tuning:
    return Tuning(
        _frozen_copy(generator),
        generator,
        rates,
        perceptual,
        on_device(images, generator),
        on_device(pivots, generator),
        seed=seed,
        lpips=isinstance(perceptual, LpipsDistance),
    )


def _updates(tuning: Tuning, part: Part, rows: Callable[[int], Sequence[int]]) -> Iterator[int]:
    """All updates, from where an earlier process stood if one died here; says how many are done."""
    begun = part.begun()
    if begun is not None:
        tuning.load_state(begun[1], begun[0])
    while not tuning.ended:
        tuning.advance(rows(tuning.step))
        part.save(tuning.step, tuning.state)
        yield tuning.step


def _finish(
    tuning: Tuning, part: Part, perceptual: Distance, *, batch_size: int, keep_weights: bool
) -> tuple[Inversion, dict[str, Any]]:
    """Draw the images and keep them, and the tuned weights if asked for."""
    told = {"updates": tuning.step}
    if keep_weights and part.step is not None:
        write_best(part.step, {SYNTHESIS: tuning.tuned.synthesis}, told)
    drawn = [
        reconstruct(tuning.tuned, ws, target, perceptual.towards(target))
        for ws, target in zip(
            torch.split(tuning.pivots, batch_size), torch.split(tuning.images, batch_size), strict=True
        )
    ]
    return part.finish(joined(drawn), told)


def _made(
    generator: ImageGenerator, rates: TuningRates, perceptual: Distance, seed: int, step: Step | None
) -> dict[str, Any]:
    """What a tuning follows from besides the images, as JSON values; not worked out where nothing is kept."""
    if step is None:
        return {}
    return {
        "how": asdict(rates),
        "seed": seed,
        "distance": type(perceptual).__name__,
        "generator": network_key(generator),
    }


def _frozen_copy(generator: ImageGenerator) -> ImageGenerator:
    return copy.deepcopy(generator).eval().requires_grad_(False)


def _check(
    generator: ImageGenerator,
    images: NDArray[np.floating],
    pivot: Inversion,
    steps: int,
    batch_size: int,
    save_every: int,
) -> None:
    check_images(generator, images)
    check_counts(steps, batch_size, save_every)
    check_latents(generator, pivot.ws, len(images), what="the pivots")
    if pivot.noise:
        raise ConfigError(
            "pivots for a tuning are found with constant noise",
            found="an inversion with optimised noise maps",
            mend='Project with noise="constant".',
        )
