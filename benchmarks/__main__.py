"""Every benchmark, one after the other, each in its own process; results go to benchmarks/results/.

`make bench` runs all of them (some minutes on an idle machine); `python -m benchmarks unet_step` only some.
"""

import os
import subprocess
import sys
from pathlib import Path

from fewmask.core.files import write_text
from fewmask.recipes.record import machine, versions

FOLDER = Path(__file__).parent
THREADS = {"gan": "two threads", "translate": "two threads"}
"""Benchmarks that choose their threads themselves."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def run(name: str) -> int:
    """Run benchmarks/NAME.py on one thread; keep what it prints, with the machine and the versions."""
    print(f"--- {name}", flush=True)
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py")],
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout + done.stderr[-2000:], flush=True)
    if done.returncode == 0:
        told = machine()
        head = [
            f"command: python -m benchmarks {name}   ({THREADS.get(name, 'one thread')})",
            f"machine: {told['processor']}, {told['cores']} cores, {told['memory_gib']} GiB",
            "versions: " + ", ".join(f"{package} {version}" for package, version in versions().items()),
        ]
        write_text(FOLDER / "results" / f"{name}.txt", "\n".join([*head, "", done.stdout]))
    return done.returncode


def main() -> None:
    """Run the named benchmarks, or all."""
    every = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith(("_", "plain_")))
    failed = [name for name in sys.argv[1:] or every if run(name)]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
