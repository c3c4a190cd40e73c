"""Two domains: by tags and by masks, apart by patient, alike in height; and every fault in words."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.volume import Mask, Volume
from fewmask.data.case import Case, Cohort, ImageFile
from fewmask.data.cohort import read_cohort
from fewmask.data.domain_heights import match_heights
from fewmask.data.domains import (
    ChosenDomains,
    DomainRule,
    DomainSlice,
    LabelRule,
    TwoDomains,
    choose_domains,
    images_of,
)
from fewmask.data.io import write_mask, write_volume
from fewmask.data.prepare import Preparation
from fewmask.data.slices import SliceRef, prepare_slices
from fewmask.data.split import Split, split_by_patient

BY_LABEL = DomainRule(LabelRule(tag="label", healthy=("none",), diseased=("flu",)))
BY_MASK = DomainRule()


def pictures(folder: Path, rows: list[dict[str, str]]) -> Cohort:
    """A cohort of 8x8 pictures with an index.csv; the column `lesion` draws a mask of so many pixels."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    columns = sorted({name for row in rows for name in row} | {"file", "patient"})
    lines = [",".join(columns)]
    for number, row in enumerate(rows):
        name = f"c{number:02d}.png"
        Image.fromarray(np.full((8, 8), 100, dtype=np.uint8)).save(folder / "images" / name)
        if "lesion" in row:
            mask = np.zeros(64, dtype=np.uint8)
            mask[: int(row["lesion"])] = 1
            Image.fromarray(mask.reshape(8, 8)).save(folder / "masks" / name)
        lines.append(",".join({**row, "file": name}.get(column, "") for column in columns))
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return read_cohort(folder, on_fault="report")


def labelled(*labels: str, **more: str) -> list[dict[str, str]]:
    return [{"patient": f"p{n:02d}", "label": label, **more} for n, label in enumerate(labels)]


def volumes(folder: Path, patients: int, *, middle: int = 3, depth: int = 10) -> Cohort:
    """Volumes of which the slices middle..middle+3 have a lesion: 4 of each, with class 1 an organ."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(patients):
        mask = np.zeros((depth, 8, 8), dtype=np.uint8)
        mask[:, :2] = 1
        mask[middle : middle + 4, 4:6, 4:6] = 2
        write_volume(
            folder / "images" / f"p{number:02d}.nii.gz",
            Volume(mask.astype(np.int16), np.diag([-1.0, -1, 2, 1])),
        )
        write_mask(folder / "masks" / f"p{number:02d}.nii.gz", Mask(mask, np.diag([-1.0, -1, 2, 1])))
    return read_cohort(folder, classes={"organ": 1, "lesion": 2})


def all_train(cohort: Cohort) -> Split:
    return Split(cohort.patients, (), ())


def names(domain: tuple[DomainSlice, ...]) -> list[str]:
    return [one.ref.case for one in domain]


def test_by_a_tag(tmp_path: Path) -> None:
    cohort = pictures(tmp_path / "c", labelled("none", "flu", "flu", "none", "flu", "none"))
    split = Split(("p00", "p01", "p02"), ("p03",), ("p04", "p05"))
    found = choose_domains(cohort, split, BY_LABEL, seed=0)
    assert names(found.train.diseased) == ["c01", "c02"]
    assert names(found.train.healthy) == ["c00"]
    assert names(found.validation.healthy) == ["c03"]
    assert found.validation.diseased == ()
    assert (names(found.test.diseased), names(found.test.healthy)) == (["c04"], ["c05"])
    assert found.train.patients == ("p01", "p02", "p00")
    assert found.train.is_diseased.tolist() == [True, True, False]
    assert np.isnan(found.train.heights).all()
    told = json.loads(json.dumps(found.to_json()))
    assert told["train"]["diseased"] == {"patients": 2, "slices": [["c01", 0], ["c02", 0]]}


def test_other_diseases_are_left_out_or_are_the_domain_without(tmp_path: Path) -> None:
    cohort = pictures(tmp_path / "c", labelled("none", "flu", "flu|mass", "mass", "mass", "none", ""))
    rule = LabelRule(tag="label", healthy=("none",), diseased=("flu",), others=("mass",))
    found = choose_domains(cohort, all_train(cohort), DomainRule(rule), seed=0)
    assert names(found.train.diseased) == ["c01", "c02"]
    assert names(found.train.healthy) == ["c00", "c05"]
    assert found.left_out == {"cases without a label": 1, "slices that are neither": 2}
    without = LabelRule(tag="label", healthy=("none",), diseased=("flu",), others=("mass",), without=True)
    found = choose_domains(cohort, all_train(cohort), DomainRule(without), seed=0)
    assert names(found.train.healthy) == ["c00", "c03", "c04", "c05"]


def test_by_masks(tmp_path: Path) -> None:
    cohort = volumes(tmp_path / "c", 2)
    rule = DomainRule(LabelRule(lesions=("lesion",)), disjoint=(), matched=())
    found = choose_domains(cohort, all_train(cohort), rule, seed=0).train
    assert [(one.ref.case, one.ref.z) for one in found.diseased] == [
        (case, z) for case in ("p00", "p01") for z in (3, 4, 5, 6)
    ]
    assert len(found.healthy) == 12
    assert found.diseased[0].height == pytest.approx(3 / 9)
    assert found.in_both == ("p00", "p01")
    organ = DomainRule(LabelRule(lesions=("lesion",), others=("organ",)), disjoint=(), matched=())
    with pytest.raises(DataError, match="the healthy domain is empty"):
        choose_domains(cohort, all_train(cohort), organ, seed=0)
    only = [SliceRef("p00", 3), SliceRef("p01", 0)]
    found = choose_domains(cohort, all_train(cohort), rule, seed=0, slices=only).train
    assert [one.ref for one in found.every] == only


def test_small_lesions_and_unjudged_slices_are_neither(tmp_path: Path) -> None:
    cohort = pictures(tmp_path / "c", [{"patient": f"p{n}", "lesion": str(n)} for n in (0, 1, 5, 20)])
    rule = DomainRule(LabelRule(least_share=0.05))
    found = choose_domains(cohort, all_train(cohort), rule, seed=0)
    assert names(found.train.healthy) == ["c00"]
    assert names(found.train.diseased) == ["c02", "c03"]
    stack = volumes(tmp_path / "d", 1)
    mask = np.zeros((10, 8, 8), dtype=np.uint8)
    mask[:3, 0, 0] = 255
    mask[2:5, 4, 4] = 2
    write_mask(stack.cases[0].masks[0].path, Mask(mask, np.diag([-1.0, -1, 2, 1])))
    rule = DomainRule(LabelRule(lesions=("lesion",)), disjoint=(), matched=())
    part = choose_domains(stack, all_train(stack), rule, seed=0)
    assert [one.ref.z for one in part.train.diseased] == [2, 3, 4]
    assert [one.ref.z for one in part.train.healthy] == [5, 6, 7, 8, 9]
    assert part.left_out == {"slices that are neither": 2}


def test_mixed_patients_go_into_one_domain_and_both_grow_alike(tmp_path: Path) -> None:
    cohort = volumes(tmp_path / "c", 20)
    rule = DomainRule(LabelRule(lesions=("lesion",)), matched=())
    found = choose_domains(cohort, all_train(cohort), rule, seed=0).train
    assert found.in_both == ()
    assert len(set(found.patients)) == 20
    assert abs(len(found.diseased) - len(found.healthy)) <= 6  # 4 and 6 slices of a patient
    again = choose_domains(cohort, all_train(cohort), rule, seed=0).train
    other = choose_domains(cohort, all_train(cohort), rule, seed=1).train
    assert again == found
    assert other != found


def test_domains_are_alike_in_height(tmp_path: Path) -> None:
    cohort = volumes(tmp_path / "c", 12, middle=0)
    rule = DomainRule(LabelRule(lesions=("lesion",)), disjoint=(), bins=5)
    low = volumes(tmp_path / "d", 12, middle=6)
    assert low.patients == cohort.patients
    cases = [
        Case(f"{case.name}{n}", f"{case.patient}{n}", case.images, case.masks)
        for n, some in enumerate((cohort, low))
        for case in some.cases
    ]
    both = replace(cohort, cases=tuple(cases))
    found = choose_domains(both, all_train(both), rule, seed=0)
    edges = np.linspace(0, 1.0001, 6)
    ill, well = (
        np.histogram([one.height for one in domain], edges)[0]
        for domain in (found.train.diseased, found.train.healthy)
    )
    assert ill.tolist() == well.tolist()
    assert ill.sum() > 60
    assert (
        found.left_out["slices at heights of which the other domain has fewer (train)"] == 240 - 2 * ill.sum()
    )
    assert found.train == choose_domains(both, all_train(both), rule, seed=0).train


def test_matching_draws_from_the_larger_set_only() -> None:
    ill, well = np.array([0.1, 0.1, 0.9, np.nan]), np.array([0.05, 0.95, 0.95, 0.5, np.nan, np.nan])
    rows, others = match_heights(ill, well, bins=2, repeats=1, seed=0, name="x")
    assert len(rows) == len(others) == 3
    assert set(rows) >= {2, 3}
    assert 0 in others
    unknown = np.full(3, np.nan)
    rows, others = match_heights(unknown, unknown[:2], bins=2, repeats=1, seed=0, name="x")
    assert (len(rows), len(others)) == (3, 2)


def test_slices_may_be_repeated_instead() -> None:
    ill, well = np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.9]), np.array([0.2, 0.2, 0.8, 0.8])
    rows, others = match_heights(ill, well, bins=2, repeats=2, seed=0, name="x")
    assert len(rows) == len(others) == 6
    assert sorted(others) == [0, 0, 1, 1, 2, 3]
    assert Counter(rows.tolist())[5] == 2
    assert len(set(rows.tolist()) - {5}) == 4
    rows, others = match_heights(ill, well[2:], bins=2, repeats=2, seed=0, name="x")
    assert (rows.tolist(), others.tolist()) == ([5, 5], [0, 1])


def test_sites_go_into_both_domains_alike(tmp_path: Path) -> None:
    cohort = volumes(tmp_path / "c", 16)
    cases = tuple(replace(case, tags={"site": "AB"[n % 4 == 0]}) for n, case in enumerate(cohort.cases))
    cohort = replace(cohort, cases=cases)
    site = {case.patient: case.tags["site"] for case in cases}
    labels = LabelRule(lesions=("lesion",))
    for seed in range(4):
        rule = DomainRule(labels, matched=(), stratify="site")
        found = choose_domains(cohort, all_train(cohort), rule, seed=seed).train
        of = [Counter(site[p] for p in {one.patient for one in d}) for d in (found.diseased, found.healthy)]
        assert [count["B"] for count in of] == [2, 2]
        assert [count["A"] for count in of] == [7, 5]  # of 4 and of 6 slices
    with pytest.raises(ConfigError, match="no case has the tag 'scanner'"):
        choose_domains(cohort, all_train(cohort), DomainRule(labels, stratify="scanner"), seed=0)


def test_heights_of_pictures_come_from_tags(tmp_path: Path) -> None:
    rows = [
        {"patient": f"p{n // 3}", "lesion": str(n // 3), "slice": str(4 + n % 3), "slices": "8"}
        for n in range(6)
    ]
    cohort = pictures(tmp_path / "c", rows)
    found = choose_domains(cohort, all_train(cohort), DomainRule(position="slice/slices"), seed=0)
    assert found.train.heights.tolist() == [0.5, 0.625, 0.75] * 2
    found = choose_domains(cohort, all_train(cohort), DomainRule(position="slice"), seed=0)
    assert found.train.heights.tolist() == [0, 0.5, 1] * 2
    with pytest.raises(ConfigError, match="no case has the tag 'height'"):
        choose_domains(cohort, all_train(cohort), DomainRule(position="height"), seed=0)
    rows[1]["slice"] = "top"
    cohort = pictures(tmp_path / "d", rows)
    with pytest.raises(DataError, match="is no number") as told:
        choose_domains(cohort, all_train(cohort), DomainRule(position="slice"), seed=0)
    assert "1 cases: c01: 'top'" in str(told.value)


def test_prepared_images_of_a_domain(tmp_path: Path) -> None:
    cohort = volumes(tmp_path / "c", 2)
    how = Preparation(channels={"image": ("zscore",)}, size=(8, 8))
    slices = prepare_slices(cohort.cases, cohort, how, masks=False, rule=None)
    rule = DomainRule(LabelRule(lesions=("lesion",)), disjoint=(), matched=())
    found = choose_domains(cohort, all_train(cohort), rule, seed=0, slices=slices.refs).train
    images = images_of(slices, found.diseased)
    assert images.shape == (8, 1, 8, 8)
    assert np.array_equal(images[4:], slices.images[13:17])


def test_one_domain_empty(tmp_path: Path) -> None:
    cohort = pictures(tmp_path / "c", labelled("none", "flu", "none", "flu"))
    split = Split(("p00", "p02"), ("p01",), ("p03",))
    with pytest.raises(DataError) as told:
        choose_domains(cohort, split, BY_LABEL, seed=0)
    text = str(told.value)
    assert "3 domains are empty" in text
    assert (
        "train: the diseased domain is empty\n  found: 0 diseased and 2 healthy slices of 2 patients" in text
    )
    assert "validation: the healthy domain is empty" in text
    assert "test: the healthy domain is empty" in text


def test_domains_of_different_channels(tmp_path: Path) -> None:
    cohort = pictures(tmp_path / "c", labelled("none", "flu"))
    first, second = cohort.cases
    images = {**second.images, "flair": ImageFile(second.images["image"].path)}
    mixed = Cohort(
        "m", tmp_path, (first, Case("c01", "p01", images, (), second.tags)), {}, ("image", "flair")
    )
    with pytest.raises(DataError, match="different channels") as told:
        choose_domains(mixed, all_train(mixed), BY_LABEL, seed=0)
    assert "diseased: flair+image (1 cases); healthy: image (1 cases)" in str(told.value)


def test_a_patient_in_both_domains_test(tmp_path: Path) -> None:
    rows = [*labelled("none", "flu", "none", "flu"), {"patient": "p03", "label": "none"}]
    cohort = pictures(tmp_path / "c", rows)
    split = Split(("p00", "p01"), (), ("p02", "p03"))
    with pytest.raises(DataError, match="patients are in both domains' test") as told:
        choose_domains(cohort, split, DomainRule(BY_LABEL.labels, disjoint=("train",)), seed=0)
    assert "found: p03" in str(told.value)
    found = choose_domains(cohort, split, BY_LABEL, seed=0)
    assert names(found.test.diseased) == ["c03"]
    assert found.left_out == {"slices of patients in the other domain (test)": 1}
    one = DomainSlice(SliceRef("a", 0), "a", None)
    with pytest.raises(DataError, match="patients in two parts: a"):
        ChosenDomains(TwoDomains((one,)), TwoDomains(), TwoDomains((one,)))


def test_labels_that_contradict_masks_are_told_at_once(tmp_path: Path) -> None:
    rows = labelled("none", "none", "flu", "flu", "none|flu")
    for row, lesion in zip(rows, ("0", "3", "5", "0", "1"), strict=True):
        row["lesion"] = lesion
    cohort = pictures(tmp_path / "c", rows)
    with pytest.raises(DataError) as told:
        choose_domains(cohort, all_train(cohort), BY_LABEL, seed=0)
    text = str(told.value)
    assert "3 labels contradict" in text
    assert "case c01: is labelled healthy, but its mask shows disease\n  found: label=none, 3 pixels" in text
    assert "case c03: is labelled diseased, but its mask is empty" in text
    assert "case c04: is labelled healthy and diseased at once" in text
    blind = LabelRule(tag="label", healthy=("none",), diseased=("flu",), lesions=())
    del rows[4]
    cohort = pictures(tmp_path / "d", rows)
    found = choose_domains(cohort, all_train(cohort), DomainRule(blind), seed=0)
    assert len(found.train.every) == 4


def test_values_tags_and_classes_that_nobody_knows(tmp_path: Path) -> None:
    cohort = pictures(tmp_path / "c", labelled("none", "flu", "Flu", "flu|mass", lesion="1"))
    with pytest.raises(ConfigError, match="that nobody explained") as told:
        choose_domains(cohort, all_train(cohort), BY_LABEL, seed=0)
    assert "found: 'Flu' (1 cases), 'mass' (1 cases)" in str(told.value)
    for rule, message in (
        (LabelRule(tag="finding", healthy=("a",), diseased=("b",)), "no case has the tag 'finding'"),
        (LabelRule(lesions=("tumour",)), "classes that they do not have"),
    ):
        with pytest.raises(ConfigError, match=message):
            choose_domains(cohort, all_train(cohort), DomainRule(rule), seed=0)
    bare = pictures(tmp_path / "d", labelled("none", "flu"))
    with pytest.raises(ConfigError, match="masks cannot tell who is diseased"):
        choose_domains(bare, all_train(bare), BY_MASK, seed=0)
    for settings, message in (
        ({"tag": "label", "healthy": ("a",), "diseased": ("a",)}, "cannot mean two things"),
        ({"tag": "label", "healthy": ("a",)}, "which values of the tag 'label' are healthy"),
        ({"healthy": ("a",)}, "without a tag masks decide"),
        ({"least_share": 1.0}, "least_share is a share"),
    ):
        with pytest.raises(ConfigError, match=message):
            LabelRule(**settings)
    with pytest.raises(ConfigError, match="cannot be chosen so"):
        DomainRule(matched=("training",))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least one bin, shown at least once"):
        DomainRule(repeats=0)


def test_a_tag_does_not_tell_slices_of_a_volume(tmp_path: Path) -> None:
    cohort = volumes(tmp_path / "c", 2)
    tagged = [Case(c.name, c.patient, c.images, (), {"label": "flu"}) for c in cohort.cases]
    stacks = Cohort("s", tmp_path, tuple(tagged), {}, ("image",))
    with pytest.raises(ConfigError, match="does not tell which slices are diseased"):
        choose_domains(stacks, all_train(stacks), BY_LABEL, seed=0)


def test_real_films_by_their_label(data_folder: Path) -> None:
    cohort = read_cohort(data_folder / "cxr-healthy-pneumonia")
    split = split_by_patient(cohort.cases, seed=0, stratify="label")
    rule = LabelRule(tag="label", healthy=("no_finding",), diseased=("pneumonia",))
    found = choose_domains(cohort, split, DomainRule(rule), seed=0)
    assert sum(len(part.every) for part in found.parts().values()) == 400
    assert len(found.train.diseased) > 100
    assert found.left_out == {}


def test_real_slices_by_their_masks(data_folder: Path) -> None:
    cohort = read_cohort(data_folder / "mr-glioma-3-sequences-NC")
    some = set(cohort.patients[::4])
    cohort = replace(cohort, cases=tuple(case for case in cohort.cases if case.patient in some))
    split = split_by_patient(cohort.cases, seed=0, test=0.3, validation=0.15)
    found = choose_domains(cohort, split, DomainRule(position="slice/n_slices_in_study"), seed=0)
    tag = {case.name: case.tags["has_lesion"] for case in cohort.cases}
    for part in found.parts().values():
        assert Counter(tag[name] for name in names(part.diseased)).keys() == {"1"}
        assert Counter(tag[name] for name in names(part.healthy)).keys() == {"0"}
        assert part.in_both == ()
    assert len(found.train.diseased) == len(found.train.healthy) > 10
