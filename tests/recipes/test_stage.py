"""What is prepared before anything is trained, and which settings undo what was done."""

import numpy as np
import pytest

from fewmask.recipes import stage as module
from fewmask.recipes.stage import every_draw

COVERAGE = "shots.choice=coverage"


def open_watched(few_shot, monkeypatch, folder, *words):
    """A stage, and how many cases were prepared with their masks at a time."""
    prepare, counts = module.prepare_labelled, []

    def watched(cases, *rest):
        counts.append(len(cases))
        return prepare(cases, *rest)

    monkeypatch.setattr(module, "prepare_labelled", watched)
    return few_shot(folder, *words)[0], counts


@pytest.mark.parametrize("unit", ["slice", "patient"])
def test_without_full_supervision_only_the_drawn_cases_are_prepared(few_shot, monkeypatch, tmp_path, unit):
    words = ("shots.counts=[1, 2]", "shots.draws=2", f"shots.unit={unit}")
    whole, _ = open_watched(few_shot, monkeypatch, tmp_path / "whole", *words, "shots.full=true")
    few, counts = open_watched(few_shot, monkeypatch, tmp_path / "few", *words, "shots.full=false")
    assert few.shots == whole.shots
    train = len({case.patient for case in few.training_cases})
    drawn = len(few.shots.patients)
    assert drawn < train
    assert counts == ([1] * drawn if unit == "slice" else [drawn])
    for (_, items), (_, same) in zip(every_draw(few), every_draw(whole), strict=True):
        assert items.refs == same.refs
        assert items.images[0].dtype == same.images[0].dtype
        np.testing.assert_array_equal(np.stack(items.images), np.stack(same.images))
        np.testing.assert_array_equal(np.stack(items.masks), np.stack(same.masks))
    if unit == "slice":
        kept = {(shot.case, shot.z) for draw in few.shots.draws for shot in draw}
        assert {(ref.case, ref.z) for ref in few.drawn.refs} == kept
        assert all(image.base is None for image in few.drawn.images)  # and the rest of the case is let go
    assert len(whole.labelled.refs) > len(few.drawn.refs)
    with pytest.raises(AssertionError, match="full supervision"):
        _ = few.labelled


def test_more_draws_leave_what_is_done(few_shot, tmp_path):
    def key(*words):
        return few_shot(tmp_path / "run", *words)[0].key

    few = key("shots.counts=[1]", "shots.draws=1")
    assert key("shots.counts=[1, 2]", "shots.draws=2", "shots.full=false", "shots.minutes_per_mask=9") == few
    assert key("shots.unit=patient") != few


def test_slices_chosen_by_another_encoder_are_others(few_shot, tmp_path):
    def key(name, *words):
        return few_shot(tmp_path / name, *words)[0].key

    random = key("random")
    assert key("random", "encoder.images=64") == random
    first = key("a", COVERAGE, "shots.counts=[1]", "shots.draws=1")
    assert first != random
    assert key("a", COVERAGE, "shots.counts=[1, 3]") == first
    assert key("b", COVERAGE, "encoder.images=64") != first
