import pytest

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
