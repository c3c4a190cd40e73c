import csv

import numpy as np
import pytest
import torch
from PIL import Image

from fewmask.core.errors import ConfigError, DataError, RunError
from fewmask.core.run import MaskFolder
from fewmask.core.seed import stream
from fewmask.core.volume import Mask, Volume, corner_displacement_mm
from fewmask.data.cohort import read_cohort
from fewmask.data.dicomseg import read_dicom_seg
from fewmask.data.io import read_grid, read_mask, write_mask, write_volume
from fewmask.data.prepare import Preparation
from fewmask.segmenter import folder as room
from fewmask.segmenter import journal
from fewmask.segmenter.folder import segment_folder, volumes_ml, write_confidences
from fewmask.segmenter.journal import Entry
from fewmask.segmenter.model import Design, Segmenter


def save_model(folder, *, seed=0, modalities=("image",), **design):
    preparation = Preparation(channels=dict.fromkeys(modalities, ("zscore",)), size=(16, 16))
    design = Design({"lung": 3, "heart": 1}, preparation, (16, 16), (4, 8), **design)
    torch.manual_seed(seed)
    return Segmenter(design.build(), design).save(folder)


def volume(affine, seed=0):
    voxels = stream(seed, "scan").integers(0, 1000, (3, 20, 24)).astype(np.int16)
    return Volume(voxels, affine)


@pytest.fixture
def model(tmp_path):
    return save_model(tmp_path / "model")


@pytest.fixture
def scans(tmp_path, oblique):
    """Three good scans and three bad ones."""
    folder = tmp_path / "scans"
    (folder / "sub").mkdir(parents=True)
    write_volume(folder / "good.nii.gz", volume(oblique[0].affine))
    write_volume(folder / "sub" / "other.nrrd", volume(np.diag([1.0, 2.0, 3.0, 1.0]), seed=1))
    write_volume(folder / "film.png", Volume(volume(np.eye(4)).voxels[:1].astype(np.uint16), np.eye(4)))
    (folder / "text.nii.gz").write_text("this is no scan")
    (folder / "empty.nii.gz").write_bytes(b"")
    nan = volume(np.eye(4)).voxels.astype(np.float32)
    nan[0, 0, 0] = np.nan
    write_volume(folder / "nan.nii.gz", Volume(nan, np.eye(4)))
    return folder


def test_bad_files_are_quarantined_and_the_rest_goes_on(model, scans, tmp_path):
    said = []
    result = segment_folder(model, scans, tmp_path / "out", say=said.append)
    assert result.done == ("film", "good", "sub/other")
    assert result.exit_code == 2
    assert sorted(result.quarantined) == ["empty", "nan", "text"]
    assert "text file" in result.quarantined["text"]
    assert "NaN" in result.quarantined["nan"]
    assert len(said) == 6
    files = MaskFolder(tmp_path / "out")
    entries = journal.read(files.journal_jsonl)
    assert {name: entry.outcome for name, entry in entries.items()} == {
        **dict.fromkeys(result.done, "done"),
        **dict.fromkeys(result.quarantined, "quarantined"),
    }
    for name, source in (("good", "good.nii.gz"), ("sub/other", "sub/other.nrrd")):
        mask = read_mask(files.mask(name, ".nii.gz"))
        assert corner_displacement_mm(mask.grid, read_grid(scans / source)) < 0.01
        assert set(np.unique(mask.voxels)) <= {0, 1, 3}
        assert files.picture(name).is_file()
        assert 0 <= entries[name].confidence <= 1
        assert sum(entries[name].volume_ml.values()) <= np.prod(mask.shape) * np.prod(mask.spacing_mm) / 1000


def test_the_same_command_again_does_only_what_is_left(model, scans, tmp_path):
    out = tmp_path / "out"
    segment_folder(model, scans, out)
    files = MaskFolder(out)
    first = files.mask("good", ".nii.gz").read_bytes()
    write_volume(scans / "text.nii.gz", volume(np.eye(4), seed=2))
    write_volume(scans / "sub" / "other.nrrd", volume(np.eye(4), seed=3))
    files.mask("film", ".nii.gz").unlink()
    again = segment_folder(model, scans, out)
    assert again.skipped == ("good",)
    assert again.done == ("film", "sub/other", "text")
    assert sorted(again.quarantined) == ["empty", "nan"]
    assert files.mask("good", ".nii.gz").read_bytes() == first
    for name in ("empty", "nan"):
        (scans / f"{name}.nii.gz").unlink()
    last = segment_folder(model, scans, out)
    assert (len(last.skipped), last.done, last.exit_code) == (4, (), 0)


def test_another_model_or_setting_does_all_again(model, scans, tmp_path):
    out = tmp_path / "out"
    segment_folder(model, scans / "good.nii.gz", out)
    assert segment_folder(model, scans / "good.nii.gz", out).skipped == ("good",)
    assert segment_folder(model, scans / "good.nii.gz", out, tta=True).done == ("good",)
    other = save_model(tmp_path / "other", seed=1)
    assert segment_folder(other, scans / "good.nii.gz", out, tta=True).done == ("good",)


def test_confidences_are_ranked_the_worst_first(tmp_path):
    entries = [
        Entry("a", "done", {}, 1.0, confidence=0.9, by_class={"lung": 0.9}, volume_ml={"lung": 12.0}),
        Entry("b", "done", {}, 1.0, confidence=0.1, by_class={"lung": 0.1}, volume_ml={"lung": 3.0}),
    ]
    path = write_confidences(tmp_path / "list.csv", entries)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["scan"] for row in rows] == ["b", "a"]
    assert rows[0] == {"scan": "b", "confidence": "0.1000", "confidence lung": "0.1000", "ml lung": "3.0000"}


def test_a_case_without_one_of_its_modalities_is_quarantined(scans, tmp_path, oblique):
    model = save_model(tmp_path / "two", modalities=("t1", "flair"))
    for name in ("x_0000", "x_0001", "y_0000"):
        write_volume(tmp_path / "mr" / f"{name}.nii.gz", volume(oblique[0].affine))
    result = segment_folder(model, tmp_path / "mr", tmp_path / "out")
    assert result.done == ("x",)
    assert "flair" in result.quarantined["y"]


def test_a_reader_that_fails_in_its_own_way_is_quarantined(model, scans, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("strange header")

    monkeypatch.setattr(room, "read_volume", fail)
    result = segment_folder(model, scans / "good.nii.gz", tmp_path / "out")
    assert result.quarantined == {"good": "unexpected ValueError: strange header"}


def test_a_full_disk_stops_everything(model, scans, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RunError("the disk is full")

    monkeypatch.setattr(room, "write_mask", fail)
    with pytest.raises(RunError, match="disk is full"):
        segment_folder(model, scans, tmp_path / "out")


def test_mistakes_are_told_before_anything_is_done(model, scans, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown format[\s\S]*nii\.gz"):
        segment_folder(model, scans, tmp_path / "out", output_format="bmp")
    with pytest.raises(ConfigError, match="device"):
        segment_folder(model, scans, tmp_path / "out", device="mps" if torch.cuda.is_available() else "cuda")
    with pytest.raises(DataError, match="no such model"):
        segment_folder(tmp_path / "nothing", scans, tmp_path / "out")
    (tmp_path / "blank").mkdir()
    with pytest.raises(DataError, match="no scan"):
        segment_folder(model, tmp_path / "blank", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        segment_folder(model, scans, tmp_path / "file")


def test_volumes_are_in_millilitres(scans, model, tmp_path):
    segment_folder(model, scans / "good.nii.gz", tmp_path / "out", output_format="seg.nrrd")
    mask = read_mask(MaskFolder(tmp_path / "out").mask("good", ".seg.nrrd"))
    volumes = volumes_ml(mask, {"lung": 3, "heart": 1})
    assert volumes["heart"] == pytest.approx((mask.voxels == 1).sum() * np.prod(mask.spacing_mm) / 1000)


def test_dicom_seg_only_for_dicom(model, scans, tmp_path):
    result = segment_folder(model, scans / "good.nii.gz", tmp_path / "out", output_format="dicom-seg")
    assert list(result.quarantined) == ["good"]


def test_a_dicom_series_gives_a_dicom_seg_on_its_grid(model, data_folder, tmp_path):
    series = data_folder / "dicom" / "ct-chest-64" / "dicom"
    if not series.is_dir():
        pytest.skip(f"no folder {series}")
    result = segment_folder(model, series, tmp_path / "out", output_format="dicom-seg")
    assert result.done == ("dicom",)
    grid = read_grid(series)
    masks = read_dicom_seg(MaskFolder(tmp_path / "out").mask("dicom", ".dcm"))
    assert set(masks) <= {"lung", "heart"}
    for mask in masks.values():
        assert corner_displacement_mm(mask.grid, grid) < 0.01


def test_a_cohort_gives_masks_named_after_its_cases(model, tmp_path):
    cohort = tmp_path / "cohort"
    for patient in ("p1", "p2"):
        write_volume(cohort / "images" / patient / "image.nii.gz", volume(np.eye(4)))
        write_mask(
            cohort / "masks" / patient / "image.nii.gz", Mask(np.ones((3, 20, 24), np.uint8), np.eye(4))
        )
    result = segment_folder(model, cohort, tmp_path / "out")
    assert (result.done, result.quarantined) == (("p1", "p2"), {})
    cases = read_cohort(cohort).labelled
    assert all(MaskFolder(tmp_path / "out").mask(case.name, ".nii.gz").is_file() for case in cases)


def test_a_colour_picture_gives_all_modalities(tmp_path):
    pixels = stream(0, "picture").integers(0, 255, (20, 24, 3)).astype(np.uint8)
    (tmp_path / "scans").mkdir()
    Image.fromarray(pixels).save(tmp_path / "scans" / "film_0001.png")
    design = {"modalities": ("t1", "flair"), "picture_channels": {"t1": 0, "flair": 2}}
    model = save_model(tmp_path / "model", **design)
    result = segment_folder(model, tmp_path / "scans", tmp_path / "out")
    assert (result.done, result.quarantined) == (("film_0001",), {})
    entry = journal.read(MaskFolder(tmp_path / "out").journal_jsonl)["film_0001"]
    assert entry.made_from["read as"] == "flair: channel 2; t1: channel 0"
