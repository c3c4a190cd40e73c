"""Files of `torch.save`, old (a chain of pickles) and new (a zip archive), read without running them.

The result is plain: dictionaries, lists, numbers and NumPy arrays. Only files that hold tensors and plain
values are read; one that holds whole modules needs their code, and is refused.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewmask.core.errors import DataError
from fewmask.data.pickled_machine import Machine, MostlyPlain
from fewmask.data.pickled_opcodes import printable, refuse, refuse_other_files
from fewmask.data.pickled_plain import Plainer
from fewmask.data.pickled_records import TENSOR_NAMES, Budget, Element, NotPlainError, Storage

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
LARGEST_FILE = 4 * 2**30


def read_torch(path: Path) -> Any:
    """The plain value in a file of `torch.save`: usually a dictionary of arrays.

    Raises:
        DataError: no such file, not a torch file, or one that holds more than tensors and plain values.
    """
    data = read_bytes(path)
    budget = Budget.of(len(data))
    return Plainer(str(path), budget).plain(torch_value(data, str(path), budget))


def read_bytes(path: Path) -> bytes:
    """A file's bytes; a `DataError` when it is missing, a folder, over 4 GiB, compressed, or no pickle.

    A zip archive is let through.
    """
    if not path.is_file():
        folder = path.is_dir()
        raise DataError(
            "this is a folder" if folder else "there is no such file",
            where=str(path),
            expected="the file of a checkpoint",
            mend="Name the file in it." if folder else "Check the path.",
        )
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise refuse("the checkpoint is too large", str(path), expected="at most 4 GiB")
        data = path.read_bytes()
    except OSError as error:
        raise refuse(f"cannot be read ({error.strerror or error})", str(path)) from error
    for magic, what in (
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ):
        if data.startswith(magic):
            raise refuse("the checkpoint is compressed and was not opened", str(path), found=f"{what} data")
    if not data.startswith(b"PK"):
        refuse_other_files(data, str(path))
    return data


def torch_value(data: bytes, where: str, budget: Budget) -> MostlyPlain:
    """What a torch file's bytes hold, its tensors still records; see `read_torch`."""
    return _new_format(data, where, budget) if data.startswith(b"PK") else _old_format(data, where, budget)


# --- the old format: magic, protocol, system, value, keys, then each storage's count and numbers ------------


def _old_format(data: bytes, where: str, budget: Budget) -> MostlyPlain:
    storages: dict[str, Storage] = {}
    machine = Machine(data, where, TENSOR_NAMES, budget, _keeper(storages))
    magic, at = machine.run(0)
    if magic != MAGIC:
        raise refuse("this is no torch file", where, expected="the mark of torch.save at the start")
    protocol, at = machine.run(at)
    system, at = machine.run(at)
    if protocol != PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise refuse("this kind of torch file is not read", where, expected="protocol 1001, little-endian")
    value, at = machine.run(at)
    keys, at = machine.run(at)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise refuse("the storages are not the ones that the tensors name", f"{where}, byte {at}")
    for key in keys:
        at = _numbers_at(data, at, storages[str(key)], where)
    if at != len(data):
        raise refuse(
            "bytes follow after the last storage", f"{where}, byte {at}", found=f"{len(data) - at} bytes"
        )
    return value


def _numbers_at(data: bytes, at: int, storage: Storage, where: str) -> int:
    """Give a storage its numbers from byte `at`; the position after them."""
    try:
        count = struct.unpack_from("<q", data, at)[0]
    except struct.error as error:
        raise refuse("the file ends before its numbers", f"{where}, byte {at}") from error
    size, start = storage.count * storage.item_bytes, at + 8
    if count != storage.count or size > len(data) - start:
        raise refuse(
            "a storage is cut off or lies about its length",
            f"{where}, byte {at}",
            found=f"{count} numbers, {max(len(data) - start, 0)} bytes left",
            expected=f"{storage.count} numbers, {size} bytes",
        )
    storage.raw = memoryview(data)[start : start + size]
    return start + size


# --- the new format: a zip archive, stored without compression ----------------------------------------------

_ZIP_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    RuntimeError,  # encrypted, or a compression that is unknown
    ValueError,
    struct.error,
    KeyError,
    IndexError,
    OverflowError,
)


def _new_format(data: bytes, where: str, budget: Budget) -> MostlyPlain:
    members = _members(data, where)
    pickles = [name for name in members if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(pickles) != 1:
        raise refuse("the zip archive is no torch file", where, expected="one data.pkl in one folder")
    folder = pickles[0].removesuffix("data.pkl")
    if members.get(f"{folder}byteorder", b"little") != b"little":
        raise refuse("the numbers are big-endian", where, expected="little-endian")
    storages: dict[str, Storage] = {}
    pickle = members[pickles[0]]
    machine = Machine(pickle, f"{where}, {printable(pickles[0])}", TENSOR_NAMES, budget, _keeper(storages))
    value, end = machine.run(0)
    if end != len(pickle):
        raise refuse("bytes follow after the STOP", f"{where}, {printable(pickles[0])}, byte {end}")
    for key, storage in storages.items():
        raw = members.get(f"{folder}data/{key}")
        size = storage.count * storage.item_bytes
        if raw is None or len(raw) != size:
            found = "no such member" if raw is None else f"{len(raw)} bytes"
            raise refuse(
                f"storage {printable(key)} is missing or of another length",
                where,
                found=found,
                expected=f"{size} bytes",
            )
        storage.raw = raw
    return value


def _members(data: bytes, where: str) -> dict[str, bytes]:
    """All members by name. A compressed one is refused, so nothing can grow when it is opened."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            packed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
            if packed or sum(entry.file_size for entry in entries) > len(data):
                raise refuse(
                    "the zip archive would grow when it is opened, and was not",
                    where,
                    found=f"compressed member {printable(packed[0].filename)}"
                    if packed
                    else "overlapping members",
                    expected="members stored without compression, as torch writes them",
                )
            names = [entry.filename for entry in entries]
            if len(set(names)) != len(names):
                raise refuse("the zip archive has two members of one name", where)
            return {entry.filename: archive.read(entry) for entry in entries}
    except _ZIP_FAULTS as error:
        raise refuse("the zip archive is damaged", where, found=printable(str(error))) from error


def _keeper(storages: dict[str, Storage]) -> Callable[[Any], Storage]:
    """Makes the storage of a persistent identity ("storage", type, key, place, count[, view])."""

    def keep(identity: Any) -> Storage:
        if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
            raise NotPlainError("a persistent identity that is no storage")
        _, element, key, _, count = identity[:5]
        if not isinstance(element, Element) or type(key) is not str or type(count) is not int:
            raise NotPlainError("a storage without type, key or length")
        if not 0 <= count < 2**40 or any(part is not None for part in identity[5:]):
            raise NotPlainError("a storage of an impossible length, or a view of another")
        known = storages.setdefault(key, Storage(element.code, count))
        if (known.element, known.count) != (element.code, count):
            raise NotPlainError(f"storage {key!r} with two types or lengths")
        return known

    return keep
