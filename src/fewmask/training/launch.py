"""Where a training runs: device, number of processes, threads, precision.

Many processes run the same command. Either `launch` starts the others of this machine itself (the same words,
once per device), or torchrun or SLURM's srun has started all of them and says so in the environment. Process
0 is the run: it alone locks the folder, writes and prints. The others are helpers (`training.helper`): they
take part in the trainings that are shared and then leave (`shared_no_longer`).
"""

import atexit
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed
import torch.utils.deterministic
from lightning_fabric import Fabric as Fabric
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.strategies import DDPStrategy

from fewmask.core.errors import ConfigError, TrainingError
from fewmask.training.helper import helper
from fewmask.training.memory import keep_freed_blocks

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
"""What the networks compute in: our word, Fabric's word. fp16 would need loss scaling and is not offered."""

PATIENCE = timedelta(hours=2)
"""How long processes wait for one another: the first one may be preparing or judging meanwhile."""


def launch(
    *,
    device: str = "cpu",
    devices: int = 1,
    machines: int = 1,
    threads: int | None = None,
    precision: str = "fp32",
) -> Fabric:
    """Start Fabric on `devices` devices of each of `machines` machines; make this process deterministic.

    `threads`: CPU threads of this process, None leaves torch's choice; the same number is needed for the
    same bits. `precision`: "fp32", or "bf16" for convolutions in bfloat16. On the CPU every
    operation is deterministic; on CUDA and MPS only the order of images and the random numbers are.
    Raises `ConfigError` when the device is not there.
    """
    refuse_missing(device, devices)
    if precision not in PRECISIONS:
        raise ConfigError("unknown precision", found=f"{precision}", expected=", ".join(PRECISIONS))
    if threads is not None:
        if threads < 1:
            raise ConfigError("the number of threads must be at least 1", found=f"{threads}")
        torch.set_num_threads(threads)
    keep_freed_blocks()
    if device == "cpu":
        torch.use_deterministic_algorithms(True)
        # filling fresh memory costs time, and no operation of ours reads it
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if devices * machines == 1:
        _refuse_helper()
        return alone(device, precision)
    if threads is None and device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // devices))
    _quiet()
    try:
        fabric = Fabric(
            accelerator=device,
            devices=devices,
            num_nodes=machines,
            strategy=DDPStrategy(timeout=PATIENCE),
            precision=PRECISIONS[precision],
            plugins=[_environment()],
        )
        fabric.launch()
        atexit.register(_part)
    except ValueError as error:  # SLURM or torchrun started another number of processes
        raise ConfigError(
            "the processes that were started do not fit the devices",
            found=str(error),
            expected=f"{machines} x {devices} processes",
            mend="Start one process per device: docs/scaling.md shows how.",
        ) from error
    return fabric


def _environment() -> ClusterEnvironment:
    """Who started the processes: srun, torchrun, or nobody yet."""
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return SLURMEnvironment(auto_requeue=False)
    return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()


def _refuse_helper() -> None:
    if helper():
        raise ConfigError(
            "several processes were started, and the run is set to one device",
            found="devices=1 and machines=1",
            mend="Set devices to the processes per machine and machines to how many machines there are.",
        )


def alone(device: str = "cpu", precision: str = "fp32") -> Fabric:
    """A Fabric of this process only, whatever started it; changes no setting of torch."""
    _quiet()
    return Fabric(
        accelerator=device, devices=1, precision=PRECISIONS[precision], plugins=[LightningEnvironment()]
    )


def _quiet() -> None:
    """Which rank this is and which precision was asked for is no news."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)


def on_cpu() -> Fabric:
    """A Fabric on this process's CPU, for small trainings beside a large one; changes no setting of torch."""
    return alone()


@contextmanager
def first_then_helpers(fabric: Fabric) -> Iterator[None]:
    """Process 0 does the block while the helpers wait; then they do it, and find its files finished."""
    if fabric.global_rank > 0:
        _meet(fabric)
    yield
    if fabric.global_rank == 0:
        _meet(fabric)


def shared_no_longer(fabric: Fabric) -> Fabric:
    """After the last shared training: helpers end here with exit code 0; process 0 goes on alone.

    Returns a Fabric of process 0 alone, on the same device and in the same precision.
    """
    if fabric.world_size == 1:
        return fabric
    _meet(fabric)
    _part()
    if fabric.global_rank > 0:
        sys.exit(0)
    words = {theirs: ours for ours, theirs in PRECISIONS.items()}
    return alone(fabric.device.type, words[fabric._precision.precision])


def _part() -> None:
    """Close the connections, without which a process may abort at its exit."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _meet(fabric: Fabric) -> None:
    """Wait for the other processes; raises `TrainingError` when one of them is gone."""
    try:
        fabric.barrier()
    except RuntimeError as error:  # of torch.distributed
        raise TrainingError(
            "another process of this run is gone, or silent for too long",
            where=f"process {fabric.global_rank}",
            found=str(error).splitlines()[0],
            mend="Its own message tells why.",
        ) from error


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
