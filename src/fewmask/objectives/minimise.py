"""What the training loop hands to an objective's update, and how a batch is divided.

A global batch of N images is divided twice: process r of R holds rows r::R of it, and micro-batch m of M
holds rows m::M of those (`rows`). Interleaved shares keep the groups of the minibatch standard deviation
(rows n, n + N/G, n + 2N/G, ...; Karras et al. 2018, "Progressive growing", section 3) inside one share
whenever a share is a multiple of the group size G: what is computed does not depend on the division.
"""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from fewmask.core.errors import TrainingError
from fewmask.data.batches import rows as rows


class Minimise(Protocol):
    """Backward, the mean of gradients over processes, and one step of an optimiser."""

    @property
    def rank(self) -> int:
        """Number of this process, 0 to `ranks` - 1."""

    @property
    def ranks(self) -> int:
        """How many processes train together."""

    @property
    def parts(self) -> int:
        """Micro-batches that an update should compute one after the other, to save memory; at least 1."""

    def __call__(self, loss: Tensor | Iterable[Tensor], optimizer: Optimizer) -> Tensor:
        """Step `optimizer` down the sum of the losses, averaged over the processes.

        An iterable is asked for one loss after the other, and each is sent backward at once, so that its
        graph is freed before the next is built. So that M micro-batches give the step of one batch, each
        loss is a mean over its micro-batch divided by M.

        Args:
            loss: one scalar, or scalars one at a time; no process may give more losses than another.
            optimizer: its gradients are zeroed first; parameters outside it gather no gradient that counts.

        Returns:
            The sum of the losses, detached, averaged over the processes.

        Raises:
            TrainingError: on every process, when a loss or a gradient of any process is not finite or any
                process failed; the weights are then unchanged.
        """

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes of a detached tensor that has the same shape on all."""


def backward(loss: Tensor | Iterable[Tensor], optimizer: Optimizer) -> Tensor:
    """Zero the gradients, send every loss backward as it comes, and return the detached sum of the losses.

    Whatever precision a loss was computed in, going backward nothing is cast on top: what was float32 on the
    way forth stays float32 on the way back.
    """
    optimizer.zero_grad(set_to_none=True)
    total: Tensor | None = None
    for one in [loss] if isinstance(loss, Tensor) else loss:
        with torch.autocast(one.device.type, enabled=False):
            one.backward()
        total = one.detach() if total is None else total + one.detach()
    if total is None:
        raise ValueError("there is no loss to minimise")
    return total


class Alone:
    """`Minimise` for one process without a training loop: tests, benchmarks, estimates of time."""

    def __init__(self, parts: int = 1) -> None:
        self.rank, self.ranks, self.parts = 0, 1, parts

    def __call__(self, loss: Tensor | Iterable[Tensor], optimizer: Optimizer) -> Tensor:
        """One step down the sum of the losses; see `Minimise`."""
        total = backward(loss, optimizer)
        if not torch.isfinite(total).all():
            raise TrainingError("the loss is not a finite number", found=f"{float(total)}")
        optimizer.step()
        return total

    def mean(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value.detach()
