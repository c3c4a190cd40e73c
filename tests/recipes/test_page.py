"""What a page takes from the trainings in a run's folder."""

import json
from types import SimpleNamespace

from fewmask.core.run import Run
from fewmask.recipes.arms import place
from fewmask.recipes.fewshot_settings import FewshotSettings
from fewmask.recipes.page import _on_cpu, _watched
from fewmask.recipes.settings import InvertRunSettings
from fewmask.recipes.synthetic_settings import SyntheticSettings
from fewmask.report.content import Arm


def test_the_watched_iou_of_every_first_draw(tmp_path):
    run = Run.open(tmp_path / "run")

    def log(name, *numbers):
        path = run.step(name).stats_jsonl
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [{"images": 10 * (i + 1), "loss": 1.0, "watched_iou": iou} for i, iou in enumerate(numbers)]
        path.write_text("\n".join(json.dumps(line) for line in lines or [{"images": 10, "loss": 1.0}]))

    log(place("unet", None, 0), 0.4, 0.8)
    log(place("unet", 3, 0), 0.3)
    log(place("unet", 3, 1), 0.9)
    log(place("gan head", 1, 0), 0.2)
    log(place("auto shot", 1, 0))
    log(place("auto shot", 1, 0) + "/fine", 0.6)
    log("gan", 0.1)
    log("unknown/k=1/draw=0", 0.1)
    arms = [
        Arm("gan head", "head", "ours"),
        Arm("auto shot", "auto", "ours"),
        Arm("unet", "U-Net", "baseline"),
    ]
    found = {(one.arm, one.shots): one.iou for one in _watched(run, arms)}
    assert found == {
        ("unet", None): (0.4, 0.8),
        ("unet", 3): (0.3,),
        ("gan head", 1): (0.2,),
        ("auto shot", 1): (0.6,),
    }


def test_heads_and_their_inversions_are_told_to_run_on_the_cpu():
    few = SimpleNamespace(settings=FewshotSettings(device="cuda"))
    steps = ("head-generator@w", "encoder", "inversion", "self-supervised", "unet", "auto-shot", "gan")
    assert [step for step in steps if _on_cpu(few, step)] == ["head-generator@w", "encoder", "inversion"]
    factory = SimpleNamespace(settings=SyntheticSettings(device="cuda"))
    steps = ("interpreter", "interpreter-person", "semantic-encoder", "semantic-gan", "pairs-then-real")
    assert [step for step in steps if _on_cpu(factory, step)] == list(steps[:3])
    other = SimpleNamespace(settings=InvertRunSettings(device="cuda"))
    assert not any(_on_cpu(other, step) for step in steps)
