"""Writing files so that a crash, a full disk or a missing right never leaves half a file."""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fewmask.core.errors import RunError

_REASONS = {
    errno.ENOSPC: ("the disk is full", "Free some space, then run the same command again: it goes on."),
    errno.EDQUOT: ("the disk quota is used up", "Free some space, then run the same command again."),
    errno.EACCES: ("no permission to write", "Choose another folder with --out, or ask for the right."),
    errno.EPERM: ("no permission to write", "Choose another folder with --out, or ask for the right."),
    errno.EROFS: ("the file system is read-only", "Choose another folder with --out."),
}


def write_error(path: Path, error: OSError) -> RunError:
    """The `RunError` that tells a user why `path` could not be written and what to do."""
    what, mend = _REASONS.get(error.errno or 0, (f"cannot be written ({error.strerror or error})", ""))
    return RunError(what, where=str(path), mend=mend)


def make_folder(path: Path) -> Path:
    """Create `path` with its parents; a failure is a `RunError`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    return path


def write_atomic(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, then rename it onto `path`.

    The temporary name keeps the suffix, for writers that choose a format by it. Raises `RunError` on a
    full disk or a missing right; what stood at `path` before is then untouched.
    """
    make_folder(path.parent)
    suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{suffix}")
    try:
        write(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write `text` as UTF-8, atomically."""
    return write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as indented JSON, atomically. Keys keep their order."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def append_line(path: Path, text: str) -> Path:
    """Add a line to a file and flush it to the disk; a line that a crash cut short is ended first.

    Whoever reads the file passes over lines that are cut short. `RunError` when it cannot be written.
    """
    make_folder(path.parent)
    line = text.encode() + b"\n"
    try:
        with path.open("a+b") as stream:
            if stream.seek(0, os.SEEK_END) > 0:
                stream.seek(-1, os.SEEK_END)
                line = line if stream.read(1) == b"\n" else b"\n" + line
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise write_error(path, error) from error
    return path


@contextmanager
def held(lock: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes of this machine out while the block runs; the system frees it if we die.

    Where another process holds it, `wait` for it, or raise `RunError`: two trainings in one folder would
    spoil each other.
    """
    make_folder(lock.parent)
    try:
        stream = lock.open("a")
    except OSError as error:
        raise write_error(lock, error) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                "another process is at work in this folder",
                where=str(lock.parent),
                mend="Wait until it is done, or choose another --out.",
            ) from error
        yield


def read_json(path: Path) -> Any:
    """The value in a JSON file; a `RunError` names the file when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"is not readable JSON ({error})", where=str(path)) from error
