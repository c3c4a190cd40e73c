import pytest
from PIL import Image

from fewmask.core.errors import DataError
from fewmask.segmenter.scans import fingerprint, gather_scans


@pytest.fixture
def folder(tmp_path):
    for name in ("b.nii.gz", "a.png", "sub/a.nii", "b.nrrd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_one_modality_one_file_one_scan(folder):
    scans = gather_scans(folder, ["image"])
    assert [scan.name for scan in scans] == ["a", "b", "b_nrrd", "sub/a"]
    assert scans[3].files == {"image": folder / "sub" / "a.nii"}


def test_one_file_is_a_scan(folder):
    scans = gather_scans(folder / "b.nii.gz", ["image"])
    assert [(scan.name, scan.files) for scan in scans] == [("b", {"image": folder / "b.nii.gz"})]


def test_modalities_go_together_by_number_or_by_name(tmp_path):
    for name in ("x_0000", "x_0001", "y_t1", "y_flair", "z_0001"):
        (tmp_path / f"{name}.nii.gz").write_bytes(b"")
    scans = {scan.name: scan.files for scan in gather_scans(tmp_path, ["t1", "flair"])}
    assert {name: sorted(files) for name, files in scans.items()} == {
        "x": ["flair", "t1"],
        "y": ["flair", "t1"],
        "z": ["flair"],
    }
    assert scans["x"]["t1"].name == "x_0000.nii.gz"


def test_a_model_of_one_modality_reads_nnunet_names(tmp_path):
    (tmp_path / "x_0000.nii.gz").write_bytes(b"")
    assert [scan.name for scan in gather_scans(tmp_path, ["ct"])] == ["x"]


def test_a_changed_file_has_another_fingerprint(folder):
    files = {"image": folder / "b.nii.gz"}
    before = fingerprint(files)
    assert fingerprint(files) == before
    (folder / "b.nii.gz").write_bytes(b"other")
    assert fingerprint(files) != before
    (folder / "c.mhd").write_text("header")
    (folder / "c.raw").write_text("voxels")
    detached = fingerprint({"image": folder / "c.mhd"})
    (folder / "c.raw").write_text("others")
    assert fingerprint({"image": folder / "c.mhd"}) != detached


def test_what_cannot_be_read_is_told(tmp_path):
    with pytest.raises(DataError, match="no scan"):
        gather_scans(tmp_path, ["image"])
    with pytest.raises(DataError, match="cannot be read"):
        fingerprint({"image": tmp_path / "gone.nii.gz"})


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_a_cohort_gives_its_cases_and_no_mask(tmp_path):
    cohort = touch(tmp_path / "a", "images/x.nii.gz", "images/p/y.nii", "labels/x.nii.gz", "labels/p/y.nii")
    assert [scan.name for scan in gather_scans(cohort, ["image"])] == ["x", "y"]
    names = (
        "imagesTr/x_0000.nii.gz",
        "imagesTr/x_0001.nii.gz",
        "labelsTr/x.nii.gz",
        "imagesTs/y_0000.nii.gz",
    )
    scans = gather_scans(touch(tmp_path / "b", *names), ["t1", "flair"])
    assert {scan.name: sorted(scan.files) for scan in scans} == {"x": ["flair", "t1"], "y": ["t1"]}


def test_a_cohort_with_a_case_twice_is_told(tmp_path):
    touch(tmp_path, "x.nii").joinpath("cases.csv").write_text("case,image\nx,x.nii\nx,x.nii\n")
    with pytest.raises(DataError, match="twice"):
        gather_scans(tmp_path, ["image"])


def test_channels_of_a_picture_are_modalities(tmp_path):
    def numbers(place, modalities, **known):
        (scan,) = gather_scans(place, modalities, **known)
        return {name: image.channel for name, image in scan.images.items()}

    colour = tmp_path / "colour"
    colour.mkdir()
    Image.new("RGB", (4, 4), (1, 2, 3)).save(colour / "x_0000.png")
    assert numbers(colour, ["red", "green", "blue"]) == {"red": 0, "green": 1, "blue": 2}
    assert numbers(colour, ["t1", "flair"]) == {"t1": None}
    assert numbers(colour, ["t1", "flair"], channels={"t1": 2, "flair": 1}) == {"t1": 2, "flair": 1}
    (colour / "channels.json").write_text('{"flair": 0, "t1": 1}')
    assert numbers(colour, ["t1", "flair"], channels={"t1": 2, "flair": 1}) == {"t1": 1, "flair": 0}
    cohort = touch(tmp_path / "cohort", "masks/x.nii.gz", "images/.hidden")
    Image.new("RGB", (4, 4), (1, 2, 3)).save(cohort / "images" / "x.png")
    assert numbers(cohort, ["t1", "flair"], channels={"t1": 2, "flair": 1}) == {"t1": 2, "flair": 1}
    assert numbers(cohort, ["image"]) == {"image": None}


def test_grey_pictures_of_one_modality_each_go_together(tmp_path):
    for name in ("x_t1", "x_flair"):
        Image.new("L", (4, 4)).save(tmp_path / f"{name}.png")
    (scan,) = gather_scans(tmp_path, ["t1", "flair"], channels={"t1": 0, "flair": 1})
    assert {name: path.stem for name, path in scan.files.items()} == {"t1": "x_t1", "flair": "x_flair"}
