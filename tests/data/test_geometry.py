"""Every writer against every reader: 48 axis orientations and 20 obliques, corners within 0.01 mm."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from fewmask.core.errors import DataError
from fewmask.core.seed import stream
from fewmask.core.volume import LPS_TO_RAS, Grid, Mask, Volume, corner_displacement_mm
from fewmask.data.dicom import list_series, read_series
from fewmask.data.dicomseg import read_dicom_seg, write_dicom_seg
from fewmask.data.geometry import from_itk, nearest_rotation, orthonormalise, to_itk, upright
from fewmask.data.io import read_grid, read_volume, write_mask, write_volume

SHAPE = (5, 7, 9)
LARGE = (400, 512, 512)  # corners of a clinical volume show errors of direction that a small file hides
SIZES = (0.7, 1.1, 2.5)
SUFFIXES = (".nii.gz", ".nrrd", ".mha", ".mhd")


def _axis_affines() -> list[np.ndarray]:
    affines = []
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[:, order] * signs * SIZES
        affine[:3, 3] = (-120.5, 88.25, 1034.125)
        affines.append(affine)
    return affines


def _oblique_affines() -> list[np.ndarray]:
    chance = stream(0, "obliques")
    affines = []
    for i in range(20):
        affine = np.eye(4)
        rotation = nearest_rotation(chance.normal(size=(3, 3)))
        rotation[:, 0] *= np.sign(np.linalg.det(rotation)) * (-1 if i % 2 else 1)
        affine[:3, :3] = rotation * SIZES
        affine[:3, 3] = chance.uniform(-500, 500, size=3)
        affines.append(affine)
    return affines


AFFINES = _axis_affines() + _oblique_affines()


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch):
    """Hundreds of small files: waiting for the disk after each would be all that is measured."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def _voxels() -> np.ndarray:
    return stream(0, "voxels").integers(-1000, 2000, size=SHAPE).astype(np.int16)


def _by_itk(path) -> tuple[np.ndarray, np.ndarray]:
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), from_itk(
        image.GetOrigin(), image.GetSpacing(), image.GetDirection()
    )


def _by_nibabel(path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(path)
    return np.asarray(image.dataobj).T, image.affine


def test_there_are_48_axis_orientations():
    assert len({tuple(np.sign(a[:3, :3]).ravel()) for a in _axis_affines()}) == 48


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_keeps_voxels_and_corners(tmp_path, suffix):
    voxels = _voxels()
    for i, affine in enumerate(AFFINES):
        path = write_volume(tmp_path / f"{i}{suffix}", Volume(voxels, affine))
        readings = [_by_itk(path)]
        ours = read_volume(path)
        readings.append((ours.voxels, ours.affine))
        if suffix.startswith(".nii"):
            readings.append(_by_nibabel(path))
        for read, where in readings:
            np.testing.assert_array_equal(read, voxels)
            assert corner_displacement_mm(Grid(LARGE, where), Grid(LARGE, affine)) < 0.01
        assert corner_displacement_mm(read_grid(path), ours.grid) == 0
        assert ours.voxels.dtype == np.int16
        assert not ours.notes


def test_nifti_writes_sform_and_qform_alike(tmp_path):
    for i, affine in enumerate(AFFINES):
        header = nib.load(write_volume(tmp_path / f"{i}.nii", Volume(_voxels(), affine))).header
        assert header["sform_code"] == header["qform_code"] == 1
        for form in (header.get_sform(), header.get_qform()):
            assert corner_displacement_mm(Grid(LARGE, form), Grid(LARGE, affine)) < 0.01


def test_segment_files_keep_corners(tmp_path):
    labels = (stream(0, "labels").integers(0, 3, size=SHAPE)).astype(np.uint8)
    for i, affine in enumerate(AFFINES[::4]):
        path = write_mask(tmp_path / f"{i}.seg.nrrd", Mask(labels, affine))
        read, where = _by_itk(path)
        np.testing.assert_array_equal(read, labels)
        assert corner_displacement_mm(Grid(LARGE, where), Grid(LARGE, affine)) < 0.01


def test_dicom_series_keep_voxels_and_corners(tmp_path, write_series):
    voxels = _voxels()
    for i, affine in enumerate(AFFINES):
        folder = tmp_path / str(i)
        paths = write_series(folder, voxels, affine)
        volume = read_series(folder)
        # DICOM's z axis is the normal of rows and columns: a left-handed affine comes back upside down.
        flipped = np.linalg.det(affine[:3, :3]) < 0
        expected = Volume(voxels[::-1] if flipped else voxels, _upside_down(affine) if flipped else affine)
        np.testing.assert_array_equal(volume.voxels, expected.voxels)
        assert volume.voxels.dtype == np.int16
        assert corner_displacement_mm(Grid(LARGE, volume.affine), Grid(LARGE, expected.affine)) < 0.01
        header = pydicom.dcmread(paths[2])
        ours = expected.grid.to_mm([0, 0, 2 if not flipped else SHAPE[0] - 3]) * (-1, -1, 1)
        np.testing.assert_allclose([float(v) for v in header.ImagePositionPatient], ours, atol=0.01)


def test_dicom_segmentations_have_the_geometry_of_their_source(tmp_path, write_series):
    for i, affine in enumerate([*AFFINES[:48:12], *AFFINES[48::5]]):
        folder = tmp_path / str(i)
        write_series(folder, _voxels(), affine)
        volume = read_series(folder)
        labels = stream(i, "labels").integers(0, 2, size=SHAPE).astype(np.uint8)
        labels[0] = labels[-1] = 0  # empty slices at both ends must not shrink the grid
        path = tmp_path / f"{i}.dcm"
        write_dicom_seg(path, Mask(labels, volume.affine), list_series(folder)[0].files, {"lung": 1})
        back = read_dicom_seg(path)["lung"]
        np.testing.assert_array_equal(back.voxels, labels)
        assert corner_displacement_mm(back.grid, volume.grid) < 0.01
        onto = read_dicom_seg(path, onto=volume.grid)["lung"]
        np.testing.assert_array_equal(onto.voxels, labels)


def _upside_down(affine: np.ndarray) -> np.ndarray:
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[2, 3] = SHAPE[0] - 1
    return affine @ flip


def test_itk_and_back():
    for affine in AFFINES:
        np.testing.assert_allclose(from_itk(*to_itk(affine)), affine, atol=1e-12)


def test_orthonormalise_keeps_the_centre_and_the_sizes():
    sheared = np.diag([-1.0, -1.0, 2.0, 1.0])
    sheared[0, 2] = 0.02
    grid = Grid((11, 20, 20), sheared)
    made = orthonormalise(grid)
    new = Grid(grid.shape, made.affine)
    directions = new.directions
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(new.spacing_mm, grid.spacing_mm)
    np.testing.assert_allclose(new.to_mm([9.5, 9.5, 5]), grid.to_mm([9.5, 9.5, 5]))
    assert made.shift_mm == corner_displacement_mm(grid, new)
    assert 0.05 < made.shift_mm < 0.3
    assert f"{made.shift_mm:.3f} mm" in made.notes[0]


def test_orthonormal_axes_are_left_alone():
    for affine in AFFINES:
        assert orthonormalise(Grid(SHAPE, affine)).affine is not None
        assert not orthonormalise(Grid(SHAPE, affine)).notes


def test_real_shear_is_refused():
    sheared = np.diag([1.0, 1.0, 2.0, 1.0])
    sheared[0, 2] = 1.0
    with pytest.raises(DataError, match=r"(?s)sheared.*63\.4, 90\.0 degrees.*one voxel \(1\.00 mm\)"):
        upright(Grid((40, 20, 20), sheared), "scan.nii.gz")


def test_a_voxel_size_of_zero_is_refused():
    with pytest.raises(DataError, match="no usable voxel size"):
        upright(Grid((4, 4, 4), np.diag([1.0, 0.0, 1.0, 1.0])), "scan.nii.gz")
    flat = np.eye(4)
    flat[:3, 2] = flat[:3, 1]
    with pytest.raises(DataError, match="no usable voxel size"):
        upright(Grid((4, 4, 4), flat), "scan.nii.gz")


def test_lps_turns_into_ras_and_back():
    np.testing.assert_array_equal(LPS_TO_RAS @ LPS_TO_RAS, np.eye(4))
