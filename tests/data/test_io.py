"""Reading and writing files: real scans, notes, masks, and every file that is not what it should be."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image

from fewmask.core.errors import DataError
from fewmask.core.volume import Mask, Volume, corner_displacement_mm
from fewmask.data.io import find_scans, read_grid, read_mask, read_volume, write_mask, write_volume

AFFINE = np.array([[-0.8, 0, 0, 90], [0, -0.8, 0, 110], [0, 0, 2.5, -300], [0, 0, 0, 1.0]])


@pytest.fixture
def volume() -> Volume:
    return Volume(np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 60, AFFINE)


def _fails(path, *words, reader=read_volume, **options):
    """Reading fails with one message that holds the path's name and all `words`."""
    with pytest.raises(DataError) as caught:
        reader(path, **options)
    text = str(caught.value)
    for word in (path.name, *words):
        assert word in text, text


# --- real scans


def test_hippocampus_reads_as_nibabel_does(data_folder):
    for name in ("hippocampus_001", "hippocampus_003"):
        path = data_folder / "mr-hippocampus-3d" / "images" / f"{name}.nii.gz"
        image, volume = nib.load(path), read_volume(path)
        np.testing.assert_array_equal(volume.voxels, np.asarray(image.dataobj).T)
        np.testing.assert_allclose(volume.affine, image.affine)
        mask = read_mask(data_folder / "mr-hippocampus-3d" / "labels" / f"{name}.nii.gz")
        assert mask.voxels.dtype == np.uint8
        assert set(np.unique(mask.voxels)) == {0, 1, 2}
        assert corner_displacement_mm(mask.grid, volume.grid) < 1e-3


def test_chest_film_is_one_slice(data_folder):
    folder = data_folder / "cxr-lungs-heart"
    name = sorted((folder / "images").iterdir())[0].name
    film = read_volume(folder / "images" / name)
    assert film.shape == (1, 512, 512)
    assert film.voxels.dtype == np.uint8
    np.testing.assert_array_equal(film.affine, np.eye(4))
    smooth = read_mask(folder / "masks" / "heart" / name)
    assert len(np.unique(smooth.voxels)) > 2
    heart = read_mask(folder / "masks" / "heart" / name, threshold=128)
    assert set(np.unique(heart.voxels)) == {0, 1}
    assert heart.voxels.sum() == (smooth.voxels >= 128).sum()


def test_glioma_colours_are_channels(data_folder):
    folder = next(p for p in sorted((data_folder / "mr-glioma-3-sequences-NC" / "images").iterdir()))
    path = sorted(folder.iterdir())[0]
    _fails(path, "has 3 channels (0 red, 1 green, 2 blue) that differ", "channel=0")
    pixels = np.asarray(Image.open(path))
    for i in range(3):
        np.testing.assert_array_equal(read_volume(path, channel=i).voxels[0], pixels[..., i])
    _fails(path, "has no channel 3", "from 0 to 2", channel=3)


def test_scans_are_found(data_folder):
    found = [path.relative_to(data_folder / "dicom").as_posix() for path in find_scans(data_folder / "dicom")]
    assert "ct-chest-64/dicom" in found
    assert "ct-chest-64/ct-64.nrrd" in found
    assert "mr-t1-7T-96slices" in found
    assert not [name for name in found if name.endswith((".dcm", ".txt"))]


# --- NIfTI


def test_whole_scaling_keeps_integers(tmp_path):
    image = nib.Nifti1Image(np.arange(24, dtype=np.uint16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(1, -1024)
    path = tmp_path / "ct.nii.gz"
    _save_raw(image, path)
    volume = read_volume(path)
    assert volume.voxels.dtype == np.int16
    assert (volume.voxels.min(), volume.voxels.max()) == (-1024, -1001)
    image.header.set_slope_inter(0.5, 0)
    _save_raw(image, path)
    assert read_volume(path).voxels.dtype == np.float32
    assert read_volume(path).voxels.max() == 11.5


def _save_raw(image, path):
    """Store the image's integers unscaled, with its header's slope and intercept."""
    header = image.header.copy()
    data = np.asarray(image.dataobj)
    header["vox_offset"] = 352
    content = bytearray(header.binaryblock) + bytes(4)
    content += data.tobytes(order="F")
    path.write_bytes(gzip.compress(bytes(content)))


def test_disagreeing_forms_are_noted(tmp_path, volume):
    image = nib.Nifti1Image(volume.voxels.T, AFFINE)
    other = AFFINE.copy()
    other[0, 3] += 7
    image.set_sform(AFFINE, 1)
    image.set_qform(other, 1)
    nib.save(image, tmp_path / "a.nii")
    read = read_volume(tmp_path / "a.nii")
    np.testing.assert_allclose(read.affine, AFFINE, atol=1e-5)
    assert "disagree by up to 7.00 mm: the sform was used" in read.notes[0]


def test_qform_alone_is_used(tmp_path, volume):
    image = nib.Nifti1Image(volume.voxels.T, AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "a.nii")
    read = read_volume(tmp_path / "a.nii")
    np.testing.assert_allclose(read.affine, AFFINE, atol=1e-4)
    assert not read.notes


def test_no_orientation_is_noted_and_placed_as_itk_does(tmp_path):
    image = nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), None)
    image.header.set_zooms((1, 2, 3))
    nib.save(image, tmp_path / "a.nii")
    read = read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(read.affine, np.diag([-1.0, -2.0, 3.0, 1.0]))
    assert "no orientation" in read.notes[0]


def test_small_shear_is_mended_and_large_shear_refused(tmp_path):
    data = np.zeros((20, 20, 20), np.int16)
    for slide, ok in ((0.01, True), (0.4, False)):
        affine = np.diag([1.0, 1.0, 2.0, 1.0])
        affine[0, 2] = slide
        image = nib.Nifti1Image(data, affine)
        image.set_qform(np.diag([1.0, 1.0, 2.0, 1.0]), 1)  # ITK would take this one without a word
        path = tmp_path / "sheared.nii.gz"
        nib.save(image, path)
        if ok:
            read = read_volume(path)
            assert any("largest shift of a corner 0.0" in note for note in read.notes)
            write_volume(tmp_path / "mended.nii.gz", read)
            sitk.ReadImage(str(tmp_path / "mended.nii.gz"))
        else:
            _fails(path, "sheared", "degrees", "Resample it onto an upright grid")
            _fails(path, "sheared", reader=read_grid)


def test_lengths_in_other_units_become_mm(tmp_path):
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.diag([500.0, 500.0, 2000.0, 1.0]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "a.nii")
    read = read_volume(tmp_path / "a.nii")
    assert read.spacing_mm == (2.0, 0.5, 0.5)
    assert "microns, now in mm" in read.notes[0]


def test_four_dimensions_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), np.eye(4)), tmp_path / "fmri.nii.gz")
    _fails(tmp_path / "fmri.nii.gz", "has 4 dimensions", "(4, 4, 4, 3)", "one file per time point")
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6, 1), np.int16), np.eye(4)), tmp_path / "one.nii.gz")
    assert read_volume(tmp_path / "one.nii.gz").shape == (6, 5, 4)


def test_colour_nifti_is_refused(tmp_path):
    rgb = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), tmp_path / "rgb.nii.gz")
    _fails(tmp_path / "rgb.nii.gz", "holds colours or complex numbers")


# --- MHD, MHA, NRRD


def test_sheared_nrrd_is_refused_though_itk_reads_it(tmp_path):
    image = sitk.GetImageFromArray(np.zeros((20, 20, 20), np.int16))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    content = (tmp_path / "a.nrrd").read_bytes().replace(b"(0,0,1)", b"(0.3,0,1)")
    (tmp_path / "a.nrrd").write_bytes(content)
    _fails(tmp_path / "a.nrrd", "sheared")


def test_vector_volumes_need_a_channel(tmp_path):
    both = np.stack([np.zeros((3, 4, 5)), np.ones((3, 4, 5))], axis=-1).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(both, isVector=True), str(tmp_path / "v.nrrd"))
    _fails(tmp_path / "v.nrrd", "2 channels", "1: 1.0 to 1.0")
    assert read_volume(tmp_path / "v.nrrd", channel=1).voxels.min() == 1


def test_segment_names_reach_slicer(tmp_path):
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0, 0, 0], labels[1, 1, 1] = 1, 3
    path = write_mask(tmp_path / "m.seg.nrrd", Mask(labels, AFFINE), classes={"liver": 1, "tumour": 2})
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    keys = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    assert [keys[f"Segment{i}_Name"] for i in range(3)] == ["liver", "tumour", "label 3"]
    assert keys["Segment2_LabelValue"] == "3"
    assert keys["Segment0_Extent"] == "0 3 0 2 0 1"
    with pytest.raises(DataError, match="holds masks, this is an image"):
        write_volume(path, Volume(labels, AFFINE))


# --- masks


def test_masks_take_the_smallest_type(tmp_path):
    for top, kind in ((2.0, np.uint8), (1000.0, np.uint16)):
        voxels = np.array([[[0, 1, top]]], dtype=np.float64)
        nib.save(nib.Nifti1Image(voxels.T, np.eye(4)), tmp_path / "m.nii.gz")
        mask = read_mask(tmp_path / "m.nii.gz")
        assert mask.voxels.dtype == kind
        np.testing.assert_array_equal(mask.voxels, voxels)


@pytest.mark.parametrize(
    ("values", "word"), [([0, 0.5], "such as 0.5"), ([0, -1], "such as -1"), ([0, np.nan], "such as nan")]
)
def test_values_that_are_no_labels(tmp_path, values, word):
    nib.save(nib.Nifti1Image(np.array(values, np.float32)[:, None, None], np.eye(4)), tmp_path / "m.nii.gz")
    _fails(tmp_path / "m.nii.gz", "is no label map", word, "give a threshold", reader=read_mask)
    assert read_mask(tmp_path / "m.nii.gz", threshold=0.5).voxels.dtype == np.uint8


def test_jpeg_masks_need_a_threshold(tmp_path):
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / "m.jpg")
    (tmp_path / "n.png").write_bytes((tmp_path / "m.jpg").read_bytes())
    for name in ("m.jpg", "n.png"):
        _fails(tmp_path / name, "a JPEG cannot hold labels", reader=read_mask)
    assert read_mask(tmp_path / "m.jpg", threshold=128).voxels.min() == 1


def test_black_and_white_masks_are_noted(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "m.png")
    assert "means 'unjudged'" in read_mask(tmp_path / "m.png").notes[0]
