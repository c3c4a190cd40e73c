"""docs/scaling/slurm.sh, with a SLURM that is made of three small scripts."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fewmask.core.run import Run, Step

SCRIPT = Path(__file__).parents[2] / "docs" / "scaling" / "slurm.sh"
TINY = (
    "gan",
    "--preset",
    "tiny",
    "threads=1",
    "gan.images=480",
    "quality.images=0",
)


def cluster(folder: Path, tasks: int) -> dict[str, str]:
    """The environment in which sbatch, srun and scontrol are ours."""
    spec = importlib.util.spec_from_file_location("fake_slurm", Path(__file__).with_name("fake_slurm.py"))
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    fake.write(folder)
    return {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "TASKS": str(tasks),
        "REQUEUED": str(folder / "requeued"),
        "FEWMASK": f"{sys.executable} -m fewmask",
        "FEWMASK_DEVICE": "cpu",
    }


def submit(folder: Path, environment: dict[str, str], *words: str) -> subprocess.Popen:
    command = ["sbatch", str(SCRIPT), *words, "--out", str(folder / "run")]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_the_script_is_bash() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_a_run_that_is_stopped_is_queued_again_and_goes_on(tmp_path: Path) -> None:
    environment = cluster(tmp_path, tasks=1)
    job = submit(tmp_path, environment, *TINY)
    run = Run(tmp_path / "run")
    training = Step(run.folder / "steps" / "gan")
    for _ in range(2000):
        if training.stats_jsonl.exists():
            break
        assert job.poll() is None, job.communicate()
        time.sleep(0.1)
    (srun,) = psutil.Process(job.pid).children()
    srun.send_signal(signal.SIGUSR1)
    job.send_signal(signal.SIGUSR1)  # some clusters signal the script as well
    told, _ = job.communicate(timeout=200)
    assert job.returncode == 0, told
    assert "SIGUSR1: finishing this update and writing a checkpoint" in told
    assert "gan: stopped by SIGUSR1" in told
    assert "queued again" in told
    assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
    again = submit(tmp_path, environment, *TINY)
    told, _ = again.communicate(timeout=200)
    assert again.returncode == 0, told
    assert "gan: goes on from" in told
    assert run.report_html.exists()


@pytest.mark.parametrize(
    ("told", "words", "expected"),
    [
        ({}, ("gan",), "run gan device=cuda"),
        ({"FEWMASK_DEVICE": "cpu"}, ("gan", "seed=3"), "run gan device=cpu seed=3"),
        ({"SLURM_NTASKS_PER_NODE": "4"}, ("gan", "a b"), "run gan device=cuda devices=4 a b"),
    ],
)
def test_the_device_is_passed_on_before_the_words_of_the_command(told, words, expected, tmp_path) -> None:
    (tmp_path / "srun").write_text('#!/bin/bash\nshift 2\necho "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "FEWMASK": "fewmask", **told}
    done = subprocess.run(
        ["bash", str(SCRIPT), *words], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"fewmask {expected}"


@pytest.mark.parametrize(("words", "code"), [(("nonsense",), 2)])
def test_a_mistake_is_not_queued_again(words: tuple[str, ...], code: int, tmp_path: Path) -> None:
    job = submit(tmp_path, cluster(tmp_path, tasks=1), *words)
    told, _ = job.communicate(timeout=100)
    assert job.returncode == code, told
    assert not (tmp_path / "requeued").exists()
