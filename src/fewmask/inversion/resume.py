"""Parts of a long inversion, each resumable: killed at any moment, it goes on and ends in the same bytes.

A step's folder holds one folder per part (a batch of images, or one image): its checkpoints while it is made,
its inversion when it is done. What is done is not done again.
"""

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fewmask.core.run import Step
from fewmask.inversion.keep import read_inversion, write_inversion
from fewmask.inversion.result import Inversion
from fewmask.training.checkpoint import State, clean, module_tensors, read_newest, write_checkpoint

_PART = re.compile(r"part-\d{6,}")
"""A part's folder. No other step is named so: those of slices end in "-z<slice>-<number>"."""


def part_name(first: int) -> str:
    """The folder of the part that begins with image `first`, from 0."""
    return f"part-{first:06d}"


class Part:
    """One part of a step; without a step nothing is kept.

    Args:
        step: the step, or None.
        name: of the part: `part_name`, or another one if `clear_parts` must leave it.
        inputs: what the part is made from (JSON values).
        every: updates between two checkpoints.

    Raises:
        RunError: the folder holds this part made from other inputs.
    """

    def __init__(self, step: Step | None, name: str, inputs: Mapping[str, Any], *, every: int) -> None:
        self.step = None if step is None else Step(step.folder / name)
        self._inputs, self._every = dict(inputs), every
        self._told = None if self.step is None else self.step.result(self._inputs)

    def finished(self) -> tuple[Inversion, dict[str, Any]] | None:
        """The part's inversion and what `finish` was told, if it is done."""
        if self.step is None or self._told is None:
            return None
        self._sweep(self.step)
        return read_inversion(self.step.inversion), self._told

    def begun(self) -> tuple[Path, State] | None:
        """Where an interrupted part stood, if it was; what its death left half written is removed."""
        if self.step is None:
            return None
        found = read_newest(self.step)
        clean(self.step, None if found is None else found[0])
        return found

    def save(self, updates: int, state: Callable[[], State]) -> None:
        """Keep the state after so many updates, if it is time to."""
        if self.step is not None and updates % self._every == 0:
            write_checkpoint(self.step, updates, state())

    def finish(self, inversion: Inversion, told: Mapping[str, Any]) -> tuple[Inversion, dict[str, Any]]:
        """Keep the part's inversion and what there is to tell of it (JSON values); returns both."""
        if self.step is not None:
            write_inversion(self.step.inversion, inversion, told)
            self.step.finish(dict(told))
            self._sweep(self.step)
        return inversion, dict(told)

    @staticmethod
    def _sweep(step: Step) -> None:
        """A part that is done needs no checkpoints."""
        for folder in step.checkpoints.glob("[0-9]*"):
            shutil.rmtree(folder, ignore_errors=True)


def clear_parts(step: Step) -> None:
    """Remove the parts of a step, once its caller keeps what they gave joined (tuned weights go too).

    Other steps may lie in the same folder, such as those of a case in a subfolder of its cohort: they stay.
    """
    for folder in step.folder.glob("part-*"):
        if _PART.fullmatch(folder.name) and Step(folder).inputs_json.exists():
            shutil.rmtree(folder, ignore_errors=True)


def network_key(network: nn.Module) -> str:
    """SHA-256 of all weights and buffers: two networks with the same key draw the same."""
    digest = hashlib.sha256()
    for name, value in sorted(module_tensors({"network": network}).items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def kept(
    step: Step, inputs: Mapping[str, Any], recipe: Mapping[str, Any], compute: Callable[[], Inversion]
) -> tuple[Inversion, float]:
    """The inversion of a step and the seconds that each image took; computed only when it is not there.

    `inputs` (JSON values) are what it is made from, `recipe` is written into its file. The parts that
    `compute` kept in the step are removed once the whole is written.
    """
    done = step.result(dict(inputs))
    if done is None:
        started = time.monotonic()
        found = compute()
        seconds = (time.monotonic() - started) / len(found.ws)
        write_inversion(step.inversion, found, recipe)
        done = step.finish({"seconds": seconds, "mse": float(found.mse.mean())})
        clear_parts(step)
    return read_inversion(step.inversion), float(done["seconds"])


def array_key(array: NDArray[np.floating] | None) -> str:
    """SHA-256 of an array's shape and values, as 32-bit floats; "" for none."""
    if array is None:
        return ""
    digest = hashlib.sha256(f"{array.shape}".encode())
    for row in array:  # one after the other: a cohort's slices are large, and often in 16 bits
        digest.update(np.ascontiguousarray(row, dtype=np.float32).data)
    return digest.hexdigest()
