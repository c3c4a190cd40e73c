"""What the processes of one training tell each other: gradients, numbers, and that they must stop.

Every message begins with the same four numbers. A process that fails answers whatever the others wait for
with "I failed", so all end with an error and none waits for ever; a signal that reached one process stops all
at the same update. A killed process shows as a broken connection, or after `launch.PATIENCE`.
"""

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer

from fewmask.core.errors import RunError, TrainingError
from fewmask.objectives.minimise import backward
from fewmask.training.stop import Stop


class Together:
    """All processes of a training as one; implements `Minimise` for its objective.

    Args:
        fabric: which process this is, and how tensors are averaged.
        label: names the training in errors.
        parts: micro-batches of an update.
        stop: whether this process was asked to stop.
    """

    def __init__(self, fabric: Fabric, label: str, parts: int, stop: Stop) -> None:
        self.fabric, self.label, self.stop = fabric, label, stop
        self.rank, self.ranks, self.parts = int(fabric.global_rank), int(fabric.world_size), parts
        self.stopping = False
        """Some process was asked to stop; the same on all after every message."""
        self.images_seen = 0
        self.last_good: Path | None = None
        self._over = False  # no message will be answered any more

    def __enter__(self) -> "Together":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """What one process raises ends the training on all of them."""
        if kind is not None and self.ranks > 1 and not self._over:
            self._over = True
            with suppress(TrainingError):
                self._send([1.0, 0.0, 0.0, 0.0])

    def __call__(self, loss: Tensor | Iterable[Tensor], optimizer: Optimizer) -> Tensor:
        """One step down the mean of the processes' losses; see `objectives.minimise.Minimise`."""
        total = backward(loss, optimizer).reshape(())
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        length = torch.stack(torch._foreach_norm(gradients)).sum() if gradients else total.new_zeros(())
        flat = torch.cat([g.reshape(-1) for g in gradients]) if self.ranks > 1 else None
        total, length = self._agree(total, length)
        loss_and_gradient = torch.stack([total.float(), length.float()]).tolist()
        self.refuse_strange(dict(zip(("loss", "gradient"), loss_and_gradient, strict=True)))
        if flat is not None:
            flat = self._mean(flat)
            for gradient, part in zip(
                gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True
            ):
                gradient.copy_(part.view_as(gradient))
        optimizer.step()
        return total

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes of a detached tensor that has the same shape on all."""
        value = value.detach()
        if self.ranks == 1:
            return value
        self._agree()
        return self._mean(value.clone())

    def numbers(self, logged: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Logged scalars as floats, averaged over the processes; raises `TrainingError` unless finite."""
        tensors = [value for value in logged.values() if isinstance(value, Tensor)]
        known = torch.stack([value.detach().float().reshape(()) for value in tensors]) if tensors else None
        found = iter([] if known is None else known.tolist())
        told = {k: next(found) if isinstance(v, Tensor) else float(v) for k, v in logged.items()}
        if self.ranks > 1:
            flat = self.mean(
                torch.tensor(list(told.values()), dtype=torch.float64, device=self.fabric.device)
            )
            told = dict(zip(told, flat.tolist(), strict=True))
        self.refuse_strange(told)
        return told

    def first(self, value: float) -> float:
        """The number that the first process gives; what the others give does not matter."""
        (told,) = self._agree(torch.tensor(value if self.rank == 0 else 0.0, dtype=torch.float64))
        return float(told) * self.ranks

    def wait(self) -> None:
        """Until all processes are here; afterwards they agree about `stopping`."""
        self._agree()

    def refuse_strange(self, numbers: Mapping[str, float]) -> None:
        """Raise `TrainingError` when a number, the same on all processes, is NaN or infinite."""
        strange = [name for name, value in numbers.items() if not math.isfinite(value)]
        if not strange:
            return
        self._over = True
        raise TrainingError(
            f"{', '.join(strange)} is not a finite number after {self.images_seen} images",
            where=self.label,
            found=", ".join(f"{name}={value:g}" for name, value in numbers.items()),
            expected="finite numbers",
            mend=(
                f"The last good state is {self.last_good}. "
                if self.last_good
                else "There is no good state yet. "
            )
            + "Check the images for NaN (fewmask check), or lower the learning rate.",
        )

    def same(self, images_seen: int) -> None:
        """Raise `RunError` unless all processes go on from the same number of images."""
        (mean,) = self._agree(torch.tensor(images_seen, dtype=torch.float64))
        if float(mean) != images_seen:
            raise RunError(
                "the processes of this training do not find the same checkpoint",
                where=f"{self.label}, process {self.rank}",
                found=f"{images_seen} images here, {float(mean):g} on average",
                mend="The run's folder must lie on a disk that all machines share.",
            )

    def _agree(self, *values: Tensor) -> list[Tensor]:
        """Whether all are well and go on; the means of up to two scalars."""
        if self.ranks == 1:
            self.stopping = bool(self.stop.asked)
            return list(values)
        told = [float(value) for value in values] + [0.0] * (2 - len(values))
        failed, stopping, *means = self._send([0.0, float(self.stop.asked != 0), *told])
        if failed:
            self._over = True
            raise TrainingError(
                "another process of this training failed",
                where=f"{self.label}, process {self.rank}",
                found=f"after {self.images_seen} images",
                mend="Its own message tells why.",
            )
        self.stopping = stopping > 0
        return [value.new_tensor(mean) for value, mean in zip(values, means, strict=False)]

    def _send(self, told: list[float]) -> list[float]:
        """The mean of every process's numbers."""
        mean = self._mean(torch.tensor(told, dtype=torch.float64, device=self.fabric.device))
        return [float(value) for value in mean.tolist()]

    def _mean(self, value: Tensor) -> Tensor:
        try:
            mean: Tensor = self.fabric.all_reduce(value)
            return mean
        except RuntimeError as error:  # of torch.distributed
            self._over = True
            raise TrainingError(
                "another process of this training is gone, or silent for too long",
                where=f"{self.label}, process {self.rank}",
                found=str(error).splitlines()[0],
                mend="See its own output; out of memory is the usual reason. The same command goes on from "
                + (f"{self.last_good}." if self.last_good else "the start."),
            ) from error
