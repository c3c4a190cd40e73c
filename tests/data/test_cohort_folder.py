"""Cohorts from folders: how scans, masks, classes, readers and patients are found."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.volume import Mask, Volume
from fewmask.data.cohort import ImageFile, read_case_mask, read_cohort, read_images
from fewmask.data.io import write_mask, write_volume


def picture(path: Path, value: int = 0, box: tuple[int, int] = (2, 6), size: int = 8) -> Path:
    """A grey picture: texture fixed by its path, or with `value` a square of it from box[0] to box[1]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size, size), np.uint8)
    if value:
        pixels[box[0] : box[1], box[0] : box[1]] = value
    else:
        pixels[:] = np.frombuffer(str(path).encode()[-64:].rjust(64, b"x"), np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(path)
    return path


def names(cohort):
    return [case.name for case in cohort.cases]


def test_label_maps_with_declared_classes_and_an_index(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_volume(tmp_path / "images" / f"{name}.nii.gz", Volume(np.ones((2, 3, 4), np.int16), np.eye(4)))
        labels = np.zeros((2, 3, 4), np.uint8)
        labels[0, 0, 0], labels[1, 1, 1], labels[1, 2, 3] = 1, 2, 255
        write_mask(tmp_path / "labels" / f"{name}.nii.gz", Mask(labels, np.eye(4)))
    (tmp_path / "classes.json").write_text(json.dumps({"anterior": 1, "posterior": 2}))
    (tmp_path / "index.csv").write_text("file,patient,site\nimages/a.nii.gz,p1,X\nb.nii.gz,p1,Y\n")
    cohort = read_cohort(tmp_path)
    assert names(cohort) == ["a", "b"]
    assert cohort.classes == {"anterior": 1, "posterior": 2}
    assert [case.patient for case in cohort.cases] == ["p1", "p1"]
    assert cohort.cases[1].tags == {"site": "Y"}
    assert cohort.remarks == ()
    mask = read_case_mask(cohort.cases[0], cohort)
    assert mask.shape == (2, 3, 4)
    assert mask.voxels.dtype == np.uint8
    assert sorted(np.unique(mask.voxels)) == [0, 1, 2, 255]
    assert read_images(cohort.cases[0])["image"].shape == (2, 3, 4)


def test_without_patients_each_case_is_its_own_and_a_remark_says_so(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "images" / "b.png")
    picture(tmp_path / "masks" / "a.png", 255)
    cohort = read_cohort(tmp_path)
    assert [case.patient for case in cohort.cases] == ["a", "b"]
    assert "each case counts as its own patient" in cohort.remarks[0].what
    assert [case.name for case in cohort.labelled] == ["a"]
    assert [case.name for case in cohort.unlabelled] == ["b"]
    assert cohort.classes == {"foreground": 1}
    assert read_case_mask(cohort.cases[0], cohort).voxels.max() == 1
    with pytest.raises(DataError, match="has no mask by reference"):
        read_case_mask(cohort.cases[1], cohort)


def test_an_index_that_lacks_some_scans_is_remarked(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "images" / f"{name}.png")
    (tmp_path / "index.csv").write_text("file;PatientID\na.png;p7\n")
    cohort = read_cohort(tmp_path)
    assert [case.patient for case in cohort.cases] == ["p7", "b"]
    assert any("scans without a patient (1 of 2)" in remark.what for remark in cohort.remarks)
    assert any("column `PatientID`" in remark.what for remark in cohort.remarks)


@pytest.mark.parametrize(
    "files",
    [
        ["masks/lung/a.png", "masks/heart/a.png"],
        ["masks/a_lung.png", "masks/a_heart.png"],
        ["masks/a/lung.png", "masks/a/heart.png"],
    ],
    ids=["folder per class", "suffix per class", "folder per case"],
)
def test_one_file_per_class(tmp_path: Path, files: list[str]) -> None:
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / files[0], 255, (0, 4))
    picture(tmp_path / files[1], 255, (3, 6))
    cohort = read_cohort(tmp_path)
    assert cohort.classes == {"heart": 1, "lung": 2}
    labels = read_case_mask(cohort.cases[0], cohort).voxels[0]
    assert labels[3, 3] == 2  # both show it: the class declared later wins
    assert (labels == 1).sum() == 8
    turned = read_cohort(tmp_path, classes={"lung": 2, "heart": 1})
    assert read_case_mask(turned.cases[0], turned).voxels[0, 3, 3] == 1


@pytest.mark.parametrize(
    "files",
    [
        ["masks/reader1/a.png", "masks/reader2/a.png"],
        ["masks/a_reader1.png", "masks/a_reader2.png"],
    ],
    ids=["folder per reader", "suffix per reader"],
)
def test_several_readers(tmp_path: Path, files: list[str]) -> None:
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / files[0], 255, (0, 4))
    picture(tmp_path / files[1], 255, (0, 5))
    cohort = read_cohort(tmp_path)
    assert cohort.readers == ("reader1", "reader2")
    assert cohort.reader == "reader1"
    assert any("2 readers drew masks" in remark.what for remark in cohort.remarks)
    assert read_case_mask(cohort.cases[0], cohort).voxels.sum() == 16
    assert read_case_mask(cohort.cases[0], cohort, reader="reader2").voxels.sum() == 25
    assert read_cohort(tmp_path, reader="reader2").reader == "reader2"
    with pytest.raises(ConfigError, match="no reader 'me'"):
        read_cohort(tmp_path, reader="me")


def test_readers_with_classes(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "masks" / "rater_0" / "nodule" / "a.png", 255)
    picture(tmp_path / "masks" / "vessel" / "rater_0" / "a.png", 255, (6, 8))
    cohort = read_cohort(tmp_path)
    assert cohort.readers == ("rater_0",)
    assert cohort.classes == {"nodule": 1, "vessel": 2}
    assert np.unique(read_case_mask(cohort.cases[0], cohort).voxels).tolist() == [0, 1, 2]


def test_nested_images_with_mirrored_masks(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        picture(tmp_path / "images" / patient / "slice1.png")
        picture(tmp_path / "images" / patient / "slice2.png")
        picture(tmp_path / "masks" / patient / "slice1.png", 255)
    picture(tmp_path / "masks" / "p1" / "slice2_mask.png", 255)
    cohort = read_cohort(tmp_path)
    assert names(cohort) == ["p1__slice1", "p1__slice2", "p2__slice1", "p2__slice2"]
    assert [len(case.masks) for case in cohort.cases] == [1, 1, 1, 0]
    assert cohort.classes == {"foreground": 1}


def test_files_of_one_name_take_the_name_of_their_folder(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        picture(tmp_path / "images" / patient / "scan.png")
    picture(tmp_path / "masks" / "p1" / "scan.png", 255)
    picture(tmp_path / "masks" / "p2.png", 255)
    cohort = read_cohort(tmp_path)
    assert names(cohort) == ["p1", "p2"]
    assert [case.masks[0].class_name for case in cohort.cases] == [None, None]


def test_grey_masks_are_cut_at_half(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    pixels = np.zeros((8, 8), np.uint8)
    pixels[0, :4] = (1, 127, 128, 255)
    (tmp_path / "masks").mkdir()
    Image.fromarray(pixels).save(tmp_path / "masks" / "a.png")
    cohort = read_cohort(tmp_path)
    assert read_case_mask(cohort.cases[0], cohort).voxels[0, 0, :4].tolist() == [0, 0, 1, 1]


def test_coloured_pictures_become_modalities(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., 1], pixels[..., 2] = 50, 90
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    cohort = read_cohort(tmp_path)
    assert cohort.modalities == ("red", "green", "blue")
    assert any("three different channels" in remark.what for remark in cohort.remarks)
    named = read_cohort(tmp_path, channels={"flair": 1, "t1c": 2})
    assert named.modalities == ("flair", "t1c")
    assert named.cases[0].images["flair"] == ImageFile((tmp_path / "images" / "a.png").resolve(), channel=1)
    assert read_images(named.cases[0])["t1c"].voxels.max() == 90
    for wrong in ({"flair": -1}, {}, {"flair": "1"}):
        with pytest.raises(ConfigError, match="not a naming of channels"):
            read_cohort(tmp_path, channels=wrong)
    (tmp_path / "channels.json").write_text('{"flair": 1}')
    assert read_cohort(tmp_path).modalities == ("flair",)


def test_a_plain_folder_of_scans_is_an_unlabelled_cohort(tmp_path: Path) -> None:
    picture(tmp_path / "deep" / "a.png")
    picture(tmp_path / "b.png")
    cohort = read_cohort(tmp_path)
    assert names(cohort) == ["b", "a"]
    assert cohort.labelled == ()


def test_an_empty_folder_of_masks_is_remarked(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    assert any("no mask in masks/" in remark.what for remark in read_cohort(tmp_path).remarks)


def test_masks_of_undeclared_classes_are_left_out_and_remarked(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "masks" / "lung" / "a.png", 255)
    picture(tmp_path / "masks" / "rib" / "a.png", 255)
    cohort = read_cohort(tmp_path, classes={"lung": 1, "heart": 2})
    assert [mask.class_name for mask in cohort.cases[0].masks] == ["lung"]
    said = " ".join(remark.what for remark in cohort.remarks)
    assert "left out: rib" in said
    assert "without any mask: heart" in said
    with pytest.raises(ConfigError, match="no declared class has a mask"):
        read_cohort(tmp_path, classes={"liver": 1})


def test_a_mask_without_image_is_a_fault(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "masks" / "b.png", 255)
    picture(tmp_path / "masks" / "c.png", 255)
    with pytest.raises(DataError, match=r"(?s)masks/b.png: mask without image.*masks/c.png: mask without"):
        read_cohort(tmp_path)
    assert len(read_cohort(tmp_path, on_fault="report").faults) == 2


def test_two_masks_for_one_thing_are_a_fault(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "masks" / "a.png", 255)
    picture(tmp_path / "masks" / "a_mask.png", 255)
    with pytest.raises(DataError, match="2 masks of foreground by reference"):
        read_cohort(tmp_path)


def test_a_folder_with_no_case(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder with no case"):
        read_cohort(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"notes\.txt"):
        read_cohort(tmp_path)
    picture(tmp_path / "masks" / "a.png", 255)
    with pytest.raises(DataError, match="a folder masks/ but no folder images/"):
        read_cohort(tmp_path)
    with pytest.raises(DataError, match="no such cohort"):
        read_cohort(tmp_path / "missing")


@pytest.mark.parametrize(
    "classes", [{}, {"a": 0}, {"a": 1, "b": 1}, {"a": 2}, {"a": 255}, {"a": True}, {"a": "1"}, {"": 1}]
)
def test_wrong_declarations_of_classes(tmp_path: Path, classes: dict) -> None:
    picture(tmp_path / "images" / "a.png")
    with pytest.raises(ConfigError, match="not a declaration of classes"):
        read_cohort(tmp_path, classes=classes)


def test_a_classes_json_that_is_no_mapping(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "classes.json").write_text("[1, 2]")
    with pytest.raises(ConfigError, match="not a declaration of classes"):
        read_cohort(tmp_path)


@pytest.mark.parametrize("end", [".png", ".nii.gz"])
def test_a_picture_mask_without_pixel_size_lies_on_its_image(tmp_path: Path, end: str) -> None:
    affine = np.diag([-0.143, -0.143, 1.0, 1.0]) if end == ".nii.gz" else np.diag([0.143, 0.143, 1.0, 1.0])
    pixels = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    write_volume(tmp_path / "images" / f"a{end}", Volume(pixels, affine))
    picture(tmp_path / "masks" / "a.png", 255)
    cohort = read_cohort(tmp_path)
    mask = read_case_mask(cohort.cases[0], cohort)
    np.testing.assert_allclose(mask.affine, read_images(cohort.cases[0])["image"].affine)
    assert mask.spacing_mm[1:] == pytest.approx((0.143, 0.143), rel=1e-3)
    assert mask.voxels.sum() == 16
