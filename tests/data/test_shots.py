"""k-shot draws: nested, seeded, never empty, of patients and of slices."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewmask.core.errors import ConfigError, DataError, ShapeError
from fewmask.core.volume import Mask, Volume
from fewmask.data.cohort import Cohort, read_cohort
from fewmask.data.coverage import Coverage
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


PLACES = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [8.0, 8.0]])
SIZES = (40, 16, 10, 8)


def planted(folder: Path, *, unlabelled: int = 0) -> tuple[Cohort, dict[str, int]]:
    """One slice per patient, each in one of four clusters of unlike sizes; the cluster of each case."""
    cluster = {f"p{n:02d}": c for n, c in enumerate(np.repeat(np.arange(4), SIZES).tolist())}
    cohort = volumes(folder, {name: [(1,)] for name in cluster}, classes=1)
    for name in list(cluster)[:unlabelled]:
        (folder / "labels" / f"{name}.nii.gz").unlink()
    return read_cohort(folder, classes=dict(cohort.classes)), cluster


def embedded(cluster: dict[str, int]):
    def embed(case):
        return [0], PLACES[[cluster[case.name]]] + 0.1 * int(case.name[1:]) / len(cluster)

    return embed


@pytest.mark.parametrize("unit", ["patient", "slice"])
def test_coverage_finds_every_cluster_and_chance_does_not(tmp_path: Path, unit) -> None:
    cohort, cluster = planted(tmp_path)
    how = {"shots": [1, 4, 8], "draws": 5, "seed": 0, "unit": unit}
    shots = draw_shots(cohort.cases, cohort, **how, choice="coverage", embed=embedded(cluster))
    found = [{cluster[shot.patient] for shot in shots.take(draw, 4)} for draw in range(5)]
    assert found == [{0, 1, 2, 3}] * 5
    assert {cluster[draw[0].patient] for draw in shots.draws} == {0}  # the largest first
    random = draw_shots(cohort.cases, cohort, **how)
    assert sum({cluster[s.patient] for s in draw[:4]} == {0, 1, 2, 3} for draw in random.draws) <= 2
    assert len(set(shots.draws)) >= 3
    assert shots.choice == "coverage"
    assert Shots.from_json(json.loads(json.dumps(shots.to_json()))) == shots
    old = {name: value for name, value in random.to_json().items() if name != "choice"}
    assert Shots.from_json(old) == random


@pytest.mark.parametrize("unit", ["patient", "slice"])
def test_draws_by_coverage_are_nested_and_fixed_by_the_seed(cohort: Cohort, unit) -> None:
    embed = _by_name
    how = {"draws": 3, "unit": unit, "choice": "coverage", "embed": embed}
    full = draw_shots(cohort.cases, cohort, shots=[1, 7], seed=1, **how)
    for count in (1, 3, 6):
        few = draw_shots(cohort.cases[::-1], cohort, shots=[count], seed=1, **how)
        assert all(few.take(draw, count) == full.take(draw, count) for draw in range(3))
    assert all(len({shot.patient for shot in draw}) == 7 for draw in full.draws)
    assert draw_shots(cohort.cases, cohort, shots=[7], seed=2, **how).draws != full.draws


def _by_name(case) -> tuple[range, np.ndarray]:
    depth = read_mask(case.masks[0].path).voxels.shape[0]
    return range(depth), np.random.default_rng(int(case.name[1:])).normal(size=(depth, 4))


def test_empty_slices_are_never_taken_and_a_second_round_comes_last(cohort: Cohort) -> None:
    how = {"draws": 2, "seed": 0, "unit": "slice", "choice": "coverage", "embed": _by_name}
    shots = draw_shots(cohort.cases, cohort, shots=[1, 25], **how)
    for draw in shots.draws:
        assert len(set(draw)) == 25
        assert len({shot.patient for shot in draw[:7]}) == 7
        assert len({shot.patient for shot in draw[7:14]}) == 7
        for shot in draw:
            assert read_mask(cohort.case(shot.case).masks[0].path).voxels[shot.z].any()
    with pytest.raises(ConfigError, match="26 shots, but only 25 labelled slices"):
        draw_shots(cohort.cases, cohort, shots=[26], **how)


def test_unlabelled_cases_are_covered_but_never_chosen(tmp_path: Path) -> None:
    cohort, cluster = planted(tmp_path, unlabelled=36)  # of 40 in the largest cluster
    how = {"draws": 3, "seed": 0, "unit": "slice", "choice": "coverage", "embed": embedded(cluster)}
    shots = draw_shots(cohort.cases, cohort, shots=[1, 4], **how)
    assert {cluster[draw[0].patient] for draw in shots.draws} == {0}
    labelled = {case.patient for case in cohort.labelled}
    assert all(shot.patient in labelled for draw in shots.draws for shot in draw)
    alone = draw_shots(cohort.labelled, cohort, shots=[1, 4], **how)
    assert {cluster[draw[0].patient] for draw in alone.draws} == {1}


def test_an_empty_patient_comes_last_by_coverage(tmp_path: Path) -> None:
    cohort = volumes(tmp_path, {"v0": [()], "v1": [()], "v2": [(1,)], "v3": [()]}, classes=1)
    how = {"draws": 2, "seed": 0, "choice": "coverage", "embed": _by_name}
    shots = draw_shots(cohort.cases, cohort, shots=[1, 4], **how)
    assert [draw[0].patient for draw in shots.draws] == ["v2", "v2"]
    assert [len(set(draw)) for draw in shots.draws] == [4, 4]


def test_embeddings_that_do_not_fit(cohort: Cohort) -> None:
    def draw(embed):
        draw_shots(
            cohort.cases, cohort, shots=[3], draws=1, seed=0, unit="slice", choice="coverage", embed=embed
        )

    with pytest.raises(ConfigError, match="needs an embedding"):
        draw(None)
    with pytest.raises(ShapeError, match="finite numbers per slice"):
        draw(lambda case: ([0], np.ones(4)))
    with pytest.raises(ShapeError, match="finite numbers per slice"):
        draw(lambda case: (_by_name(case)[0], _by_name(case)[1] * np.nan))
    with pytest.raises(ShapeError, match="finite numbers per slice"):
        draw(lambda case: (_by_name(case)[0], _by_name(case)[1][:-1]))
    with pytest.raises(ShapeError, match="finite numbers per slice"):
        draw(lambda case: ([], np.ones((0, 4))))
    with pytest.raises(ShapeError, match="differ in length"):
        draw(lambda case: (_by_name(case)[0], _by_name(case)[1][:, : 2 + int(case.name[1:])]))
    with pytest.raises(ShapeError, match="more slices than the mask has"):
        draw(lambda case: (range(1, len(_by_name(case)[0]) + 1), _by_name(case)[1]))


def test_slices_that_were_not_embedded_are_neither_covered_nor_chosen(tmp_path: Path) -> None:
    cohort = volumes(tmp_path, {f"v{n}": [(1,), (1,), (1,)] for n in range(6)}, classes=1)

    def embed(case):
        return [2], _by_name(case)[1][2:]

    how = {"shots": [6], "draws": 2, "seed": 0, "choice": "coverage", "unit": "slice"}
    shots = draw_shots(cohort.cases, cohort, **how, embed=embed)
    assert {shot.z for draw in shots.draws for shot in draw} == {2}


def test_a_long_scan_counts_as_its_patient_and_of_many_slices_some_are_covered(tmp_path, monkeypatch) -> None:
    depths = {"v0": 40, "v1": 5, "v2": 5, "v3": 5, "v4": 5, "v5": 5}
    cohort = volumes(tmp_path, {name: [(1,)] * depth for name, depth in depths.items()}, classes=1)
    seen = []

    class Watched(Coverage):
        def __init__(self, vectors, covered=None) -> None:
            seen.append(list(covered))
            super().__init__(vectors, covered)

    monkeypatch.setattr("fewmask.data.shots.Coverage", Watched)
    monkeypatch.setattr("fewmask.data.shots.PER_PATIENT", 5)
    how = {"shots": [1], "draws": 2, "seed": 0, "choice": "coverage", "unit": "slice", "embed": _by_name}
    draw_shots(cohort.cases, cohort, **how)
    assert [row for row in seen[0] if row < 40] == [4, 12, 20, 28, 36]
    assert [row for row in seen[0] if row >= 40] == list(range(40, 65))
    monkeypatch.setattr("fewmask.data.shots.MOST_COVERED", 12)
    draw_shots(cohort.cases, cohort, **how)
    assert len(seen[2]) == 12
    assert set(seen[2]) < set(seen[0])
    assert seen[2] == seen[3]  # by the same points in every draw


def test_draws_by_coverage_differ_at_one_shot(tmp_path: Path) -> None:
    many = volumes(tmp_path, {f"v{n}": [(1,)] for n in range(30)}, classes=1)
    how = {"shots": [1], "draws": 5, "choice": "coverage", "unit": "slice", "embed": _by_name}
    distinct = [len(set(draw_shots(many.cases, many, seed=seed, **how).draws)) for seed in range(30)]
    assert np.mean(distinct) > 2.4  # 2.8 is to be expected, and 1.8 when 80 % are candidates
