"""Inversions that are really killed (SIGKILL) leave, after a last run, the bytes of one that never was."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_inversion.py"


@pytest.mark.parametrize("name", ["projection", "shared", "each"])
def test_killed_inversion_ends_in_the_same_bytes(name: str) -> None:
    command = [sys.executable, "-W", "error", SCRIPT, "--kills", "2", "--steps", "24", "--only", name]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split()[0] == name
    assert "killed 2 times" in done.stdout
    assert done.stdout.strip().endswith("same")
