"""Inversions on the disk: they cost minutes, so a run keeps them."""

from pathlib import Path

from safetensors.numpy import load_file, save_file

from fewmask.core.files import write_atomic
from fewmask.inversion.project import Inversion


def write_inversion(path: Path, inversion: Inversion) -> Path:
    """Write all arrays of an inversion as safetensors, atomically."""
    return write_atomic(path, lambda temporary: save_file(vars(inversion), temporary))


def read_inversion(path: Path) -> Inversion:
    """What `write_inversion` wrote."""
    return Inversion(**load_file(path))
