"""Checkpoints of a whole training: safetensors and JSON, never a pickle, never half a state.

A checkpoint is written into a hidden folder, flushed to the disk and renamed into place; checksums tell a
torn one, and then the one before it is used.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from fewmask.core.errors import RunError
from fewmask.core.files import make_folder, read_json, write_atomic, write_error, write_json
from fewmask.core.run import Checkpoint, Step

KEEP = 2
"""How many full checkpoints stay on the disk."""


@dataclass(frozen=True, eq=False)
class State:
    """A training at one moment: all tensors by name, and all numbers (JSON values)."""

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]


# --- what an objective is made of ------------------------------------------------------------------------


def gather(modules: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]) -> State:
    """Every weight, buffer and optimizer state, by names such as "module/G/conv.weight"."""
    tensors = module_tensors(modules)
    groups: dict[str, Any] = {}
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()
        plain: dict[str, dict[str, Any]] = {}
        for parameter, values in state["state"].items():
            for key, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{name}/{parameter}/{key}"] = value
                else:
                    plain.setdefault(str(parameter), {})[key] = value
        groups[name] = {"groups": state["param_groups"], "plain": plain}
    return State(tensors, {"optimizers": groups})


def module_tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Weights and buffers of `modules`, by names such as "module/G/conv.weight"."""
    return {
        f"module/{name}/{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }


def load_modules(modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], where: Path) -> None:
    """Copy weights and buffers into `modules`; raises `RunError` when they are of another architecture."""
    have = {key: tuple(value.shape) for key, value in module_tensors(modules).items()}
    found = {key: tuple(value.shape) for key, value in tensors.items() if key.startswith("module/")}
    _refuse_other_architecture(have, found, where)
    for name, module in modules.items():
        prefix = f"module/{name}/"
        module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )


def restore(
    modules: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer], state: State, where: Path
) -> None:
    """The inverse of `gather`. Raises `RunError` when the state belongs to another architecture."""
    load_modules(modules, state.tensors, where)
    if set(optimizers) != set(state.numbers["optimizers"]):
        raise RunError(
            "the checkpoint has other optimizers",
            where=str(where),
            found=", ".join(sorted(state.numbers["optimizers"])),
            expected=", ".join(sorted(optimizers)),
        )
    for name, optimizer in optimizers.items():
        saved = state.numbers["optimizers"][name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if sum(len(group["params"]) for group in saved["groups"]) != len(parameters):
            raise RunError(f"the checkpoint's optimizer {name} has other parameters", where=str(where))
        values: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in saved["plain"].items()}
        prefix = f"optimizer/{name}/"
        for key, tensor in state.tensors.items():
            if key.startswith(prefix):
                number, field = key.removeprefix(prefix).split("/", 1)
                values.setdefault(int(number), {})[field] = _like(parameters[int(number)], tensor)
        groups = [_with_tuples(group) for group in saved["groups"]]
        optimizer.load_state_dict({"state": values, "param_groups": groups})


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """`value` in memory laid out as a fresh optimizer state of `parameter` would be, for the same bits."""
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype, device="cpu").copy_(value)


def _with_tuples(group: Mapping[str, Any]) -> dict[str, Any]:
    """JSON turns tuples (Adam's betas) into lists; turn them back."""
    return {k: tuple(v) if isinstance(v, list) and k != "params" else v for k, v in group.items()}


def _refuse_other_architecture(
    have: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], where: Path
) -> None:
    missing, strange = sorted(have.keys() - found.keys()), sorted(found.keys() - have.keys())
    other = [key for key in sorted(have.keys() & found.keys()) if have[key] != found[key]]
    if not (missing or strange or other):
        return
    told = [f"{key}: checkpoint {found[key]}, network {have[key]}" for key in other]
    told += [f"{key}: only in the network" for key in missing]
    told += [f"{key}: only in the checkpoint" for key in strange]
    more = [f"and {len(told) - 6} more"] if len(told) > 6 else []
    raise RunError(
        "the checkpoint belongs to another architecture",
        where=str(where),
        found="\n    ".join([*told[:6], *more]),
        mend="Give the settings the run was started with, or choose another --out.",
    )


# --- on the disk -----------------------------------------------------------------------------------------


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write `tensors` as safetensors, atomically; the same tensors always give the same bytes."""
    return write_atomic(path, lambda temporary: _save(tensors, temporary))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, in memory; raises `RunError` when it is missing or damaged."""
    try:
        loaded = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"is not a readable safetensors file ({error})", where=str(path)) from error
    return {key: value.clone() for key, value in loaded.items()}  # off the file, and aligned


def write_checkpoint(step: Step, images_seen: int, state: State) -> Path:
    """Write the full state after `images_seen` images, then drop all but the last two.

    Raises `RunError` on a full disk or a missing right; the checkpoints written before stay whole.
    """
    final = step.checkpoint(images_seen)
    temporary = Checkpoint(final.folder.with_name(f".{final.folder.name}.{os.getpid()}.tmp"))
    try:
        shutil.rmtree(temporary.folder, ignore_errors=True)
        make_folder(temporary.folder)
        _save(state.tensors, temporary.tensors)
        sums = {"tensors": _file_sha256(temporary.tensors), "numbers": _json_sha256(state.numbers)}
        told = json.dumps({"sha256": sums, "state": state.numbers}, indent=1)
        temporary.numbers.write_text(told, encoding="utf-8")
        for path in (temporary.tensors, temporary.numbers, temporary.folder):
            _flush(path)
        if final.folder.exists():  # a torn one, or we would have resumed from it
            shutil.rmtree(final.folder)
        temporary.folder.replace(final.folder)
        _flush(step.checkpoints)
        for old in _numbered(step)[:-KEEP]:
            shutil.rmtree(old)
    except OSError as error:
        raise write_error(final.folder, error) from error
    finally:
        shutil.rmtree(temporary.folder, ignore_errors=True)
    return final.folder


def read_newest(step: Step) -> tuple[Path, State] | None:
    """The newest whole checkpoint and its folder; torn ones are passed over. None when there is none."""
    for folder in reversed(_numbered(step)):
        state = _read(Checkpoint(folder))
        if state is not None:
            return folder, state
    return None


def clean(step: Step, newest: Path | None) -> list[str]:
    """Remove what an interrupted writer left behind: temporary files, and torn states after the `newest`.

    Returns the names of the torn states.
    """
    folders = (step.folder, step.checkpoints, step.samples)
    for left in (path for folder in folders for path in folder.glob(".*.tmp*")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    torn = [folder for folder in _numbered(step) if newest is None or folder.name > newest.name]
    for folder in torn:
        shutil.rmtree(folder, ignore_errors=True)
    return [folder.name for folder in torn]


def write_best(step: Step, modules: Mapping[str, nn.Module], told: Mapping[str, Any]) -> None:
    """Keep the weights of the best moment; `told` says when and how good (JSON values)."""
    write_tensors(step.best_tensors, module_tensors(modules))
    write_json(step.best_json, {**told, "sha256": _file_sha256(step.best_tensors)})


def load_best(step: Step, modules: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Copy the best weights into `modules`; returns what was told about them. Raises `RunError`."""
    told: dict[str, Any] = read_json(step.best_json)
    if told.get("sha256") != _file_sha256(step.best_tensors):
        raise RunError(
            "the best weights are damaged",
            where=str(step.best_tensors),
            mend="Run the training again with the same command.",
        )
    load_modules(modules, read_tensors(step.best_tensors), step.best_tensors)
    return told


def _read(checkpoint: Checkpoint) -> State | None:
    try:
        told = json.loads(checkpoint.numbers.read_text(encoding="utf-8"))
        sums, numbers = told["sha256"], told["state"]
        if sums != {"tensors": _file_sha256(checkpoint.tensors), "numbers": _json_sha256(numbers)}:
            return None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    except OSError as error:  # it may be whole: never train over it
        raise RunError(f"cannot be read ({error.strerror})", where=str(checkpoint.folder)) from error
    return State(read_tensors(checkpoint.tensors), numbers)


def _numbered(step: Step) -> list[Path]:
    """Checkpoint folders, the oldest first."""
    return sorted(f for f in step.checkpoints.glob("[0-9]*") if f.is_dir())


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    plain: dict[str, Tensor] = {}
    storages: set[int] = set()
    for key, value in tensors.items():
        flat = value.detach().to("cpu").contiguous()
        storage = flat.untyped_storage().data_ptr()
        plain[key] = flat.clone() if storage in storages else flat  # safetensors refuses shared memory
        storages.add(storage)
    try:
        save_file(plain, path)
    except SafetensorError as error:  # its writer hides the OSError in a sentence
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from error


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return "missing"


def _json_sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _flush(path: Path) -> None:
    """Push a file or a folder to the disk; folders can be opened on POSIX only."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
