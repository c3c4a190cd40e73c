"""Exports are read back by other programs, pixel for pixel; none goes out that the card does not allow."""

import csv
import json
import os
import shutil
import signal
import warnings
from dataclasses import replace

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from fewmask.core import files
from fewmask.core.errors import ConfigError, DataError, RunError
from fewmask.core.files import held
from fewmask.data.check import check_cohort
from fewmask.data.cohort import read_case_mask, read_cohort, read_images
from fewmask.data.dicomseg import read_dicom_seg
from fewmask.metrics.planted import Planted
from fewmask.synthesis.card import CopyReport, card_of, digest_of
from fewmask.synthesis.card_file import CARD_JSON, CARD_MD, read_card, write_card
from fewmask.synthesis.export import ACCEPTED, EXPORT_JSON, doubts, export_pairs
from fewmask.synthesis.factory import make_pairs, open_pairs
from fewmask.synthesis.sift import sift, write_sifted
from fewmask.synthesis.stored import grey_levels

CLASSES = {"heart": 1, "lung": 2}
COUNT = 5
PROVEN = Planted({"exact": 1.0, "noise": 0.995}, 200)


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch):
    """Hundreds of them take long, and no machine crashes here."""
    monkeypatch.setattr(files.os, "fsync", lambda _: None)


def report(pairs, *, examined=range(COUNT), copies=(), planted=PROVEN):
    digest = digest_of(pairs.records(), examined)
    numbers = {"images": 5.0, "copies": float(len(copies))}
    return CopyReport(tuple(examined), digest, tuple(copies), 50, 40, numbers, 0.0, planted)


def make(folder, painter, *, channels=1, image_format="png", card=True):
    names = ("image",) if channels == 1 else ("flair", "t1")
    pairs = make_pairs(
        folder,
        lambda number: painter(number, channels),
        COUNT,
        made_from={"generator": "abc123", "seed": 3},
        classes=CLASSES,
        modalities=names,
        image_format=image_format,
    )
    write_sifted(pairs, pairs.records(), sift(pairs.records(), uncertain_share=0.2))
    if card:
        write_card(folder, card_of(pairs, copies=report(pairs), licence="CC0"))
    return pairs


@pytest.fixture(scope="module")
def kept(painter, tmp_path_factory):
    """Sound pairs with a sound card; the numbers of the kept ones."""
    folder = tmp_path_factory.mktemp("kept") / "pairs"
    pairs = make(folder, painter)
    return folder, tuple(json.loads((folder / "kept.json").read_text())["kept"]), pairs


def visible(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("channels", [1, 2])
def test_nnunet_reads_back(painter, tmp_path, channels):
    make(tmp_path / "pairs", painter, channels=channels, image_format="nifti")
    out = tmp_path / "Dataset501_Synthetic"
    done = export_pairs(tmp_path / "pairs", out, "nnunet")
    assert len(done.numbers) == COUNT - 1
    assert done.accepted == ()
    told = json.loads((out / "dataset.json").read_text())
    assert told["labels"] == {"background": 0, **CLASSES}
    assert told["channel_names"] == ({"0": "image"} if channels == 1 else {"0": "flair", "1": "t1"})
    assert (told["numTraining"], told["file_ending"]) == (COUNT - 1, ".nii.gz")
    assert (told["name"], told["licence"]) == (out.name, "CC0")
    for number in done.numbers:
        pair = painter(number, channels)
        mask = nibabel.load(out / "labelsTr" / f"pair_{number:06d}.nii.gz")
        assert np.array_equal(np.asarray(mask.dataobj)[..., 0].T, pair.mask)
        for channel, plane in enumerate(pair.image):
            path = out / "imagesTr" / f"pair_{number:06d}_{channel:04d}.nii.gz"
            image = nibabel.load(path)
            assert np.array_equal(image.affine, mask.affine)
            wanted = grey_levels(plane, "nifti")
            assert np.array_equal(np.asarray(image.dataobj)[..., 0].T, wanted)
            assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0], wanted)
    assert len(list((out / "imagesTr").iterdir())) == channels * (COUNT - 1)
    cohort = read_cohort(out, on_fault="report")
    assert not check_cohort(cohort).faults
    assert cohort.classes == CLASSES
    assert len(cohort.labelled) == COUNT - 1


@pytest.mark.parametrize("stored", ["png", "nifti"])
@pytest.mark.parametrize("wanted", ["png", "nifti", None])
def test_a_folder_reads_back(painter, tmp_path, stored, wanted):
    make(tmp_path / "pairs", painter, channels=2, image_format=stored)
    out = tmp_path / "out"
    export_pairs(tmp_path / "pairs", out, "folder", image_format=wanted)
    cohort = read_cohort(out, on_fault="report")
    assert not check_cohort(cohort).faults
    assert (cohort.classes, cohort.modalities) == (CLASSES, ("flair", "t1"))
    suffix = ".png" if (wanted or stored) == "png" else ".nii.gz"
    for case in cohort.cases:
        pair = painter(int(case.tags["number"]), 2)
        assert np.array_equal(read_case_mask(case, cohort).voxels[0], pair.mask)
        for plane, (name, volume) in zip(pair.image, read_images(case).items(), strict=True):
            assert np.array_equal(volume.voxels[0], grey_levels(plane, stored))
            path = out / "images" / f"{case.name}_{name}{suffix}"
            assert np.array_equal(
                np.squeeze(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))), volume.voxels[0]
            )
    if wanted in (None, stored):
        first = f"pair_000000_t1{suffix}"
        assert (out / "images" / first).read_bytes() == (tmp_path / "pairs/images" / first).read_bytes()


def test_a_folder_may_be_made_for_all_pairs(kept, tmp_path):
    folder, numbers, _ = kept
    assert len(numbers) == COUNT - 1
    export_pairs(folder, tmp_path / "all", "folder", everything=True)
    export_pairs(folder, tmp_path / "kept", "folder")
    assert (tmp_path / "all" / "cases.csv").read_text() == (folder / "cases.csv").read_text()
    assert (tmp_path / "kept" / "cases.csv").read_text() == (folder / "kept.csv").read_text()
    assert len(list((tmp_path / "kept" / "images").iterdir())) == COUNT - 1


@pytest.mark.parametrize(("channels", "stored"), [(1, "png"), (2, "nifti")])
def test_dicom_reads_back_and_says_it_is_synthetic(painter, tmp_path, channels, stored):
    make(tmp_path / "pairs", painter, channels=channels, image_format=stored)
    out = tmp_path / "dicom"
    done = export_pairs(tmp_path / "pairs", out, "dicom")
    cohort = read_cohort(out, on_fault="report")
    assert not check_cohort(cohort).faults
    uids = []
    for number, case in zip(done.numbers, cohort.cases, strict=True):
        pair = painter(number, channels)
        names = [""] if channels == 1 else ["_flair", "_t1"]
        for plane, name in zip(pair.image, names, strict=True):
            path = out / "images" / f"pair_{number:06d}{name}.dcm"
            image, wanted = pydicom.dcmread(path), grey_levels(plane, stored)
            assert image[0x0008, 0x001C].value == "YES"
            assert image.ImageType == ["DERIVED", "SECONDARY"]
            assert image.SOPClassUID.name == "Secondary Capture Image Storage"
            assert image.PatientName == f"Synthetic^Pair {number:06d}"
            assert image.PatientID.startswith("SYNTHETIC-")
            assert image.PatientIdentityRemoved == "YES"
            assert "abc123" in image.DerivationDescription
            assert image.BitsStored == (8 if stored == "png" else 12)
            assert np.array_equal(image.pixel_array, wanted)
            assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0], wanted)
            uids.append((image.SOPInstanceUID, image.SeriesInstanceUID))
        seg = out / "masks" / f"pair_{number:06d}.dcm"
        assert pydicom.dcmread(seg).SyntheticData == "YES"
        for name, mask in read_dicom_seg(seg).items():
            assert np.array_equal(mask.voxels[0], pair.mask == CLASSES[name])
        assert np.array_equal(read_case_mask(case, cohort).voxels[0], pair.mask)
        first = pydicom.dcmread(out / "images" / f"pair_{number:06d}{names[0]}.dcm")
        assert pydicom.dcmread(seg).StudyInstanceUID == first.StudyInstanceUID
    assert len({one for pair in uids for one in pair}) == 2 * channels * (COUNT - 1)
    export_pairs(tmp_path / "pairs", tmp_path / "again", "dicom")
    for path in sorted((out / "images").iterdir()):
        assert path.read_bytes() == (tmp_path / "again" / "images" / path.name).read_bytes()
    for path in sorted((out / "masks").iterdir()):
        one, other = (pydicom.dcmread(each / "masks" / path.name) for each in (out, tmp_path / "again"))
        assert one.SOPInstanceUID == other.SOPInstanceUID
        assert one.DimensionOrganizationSequence == other.DimensionOrganizationSequence


@pytest.mark.parametrize("layout", ["nnunet", "folder", "dicom"])
def test_the_card_goes_along(kept, tmp_path, layout):
    folder, numbers, pairs = kept
    export_pairs(folder, tmp_path / "out", layout)
    assert read_card(tmp_path / "out") == read_card(folder)
    text = (tmp_path / "out" / CARD_MD).read_text()
    assert "4 pairs, those that were kept" in text
    assert "although" not in text
    told = json.loads((tmp_path / "out" / EXPORT_JSON).read_text())
    assert told["digest"] == digest_of(pairs.records(), numbers)
    assert (told["override"], told["accepted"]) == (None, [])
    assert visible(tmp_path) == ["out"]


def other_card(pairs, **how):
    return card_of(pairs, copies=report(pairs, **how))


DOUBTS = {
    "no card": (lambda pairs: None, "nobody looked for copies"),
    "no report": (card_of, "nobody looked for copies"),
    "copies": (
        lambda pairs: other_card(pairs, copies=[1, 3]),
        "2 of 5 pairs are copies: pair_000001, pair_000003",
    ),
    "unproven": (lambda pairs: other_card(pairs, planted=Planted({"noise": 0.98}, 50)), "unproven"),
    "nothing planted": (lambda pairs: other_card(pairs, planted=None), "unproven"),
    "too few looked at": (lambda pairs: other_card(pairs, examined=[0, 1]), "pairs were not looked at"),
    "other pairs": (
        lambda pairs: card_of(pairs, copies=replace(report(pairs), digest="0" * 64)),
        "have changed since",
    ),
    "lost pairs": (
        lambda pairs: card_of(pairs, copies=replace(report(pairs), examined=tuple(range(9)))),
        "have changed since",
    ),
}


@pytest.mark.parametrize("why", DOUBTS)
def test_doubtful_pairs_are_refused_unless_overridden_in_words(kept, tmp_path, why):
    folder = tmp_path / "pairs"
    shutil.copytree(kept[0], folder)
    (folder / CARD_JSON).unlink()
    card, said = DOUBTS[why][0](open_pairs(folder)), DOUBTS[why][1]
    if card is not None:
        write_card(folder, card)
    with pytest.raises(ConfigError, match=said) as refused:
        export_pairs(folder, tmp_path / "out", "folder")
    assert refused.value.exit_code == 2
    assert ACCEPTED in str(refused.value)
    with pytest.raises(ConfigError, match="not worded"):
        export_pairs(folder, tmp_path / "out", "folder", override="yes")
    assert visible(tmp_path) == ["pairs"]
    done = export_pairs(folder, tmp_path / "out", "folder", override=ACCEPTED)
    assert any(said in doubt for doubt in done.accepted)
    text = (tmp_path / "out" / CARD_MD).read_text()
    assert "Exported although" in text
    assert said in text
    assert ACCEPTED in text
    assert json.loads((tmp_path / "out" / EXPORT_JSON).read_text())["override"] == ACCEPTED
    assert (tmp_path / "out" / CARD_JSON).is_file()


def test_an_override_that_is_not_needed_is_not_written_down(kept, tmp_path):
    done = export_pairs(kept[0], tmp_path / "out", "folder", override=ACCEPTED)
    assert done.accepted == ()
    assert json.loads((tmp_path / "out" / EXPORT_JSON).read_text())["override"] is None


def test_pairs_that_were_drawn_later_are_not_covered_by_the_card(kept, painter, tmp_path):
    folder = tmp_path / "pairs"
    shutil.copytree(kept[0], folder)
    more = make_pairs(
        folder, painter, COUNT + 2, made_from={"generator": "abc123", "seed": 3}, classes=CLASSES
    )
    records = more.records()
    assert doubts(read_card(folder), records, tuple(range(COUNT))) == ()
    assert doubts(read_card(folder), records, tuple(records)) == ("2 of the 7 pairs were not looked at",)


def test_changed_files_are_refused(kept, painter, tmp_path):
    for number, kind in enumerate(("images", "masks")):
        folder = tmp_path / kind
        shutil.copytree(kept[0], folder)
        path = folder / kind / "pair_000002.png"
        path.write_bytes((folder / kind / "pair_000001.png").read_bytes())
        with pytest.raises(DataError, match="another checksum"):
            export_pairs(folder, tmp_path / "out", ("folder", "dicom")[number])
        path.unlink()
        with pytest.raises(DataError, match="missing file"):
            export_pairs(folder, tmp_path / "out", "nnunet")
    assert visible(tmp_path) == ["images", "masks"]


def test_pairs_without_a_choice_are_refused(painter, tmp_path):
    folder = tmp_path / "pairs"
    make(folder, painter)
    (folder / "kept.csv").unlink()
    with pytest.raises(DataError, match="no choice was made"):
        export_pairs(folder, tmp_path / "out", "folder")
    export_pairs(folder, tmp_path / "out", "folder", everything=True)
    with pytest.raises(DataError, match="no generated pairs"):
        export_pairs(tmp_path, tmp_path / "other", "folder")
    write_sifted(
        open_pairs(folder),
        open_pairs(folder).records(),
        replace(sift({0: open_pairs(folder).records()[0]}, uncertain_share=0), kept=()),
    )
    with pytest.raises(DataError, match="no pair to export"):
        export_pairs(folder, tmp_path / "other", "folder")


def test_where_and_how_it_cannot_go(kept, painter, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="other files"):
        export_pairs(kept[0], tmp_path / "full", "folder")
    with pytest.raises(ConfigError, match="file formats"):
        export_pairs(kept[0], tmp_path / "out", "dicom", image_format="png")
    (tmp_path / "empty").mkdir()
    export_pairs(kept[0], tmp_path / "empty", "folder")
    assert (tmp_path / "empty" / "cases.csv").is_file()
    assert visible(tmp_path / "full") == ["mine.txt"]
    odd = tmp_path / "odd"
    make_pairs(odd, painter, 1, made_from={}, classes={"ignore": 1, "lung": 2})
    with pytest.raises(ConfigError, match="meaning of its own"):
        export_pairs(odd, tmp_path / "out", "nnunet", everything=True, override=ACCEPTED)


def test_an_export_that_breaks_leaves_nothing(kept, tmp_path):
    def broken(done, of):
        if done == 2:
            raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="disk is full"):
        export_pairs(kept[0], tmp_path / "out", "nnunet", on_progress=broken)

    def stopped(done, of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_pairs(kept[0], tmp_path / "out", "nnunet", on_progress=stopped)
    assert visible(tmp_path) == []


def test_two_exports_to_one_place_do_not_mix(kept, tmp_path):
    with held(tmp_path / ".out.part" / ".lock"), pytest.raises(RunError, match="another process"):
        export_pairs(kept[0], tmp_path / "out", "folder")
    export_pairs(kept[0], tmp_path / "out", "folder")
    assert visible(tmp_path) == ["out"]


def killed_after_two(folder, out):
    """Exports in a process of its own, which is killed by the system after two pairs; how it ended."""

    def tick(done, of):
        if done == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on threads at a fork: the child only writes files
        child = os.fork()
    if not child:
        try:
            export_pairs(folder, out, "nnunet", on_progress=tick)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_killed_export_is_not_there_and_the_next_one_is_whole(kept, tmp_path):
    out = tmp_path / "out"
    assert killed_after_two(kept[0], out) == -signal.SIGKILL
    assert not out.exists()
    assert visible(tmp_path) == [".out.part"]
    assert len(list((tmp_path / ".out.part" / "labelsTr").iterdir())) == 2
    export_pairs(kept[0], out, "folder")
    assert visible(tmp_path) == ["out"]
    assert visible(out) == [
        "card.json",
        "card.md",
        "cases.csv",
        "classes.json",
        "export.json",
        "images",
        "masks",
    ]
    rows = list(csv.DictReader((out / "cases.csv").read_text().splitlines()))
    assert len(rows) == COUNT - 1
    assert all((out / row["image"]).is_file() for row in rows)
