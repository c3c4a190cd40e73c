"""What the scores of an arm depend on."""

from dataclasses import replace

import pytest

from fewmask.core.errors import RunError
from fewmask.recipes.arms import scored, unet_key
from fewmask.training.launch import alone


def test_scores_of_another_precision_are_refused(few_shot, tmp_path):
    stage, _ = few_shot(tmp_path / "run")
    assert scored(stage, "some/k=1/draw=0", {"a": 1}, list) == []
    assert scored(stage, "some/k=1/draw=0", {"a": 1}, lambda: pytest.fail("they are there")) == []
    rounded = replace(stage, ground=replace(stage.ground, fabric=alone("cpu", "bf16")))
    with pytest.raises(RunError, match=r"other settings \(precision\)"):
        scored(rounded, "some/k=1/draw=0", {"a": 1}, list)


def test_following_a_unet_changes_no_key(few_shot, tmp_path):
    keys = [unet_key(few_shot(tmp_path / "run", f"unet.follow={word}")[1].unet) for word in ("true", "false")]
    assert keys[0] == keys[1]
    assert unet_key(few_shot(tmp_path / "run", "unet.images=17")[1].unet) != keys[0]
