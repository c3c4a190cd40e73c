"""k-shot draws: nested, seeded, never empty, of patients and of slices."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.volume import Mask, Volume
from fewmask.data.cohort import Cohort, read_cohort
from fewmask.data.io import read_mask, write_mask, write_volume
from fewmask.data.split import Shots, draw_shots


def volumes(folder: Path, slices: dict[str, list[tuple[int, ...]]], classes: int = 3) -> Cohort:
    """A cohort with one volume per name, whose slice z shows the label values slices[name][z]."""
    for name, shown in slices.items():
        labels = np.zeros((len(shown), 4, 4), np.uint8)
        for z, values in enumerate(shown):
            labels[z, 0, : len(values)] = values
        scan = Volume(np.ones(labels.shape, np.int16), np.eye(4))
        write_volume(folder / "images" / f"{name}.nii.gz", scan)
        write_mask(folder / "labels" / f"{name}.nii.gz", Mask(labels, np.eye(4)))
    return read_cohort(folder, classes={f"class{value}": value for value in range(1, classes + 1)})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    shown = [(), (1,), (2,), (1, 2), (), (3,), (1,)]
    return volumes(tmp_path_factory.mktemp("cohort"), {f"v{n}": shown[n % 3 : n % 3 + 5] for n in range(7)})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.lists(st.integers(1, 7), min_size=1, max_size=4, unique=True),
    seed=st.integers(0, 20),
    unit=st.sampled_from(["patient", "slice"]),
)
def test_draws_are_nested_and_fixed_by_the_seed(cohort: Cohort, counts, seed, unit) -> None:
    shots = draw_shots(cohort.cases, cohort, shots=counts, draws=2, seed=seed, unit=unit)
    again = draw_shots(cohort.cases[::-1], cohort, shots=[7], draws=2, seed=seed, unit=unit)
    for draw in range(2):
        full = again.take(draw, 7)
        for count in counts:
            assert shots.take(draw, count) == full[:count]
        assert len(set(full)) == 7
        assert len({shot.patient for shot in full}) == 7  # nobody twice before everybody once
    assert Shots.from_json(json.loads(json.dumps(shots.to_json()))) == shots


def test_slices_show_something_and_soon_every_class(cohort: Cohort) -> None:
    for draw, order in enumerate(
        draw_shots(cohort.cases, cohort, shots=[2, 12], draws=8, seed=3, unit="slice").draws
    ):
        seen = set()
        for number, shot in enumerate(order):
            path = cohort.case(shot.case).masks[0].path
            values = set(np.unique(read_mask(path).voxels[shot.z])) - {0}
            assert values
            seen |= values
            if number == 1:
                assert seen == {1, 2, 3}, draw
        assert len(set(order)) == 12


def test_draws_differ(cohort: Cohort) -> None:
    draws = draw_shots(cohort.cases, cohort, shots=[5], draws=3, seed=0).draws
    assert len(set(draws)) == 3


def test_cases_and_slices_of_a_draw(cohort: Cohort) -> None:
    patients = draw_shots(cohort.cases, cohort, shots=[2], draws=1, seed=0)
    assert {case.patient for case in patients.cases(cohort, 0, 2)} == {
        shot.patient for shot in patients.draws[0]
    }
    assert patients.slices(0, 2) == {}
    slices = draw_shots(cohort.cases, cohort, shots=[9], draws=1, seed=0, unit="slice")
    chosen = slices.slices(0, 9)
    assert sum(len(numbers) for numbers in chosen.values()) == 9
    assert {case.name for case in slices.cases(cohort, 0, 9)} == set(chosen)
    with pytest.raises(ConfigError, match="10 shots asked for, 9 were drawn"):
        slices.take(0, 10)


def test_more_shots_than_labelled_patients_or_slices(cohort: Cohort) -> None:
    with pytest.raises(ConfigError, match="8 shots, but only 7 labelled training patients"):
        draw_shots(cohort.cases, cohort, shots=[1, 8], draws=1, seed=0)
    with pytest.raises(ConfigError, match="99 shots, but only 25 labelled slices"):
        draw_shots(cohort.cases, cohort, shots=[99], draws=1, seed=0, unit="slice")
    with pytest.raises(ConfigError, match="at least 1"):
        draw_shots(cohort.cases, cohort, shots=[0], draws=1, seed=0)
    with pytest.raises(ConfigError, match="only 0 labelled training patients"):
        draw_shots((), cohort, shots=[1], draws=1, seed=0)


@pytest.mark.parametrize("unit", ["patient", "slice"])
def test_masks_that_are_empty_in_all_shots(tmp_path: Path, unit) -> None:
    cohort = volumes(tmp_path, {"a": [(), ()], "b": [(), ()]})
    with pytest.raises(DataError, match="empty in all 1 shots of draw 0"):
        draw_shots(cohort.cases, cohort, shots=[1, 2], draws=1, seed=0, unit=unit)


def test_an_empty_patient_is_not_the_first_shot(tmp_path: Path) -> None:
    cohort = volumes(tmp_path, {"a": [()], "b": [()], "c": [(1,)], "d": [()]}, classes=1)
    for seed in range(6):
        shots = draw_shots(cohort.cases, cohort, shots=[1, 4], draws=1, seed=seed)
        assert shots.draws[0][0].patient == "c"
