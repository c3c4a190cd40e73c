"""The few-shot recipe as a whole: which arms, what each was given, and that killing it changes nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fewmask.cli import main
from fewmask.core.run import Run
from fewmask.metrics.score import read_rows
from fewmask.recipes.fewshot import arms, learned_from
from fewmask.recipes.fewshot_settings import FewshotSettings
from fewmask.recipes.presets import build, parse_overrides
from fewmask.report.content import read_report

MOMENT = ("threads=1", "prepare.size=[16, 16]", "unet.widths=[4, 8]", "unet.images=16")


def asked(*words: str) -> FewshotSettings:
    return build(FewshotSettings, [parse_overrides(words)])


def command(phantom: Path, out: Path, *words: str) -> list[str]:
    given = ["run", "fewshot", "--preset", "tiny", "--cohort", phantom, "--out", out, *MOMENT, *words]
    return [str(word) for word in given]


def finish(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (
            [],
            [
                "head generator@w+",
                "head generator+discriminator+image@w+",
                "auto-shot",
                "propagation",
                "unet",
                "unet longer",
                "mean teacher",
                "empty",
            ],
        ),
        (["arms=[mean teacher]"], ["unet", "mean teacher"]),
        (["arms=[mean teacher, unet, propagation]"], ["propagation", "unet", "mean teacher"]),
        (["arms=[empty, mean teacher, unet]"], ["unet", "mean teacher", "empty"]),
        (
            ["arms=[heads]", "head.reads=[encoder, discriminator]"],
            ["head discriminator", "unet", "head encoder"],
        ),
    ],
)
def test_ours_come_first_then_the_unet_then_what_else_must_be_beaten(words, keys):
    found = arms(asked(*words))
    assert [arm.key for arm in found] == keys
    assert next(arm.key for arm in found if arm.kind == "baseline") == "unet"
    assert len({arm.name for arm in found}) == len(found)


def test_what_saw_unlabelled_slices_is_told():
    words = ["head.reads=[unet+image, image, encoder, generator@w]", "pool=7"]
    assert learned_from(asked(*words), 50, 7, 3) == {
        "head encoder": 50,
        "head generator@w": 50,
        "auto-shot": 50,
        "propagation": 3,
        "mean teacher": 7,
    }


ALONE = (
    "arms=[empty, longer, heads, mean teacher, propagation]",
    "head={reads: [image], images: 16}",
    "propagation={targets: 5, side: 16}",
    "shots.full=true",
    "unet.follow=true",
)
"""Arms that need no generator."""

FEW = ("unet", "unet longer", "head image", "mean teacher", "propagation")


@pytest.fixture(scope="module")
def without_generator(phantom, tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("fewshot") / "run")
    finish(command(phantom, run.folder, *ALONE))
    return run


def test_arms_that_need_no_generator_train_none(without_generator: Run):
    steps = {path.name for path in (without_generator.folder / "steps").iterdir()}
    expected = {"unet", "unet-longer", "head-image", "mean-teacher", "propagation"}
    assert steps == {"check", "empty", *expected}
    found = {(row.arm, row.shots) for row in read_rows(without_generator.results_csv)}
    few = {(arm, k) for arm in FEW for k in (1, 3)}
    assert found == {*few, ("unet", None), ("empty", 0)}


def test_the_ledger_tells_what_each_arm_was_given(without_generator: Run):
    lines = {(line.arm, line.shots): line for line in read_report(without_generator.report_json).ledger}
    assert len(lines) == 12
    assert [key for key in lines if key[0] == "empty"] == [("empty", 0)]
    empty = lines["empty", 0]
    assert (empty.masks, empty.expert_minutes, empty.unlabelled) == (0, 0, 0)
    for arm in FEW:
        assert [lines[arm, k].masks for k in (1, 3)] == [1, 3]
        assert [lines[arm, k].expert_minutes for k in (1, 3)] == [3, 9]
        saw = {"mean teacher": 14, "propagation": 5}
        assert lines[arm, 3].unlabelled == saw.get(arm, 0)
    assert lines["unet", None].masks == 14


def test_every_arm_is_followed_while_it_learns(without_generator: Run):
    watched = read_report(without_generator.report_json).watched
    few = {(arm, k) for arm in FEW for k in (1, 3)}
    assert {(one.arm, one.shots) for one in watched} == {*few, ("unet", None)}


@pytest.mark.timeout(900)  # two runs, on a machine that may be busy
def test_killed_in_the_middle_it_ends_in_the_same_scores(without_generator: Run, phantom, tmp_path):
    killed, whole = Run(tmp_path / "killed"), without_generator
    words = command(phantom, killed.folder, *ALONE)
    middle = killed.folder / "steps" / "propagation" / "k=1"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "fewmask", *words], env=environment, **quiet)
    until = time.monotonic() + 240
    while not middle.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert middle.exists()
    assert not killed.results_csv.exists()
    finish(words)
    assert killed.results_csv.read_bytes() == whole.results_csv.read_bytes()
    models = list(whole.folder.rglob("model.safetensors"))
    assert models
    for path in models:
        assert (killed.folder / path.relative_to(whole.folder)).read_bytes() == path.read_bytes()
