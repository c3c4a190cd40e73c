"""A generator trained on unlabelled slices, from scratch or from trained networks, for what builds on it."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmask.core.errors import ConfigError
from fewmask.core.run import Step
from fewmask.core.seed import integer, stream
from fewmask.data.batches import ArraySource, Batch, Stream
from fewmask.networks.generator import ImageGenerator
from fewmask.networks.stylegan2 import Discriminator
from fewmask.objectives.ada import AdaptiveAugmentation
from fewmask.objectives.alarms import Alarm, Rules, alarms
from fewmask.objectives.minibatch import Beside
from fewmask.objectives.regularise import Average, Regularisation
from fewmask.objectives.stylegan import StyleGANObjective
from fewmask.synthesis.design import GeneratorDesign as GeneratorDesign
from fewmask.synthesis.design import build_discriminator, build_generator
from fewmask.synthesis.slices import fingerprint, refuse_slices
from fewmask.synthesis.start import Start, copy_start
from fewmask.training.checkpoint import load_best
from fewmask.training.launch import Fabric
from fewmask.training.loop import Fitted, fit

MOST_UNSEEN = 1024
"""At most so many held-out slices are kept in memory."""

Judge = Callable[[ImageGenerator], Mapping[str, float]]
"""Numbers about a generator, among them "score": higher is better."""


@dataclass(frozen=True, eq=False)
class Slices:
    """What a generator learns from.

    images: (N, C, R, R), R a power of two, values in [-1, 1], or any numbers with `scale`; labels: (N, K)
    one-hot, for a generator of K classes; scale: (factor, offset) that brings the values to [-1, 1];
    intensities: how the scans' intensities were mapped there, in words or numbers, to be kept with the
    generator; weights: (N,) >= 0, how often each is shown, as shares of their sum; None: equally often.
    """

    images: NDArray[Any]
    labels: NDArray[np.floating] | None = None
    scale: tuple[float, float] | None = None
    intensities: str | Mapping[str, Any] | None = None
    weights: NDArray[np.floating] | None = None

    @property
    def classes(self) -> int:
        """Length of the labels, 0 for none."""
        return 0 if self.labels is None else int(self.labels.shape[1])

    @property
    def source(self) -> ArraySource:
        """The same for the training loop."""
        return ArraySource(self.images, labels=self.labels, scale=self.scale)

    def stream(self, batch: int, *, seed: int, name: str) -> Stream:
        """The batches of a training."""
        return Stream(self.source, batch, seed=seed, name=name, weights=self.weights)

    @property
    def drawn_labels(self) -> Tensor | None:
        """(M, K) rows that generated images take their labels from, None without classes.

        Each class is there as often as it is shown, to a thousandth: a discriminator that met a class more
        often among real than among generated images would tell them apart by the class alone.
        """
        if self.labels is None or self.weights is None:
            return self.source.labels
        shown = np.asarray(self.weights, np.float64) @ self.labels
        counts = np.ceil(shown / shown.sum() * 1000 - 1e-6).astype(int)
        rows = np.repeat(np.eye(self.classes, dtype=np.float32), counts, axis=0)
        return torch.from_numpy(rows)


@dataclass(frozen=True, eq=False)
class TrainedGenerator:
    """The averaged generator and its discriminator, frozen, in evaluation mode, on the CPU.

    With a judge, both are those of the best score; otherwise those of the end.
    """

    generator: ImageGenerator
    discriminator: Discriminator
    fitted: Fitted
    key: dict[str, Any]
    """What it was trained from (JSON values): what builds on it depends on this."""
    last: ImageGenerator
    """The averaged generator at the end of the training."""
    best: Mapping[str, Any] | None
    """What was told about the best one: its score, after how many images; None without a judge."""
    alarms: tuple[Alarm, ...]
    """What went wrong during the training, by the rules that they say."""
    settings: dict[str, dict[str, Any]]
    """Settings of "generator" and "discriminator", for `build_generator` and `build_discriminator`."""


def train_generator(
    slices: NDArray[np.floating] | Slices,
    design: GeneratorDesign,
    step: Step,
    *,
    total: int,
    seed: int,
    fabric: Fabric,
    label: str = "gan",
    pictures: int = 32,
    start: Start | None = None,
    held_out: Slices | None = None,
    judge: Judge | None = None,
    judge_every: int | None = None,
    parts: int = 1,
    keep_every: int | None = None,
) -> TrainedGenerator:
    """Train until `total` images were shown to the discriminator; the same call resumes or loads.

    Args:
        slices: images in [-1, 1], or images with labels, scale and the record of their intensities.
        design: sizes and rates.
        step: folder of the training.
        total: images to see.
        seed: fixes weights, order and noise.
        fabric: where to compute.
        label: names the progress bar and the streams of chance.
        pictures: samples in each picture grid.
        start: trained networks to start from; see also `GeneratorDesign.transferred`.
        held_out: slices of other patients, to tell whether the discriminator learns by heart.
        judge: gives the averaged generator a score now and then; the best is kept beside the last.
        judge_every: images from one judgement to the next; None for a tenth of `total`.
        parts: micro-batches computed one after the other, to save memory.
        keep_every: images from one checkpoint to the next; None for a twentieth of `total`.

    Raises:
        ConfigError: fewer than 16 images, images that are not square with a power of two for a side, labels
            or trained networks that do not fit.
        DataError: images that nothing can be learned from, see `slices.refuse_slices`.
        TrainingError: a number that is not finite.
    """
    given = slices if isinstance(slices, Slices) else Slices(slices)
    refuse_slices(given.images, given.scale)
    _refuse_unseen(given, held_out)
    channels, size = given.images.shape[1:3]
    settings = {
        "generator": design.generator(channels, size, given.classes),
        "discriminator": design.discriminator(channels, size, given.classes),
    }
    generator, average, discriminator = build_networks(settings, seed, label)
    began = None if start is None else copy_start(start, generator, discriminator)
    inputs = made_from(given, design, {"seed": seed, "label": label, "images": total, "start": began})
    step.claim(inputs)
    objective = objective_for(
        design, given, generator, discriminator, average, held_out=held_out, pictures=pictures
    )
    fitted, rung = train_gan(
        objective,
        given.stream(design.batch, seed=seed, name=label),
        design,
        step,
        total=total,
        seed=seed,
        fabric=fabric,
        judge=judge,
        judge_every=judge_every,
        parts=parts,
        keep_every=keep_every,
    )
    return _trained(objective, fitted, step, inputs, settings, rung, judge is not None)


def train_gan(
    objective: StyleGANObjective,
    stream: Stream,
    design: GeneratorDesign,
    step: Step,
    *,
    total: int,
    seed: int,
    fabric: Fabric,
    judge: Judge | None = None,
    judge_every: int | None = None,
    parts: int = 1,
    keep_every: int | None = None,
) -> tuple[Fitted, tuple[Alarm, ...]]:
    """Run an objective for `total` images, with the intervals and alarms of `train_generator`.

    Called again it resumes; the stream's name is the training's label. Returns what `fit` does and the alarms
    that the whole training rang.
    """
    rules = _rules(design, total)
    fitted = fit(
        objective,
        stream,
        step,
        images=total,
        seed=seed,
        fabric=fabric,
        checkpoint_every=keep_every or max(total // 20, 500),
        report_every=max(total // 100, 100),
        sample_every=max(total // 10, 500),
        validate=None if judge is None else lambda: judge(objective.average),
        smoothing=0.0,
        parts=parts,
        watch=lambda: _ringing(step, rules),
        validate_every=None if judge is None else judge_every or max(total // 10, 500),
        label=stream.name,
    )
    return fitted, tuple(alarms(read_stats(step.stats_jsonl), rules))


def _trained(
    objective: StyleGANObjective,
    fitted: Fitted,
    step: Step,
    inputs: dict[str, Any],
    settings: dict[str, dict[str, Any]],
    rung: tuple[Alarm, ...],
    judged: bool,
) -> TrainedGenerator:
    """Everything of a finished training, on the CPU."""
    last = objective.average.cpu().requires_grad_(False).eval()
    discriminator = objective.discriminator.cpu().requires_grad_(False).eval()
    generator, best = last, None
    if judged:
        generator, discriminator = copy.deepcopy(last), copy.deepcopy(discriminator)
        spare = copy.deepcopy(objective.generator).cpu()
        modules = {"generator": spare, "discriminator": discriminator, "average": generator}
        best = load_best(step, modules)
    return TrainedGenerator(generator, discriminator, fitted, inputs, last, best, rung, settings)


def _ringing(step: Step, rules: Rules) -> list[str]:
    """The alarms that the newest report rang."""
    lines = read_stats(step.stats_jsonl)
    return [str(alarm) for alarm in alarms(lines, rules) if alarm.images == lines[-1]["images"]]


def read_stats(path: Path) -> list[dict[str, float]]:
    """The reports of a training, oldest first; none if there are none yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def objective_for(
    design: GeneratorDesign,
    slices: Slices,
    generator: ImageGenerator,
    discriminator: Discriminator,
    average: ImageGenerator,
    *,
    held_out: Slices | None = None,
    pictures: int = 32,
    beside: Beside | None = None,
) -> StyleGANObjective:
    """What a design says is to be minimised; `beside` is what the generator learns beside its images."""
    augment = AdaptiveAugmentation(
        operations=design.ada_operations, target=design.ada_target, images=design.ada_images
    )
    return StyleGANObjective(
        generator,
        discriminator,
        average,
        batch=design.batch,
        augment=augment if design.ada_operations else None,
        regularisation=Regularisation(
            r1_gamma=design.gamma(generator.resolution),
            r1_every=design.r1_every,
            path_length_weight=design.path_length_weight,
            path_length_every=design.path_length_every,
        ),
        averaging=Average(half_life=design.average_half_life, ramp=design.average_ramp),
        mixing=design.mixing,
        lr=design.learning_rate,
        lr_discriminator=design.discriminator_rate,
        labels=slices.drawn_labels,
        held_out=None if held_out is None else _whole(held_out),
        fading=design.fading,
        freeze=design.freeze,
        reuse_fakes=design.reuse_fakes,
        pictures=pictures,
        beside=beside,
    )


def build_networks(
    settings: Mapping[str, Mapping[str, Any]], seed: int, label: str
) -> tuple[ImageGenerator, ImageGenerator, Discriminator]:
    """Generator, its average, discriminator; weights drawn from (seed, label)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer(seed, label, "weights"))
        generators = build_generator(settings["generator"]), build_generator(settings["generator"])
        return *generators, build_discriminator(settings["discriminator"])


def made_from(slices: Slices, design: GeneratorDesign, more: Mapping[str, Any]) -> dict[str, Any]:
    """What the training depends on, as JSON values."""
    labels = None if slices.labels is None else fingerprint(slices.labels)
    told = {"slices": fingerprint(slices.images), "labels": labels, "scale": slices.scale}
    if slices.weights is not None:
        told["weights"] = fingerprint(slices.weights)
    return {"design": asdict(design), **more, **told, "intensities": slices.intensities}


def _rules(design: GeneratorDesign, total: int) -> Rules:
    cap = AdaptiveAugmentation(images=design.ada_images).p_max if design.ada_operations else 0.0
    return Rules(images=total, p_max=cap)


def _whole(slices: Slices) -> Batch:
    """The slices as one batch on the CPU, evenly thinned out to `MOST_UNSEEN`."""
    count = len(slices.images)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_UNSEEN)).astype(int)).tolist()
    images, _ = slices.source.fetch(chosen, stream(0, "whole"))
    return Batch(torch.from_numpy(images), None, torch.tensor(chosen), slices.source.labels_of(chosen))


def _refuse_unseen(slices: Slices, held_out: Slices | None) -> None:
    if held_out is None:
        return
    refuse_slices(held_out.images, held_out.scale, "held-out images", fewest=4)
    ours, theirs = (*slices.images.shape[1:], slices.classes), (*held_out.images.shape[1:], held_out.classes)
    if ours != theirs:
        raise ConfigError(
            "the held-out slices are of another kind than the training slices",
            where="held_out",
            found=str(theirs),
            expected=f"{ours}: channels, height, width, classes",
            mend="Prepare both in the same way.",
        )
