"""Cohorts from a cases.csv."""

from pathlib import Path

import numpy as np
import pytest

from fewmask.core.errors import DataError
from fewmask.core.volume import Mask, Volume
from fewmask.data.cohort import ImageFile, read_case_mask, read_cohort
from fewmask.data.cohort_table import read_table, stem
from fewmask.data.io import write_mask, write_volume


def volume(path: Path, value: int = 1) -> None:
    write_volume(path, Volume(np.full((1, 4, 4), value, np.int16), np.eye(4)))


def mask(path: Path, *places: tuple[int, int, int]) -> None:
    labels = np.zeros((1, 4, 4), np.uint8)
    for y, x, value in places:
        labels[0, y, x] = value
    write_mask(path, Mask(labels, np.eye(4)))


def test_a_full_table(tmp_path: Path) -> None:
    for name in ("a_t1", "a_t2", "b_t1", "b_t2"):
        volume(tmp_path / "scans" / f"{name}.nii.gz")
    mask(tmp_path / "m" / "a_liver_r1.nii.gz", (0, 0, 1), (1, 1, 1))
    mask(tmp_path / "m" / "a_lesion_r1.nii.gz", (1, 1, 1))
    mask(tmp_path / "m" / "a_liver_r2.nii.gz", (0, 0, 1))
    (tmp_path / "cases.csv").write_text(
        "case,patient,image:t1,image:t2,mask:liver@r1,mask:lesion@r1,mask:liver@r2,site,part\n"
        "a,p1,scans/a_t1.nii.gz,scans/a_t2.nii.gz,m/a_liver_r1.nii.gz,m/a_lesion_r1.nii.gz,m/a_liver_r2.nii.gz,X,train\n"
        "b,p2,scans/b_t1.nii.gz,scans/b_t2.nii.gz,,,,Y,test\n"
    )
    cohort = read_cohort(tmp_path, classes={"liver": 1, "lesion": 2})
    assert cohort.name == tmp_path.name
    assert cohort.modalities == ("t1", "t2")
    assert cohort.readers == ("r1", "r2")
    assert cohort.cases[0].tags == {"site": "X", "part": "train"}
    assert cohort.cases[1].masks == ()
    labels = read_case_mask(cohort.cases[0], cohort).voxels[0]
    assert (labels[0, 0], labels[1, 1]) == (1, 2)
    assert read_case_mask(cohort.cases[0], cohort, reader="r2").voxels.sum() == 1
    assert read_cohort(tmp_path / "cases.csv", classes={"liver": 1, "lesion": 2}) == cohort
    assert cohort.case("b").patient == "p2"
    with pytest.raises(KeyError):
        cohort.case("c")


def test_semicolons_latin_letters_and_a_byte_order_mark(tmp_path: Path) -> None:
    volume(tmp_path / "ä.nii.gz")
    (tmp_path / "x.csv").write_bytes("case;image;Größe\nfall ä;ä.nii.gz;1,5\n".encode("latin-1"))
    assert read_cohort(tmp_path / "x.csv").cases[0].tags == {"Größe": "1,5"}
    (tmp_path / "y.csv").write_bytes(b"\xef\xbb\xbf" + "case\timage\nfall ä\tä.nii.gz\n".encode())
    cohort = read_cohort(tmp_path / "y.csv")
    assert cohort.cases[0].name == "fall ä"
    assert cohort.name == "y"


def test_channels_and_series_of_a_cell(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    (tmp_path / "dicom").mkdir()
    (tmp_path / "cases.csv").write_text("image:a,image:b\nx.png#channel=1,dicom#series=1.2.3\n")
    images = read_cohort(tmp_path).cases[0].images
    folder = tmp_path.resolve()
    assert images == {"a": ImageFile(folder / "x.png", 1), "b": ImageFile(folder / "dicom", series="1.2.3")}


def test_all_faults_of_a_table_at_once(tmp_path: Path) -> None:
    volume(tmp_path / "a.nii.gz")
    mask(tmp_path / "m.nii.gz")
    (tmp_path / "cases.csv").write_text(
        "case,patient,image,mask\na,p1,a.nii.gz,\na,p1,a.nii.gz,\nc,p2,gone.nii.gz,\nd,p3,,m.nii.gz\n"
        "e,p4,,\nf,,a.nii.gz,\n"
    )
    with pytest.raises(DataError) as caught:
        read_cohort(tmp_path)
    text = str(caught.value)
    assert "has 5 faults" in text
    assert "cases.csv row 4: there is no file" in text
    assert "cases.csv row 5: mask without image" in text
    assert "cases.csv row 6: no image" in text
    assert "cases.csv row 7: case f has no patient" in text
    assert "case a: the name stands for 2 cases" in text
    assert len(caught.value.problems) == 5


def test_a_modality_that_some_cases_lack(tmp_path: Path) -> None:
    volume(tmp_path / "a.nii.gz")
    (tmp_path / "cases.csv").write_text("case,image:ct,image:mr\na,a.nii.gz,a.nii.gz\nb,a.nii.gz,\n")
    with pytest.raises(DataError, match="case b: has no image of mr"):
        read_cohort(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a table"),
        (b"PK\x03\x04\x00\x00", "is not a table"),
        (b"case,scan\na,b\n", "has no image column"),
        (b"case,image\n", "has no case: only a header"),
        (b"image,mask,mask\na,b,c\n", "has two columns called mask"),
    ],
)
def test_files_that_are_no_table_of_cases(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "cases.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_cohort(tmp_path)


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "none.csv")


def test_an_index_without_a_column_file_is_remarked(tmp_path: Path) -> None:
    volume(tmp_path / "images" / "a.nii.gz")
    (tmp_path / "index.csv").write_text("scan,patient\na,p\n")
    said = [remark.what for remark in read_cohort(tmp_path).remarks]
    assert "is left unread: it has no column `file`" in said
    (tmp_path / "index.csv").write_text("file,patient\nother.nii.gz,p\n")
    said = [remark.what for remark in read_cohort(tmp_path).remarks]
    assert "no row names a scan of this folder" in said


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("x/a_01.nii.gz", "a_01"),
        ("a.seg.nrrd", "a"),
        ("A.PNG", "A"),
        ("1.2.840.3", "1.2.840.3"),
        ("b.tif", "b"),
    ],
)
def test_stem(path: str, name: str) -> None:
    assert stem(path) == name
