"""From rows to the page: what each arm was given, and where the best model is."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fewmask.core.run import Run
from fewmask.core.volume import IGNORE
from fewmask.data.slices import SliceRef
from fewmask.metrics.score import Row
from fewmask.recipes.outcome import Outcome, _ledger, best_model, marked
from fewmask.recipes.stage import Labelled
from fewmask.report.content import Arm, DataCard, Report

ARMS = (
    Arm("head x", "head on x", "ours"),
    Arm("head g", "head on g, generated slices", "ours", own_masks=True),
    Arm("unet", "plain U-Net", "baseline"),
    Arm("mean teacher", "mean teacher", "baseline"),
)


def items(*masks) -> Labelled:
    masks = [np.array(mask, np.uint8) for mask in masks]
    images = [np.zeros((1, *mask.shape), np.float32) for mask in masks]
    return Labelled(images, masks, tuple(SliceRef("a", z) for z in range(len(masks))))


def row(arm: str, dice: float, shots: int | None = 3) -> Row:
    return Row(
        arm=arm, shots=shots, draw=0, case="a", patient="a", class_name="heart", site="", dice=dice,
        iou=dice, assd_mm=1.0, hd95_mm=1.0, ceiling=1.0, pixel_accuracy=1.0, empty_accuracy=0.9,
        prevalence=0.1, reference_ml=1.0, predicted_ml=1.0, outcome="overlap",
    )  # fmt: skip


@pytest.fixture
def stage(tmp_path):
    settings = SimpleNamespace(shots=SimpleNamespace(minutes_per_mask=2.0))
    shots = SimpleNamespace(unit="slice", counts=(1, 3), take=lambda draw, count: count)
    few = items([[0, 1]], [[IGNORE, 0]], [[0, 0]])
    return SimpleNamespace(
        run=Run.open(tmp_path / "run"), settings=settings, shots=shots, labelled=few,
        items=lambda taken: few, validation=items([[2, IGNORE]], [[IGNORE, IGNORE]]),
    )  # fmt: skip


def test_unjudged_voxels_show_no_class():
    np.testing.assert_array_equal(marked(np.array([0, 1, IGNORE, 4])), [False, True, False, True])


def test_minutes_are_counted_where_something_was_drawn_and_used(stage):
    rows = [row("unet", 0.8), row("head x", 0.8), row("head g", 0.8, 5), row("empty", 0.1, 0)]
    drawn = {"head g": 5, "empty": 0}
    outcome = Outcome(rows, drawn=drawn, unvalidated=frozenset(["head x", "head g"]))
    minutes = {line.arm: (line.expert_minutes, bool(line.note)) for line in _ledger(stage, outcome)}
    assert minutes == {"unet": (4, True), "head x": (2, False), "head g": (10, False), "empty": (0, False)}


def test_the_best_model_is_named_where_it_is_a_unet(stage):
    report = Report(title="", question="", arms=ARMS, data=DataCard("", 1, 1, 1, (), ()))
    rows = [row("unet", 0.5), row("unet", 0.9, 1), row("mean teacher", 0.7), row("head x", 0.6)]
    rows += [row("head g", 0.99), row("unet", 0.95, None)]
    for arm in ("unet", "mean-teacher"):
        stage.run.step(f"{arm}/k=3/draw=0").model.mkdir(parents=True)
    (told,) = best_model(stage, rows, report)
    assert "3 labelled slices on these test patients is the mean teacher" in told.text
    assert told.text.endswith("is in steps/mean-teacher/k=3/draw=0/model.")
    better = [replace(one, dice=0.8) if one.arm == "head x" else one for one in rows]
    assert best_model(stage, better, report) == ()
