"""Masks of any program are scored against a cohort's masks."""

import shutil

import numpy as np
import pytest

from fewmask.core.errors import DataError
from fewmask.core.volume import Mask
from fewmask.data.cohort import read_cohort
from fewmask.data.io import read_mask, write_mask
from fewmask.data.phantom import write_phantom
from fewmask.segmenter.compare import score_folder


@pytest.fixture
def phantom(tmp_path):
    return write_phantom(tmp_path / "phantom", patients=4, size=32, slices=2)


def test_the_reference_scores_one_against_itself(phantom, tmp_path):
    cohort = read_cohort(phantom)
    predictions = shutil.copytree(phantom / "masks", tmp_path / "predicted")
    rows, missing = score_folder(predictions, cohort)
    assert missing == []
    assert len(rows) == len(cohort.cases) * len(cohort.classes)
    assert all(row.dice == 1 and row.assd_mm == 0 for row in rows)


def test_cases_without_a_prediction_are_named(phantom, tmp_path):
    cohort = read_cohort(phantom)
    predictions = shutil.copytree(phantom / "masks", tmp_path / "predicted")
    lost = cohort.cases[0].name
    (predictions / f"{lost}.nii.gz").unlink()
    _, missing = score_folder(predictions, cohort)
    assert missing == [lost]


def test_a_mask_on_another_grid_is_refused(phantom, tmp_path):
    cohort = read_cohort(phantom)
    predictions = shutil.copytree(phantom / "masks", tmp_path / "predicted")
    path = predictions / f"{cohort.cases[0].name}.nii.gz"
    mask = read_mask(path)
    moved = mask.affine.copy()
    moved[0, 3] += 30
    write_mask(path, Mask(np.asarray(mask.voxels), moved))
    with pytest.raises(DataError, match="grid of the reference"):
        score_folder(predictions, cohort)


def test_no_such_folder(phantom, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        score_folder(tmp_path / "none", read_cohort(phantom))
