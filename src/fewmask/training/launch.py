"""Where a training runs: device, number of processes, threads, precision."""

from typing import Literal

import torch
import torch.utils.deterministic
from lightning_fabric import Fabric

from fewmask.core.errors import ConfigError
from fewmask.training.memory import keep_freed_blocks

Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["32-true", "bf16-mixed"]


def launch(
    *,
    device: str = "cpu",
    devices: int = 1,
    threads: int | None = None,
    precision: Precision | None = None,
) -> Fabric:
    """Start Fabric on `devices` devices and make this process deterministic.

    `threads`: CPU threads of this process, None leaves torch's choice; the same number is needed for the
    same bits. `precision`: None is float32; "bf16-mixed" runs convolutions in bfloat16. On the CPU every
    operation is deterministic; on CUDA and MPS only the order of images and the random numbers are.
    Raises `ConfigError` when the device is not there.
    """
    refuse_missing(device, devices)
    if threads is not None:
        if threads < 1:
            raise ConfigError("the number of threads must be at least 1", found=f"{threads}")
        torch.set_num_threads(threads)
    keep_freed_blocks()
    if device == "cpu":
        torch.use_deterministic_algorithms(True)
        # filling fresh memory costs time, and no operation of ours reads it
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    fabric = Fabric(
        accelerator=device,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        precision=precision or "32-true",
    )
    fabric.launch()
    return fabric


def refuse_missing(device: str, devices: int = 1) -> None:
    """Raise `ConfigError` unless this machine has `devices` devices of the kind `device`."""
    there = {
        "cpu": devices,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if device not in there:
        raise ConfigError("unknown device", found=device, expected=", ".join(there))
    if devices < 1 or there[device] < devices:
        raise ConfigError(
            "the device is not there",
            found=f"{there[device]} x {device}",
            expected=f"{devices} x {device}",
            mend="Use --device cpu, or install a torch build for your accelerator.",
        )
