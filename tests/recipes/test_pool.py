"""Arms that learn from slices without masks: who is drawn how often, and what is unjudged."""

from typing import Any

import numpy as np
import pytest

from fewmask.core.errors import RunError
from fewmask.core.volume import IGNORE
from fewmask.recipes import arms
from fewmask.recipes.arms import UNET
from fewmask.recipes.heads import Heads
from fewmask.recipes.pool import TEACHER, autoshot_arm, pool_of, teacher_arm
from fewmask.recipes.stage import every_draw


class AskedError(Exception):
    """A training that was asked for, and is not done."""


@pytest.fixture
def asked(monkeypatch) -> dict[str, Any]:
    """What the next training of an arm (not of the plain U-Net) is given."""
    given: dict[str, Any] = {}
    fit = arms.fit_segmenter

    def spied(data, *rest, **how):
        if how["label"].startswith(UNET):
            return fit(data, *rest, **how)
        given.update(how, data=data)
        raise AskedError

    monkeypatch.setattr(arms, "fit_segmenter", spied)
    return given


def last_draw(stage):
    return list(every_draw(stage))[-1]


def shares(asked, *counts: int) -> list[float]:
    """How much of what is seen comes from each part of the source, in their order."""
    weights = np.array(asked["weights"])
    assert len(weights) == len(asked["data"].images) == sum(counts)
    parts = np.split(weights, np.cumsum(counts)[:-1])
    assert all(np.ptp(part) == 0 for part in parts)
    return [float(part.sum() / weights.sum()) for part in parts]


def test_the_pool_is_one_draw_of_at_most_so_many():
    slices = np.arange(20, dtype=np.float16).reshape(20, 1, 1, 1)
    some = pool_of(slices, 8, seed=3).ravel()
    assert len(set(some)) == 8
    assert sorted(some) == list(some)
    np.testing.assert_array_equal(pool_of(slices, 8, seed=3).ravel(), some)
    assert list(pool_of(slices, 8, seed=4).ravel()) != list(some)
    np.testing.assert_array_equal(pool_of(slices, 99, seed=3), slices)


def test_a_mean_teacher_sees_the_pool_without_masks(few_shot, tmp_path, asked):
    stage, settings = few_shot(tmp_path / "run", "teacher={labelled: 0.25, weight: 2, average: 77}")
    few, items = last_draw(stage)
    pool = np.zeros((5, 1, 16, 16), np.float32)
    with pytest.raises(AskedError):
        teacher_arm(stage, settings.teacher, pool, 60, few, items)
    assert shares(asked, 3, 5) == pytest.approx([0.25, 0.75])
    masks = asked["data"].masks
    assert (masks[3:] == IGNORE).all()
    np.testing.assert_array_equal(masks[:3], np.stack(items.masks))
    assert (asked["teacher"].weight, asked["teacher"].average, asked["start"]) == (2, 77, None)


@pytest.mark.parametrize("confidence", ["none", "entropy"])
def test_auto_shot_mixes_certain_samples_with_the_real_slices(
    with_generator, few_shot, tmp_path, asked, confidence
):
    words = ("autoshot={samples: 10, drop: 0.3, real: 0.2}", f"autoshot.confidence={confidence}")
    stage, settings = few_shot(tmp_path / "run", *words)
    few, items = last_draw(stage)
    heads = Heads(stage, settings, with_generator.unlabelled, with_generator.gan)
    with pytest.raises(AskedError):
        autoshot_arm(heads, settings, few, items)
    assert shares(asked, 7, 3) == pytest.approx([0.8, 0.2])
    masks = asked["data"].masks
    assert masks.shape[1] == len(stage.labels)
    mass = masks[:7].astype(np.float32).sum(axis=1)
    assert mass.max() < 1.01
    assert (mass.min() < 0.99) == (confidence == "entropy")
    np.testing.assert_array_equal(masks[7:].sum(axis=1), 1)
    np.testing.assert_array_equal(asked["data"].images[7:], np.stack(items.images))


def test_another_pool_or_teacher_in_the_same_folder_is_refused(few_shot, tmp_path):
    stage, settings = few_shot(tmp_path / "run")
    few, items = next(every_draw(stage))
    pool = np.asarray([items.images[0]] * 4, np.float32)
    rows = teacher_arm(stage, settings.teacher, pool, 60, few, items)
    assert {row.arm for row in rows} == {TEACHER}
    assert teacher_arm(stage, settings.teacher, pool, 60, few, items) == rows
    with pytest.raises(RunError, match=r"other settings \(pool\)"):
        teacher_arm(stage, settings.teacher, pool[1:], 60, few, items)
    with pytest.raises(RunError, match=r"other settings \(slices_per_patient\)"):
        teacher_arm(stage, settings.teacher, pool, 61, few, items)
    stage, settings = few_shot(tmp_path / "run", "teacher.weight=0.5")
    with pytest.raises(RunError, match=r"teacher\.weight"):
        teacher_arm(stage, settings.teacher, pool, 60, few, items)
