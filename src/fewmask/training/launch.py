"""Where a training runs: device, number of processes, threads, precision."""

import torch
import torch.utils.deterministic
from lightning_fabric import Fabric as Fabric

from fewmask.core.errors import ConfigError
from fewmask.training.memory import keep_freed_blocks

PRECISIONS = {None: "32-true", "bf16": "bf16-mixed"}
"""What the networks compute in: our word, Fabric's word. fp16 would need loss scaling and is not offered."""


def launch(
    *,
    device: str = "cpu",
    devices: int = 1,
    threads: int | None = None,
    precision: str | None = None,
) -> Fabric:
    """Start Fabric on `devices` devices and make this process deterministic.

    `threads`: CPU threads of this process, None leaves torch's choice; the same number is needed for the
    same bits. `precision`: None is float32; "bf16" runs convolutions in bfloat16. On the CPU every
    operation is deterministic; on CUDA and MPS only the order of images and the random numbers are.
    Raises `ConfigError` when the device is not there.
    """
    refuse_missing(device, devices)
    if precision not in PRECISIONS:
        raise ConfigError("unknown precision", found=f"{precision}", expected="bf16, or none for float32")
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
        precision=PRECISIONS[precision],
    )
    fabric.launch()
    return fabric


def on_cpu() -> Fabric:
    """A Fabric on this process's CPU, for small trainings beside a large one; changes no global setting."""
    return Fabric(accelerator="cpu", devices=1)


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
