import numpy as np
import pytest
import tifffile

from fewmask.core.errors import DataError
from fewmask.core.run import MaskFolder
from fewmask.core.volume import IGNORE, Mask, Volume
from fewmask.data.case import Case, Cohort, ImageFile, MaskFile
from fewmask.data.io import read_mask, write_mask, write_volume
from fewmask.data.prepare import prepare
from fewmask.segmenter.evaluate import evaluate, mask_suffix, score_masks


@pytest.fixture
def cohort(tmp_path, oblique):
    """Two cases: a NIfTI volume whose mask has an unjudged corner, and a picture without the class."""
    volume, inside = oblique
    labels = np.where(inside, 7, 0).astype(np.uint8)
    labels[0, :4, :4] = IGNORE
    write_volume(tmp_path / "v.nii.gz", volume)
    write_mask(tmp_path / "v_mask.nii.gz", Mask(labels, volume.affine))
    write_volume(tmp_path / "p.png", Volume(np.zeros((1, 16, 16), np.uint8), np.eye(4)))
    write_mask(tmp_path / "p_mask.png", Mask(np.zeros((1, 16, 16), np.uint8), np.eye(4)))
    cases = tuple(
        Case(
            name,
            f"patient {name}",
            {"image": ImageFile(tmp_path / f"{name}{end}")},
            (MaskFile(tmp_path / f"{name}_mask{end}"),),
            {"site": "A"},
        )
        for name, end in (("v", ".nii.gz"), ("p", ".png"))
    )
    return Cohort("toy", tmp_path, cases, {"bright": 7}, ("image",))


def test_rows_masks_and_pictures(threshold, cohort, tmp_path):
    segmenter = threshold(channels={"image": ((0.5, 1.0),)})
    out = MaskFolder(tmp_path / "out")
    rows = evaluate(
        segmenter,
        cohort.cases,
        cohort,
        arm="unet",
        shots=3,
        draw=1,
        folder=out.folder,
        lesion_classes=("bright",),
    )
    assert [(row.case, row.patient, row.class_name, row.site) for row in rows] == [
        ("v", "patient v", "bright", "A"),
        ("p", "patient p", "bright", "A"),
    ]
    assert [row.dice for row in rows] == [1.0, 1.0]
    assert [row.ceiling for row in rows] == [1.0, 1.0]
    assert (rows[0].arm, rows[0].shots, rows[0].draw) == ("unet", 3, 1)
    assert rows[0].lesions is not None
    reference = read_mask(tmp_path / "v_mask.nii.gz")
    written = read_mask(out.mask("v", ".nii.gz"))
    np.testing.assert_allclose(written.affine, reference.affine, atol=1e-5)
    judged = reference.voxels != IGNORE
    np.testing.assert_array_equal(written.voxels[judged], reference.voxels[judged])
    assert read_mask(out.mask("p", ".png")).voxels.max() == 0
    assert out.picture("v").is_file()
    assert out.picture("p").is_file()


def test_the_ceiling_is_below_one_where_pixels_are_lost(threshold, cohort):
    segmenter = threshold(channels={"image": ((0.5, 1.0),)}, preparation={"size": (10, 16)})
    row = evaluate(segmenter, cohort.cases[:1], cohort, arm="unet", shots=None, draw=0)[0]
    assert row.dice <= row.ceiling < 1


def test_any_method_can_be_scored(threshold, cohort):
    preparation = threshold(channels={"image": ((0.5, 1.0),)}).design.preparation

    def nothing(case, images):
        prepared = prepare(images, preparation)
        return Mask(np.zeros(images["image"].shape, np.uint8), images["image"].affine), prepared.trace

    rows = score_masks(nothing, cohort.cases, cohort, arm="empty", shots=0, draw=0)
    assert [row.dice for row in rows] == [0.0, 1.0]
    assert [row.ceiling for row in rows] == [1.0, 1.0]


def test_a_model_of_other_classes_is_refused(threshold, cohort):
    other = Cohort("toy", cohort.folder, cohort.cases, {"bright": 1}, ("image",))
    with pytest.raises(DataError, match="trained on other classes"):
        evaluate(threshold(), other.cases, other, arm="unet", shots=1, draw=0)


def test_a_case_without_the_modality_is_told(threshold, cohort):
    with pytest.raises(DataError, match="needs a modality"):
        evaluate(
            threshold(channels={"flair": ("zscore",)}), cohort.cases, cohort, arm="unet", shots=1, draw=0
        )


def test_masks_of_a_stack_of_pages_are_volumes(threshold, tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((3, 16, 16), np.uint8), photometric="minisblack")
    write_mask(tmp_path / "s_mask.nii.gz", Mask(np.zeros((3, 16, 16), np.uint8), np.eye(4)))
    image = {"image": ImageFile(tmp_path / "s.tif")}
    case = Case("s", "patient s", image, (MaskFile(tmp_path / "s_mask.nii.gz"),))
    cohort = Cohort("toy", tmp_path, (case,), {"bright": 7}, ("image",))
    out = MaskFolder(tmp_path / "out")
    segmenter = threshold(channels={"image": ((0.5, 1.0),)})
    evaluate(segmenter, [case], cohort, arm="unet", shots=1, draw=0, folder=out.folder)
    assert read_mask(out.mask("s", ".nii.gz")).shape == (3, 16, 16)
    assert mask_suffix(case, (3, 16, 16)) == ".nii.gz"
    assert mask_suffix(case, (1, 16, 16)) == ".png"
