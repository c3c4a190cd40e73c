"""Half a file is never left behind."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fewmask.core import files
from fewmask.core.errors import RunError


def test_written_text_is_there_and_nothing_else(tmp_path: Path) -> None:
    target = files.write_text(tmp_path / "a" / "b.txt", "hello")
    assert target.read_text() == "hello"
    assert [path.name for path in target.parent.iterdir()] == ["b.txt"]


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"b": 1, "a": [1.5, None, "ä"]}
    assert files.read_json(files.write_json(tmp_path / "x.json", value)) == value


def test_damaged_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(RunError, match=r"x\.json"):
        files.read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "no permission"), (errno.EROFS, "read-only")],
)
def test_a_failing_write_leaves_the_old_file(tmp_path: Path, number: int, words: str) -> None:
    target = files.write_text(tmp_path / "x.txt", "old")

    def failing(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(RunError, match=words):
        files.write_atomic(target, failing)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file"):
        files.make_folder(tmp_path / "file" / "inside")


def test_the_temporary_name_keeps_the_suffix(tmp_path: Path) -> None:
    seen: list[Path] = []

    def write(temporary: Path) -> None:
        seen.append(temporary)
        temporary.write_bytes(b"x")

    files.write_atomic(tmp_path / "v.nii.gz", write)
    assert seen[0].name.endswith(".nii.gz")


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    """Another process is refused while the lock is held, and let in afterwards."""
    lock = tmp_path / ".lock"
    code = f"from fewmask.core.files import held, Path\nwith held(Path({str(lock)!r})): pass"
    with files.held(lock):
        refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another process is at work" in refused.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_line_is_added_after_ending_one_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines.txt"
    files.append_line(path, "one")
    files.append_line(path, "zwei ä")
    with path.open("a") as stream:
        stream.write("thr")
    files.append_line(path, "four")
    assert path.read_text() == "one\nzwei ä\nthr\nfour\n"
    with pytest.raises(RunError, match="new"):
        files.append_line(tmp_path / "new", "a folder")


def test_who_waits_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    lock, order = tmp_path / ".lock", []

    def second() -> None:
        with files.held(lock, wait=True):
            order.append("second")

    with files.held(lock):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
