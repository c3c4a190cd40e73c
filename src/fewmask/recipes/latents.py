"""Every way from a slice to latents, by one generator; what is done is kept in the run's folder."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fewmask.core.run import Step
from fewmask.core.seed import stream
from fewmask.data.augment import StrongAugment
from fewmask.data.batches import ArraySource, Stream
from fewmask.inversion.encoder import encode, fit_encoder
from fewmask.inversion.project import Inversion, project
from fewmask.inversion.pti import Together, tune_together
from fewmask.inversion.resume import array_key, kept, network_key
from fewmask.networks.encoder import LatentEncoder
from fewmask.networks.generator import ImageGenerator
from fewmask.objectives.perceptual import DiscriminatorDistance
from fewmask.recipes.head_settings import Headed
from fewmask.recipes.reading import Way
from fewmask.recipes.stage import Stage
from fewmask.synthesis.generator import TrainedGenerator
from fewmask.training.launch import on_cpu

PIVOTS = 256
"""So many training slices the generator is tuned to, where there are more."""

Slices = NDArray[np.float32]


class Latents:
    """Inversions by one trained generator. A support slice and a test slice go the same way.

    training: (N, C, R, R) slices of the training patients, on which encoder and tuned generator learn.
    """

    def __init__(
        self, stage: Stage, settings: Headed, gan: TrainedGenerator, training: NDArray[np.floating]
    ) -> None:
        self.stage, self.settings, self.gan, self.training = stage, settings, gan, training
        self.distance = DiscriminatorDistance(gan.discriminator)
        self.inputs = {
            "stage": stage.ground.key,
            "inversion": settings.inversion.model_dump(mode="json", exclude={"copies"}),
            "generator": network_key(gan.generator),
            "training": array_key(training),
        }

    def generator(self, way: Way) -> ImageGenerator:
        """Whose latents they are: the trained generator, or the one that was tuned after it."""
        return self.tuned.generator if way == "pti" else self.gan.generator

    def invert(self, way: Way, images: Slices, name: str) -> Inversion:
        """Latents of `images` (N, C, R, R), kept under the step of `way` and `name`."""
        step = self.stage.run.step(f"inversion/{way}/{name}")
        inputs = {**self.inputs, "images": array_key(images)}
        recipe = {"way": way, **self.inputs}
        return kept(step, inputs, recipe, lambda: self._compute(way, images, step))[0]

    @cached_property
    def tuned(self) -> Together:
        """One generator that was tuned to training slices: what reads its features reads all of them so."""
        step = self.stage.run.step("inversion/tuned")
        order = stream(self.settings.seed, "fewshot", "pivots").permutation(len(self.training))
        slices = np.asarray(self.training[np.sort(order[:PIVOTS])], dtype=np.float32)
        pivots = self._projected("w", slices, Step(step.folder / "pivots"))
        return tune_together(
            self.gan.generator,
            slices,
            pivots,
            perceptual=self.distance,
            seed=self.settings.seed,
            steps=self.settings.inversion.pti_steps,
            step=step,
        )

    @cached_property
    def encoder(self) -> LatentEncoder:
        """Trained once on augmented training slices, for all slices that follow."""
        return fit_encoder(
            self.gan.generator,
            Stream(
                ArraySource(self.training),
                8,
                seed=self.settings.seed,
                name="encoder",
                augment=StrongAugment(),
            ),
            self.stage.run.step("encoder"),
            perceptual=self.distance,
            images=self.settings.inversion.encoder_images,
            seed=self.settings.seed,
            fabric=on_cpu(),
        )

    def _compute(self, way: Way, images: Slices, step: Step) -> Inversion:
        if way == "encoder":
            return encode(self.encoder, self.gan.generator, images, perceptual=self.distance)
        return self._projected(way, images, step)

    def _projected(self, way: Way, images: Slices, step: Step) -> Inversion:
        return project(
            self.generator(way),
            images,
            space="w+" if way == "w+" else "w",
            steps=self.settings.inversion.steps,
            perceptual=self.distance,
            seed=self.settings.seed,
            step=step,
        )
