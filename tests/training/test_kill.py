"""Trainings that are really killed (SIGKILL) leave, after a last run, the bytes of one that never was."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fewmask.core.run import Step

WORKER = Path(__file__).with_name("kill_worker.py")
TIMINGS = {"seconds", "images_per_second", "memory_mb", "peak_memory_mb"}


def start(name: str, folder: Path, *, images: int, every: int, kills: int) -> subprocess.Popen:
    command = [sys.executable, "-W", "error", WORKER, name, folder, images, every, kills]
    return subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def what_is_left(folder: Path) -> dict[str, object]:
    """Hashes of all tensors and pictures, and all numbers but timings, by relative path."""
    left: dict[str, object] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            left[name] = [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]
        elif path.suffix == ".json":
            told = json.loads(path.read_text())
            if "state" in told:
                told = told["state"]
                del told["progress"]["seconds"]
            left[name] = told
        else:
            left[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return left


@pytest.mark.parametrize(
    ("name", "images", "every", "kills"),
    [("tiny", 960, 40, 12), ("unet", 160, 16, 4), ("stylegan2", 80, 8, 4)],
)
def test_killed_training_ends_in_the_same_bytes(
    name: str, images: int, every: int, kills: int, tmp_path: Path
) -> None:
    whole = start(name, tmp_path / "whole", images=images, every=every, kills=0)
    killed = start(name, tmp_path / "killed", images=images, every=every, kills=kills)
    errors = [process.communicate(timeout=250) for process in (whole, killed)]
    assert (whole.returncode, killed.returncode) == (0, 0), errors
    assert errors[1][0].split() == (["training", "writing", "written"] * kills)[:kills]
    expected = what_is_left(tmp_path / "whole")
    final = Step(tmp_path / "whole").checkpoint(images)
    assert final.tensors.relative_to(tmp_path / "whole").as_posix() in expected
    assert len(expected["stats.jsonl"]) >= images // every
    assert what_is_left(tmp_path / "killed") == expected
