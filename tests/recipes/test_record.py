"""The fingerprint of a cohort changes when a file of it does, and only then."""

import os
import shutil

import SimpleITK as sitk  # noqa: N813

from fewmask.data.cohort import read_cohort
from fewmask.recipes.record import fingerprint, machine, versions


def test_the_same_files_have_the_same_fingerprint(cohort):
    assert fingerprint(read_cohort(cohort)) == fingerprint(read_cohort(cohort))


def test_an_edit_of_the_same_size_is_noticed(cohort):
    before = fingerprint(read_cohort(cohort))
    mask = sorted((cohort / "masks").glob("*.nii.gz"))[0]
    os.utime(mask, ns=(1, 1))
    assert fingerprint(read_cohort(cohort)) != before


def test_other_classes_are_another_cohort(cohort):
    classes = read_cohort(cohort).classes
    others = dict(zip(reversed(classes), classes.values(), strict=True))
    assert fingerprint(read_cohort(cohort, classes=others)) != fingerprint(read_cohort(cohort))


def test_what_lies_beside_a_header_counts(cohort, tmp_path):
    folder = tmp_path / "mhd" / "images"
    folder.mkdir(parents=True)
    scan = sitk.ReadImage(str(sorted((cohort / "images").glob("*.nii.gz"))[0]))
    sitk.WriteImage(scan, str(folder / "a.mhd"))
    before = fingerprint(read_cohort(folder.parent))
    shutil.copyfile(folder / "a.raw", folder / "b")
    (folder / "b").replace(folder / "a.raw")
    assert fingerprint(read_cohort(folder.parent)) != before


def test_versions_and_machine_are_told():
    assert {"torch", "monai", "fewmask"} <= set(versions())
    assert machine()["cores"] >= 1
    assert "/" not in machine()["system"]
