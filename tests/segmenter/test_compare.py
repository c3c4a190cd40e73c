"""Masks of any program are scored against a cohort's masks."""

import shutil

import numpy as np
import pytest

from fewmask.core.errors import DataError
from fewmask.core.volume import Mask, Volume
from fewmask.data.cohort import read_cohort
from fewmask.data.io import read_mask, write_mask, write_volume
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


def _film(folder, affine, value=255, name="a"):
    """A cohort of one radiograph with a mask 0/`value`; and the mask's voxels."""
    voxels = np.zeros((1, 8, 8), np.uint8)
    voxels[0, 2:6, 2:6] = value
    image = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    write_volume(folder / "images" / f"{name}.png", Volume(image, affine))
    write_mask(folder / "masks" / f"{name}.png", Mask(voxels, np.eye(4)))
    return voxels


def test_pictures_of_one_class_are_read_as_their_reference_and_lie_on_the_image(tmp_path):
    voxels = _film(tmp_path / "cohort", np.diag([0.143, 0.143, 1.0, 1.0]))
    voxels[0, 2] = 0
    write_mask(tmp_path / "predicted" / "a.png", Mask(voxels, np.eye(4)))
    rows, _ = score_folder(tmp_path / "predicted", read_cohort(tmp_path / "cohort"))
    assert rows[0].dice == pytest.approx(2 * 12 / (16 + 12))
    assert 0 < rows[0].hd95_mm < 0.2


def test_values_nobody_declared_are_told_all_at_once(phantom, tmp_path):
    cohort = read_cohort(phantom)
    predictions = shutil.copytree(phantom / "masks", tmp_path / "predicted")
    for case, value in zip(cohort.cases[:2], (77, 255), strict=True):
        path = predictions / f"{case.name}.nii.gz"
        mask = read_mask(path)
        voxels = np.where(mask.voxels > 0, np.uint8(value), np.uint8(0))
        write_mask(path, Mask(voxels, mask.affine))
    with pytest.raises(DataError, match=r"(?s)2 masks cannot be scored.*77.*the value 255"):
        score_folder(predictions, cohort)


def test_a_reference_without_judged_voxels_is_told(phantom, tmp_path):
    cohort = read_cohort(phantom)
    predictions = shutil.copytree(phantom / "masks", tmp_path / "predicted")
    path = phantom / "masks" / f"{cohort.cases[0].name}.nii.gz"
    mask = read_mask(path)
    write_mask(path, Mask(np.full(mask.shape, 255, np.uint8), mask.affine))
    with pytest.raises(DataError, match="nobody judged anything"):
        score_folder(predictions, cohort)
