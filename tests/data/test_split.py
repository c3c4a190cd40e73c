"""Splits by patient: no leak, seeded, stratified, given parts kept, written and read."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmask.core.errors import ConfigError, DataError, RunError
from fewmask.data.case import Case, Cohort, ImageFile, MaskFile
from fewmask.data.split import Shot, Shots, Split, read_split, refuse_leak, split_by_patient, write_split


def case(name: str, patient: str, labelled: bool = True, **tags: str) -> Case:
    masks = (MaskFile(Path(f"{name}.png")),) if labelled else ()
    return Case(name, patient, {"image": ImageFile(Path(f"{name}.png"))}, masks, tags)


def some(labelled: int, unlabelled: int = 0, each: int = 2, **tags: str) -> list[Case]:
    kinds = [True] * labelled + [False] * unlabelled
    return [
        case(f"c{number}_{scan}", f"p{number:03d}", kind, **tags)
        for number, kind in enumerate(kinds)
        for scan in range(each)
    ]


@settings(max_examples=60, deadline=None)
@given(
    labelled=st.integers(3, 40),
    unlabelled=st.integers(0, 10),
    test=st.floats(0.05, 0.6),
    validation=st.floats(0, 0.3),
    seed=st.integers(0, 5),
)
def test_every_patient_is_in_one_part_and_the_shares_are_kept(labelled, unlabelled, test, validation, seed):
    cases = some(labelled, unlabelled)
    split = split_by_patient(cases, seed=seed, test=test, validation=validation)
    parts = split.parts()
    assert sorted(p for patients in parts.values() for p in patients) == sorted({c.patient for c in cases})
    with_masks = {c.patient for c in cases if c.masks}
    assert set(split.test) | set(split.validation) <= with_masks
    assert with_masks & set(split.train)
    assert 1 <= len(split.test) <= max(1, labelled * test + 0.5)
    assert bool(split.validation) == (validation > 0)
    assert split == split_by_patient(cases[::-1], seed=seed, test=test, validation=validation)
    assert Split.from_json(json.loads(json.dumps(split.to_json()))) == split


def test_another_seed_gives_another_split() -> None:
    cases = some(30)
    assert split_by_patient(cases, seed=0) != split_by_patient(cases, seed=1)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=2, max_size=4), seed=st.integers(0, 3))
def test_strata_get_their_share(sizes: list[int], seed: int) -> None:
    cases = [case(f"s{s}c{n}", f"s{s}p{n}", site=str(s)) for s, size in enumerate(sizes) for n in range(size)]
    if len(cases) < 4:
        return
    split = split_by_patient(cases, seed=seed, test=0.3, validation=0, stratify="site")
    total, wanted = len(cases), len(split.test)
    for number, size in enumerate(sizes):
        got = sum(patient.startswith(f"s{number}p") for patient in split.test)
        assert abs(got - wanted * size / total) < 1


def test_given_parts_are_kept() -> None:
    cases = [
        case("a", "pa", part="train"),
        case("b", "pb", part="val"),
        case("c", "pc", part="Testing"),
        case("d", "pd", part=""),
    ]
    split = split_by_patient(cases, seed=0)
    assert split == Split(("pa", "pd"), ("pb",), ("pc",))


def test_test_scans_without_masks_are_held_out_and_a_test_is_drawn() -> None:
    cases = [*some(10, part="train"), case("t", "t", labelled=False, part="test")]
    split = split_by_patient(cases, seed=0, test=0.3, validation=0)
    assert "t" in split.test
    assert len(split.test) == 4
    assert "t" not in {one.patient for one in split.cases(_cohort(cases), "train")}


def _cohort(cases: list[Case]) -> Cohort:
    return Cohort("x", Path(), tuple(cases), {"foreground": 1}, ("image",))


def test_a_patient_in_two_given_parts_is_refused() -> None:
    cases = [case("a", "p1", part="train"), case("b", "p1", part="test"), case("c", "p2")]
    with pytest.raises(DataError, match="patients in two parts: p1"):
        split_by_patient(cases, seed=0)
    with pytest.raises(DataError, match="'holdout' is no part"):
        split_by_patient([case("a", "p1", part="holdout")], seed=0)


@pytest.mark.parametrize(("test", "validation"), [(-0.1, 0.1), (1.0, 0.0), (0.6, 0.5), (0.3, -1)])
def test_shares_out_of_range(test: float, validation: float) -> None:
    with pytest.raises(ConfigError, match="shares"):
        split_by_patient(some(9), seed=0, test=test, validation=validation)


def test_too_few_patients_and_unknown_tags() -> None:
    with pytest.raises(ConfigError, match="1 labelled patients are too few for a test part"):
        split_by_patient(some(1, 5), seed=0)
    with pytest.raises(ConfigError, match="2 labelled patients are too few for a test part"):
        split_by_patient(some(2), seed=0)
    assert len(split_by_patient(some(2), seed=0, validation=0).test) == 1
    with pytest.raises(ConfigError, match="no case has the tag 'scanner'"):
        split_by_patient(some(9, site="x"), seed=0, stratify="scanner")


def test_labels_of_one_reader_only() -> None:
    masks = (MaskFile(Path("m.png"), reader="r2"),)
    other = Case("z", "pz", {"image": ImageFile(Path("z.png"))}, masks)
    split = split_by_patient([*some(3), other], seed=0, test=0.5, validation=0, reader="reference")
    assert "pz" in split.train


def test_refuse_leak_names_the_patients() -> None:
    refuse_leak({"train": ["a", "a"], "test": ["b"]})
    with pytest.raises(DataError, match=r"(?s)patients in two parts: b, c.*2 in train and test"):
        refuse_leak({"train": ["a", "b", "c"], "test": ["c", "b"]})
    with pytest.raises(DataError, match="two parts"):
        Split(("a",), ("a",), ())


def test_written_and_read(tmp_path: Path) -> None:
    split = Split(("a", "b"), ("c",), ("d",))
    shots = Shots("slice", (1, 2), ((Shot("a", "a1", 3), Shot("b", "b1", 0)),))
    path = tmp_path / "s.json"
    assert read_split(write_split(path, split)) == (split, None)
    assert read_split(write_split(path, split, shots)) == (split, shots)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    split, shots = Split(("a", "b"), (), ("d",)), Shots("patient", (1,), ((Shot("a"),),))
    path = write_split(tmp_path / "s.json", split, shots)
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "test": ["d", "b"]}))
    with pytest.raises(DataError, match="two parts: b"):
        read_split(path)
    path.write_text(json.dumps({**value, "shots": Shots("patient", (1,), ((Shot("d"),),)).to_json()}))
    with pytest.raises(DataError, match="two parts: d"):
        read_split(path)
    path.write_text(json.dumps({"train": []}))
    with pytest.raises(DataError, match="is not a split: it has no validation, test"):
        read_split(path)
    path.write_text(json.dumps({**value, "shots": {"unit": "patient"}}))
    with pytest.raises(DataError, match="is not a record of shots"):
        read_split(path)
    path.write_text("{")
    with pytest.raises(RunError, match="not readable JSON"):
        read_split(path)


def test_a_cohort_without_masks_is_dealt_out_whole() -> None:
    split = split_by_patient(some(0, 10), seed=0, test=0.3, validation=0.1)
    assert [len(patients) for patients in split.parts().values()] == [6, 1, 3]
    with pytest.raises(ConfigError, match="1 patients are too few for a test part"):
        split_by_patient(some(0, 1), seed=0)
