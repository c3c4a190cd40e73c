"""How much memory this process holds, and how to make glibc keep what it has."""

import ctypes
import sys

import psutil
import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def keep_freed_blocks() -> bool:
    """Tell glibc's allocator to keep freed memory for the next step instead of returning it to the system.

    Without this every step faults its large tensors in anew. Returns whether it took effect; on systems
    without glibc nothing happens. The process's memory then stays at its peak.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    largest = 2**31 - 1
    taken = bool(mallopt(_MMAP_THRESHOLD, largest)) or bool(mallopt(_MMAP_THRESHOLD, 32 * 2**20))
    return bool(mallopt(_TRIM_THRESHOLD, largest)) and taken


def memory_mb(device: torch.device) -> dict[str, float]:
    """Memory of this process now and at its peak, in MiB; on a CUDA device also the device's peak."""
    process = psutil.Process().memory_info()
    numbers = {"memory_mb": process.rss / 2**20, "peak_memory_mb": _peak_bytes(process) / 2**20}
    if device.type == "cuda":
        numbers["device_peak_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return numbers


def _peak_bytes(process: object) -> float:
    if sys.platform == "win32":
        return float(getattr(process, "peak_wset", 0))
    import resource  # noqa: PLC0415 - does not exist on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) if sys.platform == "darwin" else peak * 1024.0
