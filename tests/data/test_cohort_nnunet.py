"""Cohorts in nnU-Net's raw layout."""

import json
from pathlib import Path

import numpy as np
import pytest

from fewmask.core.errors import DataError
from fewmask.core.volume import Mask, Volume
from fewmask.data.cohort import read_case_mask, read_cohort
from fewmask.data.io import write_mask, write_volume


def dataset(folder: Path, description: dict, values: tuple[int, ...] = (0, 1, 2)) -> Path:
    for part, names in (("Tr", ("c1", "c2")), ("Ts", ("t1",))):
        for name in names:
            for channel in range(2):
                scan = Volume(np.full((2, 3, 4), channel, np.int16), np.eye(4))
                write_volume(folder / f"images{part}" / f"{name}_{channel:04d}.nii.gz", scan)
    labels = np.resize(np.array(values, np.uint8), (2, 3, 4))
    for name in ("c1", "c2"):
        write_mask(folder / "labelsTr" / f"{name}.nii.gz", Mask(labels, np.eye(4)))
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def test_second_generation(tmp_path: Path) -> None:
    cohort = read_cohort(
        dataset(
            tmp_path,
            {
                "channel_names": {"0": "T1", "1": "FLAIR"},
                "labels": {"background": 0, "edema": 1, "core": 2},
            },
        )
    )
    assert [case.name for case in cohort.cases] == ["c1", "c2", "t1"]
    assert cohort.modalities == ("T1", "FLAIR")
    assert cohort.classes == {"edema": 1, "core": 2}
    assert [case.tags["part"] for case in cohort.cases] == ["train", "train", "test"]
    assert [case.name for case in cohort.labelled] == ["c1", "c2"]
    assert cohort.cases[0].images["FLAIR"].path.name == "c1_0001.nii.gz"
    assert np.unique(read_case_mask(cohort.cases[0], cohort).voxels).tolist() == [0, 1, 2]


def test_first_generation(tmp_path: Path) -> None:
    description = {"modality": {"0": "MR", "1": "PET"}, "labels": {"0": "background", "1": "a", "2": "b"}}
    cohort = read_cohort(dataset(tmp_path, description))
    assert cohort.modalities == ("MR", "PET")
    assert cohort.classes == {"a": 1, "b": 2}


def test_ignore_label_becomes_unjudged(tmp_path: Path) -> None:
    description = {
        "channel_names": {"0": "a", "1": "b"},
        "labels": {"background": 0, "x": 1, "y": 2, "ignore": 3},
    }
    cohort = read_cohort(dataset(tmp_path, description, (0, 1, 2, 3)))
    assert cohort.classes == {"x": 1, "y": 2}
    assert np.unique(read_case_mask(cohort.cases[0], cohort).voxels).tolist() == [0, 1, 2, 255]


def test_regions_become_classes_in_the_order_of_painting(tmp_path: Path) -> None:
    description = {
        "channel_names": {"0": "a", "1": "b"},
        "labels": {"background": 0, "whole": [1, 2], "core": [2]},
        "regions_class_order": [1, 2],
    }
    cohort = read_cohort(dataset(tmp_path, description))
    assert cohort.classes == {"whole": 1, "core": 2}
    assert any("regions are read as separate classes" in remark.what for remark in cohort.remarks)


def test_an_index_gives_patients(tmp_path: Path) -> None:
    dataset(tmp_path, {"labels": {"background": 0, "x": 1, "y": 2}})
    (tmp_path / "index.csv").write_text("case,patient\nc1,p\nc2,p\nt1,q\n")
    cohort = read_cohort(tmp_path)
    assert [case.patient for case in cohort.cases] == ["p", "p", "q"]
    assert cohort.modalities == ("channel0", "channel1")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"labels": {"background": 0, "whole": [1, 2], "core": [2]}}, "regions_class_order"),
        ({"labels": {"background": 0, "x": 1, "ignore": "no"}}, "ignore label must be a whole number"),
        ([1], "is not nnU-Net's description"),
    ],
)
def test_descriptions_that_cannot_be_understood(tmp_path: Path, description: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_cohort(dataset(tmp_path, description))  # type: ignore[arg-type]


def test_no_image_and_a_mask_without_image(tmp_path: Path) -> None:
    (tmp_path / "empty" / "imagesTr").mkdir(parents=True)
    with pytest.raises(DataError, match="a folder with no case"):
        read_cohort(tmp_path / "empty")
    folder = dataset(tmp_path / "set", {"labels": {"background": 0, "x": 1, "y": 2}})
    (folder / "labelsTr" / "c1.nii.gz").rename(folder / "labelsTr" / "zz.nii.gz")
    with pytest.raises(DataError, match=r"labelsTr/zz.nii.gz: mask without image"):
        read_cohort(folder)
