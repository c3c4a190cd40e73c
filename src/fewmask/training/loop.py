"""The one training loop. It reads from top to bottom and counts in images seen.

To resume, run the same command again: the newest whole checkpoint under the step is taken up, and the final
weights are bit-identical to those of a training that was never interrupted (same machine, same threads).
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from fewmask.core.errors import ConfigError, RunError
from fewmask.core.files import make_folder
from fewmask.core.run import Step
from fewmask.core.seed import integer
from fewmask.data.batches import Batch, Stream, rows
from fewmask.objectives.minimise import Minimise
from fewmask.training import checkpoint
from fewmask.training.helper import helper
from fewmask.training.launch import PRECISIONS
from fewmask.training.log import Log, Mean, save_grid
from fewmask.training.stop import remembered
from fewmask.training.together import Together

SMOOTHING = 0.9
"""The validation score that chooses the best weights is s <- 0.9 s + 0.1 score, as in nnU-Net."""


class Objective(Protocol):
    """What is minimised: networks, their optimizers and one update."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Everything with weights or buffers, averaged copies too."""

    def optimizers(self) -> Mapping[str, Optimizer]:
        """The optimizers, by name."""

    def state(self) -> Mapping[str, float]:
        """Numbers that are neither weights nor optimizer states (e.g. ADA's p)."""

    def load_state(self, state: Mapping[str, float]) -> None:
        """The inverse of `state`."""

    def update(self, batch: Batch, images_seen: int, minimise: Minimise) -> Mapping[str, Tensor | float]:
        """Learn from one batch; returns losses and scalars to log. The global torch generator is seeded."""


@runtime_checkable
class Pictured(Protocol):
    """An objective that can show itself."""

    def samples(self) -> Tensor | None:
        """Pictures (N,C,H,W) in [-1,1] for a grid, or None."""


@dataclass(frozen=True)
class Fitted:
    """How a training ended. The objective holds the final weights; `best_score` is smoothed."""

    images_seen: int
    seconds: float
    best_score: float | None
    checkpoint: Path
    resumed_from: int | None


@dataclass
class Progress:
    """Where a training stands; every field is part of a checkpoint."""

    images_seen: int = 0
    seconds: float = 0.0
    score: float | None = None  # smoothed
    best_score: float | None = None


def fit(
    objective: Objective,
    stream: Stream,
    step: Step,
    *,
    images: int,
    seed: int,
    fabric: Fabric,
    checkpoint_every: int,
    report_every: int,
    sample_every: int | None = None,
    validate: Callable[[], float | Mapping[str, float]] | None = None,
    validate_every: int | None = None,
    smoothing: float = SMOOTHING,
    parts: int = 1,
    observe: Callable[[], Mapping[str, float]] | None = None,
    observe_every: int | None = None,
    watch: Callable[[], Sequence[str]] | None = None,
    label: str,
) -> Fitted:
    """Train `objective` until it has seen `images` images, rounded up to whole batches.

    Every `*_every` is in images. `validate` returns a score, higher is better, alone or as "score" among
    other numbers to report; the weights at the best smoothed score (`smoothing` 0: the best score) are kept
    as `step.best_tensors` (see `checkpoint.load_best`). Reports go to
    `step.stats_jsonl`, pictures to `step.samples`, full states to `step.checkpoints`. `parts` is how many
    micro-batches an objective that can divide its batch computes one after the other, to save memory.
    `observe` gives numbers to report (every `observe_every` images, or once per report) and changes nothing:
    no weight is chosen by them, modes and the global generators are afterwards as they were, and a number
    that is not finite is left out.
    `watch` is asked after every report for sentences to show, e.g. alarms that `step.stats_jsonl` rings.

    With many processes every one calls this; each learns from its rows of the batch. The first one alone
    validates, observes, draws pictures and writes, while the others wait.

    Raises `TrainingError` when a loss, a gradient or a logged number is NaN or infinite or another process
    failed, `StoppedError` after a checkpoint when a signal came (`training.stop`), `RunError` when the
    folder cannot be written or holds another training, `ConfigError` for a setting out of range.
    """
    # --- settings, and everything on its device ---
    _refuse_settings(images, checkpoint_every, report_every, sample_every, validate_every, observe_every)
    rows(stream.batch_size, 0, fabric.world_size * parts)
    made_from = {"label": label, "seed": seed, "batch_size": stream.batch_size, **precision_of(fabric)}
    modules, optimizers = objective.modules(), objective.optimizers()
    for module in modules.values():
        module.to(fabric.device)
    first_process = fabric.global_rank == 0 and not helper()
    now, mean, resumed_from, torn = Progress(), Mean(), None, list[str]()

    with remembered() as stop, Together(fabric, label, parts, stop) as together:
        # --- resume ---
        make_folder(step.checkpoints)
        newest = checkpoint.read_newest(step)
        if newest is not None:
            together.last_good, state = newest
            _refuse_other_training(state.numbers, made_from, images, stream.batch_size, together.last_good)
            checkpoint.restore(modules, optimizers, state, together.last_good)
            objective.load_state(state.numbers["objective"])
            now, mean = Progress(**state.numbers["progress"]), Mean(state.numbers["sums"])
            resumed_from = now.images_seen
        together.same(now.images_seen)
        if first_process:
            torn = checkpoint.clean(step, together.last_good)

        def due(every: int | None, before: int) -> bool:
            finished = now.images_seen >= images
            return every is not None and (finished or now.images_seen // every > before // every)

        # --- train ---
        with Log(
            step.stats_jsonl,
            label=label,
            images=images,
            images_seen=now.images_seen,
            active=first_process,
            device=fabric.device,
        ) as log:
            for name in torn:
                log.say(f"{label}: passed over the damaged checkpoint {name}")
            if resumed_from is not None and now.images_seen < images:
                log.say(f"{label}: goes on from {resumed_from} of {images} images")
            started = time.monotonic() - now.seconds
            while now.images_seen < images:
                together.images_seen = before = now.images_seen
                torch.manual_seed(integer(seed, label, "update", before))
                batch = stream.at(before, rank=together.rank, ranks=together.ranks, device=fabric.device)
                with fabric.autocast():
                    learned = objective.update(batch, before, together)
                logged = together.numbers(learned)
                stopping = together.stopping
                together.images_seen = now.images_seen = before + stream.batch_size
                now.seconds = time.monotonic() - started
                mean.add(logged)
                log.advance(now.images_seen)

                if validate is not None and due(validate_every, before):
                    with _looked_at(modules, integer(seed, label, "validate")):
                        judged = _numbers(validate()) if first_process else {"score": 0.0}
                        score = together.first(judged["score"])
                    together.refuse_strange({"score": score})
                    now.score = smoothed(now.score, score, smoothing)
                    mean.add({**judged, "smoothed_score": now.score})
                    if now.best_score is None or now.score > now.best_score:
                        now.best_score = now.score
                        if first_process:
                            told = {"images_seen": now.images_seen, "score": score}
                            told |= {"smoothed_score": now.score}
                            checkpoint.write_best(step, modules, told)
                if observe is not None and due(observe_every or report_every, before):
                    if first_process:
                        with _chance_kept(fabric), _looked_at(modules, integer(seed, label, "observe")):
                            seen = observe()
                        mean.add({name: value for name, value in seen.items() if math.isfinite(value)})
                    together.wait()
                if due(report_every, before):
                    log.report(now.images_seen, now.seconds, mean.take())
                    for sentence in watch() if watch is not None and first_process else ():
                        log.say(f"{label}: {sentence}")
                if first_process and isinstance(objective, Pictured) and due(sample_every, before):
                    with _looked_at(modules, integer(seed, label, "samples")), torch.no_grad():
                        pictures = objective.samples()
                    if pictures is not None:
                        save_grid(step.sample_png(now.images_seen), pictures)
                if stopping or due(checkpoint_every, before):
                    if first_process:
                        state = checkpoint.gather(modules, optimizers)
                        numbers = {"made_from": made_from, "progress": vars(now), "sums": mean.sums}
                        numbers |= {"objective": dict(objective.state()), **state.numbers}
                        state = checkpoint.State(state.tensors, numbers)
                        checkpoint.write_checkpoint(step, now.images_seen, state)
                    together.last_good = step.checkpoint(now.images_seen).folder
                    together.wait()
                    if stopping and now.images_seen < images:
                        raise stop.error(label, now.images_seen)

    last = step.checkpoint(now.images_seen).folder
    return Fitted(now.images_seen, now.seconds, now.best_score, last, resumed_from)


def smoothed(before: float | None, score: float, smoothing: float = SMOOTHING) -> float:
    """The running mean of validation scores; the first one as it is."""
    return score if before is None else smoothing * before + (1 - smoothing) * score


def _numbers(judged: float | Mapping[str, float]) -> dict[str, float]:
    return {"score": judged} if isinstance(judged, float) else dict(judged)


def precision_of(fabric: Fabric) -> dict[str, str]:
    """What checkpoints and finished steps say of the precision: nothing for float32, so older ones fit."""
    words = {theirs: ours for ours, theirs in PRECISIONS.items() if ours != "fp32"}
    found = fabric._precision.precision
    return {"precision": words[found]} if found in words else {}


@contextmanager
def _chance_kept(fabric: Fabric) -> Iterator[None]:
    """The global generators, also that of the training's CUDA device, are afterwards as they were."""
    on_cuda = fabric.device.type == "cuda"
    with torch.random.fork_rng(devices=[fabric.device] if on_cuda else []):
        yield


@contextmanager
def _looked_at(modules: Mapping[str, nn.Module], chance: int) -> Iterator[None]:
    """Evaluation modes and a fixed seed for a look from outside; afterwards all modes are as before."""
    parts = [part for module in modules.values() for part in module.modules()]
    modes = [part.training for part in parts]
    for part in parts:
        part.training = False
    torch.manual_seed(chance)
    try:
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def _refuse_settings(images: int, *intervals: int | None) -> None:
    if images < 1 or any(every is not None and every < 1 for every in intervals):
        raise ConfigError(
            "the length of a training and its intervals must be at least one image",
            found=f"{images} images, intervals {intervals}",
        )


def _refuse_other_training(
    numbers: Mapping[str, Any], made_from: Mapping[str, Any], images: int, batch_size: int, folder: Path
) -> None:
    found = numbers["made_from"]
    if found != made_from:
        raise RunError(
            "the checkpoint belongs to another training",
            where=str(folder),
            found=f"{found}",
            expected=f"{dict(made_from)}",
            mend="Give the settings the run was started with, or choose another --out.",
        )
    seen = numbers["progress"]["images_seen"]
    if seen >= images + batch_size:
        raise RunError(
            "the training has already gone further",
            where=str(folder),
            found=f"{seen} images",
            expected=f"at most {images}",
            mend="Ask for as many images or more, or choose another --out.",
        )
