"""SemanticGAN in a run: per draw of shots a generator that draws masks, as a factory and as a segmenter."""

from functools import partial
from typing import Any

import numpy as np

from fewmask.data.augment import StrongAugment
from fewmask.data.augment_spatial import SpatialRanges
from fewmask.data.batches import ArraySource, Stream
from fewmask.inversion.resume import network_key
from fewmask.inversion.search import search
from fewmask.inversion.semanticencoder import fit_semantic_encoder
from fewmask.metrics.score import Row
from fewmask.networks.encoder import LatentEncoder
from fewmask.objectives.perceptual import DiscriminatorDistance, Distance, SumOfDistances
from fewmask.recipes.arms import class_numbers, place
from fewmask.recipes.factory import Factory, PairSet
from fewmask.recipes.generator import design_of
from fewmask.recipes.heads import Answers, tested_answers
from fewmask.recipes.settings import GANSettings
from fewmask.recipes.stage import Few, Labelled
from fewmask.recipes.taught import Lessons, alone_arm, then_arm
from fewmask.synthesis.generator import Slices
from fewmask.synthesis.semantic import TrainedSemantic, train_semantic
from fewmask.synthesis.semanticpairs import SemanticPairMaker
from fewmask.synthesis.start import Start
from fewmask.training.launch import on_cpu

SEMANTIC = "semantic"


def search_key(steps: int) -> str:
    """The arm of so many steps of search, as rows name it."""
    return f"semantic search {steps}"


LIKE_LPIPS = 0.1
"""Brings the discriminator's distance to about the scale of LPIPS, for which the published weights are."""


class Semantics:
    """One generator with a mask branch per draw; each is made when it is first asked for, and resumed.

    slices: what the run's generator learned from.
    """

    def __init__(self, factory: Factory, slices: Slices) -> None:
        self.factory, self.heads, self.settings = factory, factory.heads, factory.settings
        self.slices = slices
        self._trained: dict[tuple[int, int], TrainedSemantic] = {}

    def told(self, items: Labelled) -> dict[str, Any]:
        """What a draw's generator depends on, as JSON values."""
        exclude = {"steps", "encoder_images", "truncation"}
        return {
            **self.heads.labelled_from(items),
            "generator": self.heads.generator_key(),
            "semantic": self.settings.semantic.model_dump(mode="json", exclude=exclude),
            "gan": gan_told(self.settings.gan),
        }

    def trained(self, few: Few, items: Labelled) -> TrainedSemantic:
        """The generator of a draw: the run's generator goes on, with a mask branch."""
        if (few.count, few.draw) not in self._trained:
            stage, gan = self.heads.stage, self.heads.gan
            images, masks = class_numbers(stage, items)
            self._trained[few.count, few.draw] = train_semantic(
                self.slices,
                images,
                masks,
                design_of(self.settings.gan).transferred(),
                stage.run.step(place("semantic gan", few.count, few.draw)),
                total=self.settings.semantic.images,
                seed=self.settings.seed,
                fabric=stage.fabric,
                classes=len(stage.labels),
                start=Start(gan.generator, gan.discriminator),
                augment=self._augment() if self.settings.semantic.augment else None,
                parts=self.settings.gan.parts,
            )
        return self._trained[few.count, few.draw]

    def pairs(self, few: Few, items: Labelled) -> PairSet:
        """What the generator of a draw draws."""
        how = self.settings.semantic
        generator = self.trained(few, items).generator
        maker = SemanticPairMaker(generator, self.settings.seed, how.truncation, labels=self.factory.labels)
        return self.factory.make(
            place("semantic pairs", few.count, few.draw),
            lambda: maker,
            self._pairs_from(items),
            np.stack(items.masks),
            generator=network_key(generator),
            kind={"semantic": how.model_dump(mode="json", exclude={"steps", "encoder_images"})},
        )

    def arms(self, few: Few, items: Labelled) -> list[Row]:
        """All that a draw's generator can do, by the settings."""
        stage, wanted, how = self.factory.stage, self.settings.arms, self.settings.factory
        make = partial(self.pairs, few, items)
        lessons = Lessons(SEMANTIC, make, how.labels, self._pairs_from(items))
        rows: list[Row] = []
        if "semantic pairs" in wanted:
            rows += alone_arm(stage, lessons, few, items)
        if "semantic pairs then real" in wanted:
            rows += then_arm(stage, lessons, few, items, how.first)
        if "semantic search" in wanted:
            for steps in self.settings.semantic.steps:
                rows += self.search_arm(few, items, steps)
        return rows

    def search_arm(self, few: Few, items: Labelled, steps: int) -> list[Row]:
        """The published test path: latents by the encoder and so many steps, mask by the mask branch."""
        arm, exclude = search_key(steps), {"steps", "truncation"}
        semantic = self.settings.semantic.model_dump(mode="json", exclude=exclude)
        told = {**self.told(items), "semantic": semantic, "steps": steps}

        def answers() -> Answers:
            trained = self.trained(few, items)
            found = search(
                trained.generator,
                self.heads.tested.images,
                perceptual=_distance(trained),
                seed=self.settings.seed,
                steps=steps,
                encoder=self.encoder(few, items) if self.settings.semantic.encoder_images else None,
                step=self.heads.stage.run.step(f"{place(arm, few.count, few.draw)}/latents"),
            )
            return lambda rows: found.probabilities[rows]

        return tested_answers(self.heads, arm, few.count, few.draw, told, answers)

    def encoder(self, few: Few, items: Labelled) -> LatentEncoder:
        """From slices to the latents of a draw's generator."""
        stage, trained = self.heads.stage, self.trained(few, items)
        images, masks = class_numbers(stage, items)
        name, seed = "semantic encoder", self.settings.seed
        return fit_semantic_encoder(
            trained.generator,
            Stream(ArraySource(self.heads.unlabelled), 8, seed=seed, name=name, augment=self._augment()),
            Stream(
                ArraySource(images, masks), 8, seed=seed, name=f"{name} labelled", augment=self._augment()
            ),
            stage.run.step(place(name, few.count, few.draw)),
            perceptual=_distance(trained),
            images=self.settings.semantic.encoder_images,
            seed=seed,
            fabric=on_cpu(),
        )

    def _pairs_from(self, items: Labelled) -> dict[str, Any]:
        truncation = self.settings.semantic.truncation
        return {**self.told(items), **self.factory.counted(), "truncation": truncation}

    def _augment(self) -> StrongAugment:
        return StrongAugment(spatial=SpatialRanges(flips=self.settings.unet.flips))


def gan_told(gan: GANSettings) -> dict[str, Any]:
    """The settings of the run's generator on which its follower depends, as JSON values."""
    unused = set() if gan.presence is not None else {"presence", "balance", "conditional"}
    return gan.model_dump(mode="json", exclude={"start", "ready", *unused})


def _distance(trained: TrainedSemantic) -> Distance:
    return SumOfDistances([(LIKE_LPIPS, DiscriminatorDistance(trained.discriminator))])
