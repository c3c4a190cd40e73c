"""The one training loop. It reads from top to bottom and counts in images seen.

To resume, run the same command again: the newest whole checkpoint under the step is taken up, and the final
weights are bit-identical to those of a training that was never interrupted (same machine, same threads).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from fewmask.core.errors import ConfigError, RunError, TrainingError
from fewmask.core.files import make_folder
from fewmask.core.run import Step
from fewmask.core.seed import integer
from fewmask.data.batches import Batch, Stream
from fewmask.objectives.minimise import Minimise, backward
from fewmask.training import checkpoint
from fewmask.training.log import Log, Mean, save_grid, strange, to_floats

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
    validate: Callable[[], float] | None = None,
    validate_every: int | None = None,
    label: str,
) -> Fitted:
    """Train `objective` until it has seen `images` images, rounded up to whole batches.

    Every `*_every` is in images. `validate` returns a score, higher is better; the weights at the best
    smoothed score are kept as `step.best_tensors` (see `checkpoint.load_best`). Reports go to
    `step.stats_jsonl`, pictures to `step.samples`, full states to `step.checkpoints`.

    Raises `TrainingError` when a loss or a logged number is NaN or infinite, `RunError` when the folder
    cannot be written or holds another training, `ConfigError` for a setting out of range.
    """
    # --- settings, and everything on its device ---
    _refuse_settings(images, checkpoint_every, report_every, sample_every, validate_every)
    made_from = {"label": label, "seed": seed, "batch_size": stream.batch_size}
    modules, optimizers = objective.modules(), objective.optimizers()
    for module in modules.values():
        module.to(fabric.device)
    first_process = fabric.global_rank == 0

    # --- resume ---
    make_folder(step.checkpoints)
    now, mean, resumed_from = Progress(), Mean(), None
    newest = checkpoint.read_newest(step)
    if newest is not None:
        folder, state = newest
        _refuse_other_training(state.numbers, made_from, images, stream.batch_size, folder)
        checkpoint.restore(modules, optimizers, state, folder)
        objective.load_state(state.numbers["objective"])
        now, mean = Progress(**state.numbers["progress"]), Mean(state.numbers["sums"])
        resumed_from = now.images_seen
    last_good = newest[0] if newest is not None else None
    fabric.barrier()
    torn = checkpoint.clean(step, last_good) if first_process else []

    # --- what an update may do ---
    minimise = _Step(fabric, lambda loss: not_finite(label, now.images_seen, {"loss": loss}, last_good))

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
        if resumed_from is not None:
            log.say(f"{label}: goes on from {resumed_from} of {images} images")
        started = time.monotonic() - now.seconds
        while now.images_seen < images:
            before = now.images_seen
            torch.manual_seed(integer(seed, label, "update", before))
            batch = stream.at(before, rank=fabric.global_rank, ranks=fabric.world_size, device=fabric.device)
            with fabric.autocast():
                logged = to_floats(fabric, objective.update(batch, before, minimise))
            if strange(logged):
                raise not_finite(label, before, logged, last_good)
            now.images_seen += stream.batch_size
            now.seconds = time.monotonic() - started
            mean.add(logged)
            log.advance(now.images_seen)

            if validate is not None and due(validate_every, before):
                with _looked_at(modules, integer(seed, label, "validate")):
                    score = validate()
                now.score = score if now.score is None else SMOOTHING * now.score + (1 - SMOOTHING) * score
                mean.add({"score": score, "smoothed_score": now.score})
                if strange({"score": score}):
                    raise not_finite(label, now.images_seen, {"score": score}, last_good)
                if now.best_score is None or now.score > now.best_score:
                    now.best_score = now.score
                    if first_process:
                        told = {"images_seen": now.images_seen, "score": score, "smoothed_score": now.score}
                        checkpoint.write_best(step, modules, told)
            if due(report_every, before):
                log.report(now.images_seen, now.seconds, mean.take())
            if first_process and isinstance(objective, Pictured) and due(sample_every, before):
                with _looked_at(modules, integer(seed, label, "samples")), torch.no_grad():
                    pictures = objective.samples()
                if pictures is not None:
                    save_grid(step.sample_png(now.images_seen), pictures)
            if due(checkpoint_every, before):
                if first_process:
                    state = checkpoint.gather(modules, optimizers)
                    numbers = {"made_from": made_from, "progress": vars(now), "sums": mean.sums}
                    numbers |= {"objective": dict(objective.state()), **state.numbers}
                    last_good = checkpoint.write_checkpoint(
                        step, now.images_seen, checkpoint.State(state.tensors, numbers)
                    )
                fabric.barrier()

    return Fitted(
        now.images_seen, now.seconds, now.best_score, step.checkpoint(now.images_seen).folder, resumed_from
    )


class _Step:
    """`Minimise` of this loop."""

    def __init__(self, fabric: Fabric, error: Callable[[float], TrainingError]) -> None:
        self.fabric, self.error = fabric, error
        self.rank, self.ranks, self.parts = fabric.global_rank, fabric.world_size, 1

    def __call__(self, loss: Tensor | Iterable[Tensor], optimizer: Optimizer) -> Tensor:
        total = backward(loss, optimizer)
        if not torch.isfinite(total).all():
            raise self.error(float(total))
        _average_gradients(self.fabric, optimizer)
        optimizer.step()
        return self.mean(total)

    def mean(self, value: Tensor) -> Tensor:
        return value.detach() if self.ranks == 1 else self.fabric.all_reduce(value.detach())


def not_finite(
    label: str, images_seen: int, values: Mapping[str, float], last_good: Path | None
) -> TrainingError:
    """The error that stops a training whose numbers have left the range of floats."""
    return TrainingError(
        f"{', '.join(strange(values))} is not a finite number after {images_seen} images",
        where=label,
        found=", ".join(f"{name}={value:g}" for name, value in values.items()),
        expected="finite numbers",
        mend=(f"The last good state is {last_good}. " if last_good else "There is no good state yet. ")
        + "Check the images for NaN (fewmask check), or lower the learning rate.",
    )


def _average_gradients(fabric: Fabric, optimizer: Optimizer) -> None:
    """Replace the gradients by their mean over the processes, in one message."""
    if fabric.world_size == 1:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    flat = fabric.all_reduce(torch.cat([p.grad.reshape(-1) for p in parameters]))
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad.copy_(part.view_as(parameter))


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
