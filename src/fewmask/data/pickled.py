"""Published generator checkpoints (.pkl), read without running them.

NVIDIA's snapshots of StyleGAN2-ADA and StyleGAN3 are pickles: a dictionary with G, D, G_ema, augment_pipe and
training_set_kwargs. Each network is an object whose class is given as source text, for the reader to execute.
Here nothing is executed: the source is dropped, and what stays is the class's name, the arguments it was made
with, and its arrays. There is no other way in this package to open a pickle.
"""

from pathlib import Path
from typing import Any

from fewmask.core.errors import DataError
from fewmask.data.pickled_machine import Machine
from fewmask.data.pickled_opcodes import refuse
from fewmask.data.pickled_plain import Plainer
from fewmask.data.pickled_records import (
    SNAPSHOT_NAMES,
    Budget,
    Name,
    NotPlainError,
    PickledObject,
    Storage,
)
from fewmask.data.torchfile import read_bytes, torch_value

__all__ = ["PickledObject", "read_pickled"]


def read_pickled(path: Path) -> Any:
    """The plain value in a published checkpoint; networks are `PickledObject`s.

    Raises:
        DataError: no such file, a damaged one, or one that asks for anything but tensors and plain values.
            The error names the instruction or the name, and the byte.
    """
    data, where = read_bytes(path), str(path)
    if data.startswith(b"PK"):
        what = "this is a zip archive, as torch.save writes it, and no published snapshot"
        raise DataError(
            what if b"/data.pkl" in data else "this is a zip archive, and no checkpoint",
            where=where,
            expected="the .pkl of StyleGAN2-ADA or StyleGAN3 (PyTorch)",
            mend="Choose the .pkl as it was published; an archive has to be unpacked first.",
        )
    budget = Budget.of(len(data))

    def storage_from_bytes(*args: Any) -> Storage:
        if len(args) != 1 or not isinstance(args[0], bytes):
            raise NotPlainError("expected bytes")
        storage = torch_value(args[0], "the bytes of a tensor", budget)
        if not isinstance(storage, Storage):
            raise NotPlainError("expected the storage of a tensor")
        return storage

    loader = Name("torch.storage._load_from_bytes", storage_from_bytes)
    allowed = {**SNAPSHOT_NAMES, ("torch.storage", "_load_from_bytes"): loader}
    value, end = Machine(data, where, allowed, budget).run()
    if end != len(data):
        raise refuse("bytes follow after the STOP", f"{where}, byte {end}", found=f"{len(data) - end} bytes")
    return Plainer(where, budget).plain(value)
