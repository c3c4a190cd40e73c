"""A factory that is really killed (SIGKILL) leaves, in the end, the bytes of one that never was."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_factory.py"


def test_killed_shards_end_in_the_same_bytes() -> None:
    command = [sys.executable, "-W", "error", SCRIPT, "--kills", "4", "--pairs", "12", "--only", "2 shards"]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed 4 times" in done.stdout
    assert done.stdout.strip().endswith("same")
