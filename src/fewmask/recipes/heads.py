"""Heads on frozen features: what each reads, the slices it learns from, and what it scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fewmask.core.seed import integer
from fewmask.core.volume import Mask, Volume
from fewmask.data.augment import StrongAugment
from fewmask.data.augment_spatial import SpatialRanges
from fewmask.data.case import Case
from fewmask.data.prepare import Trace, undo_probabilities
from fewmask.data.slices import from_slices, prepare_slices
from fewmask.inversion.result import Inversion, joined
from fewmask.metrics.score import Row
from fewmask.networks.embedding import ImageEncoder
from fewmask.networks.pixelhead import PixelHead
from fewmask.recipes.arms import class_numbers, place, plain_unet, scored, unet_key
from fewmask.recipes.embedding import PER_PATIENT, learn_encoder, unlabelled_slices
from fewmask.recipes.ganchecks import inversion_check
from fewmask.recipes.head_settings import Headed
from fewmask.recipes.latents import Latents
from fewmask.recipes.reading import Reading, Way
from fewmask.recipes.stage import Few, Labelled, Stage, every_draw
from fewmask.report.content import Check
from fewmask.segmenter.evaluate import score_masks
from fewmask.segmenter.heldout import iou_of
from fewmask.segmenter.sources import encode
from fewmask.synthesis.features import (
    ChannelStatistics,
    FeatureStack,
    channel_statistics,
    sampled_statistics,
    stack_of,
)
from fewmask.synthesis.generator import TrainedGenerator
from fewmask.synthesis.pixelhead import (
    Shots,
    augmented_copies,
    fit_head,
    inverse_root_frequency,
    predict_head,
)
from fewmask.training.launch import on_cpu

LOOKS = 8
"""How often a head that is followed is looked at."""

STATISTICS = 256
"""Slices over which the mean and the deviation of every feature are taken."""


@dataclass(frozen=True, eq=False)
class TestSlices:
    """The test slices as a head sees them: (N, C, H, W), and which case and slice each is."""

    images: NDArray[np.float32]
    rows_of: dict[str, list[int]]
    traces: Mapping[str, Trace]


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head, with all its members, and what it reads."""

    reading: Reading
    head: PixelHead
    stack: FeatureStack
    class_weights: tuple[float, ...]
    """Those of its cross-entropy, the background first; empty: all 1."""


class Heads:
    """All heads of a run; each is trained when it is first asked for, and kept in its step.

    unlabelled: (N, C, R, R) slices of the training patients; gan: None where nothing reads it.
    """

    def __init__(
        self,
        stage: Stage,
        settings: Headed,
        unlabelled: NDArray[np.floating],
        gan: TrainedGenerator | None,
    ) -> None:
        self.stage, self.settings, self.unlabelled, self._gan = stage, settings, unlabelled, gan
        self._trained: dict[tuple[str, int, int], TrainedHead] = {}
        self._measured: dict[str, ChannelStatistics] = {}
        self._tested_ws: dict[Way, NDArray[np.float32]] = {}

    # --- what heads read ---

    @property
    def gan(self) -> TrainedGenerator:
        """The generator and its discriminator."""
        assert self._gan is not None, "the recipe learns one where a head needs it"
        return self._gan

    def generator_key(self) -> dict[str, Any]:
        """What the generator learned from, or a ready one's weights (not its path), as JSON values."""
        return dict(self.gan.key)

    @cached_property
    def latents(self) -> Latents:
        """Inversions by the generator."""
        return Latents(self.stage, self.settings, self.gan, self.unlabelled)

    @cached_property
    def encoder(self) -> ImageEncoder:
        """An encoder that learned the unlabelled slices of the training patients, without labels."""
        slices = unlabelled_slices(self.stage.ground, PER_PATIENT)  # those by which `coverage` chooses
        return learn_encoder(self.stage.ground, slices, self.settings.encoder.images)

    def stack(self, reading: Reading, few: Few | None = None, items: Labelled | None = None) -> FeatureStack:
        """The sources of a reading; the U-Net's are those of the U-Net on the same shots."""

        def generator() -> nn.Module:
            assert reading.way is not None
            return self.latents.generator(reading.way)

        def unet() -> nn.Module:
            assert few is not None
            assert items is not None
            return plain_unet(self.stage, few, items).to("cpu").network

        return stack_of(
            reading.sources,
            {
                "generator": generator,
                "discriminator": lambda: self.gan.discriminator,
                "encoder": lambda: self.encoder,
                "unet": unet,
            },
            smallest=self.settings.head.smallest,
        )

    def statistics(self, reading: Reading, stack: FeatureStack) -> ChannelStatistics:
        """Over generated slices, whose latents are known, if the generator is read; else over real ones.

        They are the same for all draws, except where the U-Net of the draw is read.
        """
        if "unet" in reading.sources:
            return self._statistics(reading, stack)
        if reading.text not in self._measured:
            self._measured[reading.text] = self._statistics(reading, stack)
        return self._measured[reading.text]

    def _statistics(self, reading: Reading, stack: FeatureStack) -> ChannelStatistics:
        if reading.way is not None:
            generator = self.latents.generator(reading.way)
            return sampled_statistics(stack, generator, samples=STATISTICS, seed=self.settings.seed)
        slices = np.asarray(self.unlabelled[:: max(len(self.unlabelled) // STATISTICS, 1)], dtype=np.float32)
        return channel_statistics(stack, torch.from_numpy(slices[:STATISTICS]), None)

    @cached_property
    def tested(self) -> TestSlices:
        """All slices of the test cases."""
        stage = self.stage
        slices = prepare_slices(
            stage.test_cases, stage.cohort, stage.preparation, masks=False, rule=None, dtype=np.float32
        )
        rows_of: dict[str, list[int]] = {}
        for row, ref in enumerate(slices.refs):
            rows_of.setdefault(ref.case, []).append(row)
        return TestSlices(slices.images, rows_of, dict(slices.traces))

    # --- what they learn from ---

    def support(self, reading: Reading, items: Labelled) -> Shots:
        """The labelled slices as class numbers; for the generator's features with copies and latents.

        A copy is varied first and inverted then, as a test slice of that pose and exposure would be. The
        copies of a slice are the same in every draw, so that each is inverted once.
        """
        images, masks = self.copies(reading, items)
        if reading.way is None:
            return Shots(images, masks)
        return Shots(images, masks, self._inverted(reading.way, images, items).ws)

    def copies(self, reading: Reading, items: Labelled) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """The labelled slices, each with its augmented copies after it where they are to be inverted."""
        images, encoded = class_numbers(self.stage, items)
        if reading.way is None:
            return images, encoded
        augment = StrongAugment(spatial=SpatialRanges(flips=self.settings.unet.flips))
        count, seed = self.settings.inversion.copies + 1, self.settings.seed
        parts = [
            augmented_copies(
                images[row : row + 1],
                encoded[row : row + 1],
                augment,
                copies=count,
                seed=integer(seed, "copies", ref.case, ref.z),
            )
            for row, ref in enumerate(items.refs)
        ]
        return np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])

    def inversion(self, reading: Reading, items: Labelled) -> Inversion:
        """Latents of the labelled slices and their copies."""
        assert reading.way is not None
        return self._inverted(reading.way, self.copies(reading, items)[0], items)

    def _inverted(self, way: Way, images: NDArray[np.float32], items: Labelled) -> Inversion:
        """Each slice with its copies at a time, kept under the slice's name."""
        names = [f"{ref.case}-z{ref.z}" for ref in items.refs]
        parts = zip(np.split(images, len(names)), names, strict=True)
        return joined([self.latents.invert(way, part, name) for part, name in parts])

    # --- training and use ---

    def train(self, reading: Reading, few: Few, items: Labelled) -> TrainedHead:
        """The head of a reading on one draw."""
        key = (reading.text, few.count, few.draw)
        if key not in self._trained:
            name = place(key_of(reading), few.count, few.draw)
            stack, shots = self.stack(reading, few, items), self.support(reading, items)
            made_from, follow = self.made_from(reading, items), few.draw == 0
            self._trained[key] = self.fit(reading, name, stack, shots, made_from, follow=follow)
        return self._trained[key]

    def fit(
        self,
        reading: Reading,
        name: str,
        stack: FeatureStack,
        shots: Shots,
        made_from: dict[str, Any],
        *,
        follow: bool = False,
    ) -> TrainedHead:
        """Train a head, or go on; `name` is its step, `made_from` all settings on which it depends.

        follow: tell its mean IoU on the test slices while it learns, where the settings ask for it.
        """
        settings, classes = self.settings.head, len(self.stage.labels)
        step, ranges = self.stage.run.step(name), SpatialRanges(flips=self.settings.unet.flips)
        step.claim({"stage": self.stage.key, **made_from})
        weights = inverse_root_frequency(shots.masks, classes) if settings.class_weights else ()
        head = fit_head(
            stack,
            shots,
            step,
            classes=classes,
            statistics=self.statistics(reading, stack),
            images=settings.images,
            seed=self.settings.seed,
            fabric=on_cpu(),
            kind=settings.size,
            width=settings.width,
            members=settings.members,
            augment=StrongAugment(spatial=ranges) if reading.way is None else None,
            augment_features=ranges if settings.augment_features else None,
            class_weights=weights,
            watch=self._watch(reading, stack) if follow and self.settings.unet.follow else None,
            watch_every=max(settings.images // LOOKS, 1),
            label=name,
        )
        return TrainedHead(reading, head, stack, weights)

    def _watch(self, reading: Reading, stack: FeatureStack) -> Callable[[PixelHead], Mapping[str, float]]:
        """The mean IoU of a head on the test slices while it learns; it chooses nothing by them."""
        items = self.stage.test_items
        masks = encode(np.stack(items.masks), self.stage.labels, "test slices")
        ws = self.tested_ws(reading)

        def watch(head: PixelHead) -> Mapping[str, float]:
            soft = predict_head([head], stack, self.tested.images, ws)
            answers = zip(soft.argmax(axis=1), masks, strict=True)
            return {"watched_iou": iou_of(answers, len(self.stage.labels))}

        return watch

    def tested_ws(self, reading: Reading) -> NDArray[np.float32] | None:
        """Latents of all test slices, kept once they were found; None where the generator is not read."""
        way = reading.way
        if way is not None and way not in self._tested_ws:
            self._tested_ws[way] = self.latents.invert(way, self.tested.images, "test").ws
        return None if way is None else self._tested_ws[way]

    def probabilities(
        self, head: TrainedHead, rows: Sequence[int], ws: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Class probabilities (n, K, H, W) of some test slices; `ws`: `tested_ws` of the head's reading."""
        chosen = None if ws is None else ws[rows]
        return predict_head([head.head], head.stack, self.tested.images[rows], chosen)

    def made_from(self, reading: Reading, items: Labelled | None = None) -> dict[str, Any]:
        """The settings and labelled slices on which a head depends, as JSON values."""
        settings = self.settings
        told: dict[str, Any] = {
            "head": settings.head.model_dump(mode="json", exclude={"reads", "support"}),
            "unet": {"flips": list(settings.unet.flips)},
            "gan": {"slices_per_patient": settings.gan.slices_per_patient},
        }
        if reading.way is not None:
            told["inversion"] = settings.inversion.model_dump(mode="json")
        if reading.way is not None or "discriminator" in reading.sources:
            told["generator"] = self.generator_key()
        if "unet" in reading.sources:
            told["unet"] = unet_key(settings.unet)
        if "encoder" in reading.sources:
            told["encoder"] = settings.encoder.model_dump(mode="json")
        return {"reading": reading.text, **self.labelled_from(items), **told}

    def labelled_from(self, items: Labelled | None) -> dict[str, Any]:
        """Which labelled slices something depends on, as JSON values."""
        return {"items": [] if items is None else [asdict(ref) for ref in items.refs]}


Answers = Callable[[Sequence[int]], NDArray[np.float32]]
"""Class probabilities (n, K, H, W) of some of the test slices, by their rows."""


def key_of(reading: Reading) -> str:
    """The arm of a reading, as rows name it."""
    return f"head {reading.text}"


def head_arm(heads: Heads, reading: Reading, few: Few, items: Labelled) -> list[Row]:
    """A head on the k labelled slices of one draw."""
    made_from = heads.made_from(reading, items)
    return tested_head(
        heads, key_of(reading), few.count, few.draw, made_from, lambda: heads.train(reading, few, items)
    )


def tested_head(
    heads: Heads,
    arm: str,
    shots: int,
    draw: int,
    made_from: dict[str, Any],
    train: Callable[[], TrainedHead],
) -> list[Row]:
    """The published test path: invert the test slice (where the generator is read), let the head answer."""

    def answers() -> Answers:
        head = train()
        ws = heads.tested_ws(head.reading)
        return lambda rows: heads.probabilities(head, rows, ws)

    return tested_answers(heads, arm, shots, draw, made_from, answers)


def tested_answers(
    heads: Heads,
    arm: str,
    shots: int,
    draw: int,
    made_from: dict[str, Any],
    answers: Callable[[], Answers],
) -> list[Row]:
    """Score what answers on test slices, case by case; asked only while the arm is still to be scored."""
    stage, name = heads.stage, place(arm, shots, draw)

    def compute() -> list[Row]:
        tested, answer_of = heads.tested, answers()

        def segment(case: Case, images: Mapping[str, Volume]) -> tuple[Mask, Trace]:
            trace = tested.traces[case.name]
            answer = from_slices(answer_of(tested.rows_of[case.name]))
            return undo_probabilities(answer, trace, labels=stage.labels), trace

        return score_masks(
            segment,
            stage.test_cases,
            stage.cohort,
            arm=arm,
            shots=shots,
            draw=draw,
            folder=stage.run.cases(name),
            lesion_classes=stage.settings.cohort.lesions,
        )

    return scored(stage, name, made_from, compute)


def support_checks(heads: Heads) -> tuple[Check, ...]:
    """Are test slices met as well as the labelled ones? One check per way to invert that a head uses."""
    stage, settings = heads.stage, heads.settings
    readings = {one.way: one for one in settings.trained_readings if one.way is not None}
    _, items = list(every_draw(stage))[-1]
    return tuple(
        inversion_check(
            heads.inversion(reading, items), heads.latents.invert(way, heads.tested.images, "test"), way
        )
        for way, reading in readings.items()
    )
