"""Files that are not what they should be: each raises an error that says what to do."""

import errno
import gzip
import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fewmask.core.errors import DataError, RunError
from fewmask.core.volume import Mask, Volume
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


def test_truncated_nifti(tmp_path, volume):
    chance = np.frombuffer(os.urandom(60000), np.int16).reshape(20, 30, 50)
    for name in ("a.nii.gz", "a.nii"):
        path = write_volume(tmp_path / name, Volume(chance, AFFINE))
        path.write_bytes(path.read_bytes()[:-9000])
        _fails(path, "is cut short: the end", "bytes", "Copy or export it again")


def test_truncated_header(tmp_path, volume):
    path = write_volume(tmp_path / "a.nii", volume)
    path.write_bytes(path.read_bytes()[:200])
    _fails(path, "cannot be read as a NIfTI file", "200 bytes")


def test_a_flipped_bit_in_gzip(tmp_path):
    path = write_volume(tmp_path / "a.nii.gz", Volume(np.ones((30, 30, 30), np.int16), AFFINE))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    _fails(path, "a.nii.gz", "damaged", "export it again")


def test_misnamed_files(tmp_path, volume):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "film.png")
    (tmp_path / "film.png").rename(tmp_path / "film.nii.gz")
    _fails(tmp_path / "film.nii.gz", "is not a gzip-compressed NIfTI file", "found: a PNG picture", "suffix")
    (tmp_path / "notes.nii.gz").write_text("Patient 17 was scanned twice.\n" * 20)
    _fails(tmp_path / "notes.nii.gz", "a text file that begins with 'Patient 17 was scanned twice.", "export")
    nifti = write_volume(tmp_path / "scan.nii", volume)
    nifti.rename(tmp_path / "scan.nii.gz")
    _fails(tmp_path / "scan.nii.gz", "found: a NIfTI file without compression")
    zipped = write_volume(tmp_path / "zipped.nii.gz", volume)
    zipped.rename(tmp_path / "zipped.nii")
    _fails(tmp_path / "zipped.nii", "found: a gzip-compressed NIfTI file")
    (tmp_path / "table.nrrd").write_text("case,patient\n1,2\n")
    _fails(tmp_path / "table.nrrd", "is not a NRRD volume", "a text file")
    (tmp_path / "table.png").write_text("case,patient\n1,2\n")
    _fails(tmp_path / "table.png", "is not a PNG picture", "a text file")
    (tmp_path / "table.tif").write_text("case,patient\n1,2\n")
    _fails(tmp_path / "table.tif", "is not a TIFF picture", "a text file")
    (tmp_path / "table.dcm").write_text("case,patient\n1,2\n")
    _fails(tmp_path / "table.dcm", "is not a DICOM file", "a text file")
    (tmp_path / "tar.nii.gz").write_bytes(gzip.compress(b"something else" * 100))
    _fails(tmp_path / "tar.nii.gz", "a gzip archive of something else than NIfTI")


@pytest.mark.parametrize(
    "suffix", [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".png", ".tif", ".jpg", ".dcm"]
)
def test_empty_and_missing_files(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    for reader in (read_volume, read_grid, read_mask):
        _fails(path, "no such file", f"the folder {tmp_path} exists", reader=reader)
    path.touch()
    for reader in (read_volume, read_grid, read_mask):
        _fails(path, "is empty (0 bytes)", "Copy or export it again", reader=reader)


def test_a_missing_folder_says_what_exists(tmp_path):
    _fails(tmp_path / "no" / "where" / "a.nii.gz", f"only {tmp_path} exists")


def test_raw_file_missing_or_cut_short(tmp_path, volume):
    path = write_volume(tmp_path / "ct.mhd", volume)
    raw = tmp_path / "ct.raw"
    content = raw.read_bytes()
    raw.write_bytes(content[:50])
    _fails(path, "ct.raw", "50 bytes", "240 bytes")
    raw.unlink()
    _fails(path, "the file with its voxels is missing", "no ct.raw in", "ElementDataFile")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".png", ".tif"])
def test_other_files_cut_short(tmp_path, suffix, capfd):
    chance = np.frombuffer(os.urandom(2500), np.uint8).reshape(1, 50, 50)
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        Image.fromarray(chance[0]).save(path)
    else:
        write_volume(path, Volume(chance, np.eye(4)))
    path.write_bytes(path.read_bytes()[:-700])
    _fails(path, "cut short", "export it again")
    assert capfd.readouterr().err == ""


def test_unknown_suffixes(tmp_path, volume):
    (tmp_path / "a.mat").write_bytes(b"MATLAB")
    _fails(tmp_path / "a.mat", "cannot read this kind of file", "suffix '.mat'", ".nii.gz, .mhd")
    with pytest.raises(DataError, match=r"(?s)cannot write this kind of file.*\.mat.*\.seg\.nrrd"):
        write_volume(tmp_path / "b.mat", volume)


def test_folders_without_scans(tmp_path):
    with pytest.raises(DataError, match=r"(?s)no scan in this folder.*an empty folder"):
        find_scans(tmp_path)
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(DataError, match=r"(?s)no scan in this folder.*readme\.txt"):
        find_scans(tmp_path)
    with pytest.raises(DataError, match=r"(?s)no DICOM image in this folder.*readme\.txt"):
        read_volume(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        find_scans(tmp_path / "nowhere")


def test_hidden_files_raws_and_segmentations_are_no_scans(tmp_path, volume):
    write_volume(tmp_path / "ct.mhd", volume)
    write_volume(tmp_path / "sub" / "mr.nii.gz", volume)
    (tmp_path / "sub" / "._mr.nii.gz").write_bytes(b"junk of a file manager")
    write_mask(tmp_path / "ct.seg.nrrd", Mask(np.zeros((4, 5, 6), np.uint8), AFFINE))
    assert find_scans(tmp_path) == [tmp_path / "ct.mhd", tmp_path / "sub" / "mr.nii.gz"]
    assert find_scans(tmp_path / "ct.mhd") == [tmp_path / "ct.mhd"]


@pytest.mark.parametrize(
    ("code", "words"), [(errno.EACCES, "no permission to write"), (errno.ENOSPC, "the disk is full")]
)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".mhd", ".png"])
def test_no_permission_and_a_full_disk(tmp_path, monkeypatch, suffix, code, words):
    picture = Volume(np.zeros((1, 4, 4), np.uint8), np.eye(4))
    old = write_volume(tmp_path / f"a{suffix}", picture).read_bytes()

    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(RunError, match=words):
        write_volume(tmp_path / f"a{suffix}", picture)
    assert (tmp_path / f"a{suffix}").read_bytes() == old  # what stood there is untouched
    assert not [path for path in tmp_path.iterdir() if "tmp" in path.name]


def test_a_disk_that_fills_up_while_itk_writes(tmp_path, monkeypatch, volume):
    def stop(image, name, useCompression):
        raise RuntimeError("[nrrd] _nrrdGzWrite: failed to write to file")

    monkeypatch.setattr("SimpleITK.WriteImage", stop)
    with pytest.raises(RunError, match=r"cannot be written \(\[nrrd\] _nrrdGzWrite"):
        write_volume(tmp_path / "a.nrrd", volume)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(RunError, match="the disk is full"):
        write_volume(tmp_path / "a.nrrd", volume)


def test_a_folder_in_the_way_is_a_run_error(tmp_path, volume):
    (tmp_path / "file").write_text("")
    for suffix in (".nii.gz", ".nrrd", ".mhd"):
        with pytest.raises(RunError):
            write_volume(tmp_path / "file" / f"a{suffix}", volume)


def test_the_same_mask_gives_the_same_bytes(tmp_path):
    mask = Mask(np.eye(6, dtype=np.uint8)[None], AFFINE)
    for suffix in (".nii.gz", ".nrrd", ".seg.nrrd", ".mha", ".png"):
        first = write_mask(tmp_path / f"a{suffix}", mask).read_bytes()
        assert write_mask(tmp_path / f"b{suffix}", mask).read_bytes() == first
