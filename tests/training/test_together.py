"""Two processes compute what one does, stop together, and none waits for one that failed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fewmask.core.run import Step
from fewmask.training.checkpoint import read_tensors

WORKER = Path(__file__).with_name("pair_worker.py")
WHOLE = "pair-800-1-1-none"
STOPPED = "pair-320-2-1-SIGTERM"
TROUBLED = tuple(f"pair-320-2-1-{trouble}" for trouble in ("nan", "logged", "error", "kill"))
SCENARIOS = (WHOLE, "pair-800-2-1-none", "pair-800-1-4-none", "pair-800-2-2-none", *TROUBLED)
SCENARIOS += (STOPPED, "pair-320-1-1-SIGUSR1", "pair-320-1-1-SIGINT")
SCENARIOS += tuple(f"stylegan2-400-{how}-none" for how in ("1-1", "2-1", "1-2"))
SCENARIOS += tuple(f"float32-800-{how}-none" for how in ("1-1", "2-1"))


def start(*words: object) -> subprocess.Popen:
    command = [sys.executable, "-W", "error", WORKER, *words]
    return subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> tuple[Path, dict[str, list[int]], str]:
    """The folder, the exit codes of every scenario's processes, and what they wrote to stderr."""
    folder = tmp_path_factory.mktemp("together")
    with start(folder, "forks", *SCENARIOS) as process:
        words, told = process.communicate(timeout=280)
    codes = {name: [int(code) for code in rest] for name, *rest in map(str.split, words.splitlines())}
    assert codes.keys() == set(SCENARIOS), told
    return folder, codes, told


def difference(one: Path, other: Path) -> float:
    """The largest relative difference of any weight tensor at the ends of two trainings."""
    images = int(one.name.split("-")[1])
    a, b = (read_tensors(Step(folder).checkpoint(images).tensors) for folder in (one, other))
    assert a.keys() == b.keys()
    return max(
        float((a[key].double() - b[key].double()).norm() / a[key].double().norm().clamp(min=1e-3))
        for key in a
        if key.startswith("module/")
    )


@pytest.mark.parametrize(
    "how",
    [
        "pair-800-2-1",
        "pair-800-1-4",
        "pair-800-2-2",
        "stylegan2-400-2-1",
        "stylegan2-400-1-2",
        "float32-800-2-1",
    ],
)
def test_processes_and_micro_batches_give_the_result_of_one_batch(how: str, ended) -> None:
    """50 steps at equal global batch: minibatch deviation, R1, path length, mixing, augmentation."""
    folder, codes, _ = ended
    whole = "-".join([*how.split("-")[:2], "1-1-none"])
    assert set(codes[f"{how}-none"]) == {0}
    most = 1e-12 if how.startswith("stylegan2") else 1e-5  # the others are in float32
    assert 0 < difference(folder / whole, folder / f"{how}-none") < most


@pytest.mark.parametrize("scenario", TROUBLED)
def test_trouble_in_one_process_ends_all(scenario: str, ended) -> None:
    codes = ended[1][scenario]
    expected = {"nan": [1, 1], "logged": [1, 1], "error": [1, 99], "kill": [1, -9]}
    assert codes == expected[scenario.split("-")[-1]]


def test_every_process_says_what_it_knows(ended) -> None:
    told = ended[2]
    assert "process 0: pair: loss, gradient is not a finite number after 48 images" in told
    assert "strange=inf" in told
    assert "process 1: no memory left" in told
    assert "another process of this training failed\n  found: after 48 images" in told
    assert "another process of this training is gone" in told


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [(STOPPED, [75, 75]), ("pair-320-1-1-SIGUSR1", [75]), ("pair-320-1-1-SIGINT", [130])],
)
def test_a_signal_to_one_process_stops_all_after_the_same_update(scenario, expected, ended) -> None:
    folder, codes, told = ended
    assert codes[scenario] == expected
    assert Step(folder / scenario).checkpoint(64).tensors.exists()
    assert "finishing this update and writing a checkpoint" in told
    assert "after 64 images; a checkpoint was written" in told


def test_fabric_starts_the_second_process_itself_and_a_stopped_training_goes_on(ended, tmp_path) -> None:
    folder = ended[0]
    whole, rest = "pair-800-2-1-none", tmp_path / "pair-800-2-1-none"
    shutil.copytree(folder / STOPPED, rest)  # other tests look at it, in any order
    with start(tmp_path, "here", whole) as process:
        out, told = process.communicate(timeout=200)
    assert (process.returncode, out) == (0, ""), told
    assert "goes on from 64 of 800 images" in told
    assert "Initializing distributed" not in told
    a, b = (read_tensors(Step(f).checkpoint(800).tensors) for f in (folder / whole, rest))
    assert all(torch.equal(a[key], b[key]) for key in a)
