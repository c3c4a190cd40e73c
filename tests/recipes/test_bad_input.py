"""Bad input through the command line: a clear message, exit code 2, nothing lost."""

import errno
import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fewmask.cli import main
from fewmask.core import files

RUN = (
    "run",
    "supervised",
    "--preset",
    "tiny",
    "threads=1",
    "unet.images=16",
    "shots.counts=[1]",
    "shots.full=false",
)


def fails(capsys, *words) -> str:
    """Run a command that must end with exit code 2; returns all it printed."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out + captured.err


def first(folder: Path) -> Path:
    return sorted(folder.glob("*.nii.gz"))[0]


def change(path: Path, *, voxels=None, affine=None) -> None:
    """Write a NIfTI file again with other voxels or another affine."""
    old = nibabel.load(path)
    array = np.asarray(old.dataobj) if voxels is None else voxels(np.asarray(old.dataobj))
    placed = old.affine if affine is None else affine(old.affine.copy())
    nibabel.save(nibabel.Nifti1Image(array, placed), path)


def both(capsys, cohort: Path, tmp_path: Path, *parts: str) -> None:
    """`check` and `run` both refuse the cohort and say `parts`."""
    for text in (
        fails(capsys, "check", cohort),
        fails(capsys, *RUN, "--cohort", cohort, "--out", tmp_path / "r"),
    ):
        for part in parts:
            assert part in text, text
    assert not (tmp_path / "r" / "results.csv").exists()


def test_mask_of_another_shape(cohort: Path, tmp_path: Path, capsys):
    path = first(cohort / "masks")
    change(path, voxels=lambda v: v[:-1])
    both(capsys, cohort, tmp_path, path.name.split(".")[0], "shape")


def test_mask_of_another_spacing(cohort: Path, tmp_path: Path, capsys):
    path = first(cohort / "masks")
    change(path, affine=lambda a: a @ np.diag([1.2, 1, 1, 1]))
    both(capsys, cohort, tmp_path, path.name.split(".")[0], "mm")


def test_mask_of_another_orientation(cohort: Path, tmp_path: Path, capsys):
    path = first(cohort / "masks")
    change(path, affine=lambda a: np.diag([-1, 1, 1, 1]) @ a)
    both(capsys, cohort, tmp_path, path.name.split(".")[0], "mm")


def test_a_label_value_that_nobody_declared(cohort: Path, tmp_path: Path, capsys):
    change(first(cohort / "masks"), voxels=lambda v: np.where(v == 1, 77, v).astype(np.uint8))
    both(capsys, cohort, tmp_path, "77")


def test_nan_in_an_image(cohort: Path, tmp_path: Path, capsys):
    path = first(cohort / "images")

    def spoil(voxels):
        spoilt = voxels.astype(np.float32)
        spoilt[0, 0, 0] = np.nan
        return spoilt

    change(path, voxels=spoil)
    both(capsys, cohort, tmp_path, "NaN")


def test_a_patient_in_two_parts(cohort: Path, tmp_path: Path, capsys):
    names = sorted(path.name.removesuffix(".nii.gz") for path in (cohort / "images").glob("*.nii.gz"))
    lines = ["case,patient,image,mask,part"]
    for number, name in enumerate(names):
        patient = "same" if number < 2 else name
        part = "test" if number == 1 else "train"
        lines.append(f"{name},{patient},images/{name}.nii.gz,masks/{name}.nii.gz,{part}")
    (cohort / "cases.csv").write_text("\n".join(lines))
    both(capsys, cohort, tmp_path, "two parts", "same")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), ""),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_text("this is no scan"), ""),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 64), "PNG"),
    ],
    ids=["truncated", "zero bytes", "a text file", "a renamed PNG"],
)
def test_damaged_files(spoil, said, cohort: Path, tmp_path: Path, capsys):
    path = first(cohort / "images")
    spoil(path)
    both(capsys, cohort, tmp_path, path.name.split(".")[0], said)


def test_a_folder_with_no_case(tmp_path: Path, capsys):
    (tmp_path / "nothing").mkdir()
    both(capsys, tmp_path / "nothing", tmp_path, "nothing")


def test_a_cohort_that_is_not_there(tmp_path: Path, capsys):
    both(capsys, tmp_path / "nowhere", tmp_path, "nowhere")


def test_masks_that_are_all_empty(cohort: Path, tmp_path: Path, capsys):
    for path in (cohort / "masks").glob("*.nii.gz"):
        change(path, voxels=np.zeros_like)
    text = fails(capsys, *RUN, "--cohort", cohort, "--out", tmp_path / "r")
    assert "empty" in text


def test_more_shots_than_labelled_patients(cohort: Path, tmp_path: Path, capsys):
    words = ["--cohort", cohort, "--out", tmp_path / "r", "shots.unit=patient", "shots.counts=[50]"]
    text = fails(capsys, *RUN, *words)
    assert "50" in text
    assert "labelled" in text


def test_no_right_to_write(cohort: Path, tmp_path: Path, capsys, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(files.Path, "mkdir", refuse)
    text = fails(capsys, *RUN, "--cohort", cohort, "--out", tmp_path / "r")
    assert "no permission to write" in text
    assert "--out" in text


def test_a_full_disk_keeps_what_was_done(cohort: Path, tmp_path: Path, capsys, monkeypatch):
    words = [*RUN, "--cohort", cohort, "--out", tmp_path / "r"]

    def full(path: Path, write) -> Path:
        if path.name == "rows.csv":
            raise files.write_error(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        return whole(path, write)

    whole = files.write_atomic
    monkeypatch.setattr(files, "write_atomic", full)
    assert "the disk is full" in fails(capsys, *words)
    monkeypatch.undo()
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 0
    assert json.loads((tmp_path / "r" / "run.json").read_text())["recipe"] == "supervised"


@pytest.mark.parametrize(
    "words", [["rum"], ["run"], ["run", "fewshot", "--presett", "x"], ["run", "fewshots"]]
)
def test_slips_of_the_pen(words, capsys):
    assert fails(capsys, *words)


def test_a_model_that_is_not_there(cohort: Path, tmp_path: Path, capsys):
    text = fails(capsys, "segment", tmp_path / "none", cohort / "images", "-o", tmp_path / "out")
    assert "no such model" in text


def test_a_report_of_no_run(tmp_path: Path, capsys):
    assert "finished run" in fails(capsys, "report", tmp_path)
