"""DICOM series: real ones, and every fault of a folder from the archive, made with pydicom."""

import shutil

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage, JPEG2000Lossless, JPEGLSLossless, RLELossless

from fewmask.core.errors import DataError
from fewmask.core.seed import stream
from fewmask.core.volume import Grid, corner_displacement_mm
from fewmask.data.dicom import list_series, read_dicom_grid, read_series
from fewmask.data.io import find_scans, read_grid, read_volume

AFFINE = np.array([[-0.8, 0, 0, 90], [0, -0.8, 0, 110], [0, 0, 2.5, -300], [0, 0, 0, 1.0]])
HU = stream(0, "hu").integers(-1000, 2000, size=(8, 6, 5)).astype(np.int16)


def _refuses(folder, *words, **options):
    """Reading the folder fails with one message that holds all `words`; so does reading its grid."""
    with pytest.raises(DataError) as caught:
        read_volume(folder, **options)
    text = str(caught.value)
    for word in (str(folder), *words):
        assert word in text, text
    with pytest.raises(DataError):
        read_grid(folder, **options)


# --- real series


def test_chest_ct_equals_its_nrrd(data_folder):
    folder = data_folder / "dicom" / "ct-chest-64"
    series, twin = read_volume(folder / "dicom"), read_volume(folder / "ct-64.nrrd")
    np.testing.assert_array_equal(series.voxels, twin.voxels)
    assert series.voxels.dtype == np.int16
    assert corner_displacement_mm(series.grid, twin.grid) < 0.01
    assert corner_displacement_mm(series.grid, read_grid(folder / "dicom")) == 0
    assert not series.notes


def test_oblique_mr_lies_where_its_headers_say(data_folder):
    folder = data_folder / "dicom" / "mr-t1-7T-96slices"
    volume = read_volume(folder)
    assert volume.shape == (96, 384, 274)
    for z in (0, 40, 95):
        headers = (pydicom.dcmread(path, stop_before_pixels=True) for path in list_series(folder)[0].files)
        header = list(headers)[z]
        ras = np.array([float(v) for v in header.ImagePositionPatient]) * (-1, -1, 1)
        np.testing.assert_allclose(volume.grid.to_mm([0, 0, z]), ras, atol=0.01)


def test_liver_ct_leaves_segmentations_out(data_folder):
    folder = data_folder / "dicom" / "ct-liver-3slice-seg"
    volume = read_volume(folder)
    assert volume.shape == (3, 512, 512)
    assert volume.spacing_mm[0] == pytest.approx(1.0)  # the slices are 1.25 mm thick, but 1 mm apart
    assert "2 SEG" in volume.notes[0]
    with pytest.raises(DataError, match=r"(?s)no image but a segmentation.*read_mask"):
        read_volume(folder / "seg_liver.dcm")


# --- series of all kinds


def test_slices_are_sorted_by_position(tmp_path, write_series):
    write_series(tmp_path, HU, AFFINE)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.voxels, HU)
    assert corner_displacement_mm(volume.grid, Grid(HU.shape, AFFINE)) < 1e-6
    assert [path.name.split("_")[1] for path in list_series(tmp_path)[0].files] == [
        f"{z}.dcm" for z in range(8)
    ]


def test_one_file_is_one_slice(tmp_path, write_series):
    paths = write_series(tmp_path, HU, AFFINE)
    one = read_volume(paths[3])
    np.testing.assert_array_equal(one.voxels[0], HU[3])
    np.testing.assert_allclose(one.affine, AFFINE @ _up(3), atol=1e-6)
    assert read_grid(paths[3]).shape == (1, 6, 5)


def _up(z):
    matrix = np.eye(4)
    matrix[2, 3] = z
    return matrix


def test_several_series_are_listed_and_chosen(tmp_path, write_series):
    write_series(tmp_path, HU, AFFINE, uid="1.2.3.41", prefix="A")
    write_series(tmp_path, HU[:4] + 5, AFFINE, uid="1.2.3.42", prefix="B")
    assert [one.slices for one in list_series(tmp_path)] == [8, 4]
    _refuses(tmp_path, "holds 2 series", "1.2.3.41: CT 'chest', 8 x 6 x 5", "1.2.3.42", "series='1.2.3.41'")
    _refuses(tmp_path, "no single series", "'77'", series="77")
    np.testing.assert_array_equal(read_volume(tmp_path, series="1.2.3.42").voxels, HU[:4] + 5)
    assert read_volume(tmp_path, series="41").shape == (8, 6, 5)
    assert read_grid(tmp_path, series="42").shape == (4, 6, 5)


def test_files_without_suffix_or_preamble(tmp_path, write_series):
    paths = write_series(tmp_path, HU, AFFINE)
    for path in paths[:4]:
        path.rename(path.with_suffix(""))
    for path in paths[4:]:
        path.write_bytes(path.read_bytes()[132:])
    np.testing.assert_array_equal(read_volume(tmp_path).voxels, HU)
    np.testing.assert_array_equal(read_volume(paths[0].with_suffix("")).voxels[0], HU[0])


def test_scaling_that_changes_between_slices(tmp_path, write_series):
    def slope(ds, z):
        ds.RescaleSlope, ds.RescaleIntercept = 0.5 + z, 0

    write_series(tmp_path, HU, AFFINE, change=slope)
    volume = read_volume(tmp_path)
    assert volume.voxels.dtype == np.float32
    expected = (HU + 1024.0) * (0.5 + np.arange(8))[:, None, None]
    np.testing.assert_allclose(volume.voxels, expected, rtol=1e-6)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_series(tmp_path, write_series, syntax):
    hu = stream(0, "wide").integers(-1000, 2000, size=(2, 64, 64)).astype(np.int16)
    paths = write_series(tmp_path, hu, AFFINE)
    for path in paths:
        ds = pydicom.dcmread(path)
        ds.compress(syntax, generate_instance_uid=False)
        ds.save_as(path)
    np.testing.assert_array_equal(read_volume(tmp_path).voxels, hu)
    ds.PixelData = ds.PixelData[:60]
    ds.save_as(path)
    with pytest.raises(DataError, match=rf"(?s){path.name}.*(cannot be decompressed|cannot be read)"):
        read_volume(tmp_path)


def test_enhanced_multi_frame(tmp_path, write_series):
    [path] = write_series(tmp_path / "classic", HU, AFFINE, keep=[0])
    order = [3, 0, 2, 1, 7, 5, 6, 4]
    ds = _enhance(pydicom.dcmread(path), order)
    ds.save_as(tmp_path / "enhanced.dcm")
    volume = read_volume(tmp_path / "enhanced.dcm")
    np.testing.assert_array_equal(volume.voxels, HU)
    assert corner_displacement_mm(volume.grid, Grid(HU.shape, AFFINE)) < 1e-6
    assert "frames were sorted by their own positions" in volume.notes[0]
    _enhance(ds, [0, 1, 2, 5, 6, 7]).save_as(tmp_path / "gap.dcm")
    _refuses(tmp_path / "gap.dcm", "2 slices are missing", "7.50 mm from -295.00 to -287.50 mm")


def _enhance(ds, order):
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AFFINE
    measures, plane, values, shared = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.8], 2.5
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    values.RescaleSlope, values.RescaleIntercept = 1, -1024
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([plane])
    shared.PixelValueTransformationSequence = Sequence([values])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for z in order:
        place, frame = Dataset(), Dataset()
        place.ImagePositionPatient = [float(v) for v in (lps @ [0, 0, z, 1])[:3]]
        frame.PlanePositionSequence = Sequence([place])
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.NumberOfFrames = len(order)
    ds.PixelData = (HU[order] + 1024).astype(np.int16).tobytes()
    return ds


def _radiograph(ds, z):
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(ds, name)
    ds.Modality, ds.ImagerPixelSpacing = "DX", [0.143, 0.143]
    ds.PixelRepresentation, ds.PhotometricInterpretation = 0, "MONOCHROME1"
    ds.BitsStored, ds.HighBit, ds.RescaleIntercept = 12, 11, 0
    ds.PixelData = np.full((6, 5), 100 + z, np.uint16).tobytes()


def test_radiographs(tmp_path, write_series):
    paths = write_series(tmp_path, HU, AFFINE, keep=[0, 1], change=_radiograph)
    film = read_volume(paths[0])
    assert film.shape == (1, 6, 5)
    assert film.voxels.max() == 4095 - 100
    assert film.spacing_mm == pytest.approx((1, 0.143, 0.143))
    assert any("MONOCHROME1" in note for note in film.notes)
    assert any("lies nowhere in the patient" in note for note in film.notes)
    _refuses(tmp_path, "its images have no position", "read each file by itself")
    assert find_scans(tmp_path) == sorted(paths)
    with pytest.raises(DataError, match="no position"):
        read_series(tmp_path, on_fault="report")


def test_colour_images_need_a_channel(tmp_path, write_series):
    def paint(ds, z):
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit, ds.PixelRepresentation, ds.RescaleIntercept = 7, 0, 0
        ds.PixelData = np.tile(np.array([1, 2, 3], np.uint8), 30).tobytes()

    paths = write_series(tmp_path, HU, AFFINE, keep=[0], change=paint)
    with pytest.raises(DataError, match=r"(?s)3 channels \(0 red.*channel=0"):
        read_volume(paths[0])
    assert read_volume(paths[0], channel=1).voxels.min() == 2


# --- faults


def test_missing_slices(tmp_path, write_series):
    write_series(tmp_path, HU, AFFINE, keep=[0, 1, 2, 5, 6, 7])
    _refuses(
        tmp_path,
        "2 slices are missing",
        "usual distance 2.50 mm along the slice normal, but 7.50 mm from -295.00 to -287.50 mm",
        "Copy the missing files",
        "on_fault='report'",
    )
    assert "2 slices are missing" in list_series(tmp_path)[0].problems[0]
    volume = read_volume(tmp_path, on_fault="report")
    np.testing.assert_array_equal(volume.voxels, HU[[0, 1, 2, 5, 6, 7]])
    assert volume.spacing_mm[0] == pytest.approx(2.5)
    assert "2 slices are missing" in volume.notes[0]
    assert "read as reported" in volume.notes[0]


def test_uneven_spacing(tmp_path, write_series):
    def push(ds, z):
        if z >= 6:
            ds.ImagePositionPatient[2] += 1.0

    write_series(tmp_path, HU, AFFINE, change=push)
    _refuses(tmp_path, "not evenly spaced", "3.50 mm from -287.50 to -284.00 mm")
    assert read_series(tmp_path, on_fault="report").shape == (8, 6, 5)


def test_rounded_positions_are_no_fault(tmp_path, write_series):
    def round_off(ds, z):
        ds.ImagePositionPatient[2] = round(float(ds.ImagePositionPatient[2]) + 0.03 * (-1) ** z, 2)

    write_series(tmp_path, HU, AFFINE, change=round_off)
    assert read_volume(tmp_path).spacing_mm[0] == pytest.approx(2.5, abs=0.01)


def test_twofold_positions_name_what_differs(tmp_path, write_series):
    write_series(tmp_path, HU, AFFINE, prefix="A", change=lambda ds, z: setattr(ds, "EchoTime", 10))
    write_series(tmp_path, HU, AFFINE, prefix="B", change=lambda ds, z: setattr(ds, "EchoTime", 30))
    _refuses(
        tmp_path,
        "8 positions are taken twice",
        "at -300.00 mm",
        "EchoTime (10.0 / 30.0)",
        "folder of its own",
    )
    with pytest.raises(DataError, match="taken twice"):
        read_series(tmp_path, on_fault="report")


def test_a_copied_file_is_named(tmp_path, write_series):
    paths = write_series(tmp_path, HU, AFFINE)
    shutil.copy(paths[2], tmp_path / "ZZ.dcm")
    _refuses(tmp_path, "some files are copies of others", "1 too many: ZZ.dcm", "Delete them")
    volume = read_series(tmp_path, on_fault="report")
    np.testing.assert_array_equal(volume.voxels, HU)
    assert "copies of others" in volume.notes[0]


def test_gantry_tilt(tmp_path, write_series):
    tilt = np.tan(np.radians(12))

    def slide(ds, z):
        ds.ImagePositionPatient[1] += z * 2.5 * tilt

    write_series(tmp_path, HU, AFFINE, change=slide)
    _refuses(tmp_path, "the gantry was tilted by 12.0 degrees", "0.53 mm aside", "3.7 mm over the stack")
    volume = read_series(tmp_path, on_fault="report")
    np.testing.assert_array_equal(volume.voxels, HU)
    last = pydicom.dcmread(list_series(tmp_path)[0].files[-1])
    ras = np.array([float(v) for v in last.ImagePositionPatient]) * (-1, -1, 1)
    np.testing.assert_allclose(volume.grid.to_mm([0, 0, 7]), ras, atol=1e-6)  # the sheared affine is true
    assert "tilted" in volume.notes[0]


def test_mixed_directions_sizes_and_pixel_sizes(tmp_path, write_series):
    coronal = AFFINE[:, [0, 2, 1, 3]]
    write_series(tmp_path / "plane", HU, AFFINE)
    write_series(tmp_path / "plane", HU, coronal, keep=[0], prefix="S")
    _refuses(tmp_path / "plane", "lie in different directions", "8 of (1, 0, 0, 0, 1, 0); 1 of", "A scout")
    write_series(tmp_path / "size", HU, AFFINE)
    write_series(tmp_path / "size", HU[:, :4], AFFINE, keep=[0], prefix="S")
    _refuses(tmp_path / "size", "differ in size (rows x columns)", "8 of 6 x 5; 1 of 4 x 5")
    write_series(tmp_path / "pixel", HU, AFFINE)
    write_series(tmp_path / "pixel", HU, AFFINE @ np.diag([2, 2, 1, 1.0]), keep=[0], prefix="S")
    _refuses(tmp_path / "pixel", "differ in pixel size", "8 of (0.8, 0.8)")
    for name in ("plane", "size", "pixel"):
        with pytest.raises(DataError):
            read_series(tmp_path / name, on_fault="report")


def test_slices_off_the_line(tmp_path, write_series):
    def jump(ds, z):
        if z == 4:
            ds.ImagePositionPatient[0] += 30

    write_series(tmp_path, HU, AFFINE, change=jump)
    _refuses(tmp_path, "do not lie on a straight line", "fields of view")


def test_damaged_files_in_a_series(tmp_path, write_series):
    paths = write_series(tmp_path, HU, AFFINE)
    paths[0].write_bytes(b"")
    paths[7].write_text("this was a slice")
    _refuses(tmp_path, "2 DICOM file(s) cannot be read", f"{paths[0].name} (0 bytes)", "a text file")
    volume = read_series(tmp_path, on_fault="report")
    assert volume.shape == (6, 6, 5)
    assert sum("left out" in note for note in volume.notes) == 2
    paths[3].write_bytes(paths[3].read_bytes()[:-20])
    with pytest.raises(
        DataError, match=rf"(?s){paths[3].name}.*cannot be read as a DICOM file.*export it again"
    ):
        read_series(tmp_path, on_fault="report")


def test_other_objects_and_inner_folders_are_named(tmp_path, write_series):
    def structures(ds, z):
        ds.Modality = "RTSTRUCT"
        del ds.Rows, ds.Columns, ds.PixelData

    write_series(tmp_path / "study" / "ct", HU, AFFINE)
    write_series(tmp_path / "study", HU, AFFINE, keep=[0], uid="1.9", change=structures)
    _refuses(tmp_path / "study", "no DICOM image in this folder", "1 RTSTRUCT", "folders inside: ct")
    write_series(tmp_path / "study" / "ct", HU, AFFINE, keep=[0], uid="1.9", prefix="R", change=structures)
    assert "left out what is no image: 1 RTSTRUCT" in read_volume(tmp_path / "study" / "ct").notes
    assert find_scans(tmp_path) == [tmp_path / "study" / "ct"]


def test_a_missing_folder(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        read_series(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no such file"):
        read_dicom_grid(tmp_path / "nowhere.dcm")


def test_damaged_files_among_radiographs_are_scans_that_tell_of_it(tmp_path, write_series):
    paths = write_series(tmp_path, HU, AFFINE, keep=[0, 1], change=_radiograph)
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "short.dcm").write_bytes(paths[0].read_bytes()[:200])
    damaged = [tmp_path / "empty.dcm", tmp_path / "short.dcm"]
    assert find_scans(tmp_path) == sorted([*paths, *damaged])
    for path in damaged:
        with pytest.raises(DataError, match=path.name):
            read_volume(path)
    for path in paths:
        path.unlink()
    assert find_scans(tmp_path) == damaged


def test_a_folder_of_damaged_files_and_an_incomplete_series_are_scans(tmp_path, write_series):
    write_series(tmp_path / "good", HU, AFFINE)
    for name in ("bad", "good"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "0.dcm").touch()
    assert find_scans(tmp_path) == [tmp_path / "bad", tmp_path / "good"]
    for name in ("bad", "good"):
        with pytest.raises(DataError, match=r"0\.dcm"):
            read_volume(tmp_path / name)
