"""A factory of pairs that is really killed, divided, and left without disk: the same bytes in the end.

OMP_NUM_THREADS=1 .venv/bin/python benchmarks/kill_factory.py [--kills 10] [--pairs 24] [--only NAME]

A very small StyleGAN2 with five heads makes pairs, once without interruption. "1 shard", "2 shards" and "3
shards" make them again, shards at the same time: while less than the asked kills were done, one process is
ended by SIGKILL, every second one after a random time, the others in the midst of writing: an image, soft
labels, a mask, a line of the journal, and the table last. After each kill every pair that counted before must
still be there, its files untouched. "disk" makes them on file systems that are too small (tmpfs in a mount
namespace of this process's own; where that is not allowed, ENOSPC from every flush after the n-th), which
must end in a `RunError`, then in a larger one. Prints a line each: the hash of all files but the journals.
Leaves with 1 if any hash differs.
"""

import argparse
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from _killing import ended, fork

from fewmask.core.errors import RunError
from fewmask.core.seed import integer, stream
from fewmask.data.check import check_cohort
from fewmask.data.cohort import read_cohort
from fewmask.networks.pixelhead import PixelHead
from fewmask.networks.stylegan2 import Generator
from fewmask.synthesis.factory import Shard, make_pairs, open_pairs
from fewmask.synthesis.features import FeatureStack, GeneratorFeatures
from fewmask.synthesis.pairs import PairMaker

SEED, MEMBERS = 3, 5
CLASSES = {"heart": 1, "lung": 2}
KINDS = ("images", "soft", "masks", "journal", "cases.csv")
PAGES = (1, 2, 3, 5, 6, 7, 20, 39, 40, 41)
"""Sizes of the full disks, in pages of 4 KiB; a pair takes three."""
NAMES = ("1 shard", "2 shards", "3 shards", "disk")


def maker() -> PairMaker:
    torch.manual_seed(integer(SEED, "kill factory"))
    generator = Generator(8, 8, 16, 1, mapping_layers=2, channel_base=128, channel_max=8).eval()
    stack = FeatureStack([GeneratorFeatures(generator)])
    channels = stack.channels(torch.zeros(1, 1, 16, 16), torch.zeros(1, generator.num_ws, 8))
    head = PixelHead(channels, len(CLASSES) + 1, kind="mlp", width=8, members=MEMBERS)
    head.initialise(*[torch.Generator().manual_seed(number) for number in range(MEMBERS)])
    return PairMaker(generator, [head.eval()], stack, seed=SEED)


def make(folder: Path, pairs: int, shard: Shard = (0, 1)) -> None:
    make_pairs(folder, maker(), pairs, made_from={"seed": SEED}, classes=CLASSES, shard=shard, batch_size=3)


def dying_in(kind: str, call: int) -> Callable[[int], None]:
    """Stands for os.fsync; the process kills itself at the n-th file of a kind, which is then unfinished."""
    calls: Counter[str] = Counter()

    def flush(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        calls.update(one for one in KINDS if one == path.parent.name or one in path.name)
        if calls[kind] == call:
            os.kill(os.getpid(), signal.SIGKILL)

    return flush


def start(folder: Path, pairs: int, shard: Shard, die_in: str = "", call: int = 0) -> int:
    """Process id of a child that works at a shard; it kills itself in the midst of writing, if told so."""

    def work() -> None:
        if die_in:
            os.fsync = dying_in(die_in, call)
        make(folder, pairs, shard)

    return fork(work)


def hash_of(folder: Path) -> str:
    """Of all files by path, but for the journals and what a killed process left half written (hidden)."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("[!.]*")):
        if path.is_file() and path.parent.name != "journal":
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def counted(folder: Path) -> dict[int, tuple[str, tuple[int, ...]]]:
    """Every pair that counts: its record, and when its files were written. None may be there twice."""
    lines = [
        json.loads(line)["number"]
        for path in (folder / "journal").glob("*.jsonl")
        for line in path.read_text().splitlines()
        if line.endswith("}")
    ]
    assert len(lines) == len(set(lines)), "a pair is there twice"
    if not lines:
        return {}
    pairs = open_pairs(folder)
    return {
        number: (
            repr(record),
            tuple(
                path.stat().st_mtime_ns
                for path in (*pairs.images_of(number), pairs.soft_of(number), pairs.mask_of(number))
            ),
        )
        for number, record in pairs.records().items()
    }


def kill_one(folder: Path, pairs: int, shards: int, kill: int, last: bool, seconds: float) -> bool:
    """Let all shards work and kill one of them; whether it came to that."""
    chance = stream(SEED, "kill", shards, kill)
    writing = kill % 2 == 1
    victim = int(chance.integers(shards))
    kind = "" if not writing else KINDS[-1] if last else KINDS[kill // 2 % 4]
    call = 1 if last else int(chance.integers(1, 3))
    children = [start(folder, pairs, (n, shards), kind if n == victim else "", call) for n in range(shards)]
    if not writing:
        time.sleep(chance.uniform(0.02, 0.2) * seconds)
        os.kill(children[victim], signal.SIGKILL)
    for number, child in enumerate(children):
        # the others are stopped too, or there would be nothing left to kill
        if number != victim and not last:
            os.kill(child, signal.SIGKILL)
    codes = [ended(child) for child in children]
    assert all(code in (0, -signal.SIGKILL) for code in codes), codes
    return codes[victim] == -signal.SIGKILL


def trial(shards: int, folder: Path, pairs: int, kills: int, seconds: float) -> str:
    """Make all pairs in shards that are killed; what was left to see."""
    killed = tries = 0
    where = folder / "pairs"
    before: dict[int, tuple[str, tuple[int, ...]]] = {}
    while killed < kills:
        tries += 1
        done = not kill_one(where, pairs, shards, tries, killed == kills - 1, seconds)
        found = counted(where)
        assert before.items() <= found.items(), "a pair was lost or drawn again"
        before = {} if done else found
        killed += not done
        if done:  # too late to kill: begin anew
            where.rename(folder / f"done-{tries}")
    assert {ended(child) for child in [start(where, pairs, (n, shards)) for n in range(shards)]} == {0}
    found = counted(where)
    assert before.items() <= found.items(), "a pair was lost or drawn again"
    assert list(found) == list(range(pairs)), "not all pairs are there"
    assert not check_cohort(read_cohort(where, on_fault="report")).faults
    left = len([path for path in where.rglob(".*.tmp*") if path.is_file()])
    return f"killed {killed} times, {left} hidden files left   {hash_of(where)}"


def stopped_at(work: Callable[[], None]) -> str:
    """The kind of file at which `work` ended for want of disk, which it must say in a `RunError`."""
    try:
        work()
    except RunError as error:
        told, code = str(error), error.exit_code
    else:
        raise SystemExit("the disk was not full")
    assert "the disk is full" in told, told
    assert code == RunError.exit_code
    place = told.split(": the disk is full")[0]
    return next((one for one in KINDS if f"/{one}" in place), Path(place).name)


def on_small_disks(folder: Path, pairs: int, expected: str) -> str:
    """In a mount namespace: too little disk, then enough, for every size."""
    stops: Counter[str] = Counter()
    disk = folder / "disk"
    disk.mkdir()
    for pages in PAGES:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={4 * pages}k", "tmpfs", disk], check=True)
        stops[stopped_at(partial(make, disk / "pairs", pairs))] += 1
        before = counted(disk / "pairs")
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        make(disk / "pairs", pairs)
        assert before.items() <= counted(disk / "pairs").items()
        found = hash_of(disk / "pairs")
        subprocess.run(["umount", disk], check=True)
        if found != expected:
            return f"full with {pages} pages   {found}"
    told = ", ".join(f"{kind} {count}" for kind, count in stops.items())
    return f"{len(PAGES)} full tmpfs, stopped at {told}   {expected}"


def injected(folder: Path, pairs: int, expected: str) -> str:
    """The same with ENOSPC from flushing."""
    real = os.fsync
    for allowed in range(2, 12):
        calls = [0]

        def flush(_: int, calls: list[int] = calls, allowed: int = allowed) -> None:
            calls[0] += 1
            if calls[0] > allowed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        os.fsync = flush
        stopped_at(partial(make, folder / f"{allowed}", pairs))
        os.fsync = real
        make(folder / f"{allowed}", pairs)
        found = hash_of(folder / f"{allowed}")
        if found != expected:
            return f"full at flush {allowed}   {found}"
    return f"10 times ENOSPC by hand (no mount namespace here)   {expected}"


def disk(folder: Path, pairs: int, expected: str) -> str:
    """Full disks, real ones where this process may mount them."""
    command = ["unshare", "-Urm", sys.executable, __file__, "--mounting", folder, expected]
    command += ["--pairs", pairs]
    probe = ["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder]
    try:
        subprocess.run(probe, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return injected(folder, pairs, expected)
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else done.stdout + done.stderr


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--only", choices=NAMES, nargs="*", default=NAMES)
    parser.add_argument("--mounting", nargs=2)
    told = parser.parse_args()
    torch.set_num_threads(1)
    if told.mounting:
        print(on_small_disks(Path(told.mounting[0]), told.pairs, told.mounting[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder, started, same = Path(name), time.monotonic(), True
        assert ended(start(folder / "whole", told.pairs, (0, 1))) == 0
        seconds, whole = time.monotonic() - started, hash_of(folder / "whole")
        print(f"{'whole':9s} {told.pairs} pairs   {whole}", flush=True)
        for only in told.only:
            here = folder / only.replace(" ", "-")
            here.mkdir()
            if only == "disk":
                found = disk(here, told.pairs, whole)
            else:
                found = trial(int(only[0]), here, told.pairs, told.kills, seconds)
            good = found.endswith(whole)
            same = same and good
            print(f"{only:9s} {found}   {'same' if good else 'DIFFERENT'}", flush=True)
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
