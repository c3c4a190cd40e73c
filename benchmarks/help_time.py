"""Seconds from `fewmask --help` to its last letter, beside an empty Python, which nothing can beat."""

import subprocess
import sys
import time

RUNS = 9


def seconds(*words: str) -> float:
    """Median wall time of a command."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return sorted(times)[RUNS // 2]


def main() -> None:
    """Print both times and their ratio."""
    help_page, nothing = seconds("-m", "fewmask", "--help"), seconds("-c", "pass")
    print(f"fewmask --help {help_page:.3f} s; empty Python {nothing:.3f} s; ratio {help_page / nothing:.1f}")
    print(f"the promise is under 0.5 s: {'kept' if help_page < 0.5 else 'BROKEN'}")


if __name__ == "__main__":
    main()
