"""DICOM-SEG: real ones read, ours written and read back by highdicom."""

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from fewmask.core.errors import DataError
from fewmask.core.volume import IGNORE, LPS_TO_RAS, Grid, Mask, corner_displacement_mm
from fewmask.data.dicom import list_series, read_series
from fewmask.data.dicomseg import is_dicom_seg, merge_segments, read_dicom_seg, write_dicom_seg
from fewmask.data.io import read_grid, read_mask, read_volume

AFFINE = np.array([[-0.8, 0, 0, 90], [0, -0.8, 0, 110], [0, 0, 2.5, -300], [0, 0, 0, 1.0]])
HU = np.zeros((6, 16, 12), np.int16)
CLASSES = {"left_lung": 1, "lung nodule": 4}


@pytest.fixture
def series(tmp_path, write_series):
    """The files of a small CT series, by position."""
    write_series(tmp_path / "ct", HU, AFFINE)
    return list_series(tmp_path / "ct")[0].files


def _mask(affine=AFFINE, shape=HU.shape) -> Mask:
    voxels = np.zeros(shape, np.uint8)
    voxels[2, 3:9, 2:5] = 1
    voxels[3, 4:6, 2:5] = 4
    voxels[3, 10, 10] = IGNORE
    return Mask(voxels, affine)


# --- real ones


def test_liver_segment_lies_on_the_liver(data_folder):
    folder = data_folder / "dicom" / "ct-liver-3slice-seg"
    volume = read_volume(folder)
    segments = read_dicom_seg(folder / "seg_liver.dcm", onto=volume.grid)
    assert list(segments) == ["Liver"]
    inside = volume.voxels[segments["Liver"].voxels > 0]
    assert 30 < inside.mean() < 120  # liver tissue in HU; a flipped or shifted mask would take in air
    alone = read_mask(folder / "seg_liver.dcm")
    assert corner_displacement_mm(alone.grid, volume.grid) < 0.01
    np.testing.assert_array_equal(alone.voxels, segments["Liver"].voxels)
    assert alone.notes == ("its segments are 1 Liver",)
    assert corner_displacement_mm(read_grid(folder / "seg_liver.dcm"), alone.grid) == 0


def test_overlapping_segments_stay_apart(data_folder):
    path = data_folder / "dicom" / "ct-liver-3slice-seg" / "seg_partial_overlaps.dcm"
    segments = read_dicom_seg(path)
    assert list(segments) == ["GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE"]
    assert {mask.shape for mask in segments.values()} == {(3, 512, 512)}
    np.testing.assert_array_equal(segments["GREEN"].voxels.any(axis=(1, 2)), [False, True, False])
    with pytest.raises(DataError, match=r"(?s)segments overlap.*'ORANGE' and 'GREEN' share 3017 voxels"):
        merge_segments(segments)
    with pytest.raises(DataError, match=r"(?s)seg_partial_overlaps.*segments overlap.*one mask per class"):
        read_mask(path)


def test_chest_round_trip_read_by_highdicom(data_folder, tmp_path):
    folder = data_folder / "dicom" / "ct-chest-64"
    volume, lung = read_volume(folder / "dicom"), read_mask(folder / "wholeLung-64.nrrd")
    files = list_series(folder / "dicom")[0].files
    path = write_dicom_seg(tmp_path / "lung.dcm", lung, files, {"lung": 1})
    theirs = hd.seg.segread(path).get_volume(combine_segments=True)
    z, y, x = theirs.spatial_shape
    assert (z, y, x) == volume.shape
    back = np.eye(4)  # highdicom counts slices from the top, in LPS+ and in the order (z, y, x)
    back[:3, :3] = theirs.affine[:3, [2, 1, 0]] * (1, 1, -1)
    back[:3, 3] = theirs.affine[:3, 3] + theirs.affine[:3, 0] * (z - 1)
    assert corner_displacement_mm(Grid(volume.shape, LPS_TO_RAS @ back), volume.grid) < 0.01
    np.testing.assert_array_equal(theirs.array[::-1], lung.voxels)
    ours = read_dicom_seg(path)["lung"]
    np.testing.assert_array_equal(ours.voxels, lung.voxels)
    assert corner_displacement_mm(ours.grid, volume.grid) < 1e-6


# --- ours


def test_the_object_says_what_it_is_and_what_it_was_made_from(tmp_path, series):
    path = write_dicom_seg(tmp_path / "m.dcm", _mask(), series, CLASSES, model="unet k=8")
    assert is_dicom_seg(path)
    written = hd.seg.segread(path)
    sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in series]
    listed = {
        item.ReferencedSOPInstanceUID
        for item in written.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert listed == {one.SOPInstanceUID for one in sources}
    assert written.StudyInstanceUID == sources[0].StudyInstanceUID
    assert written.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
    assert written.PatientID == "T1"
    assert written.NumberOfFrames == 2 * len(series)
    lung, nodule = (written.get_segment_description(i) for i in (1, 2))
    assert (lung.segment_label, nodule.segment_label) == ("left_lung", "lung nodule")
    assert lung.algorithm_type == hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
    assert lung.SegmentAlgorithmName == "unet k=8"
    assert lung.segmented_property_type == codes.SCT.Lung
    assert nodule.segmented_property_category == codes.SCT.MorphologicallyAbnormalStructure
    assert nodule.segmented_property_type == codes.SCT.Nodule


def test_segments_come_back_by_name(tmp_path, series):
    mask = _mask()
    path = write_dicom_seg(tmp_path / "m.dcm", mask, series[::-1], {**CLASSES, "heart": 9})
    segments = read_dicom_seg(path)
    assert list(segments) == ["left_lung", "lung nodule", "heart"]
    np.testing.assert_array_equal(segments["left_lung"].voxels, mask.voxels == 1)
    np.testing.assert_array_equal(segments["lung nodule"].voxels, mask.voxels == 4)
    assert not segments["heart"].voxels.any()
    merged, classes = merge_segments(segments)
    assert classes == {"left_lung": 1, "lung nodule": 2, "heart": 3}
    np.testing.assert_array_equal(merged.voxels == 2, mask.voxels == 4)


def test_the_same_mask_gets_the_same_uids(tmp_path, series):
    first, again = (
        pydicom.dcmread(write_dicom_seg(tmp_path / f"{i}.dcm", _mask(), series, CLASSES)) for i in (0, 1)
    )
    other = pydicom.dcmread(write_dicom_seg(tmp_path / "2.dcm", _mask(), series, CLASSES, model="gan"))
    assert first.SOPInstanceUID == again.SOPInstanceUID != other.SOPInstanceUID


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_other_programs_segmentations(tmp_path, series, kind):
    sources = [pydicom.dcmread(file) for file in series]
    pixels = (_mask().voxels == 1).astype(np.uint8)
    description = hd.seg.SegmentDescription(1, "lung", codes.SCT.Organ, codes.SCT.Lung, "MANUAL")
    hd.seg.Segmentation(
        sources,
        pixels.astype(np.float32) * 0.75 if kind == "FRACTIONAL" else pixels,
        kind,
        [description],
        hd.UID(),
        1,
        hd.UID(),
        1,
        "maker",
        "model",
        "1",
        "1",
        omit_empty_frames=kind != "LABELMAP",
    ).save_as(tmp_path / "other.dcm")
    if kind != "LABELMAP":  # only the slice with lung is stored
        assert read_dicom_seg(tmp_path / "other.dcm")["lung"].shape == (1, 16, 12)
    placed = read_dicom_seg(tmp_path / "other.dcm", onto=Grid(HU.shape, AFFINE))["lung"]
    np.testing.assert_array_equal(placed.voxels, pixels)
    np.testing.assert_array_equal(placed.affine, AFFINE)


# --- faults


def test_a_mask_on_another_grid(tmp_path, series):
    shifted = AFFINE.copy()
    shifted[0, 3] += 5
    for mask in (_mask(shifted), _mask(shape=(5, 16, 12)), Mask(_mask().voxels[::-1], _upside_down())):
        with pytest.raises(
            DataError, match=r"(?s)does not lie on the grid of its source images.*native grid"
        ):
            write_dicom_seg(tmp_path / "m.dcm", mask, series, CLASSES)
        assert not (tmp_path / "m.dcm").exists()


def _upside_down():
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[2, 3] = HU.shape[0] - 1
    return AFFINE @ flip


def test_values_without_a_name(tmp_path, series):
    with pytest.raises(DataError, match=r"(?s)values that no class names.*\[4\].*every label value"):
        write_dicom_seg(tmp_path / "m.dcm", _mask(), series, {"lung": 1})
    with pytest.raises(DataError, match="no class was named"):
        write_dicom_seg(tmp_path / "m.dcm", Mask(np.zeros(HU.shape, np.uint8), AFFINE), series, {})


def test_sources_of_two_series_or_none(tmp_path, series, write_series):
    other = write_series(tmp_path / "other", HU, AFFINE, uid="1.9.9")
    with pytest.raises(DataError, match=r"(?s)must be one series.*2 series in 12 files"):
        write_dicom_seg(tmp_path / "m.dcm", _mask(), [*series, *other], CLASSES)
    with pytest.raises(DataError, match=r"(?s)must be one series.*0 series in 0 files"):
        write_dicom_seg(tmp_path / "m.dcm", _mask(), [], CLASSES)


def test_sources_that_lack_what_a_segmentation_needs(tmp_path, write_series):
    paths = write_series(tmp_path / "ct", HU, AFFINE, change=lambda ds, z: delattr(ds, "FrameOfReferenceUID"))
    with pytest.raises(
        DataError, match=r"(?s)no DICOM-SEG can point at these.*Frame Of Reference UID.*\.nii\.gz"
    ):
        write_dicom_seg(tmp_path / "m.dcm", _mask(), paths, CLASSES)


def test_what_is_no_segmentation(tmp_path, series):
    with pytest.raises(DataError, match=r"(?s)is no DICOM segmentation.*modality CT.*read_volume"):
        read_dicom_seg(series[0])
    (tmp_path / "a.dcm").write_text("not at all")
    with pytest.raises(DataError, match="a text file that begins with 'not at all'"):
        read_dicom_seg(tmp_path / "a.dcm")
    path = write_dicom_seg(tmp_path / "m.dcm", _mask(), series, CLASSES)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="Copy or export it again"):
        read_dicom_seg(path)


def test_frames_off_the_volume(tmp_path, series):
    path = write_dicom_seg(tmp_path / "m.dcm", _mask(), series, CLASSES)
    away = AFFINE.copy()
    away[2, 3] += 1.0
    for grid in (Grid(HU.shape, away), Grid((6, 16, 13), AFFINE), Grid((4, 16, 12), AFFINE)):
        with pytest.raises(DataError, match=r"(?s)do not lie on the slices of the volume.*resample"):
            read_dicom_seg(path, onto=grid)


def test_a_series_with_a_gap_can_be_segmented(tmp_path, write_series):
    write_series(tmp_path / "ct", HU, AFFINE, keep=[0, 1, 2, 5])
    volume = read_series(tmp_path / "ct", on_fault="report")
    voxels = np.zeros(volume.shape, np.uint8)
    voxels[3, 2:4, 2:4] = 1
    files = list_series(tmp_path / "ct")[0].files
    path = write_dicom_seg(tmp_path / "m.dcm", Mask(voxels, volume.affine), files, {"lung": 1})
    back = read_dicom_seg(path, onto=Grid(HU.shape, AFFINE))["lung"]  # on the patient, not on the gap
    np.testing.assert_array_equal(np.flatnonzero(back.voxels.any(axis=(1, 2))), [5])
