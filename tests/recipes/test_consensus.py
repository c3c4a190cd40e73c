"""From a cohort with several readers to one with a reference, by the command line."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewmask.cli import main
from fewmask.core.volume import Mask, Volume
from fewmask.data.check import check_cohort
from fewmask.data.cohort import read_case_mask, read_cohort
from fewmask.data.io import read_mask, write_mask, write_volume
from fewmask.metrics.overlap import dice

_path = Path(__file__).parents[1] / "data" / "lidc_files.py"
_spec = importlib.util.spec_from_file_location("lidc_files", _path)
files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(files)

SHAPE = (6, 32, 32)


def _box(low: int, high: int, *, z: slice = slice(2, 4)) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[z, low:high, low:high] = 1
    return mask


def _cohort(folder: Path, masks: dict[str, dict[str, np.ndarray]]) -> Path:
    """Scans with a bright box in dark lung; masks by reader and case."""
    affine = files.affine()
    for number, case in enumerate(("p1", "p2", "p3")):
        voxels = np.where(_box(10, 20), 30 + number, -850).astype(np.int16)
        write_volume(folder / "images" / f"{case}.nii.gz", Volume(voxels, affine))
    for reader, drawn in masks.items():
        for case, mask in drawn.items():
            write_mask(folder / "masks" / reader / f"{case}.nii.gz", Mask(mask, affine))
    (folder / "classes.json").write_text('{"nodule": 1}')
    (folder / "index.csv").write_text("file,patient,site\np1,anna,north\np2,ben,south\np3,ben,south\n")
    return folder


def _three(folder: Path) -> Path:
    """p1: three readers, two structures; p2: nobody marked; p3: unlabelled."""
    nothing = np.zeros(SHAPE, np.uint8)
    lonely = _box(26, 30, z=slice(0, 1))
    return _cohort(
        folder,
        {
            "reader1": {"p1": _box(10, 20) | lonely, "p2": nothing},
            "reader2": {"p1": _box(10, 19), "p2": nothing},
            "reader3": {"p1": _box(11, 20), "p2": nothing},
        },
    )


def _run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_a_cohort_with_one_reference(tmp_path, capsys):
    folder = _three(tmp_path / "mine")
    assert _run("consensus", folder, "--out", tmp_path / "out") == 0
    cohort = read_cohort(tmp_path / "out")
    assert cohort.readers == ("reference",)
    assert cohort.classes == {"nodule": 1}
    assert [case.name for case in cohort.labelled] == ["p1", "p2"]
    assert [case.name for case in cohort.unlabelled] == ["p3"]
    assert cohort.case("p3").patient == "ben"
    assert cohort.case("p1").tags == {"site": "north"}
    mask = read_case_mask(cohort.case("p1"), cohort)
    majority = (_box(10, 20) + _box(10, 19) + _box(11, 20)) >= 2
    np.testing.assert_array_equal(mask.voxels, majority | (_box(26, 30, z=slice(0, 1)) > 0))
    np.testing.assert_allclose(mask.affine, files.affine(), atol=1e-6)
    assert not read_case_mask(cohort.case("p2"), cohort).voxels.any()
    said = capsys.readouterr().out
    assert "1 structures were marked by one reader only and kept" in said
    assert "in 1 cases nobody marked anything: their reference is empty (p2)" in said
    assert "1 cases have no mask and stay unlabelled (p3)" in said
    assert (tmp_path / "out" / "pictures" / "p1.png").exists()
    assert not check_cohort(cohort).faults


def test_tables_of_agreement_and_of_structures(tmp_path):
    folder = _three(tmp_path / "mine")
    assert _run("consensus", folder, "--out", tmp_path / "out", "--rule", "staple", "--at-least", 2) == 0
    first, second = _rows(tmp_path / "out" / "agreement.csv")
    assert (first["case"], first["class"]) == ("p1", "nodule")
    assert first["marked_by"] == "reader1; reader2; reader3"
    by_pair = 2 * 162 / (200 + 16 + 162), 2 * 162 / (200 + 16 + 162), 2 * 128 / (162 + 162)
    assert float(first["dice_of_marking"]) == pytest.approx(sum(by_pair) / 3, abs=1e-3)
    assert first["pairs"].startswith("reader1 & reader2 0.857")
    assert 0.5 < float(first["fleiss_of_all"]) < 0.95
    assert (second["marked_by"], second["dice_of_marking"], second["dice_of_all"]) == ("", "", "1.0000")
    nodule, lonely = _rows(tmp_path / "out" / "structures.csv")
    assert lonely["dropped"] == "marked by 1 of 3 readers, fewer than 2"
    assert nodule["dropped"] == ""
    assert nodule["sensitivity"].startswith("reader1 1.0")
    assert int(nodule["voxels"]) == int(read_mask(tmp_path / "out" / "masks" / "p1.nii.gz").voxels.sum())


def test_regions_vote_in_ct(tmp_path, capsys):
    """Readers who draw one pixel too wide are pulled back by what grows in the scan."""
    wide = _cohort(tmp_path / "mine", {f"reader{n}": {"p1": _box(9, 21)} for n in (1, 2)})
    assert _run("consensus", wide, "--out", tmp_path / "a", "--rule", "grow") == 0
    said = capsys.readouterr().out
    assert "2 grown regions voted, 0 abstained" in said
    assert "no class is called lung" in said
    (row,) = _rows(tmp_path / "a" / "structures.csv")
    assert row["grown"] == "2"
    mask = read_mask(tmp_path / "a" / "masks" / "p1.nii.gz").voxels
    assert dice(mask > 0, _box(10, 20) > 0) > 0.95
    assert dice(_box(9, 21) > 0, _box(10, 20) > 0) < 0.85


@pytest.mark.parametrize("of", ["marking", "all"])
def test_who_votes(tmp_path, of):
    folder = _three(tmp_path / "mine")
    assert _run("consensus", folder, "--out", tmp_path / "out", "--of", of) == 0
    mask = read_mask(tmp_path / "out" / "masks" / "p1.nii.gz").voxels
    assert bool(mask[0].any()) == (of == "marking")


def test_only_some_readers(tmp_path, capsys):
    folder = _three(tmp_path / "mine")
    words = ["--out", tmp_path / "out", "--readers", "reader2", "--readers", "reader3"]
    assert _run("consensus", folder, *words) == 0
    assert "2 readers (reader2, reader3)" in capsys.readouterr().out
    assert _run("consensus", folder, "--out", tmp_path / "out", "--readers", "nobody") == 2
    assert "nobody called nobody drew a mask" in capsys.readouterr().err


def test_pictures_stay_pictures_and_other_classes_keep_their_values(tmp_path):
    folder = tmp_path / "mine"
    shown = np.arange(400, dtype=np.uint8).reshape(20, 20)
    for reader, width in (("rater0", 6), ("rater1", 6), ("rater2", 9)):
        (folder / "masks" / reader).mkdir(parents=True)
        labels = np.zeros((20, 20), np.uint8)
        labels[2:8, 2 : 2 + width], labels[12:16, 12:16] = 1, 2
        Image.fromarray(labels).save(folder / "masks" / reader / "x.png")
    (folder / "images").mkdir()
    Image.fromarray(shown).save(folder / "images" / "x.png")
    assert _run("consensus", folder, "-o", tmp_path / "out", "--classes", "{lung: 1, heart: 2}") == 0
    labels = np.asarray(Image.open(tmp_path / "out" / "masks" / "x.png"))
    assert (np.count_nonzero(labels == 1), np.count_nonzero(labels == 2)) == (36, 16)
    assert read_cohort(tmp_path / "out").classes == {"lung": 1, "heart": 2}


def test_lidc_as_it_is_distributed(tmp_path):
    folder = tmp_path / "lidc"
    voxels = np.full((6, 40, 36), -800, np.int16)
    write_volume(folder / "1.2.3.4.mhd", Volume(voxels, files.affine()))
    drawn = [
        files.nodule("N", files.roi(files.square(10, 16), z=-95.0)),
        files.nodule("M", files.roi(files.square(10, 15), z=-95.0)),
        files.nodule("O", files.roi(files.square(11, 16), z=-95.0)),
        "",
    ]
    files.write_xml(folder / "LIDC-IDRI-0007.xml", drawn)
    assert _run("consensus", folder, "--out", tmp_path / "out", "--at-least", 3) == 0
    cohort = read_cohort(tmp_path / "out")
    (case,) = cohort.cases
    assert case.patient == "LIDC-IDRI-0007"
    assert read_case_mask(case, cohort).voxels.sum() == 34  # 6 x 6 without two corners
    (row,) = _rows(tmp_path / "out" / "agreement.csv")
    assert row["readers"] == "reader1; reader2; reader3; reader4"


def test_mistakes_are_told(tmp_path, capsys):
    one = _cohort(tmp_path / "one", {"reader1": {"p1": _box(10, 20)}})
    assert _run("consensus", one, "--out", tmp_path / "out") == 2
    assert "at least two readers" in capsys.readouterr().err
    empty = {case: np.zeros(SHAPE, np.uint8) for case in ("p1", "p2")}
    nobody = _cohort(tmp_path / "nobody", {"reader1": empty, "reader2": empty})
    assert _run("consensus", nobody, "--out", tmp_path / "out") == 2
    assert "nobody marked anything" in capsys.readouterr().err
    assert _run("consensus", one, "--out", one, "--readers", "reader1") == 2
    assert "into the cohort that it is made from" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "cases.csv").write_text("case,image\n")
    three = _three(tmp_path / "three")
    assert _run("consensus", three, "--out", other) == 2
    assert "over another cohort" in capsys.readouterr().err
    assert (other / "cases.csv").read_text() == "case,image\n"
    assert _run("consensus", three, "--out", tmp_path / "out", "--at-least", 0) == 2
    assert "at least one reader" in capsys.readouterr().err
    assert _run("consensus", three, "--out", tmp_path / "out", "--classes", "nodule") == 2
    assert "no mapping" in capsys.readouterr().err


def test_masks_that_do_not_lie_on_their_scan_are_all_told(tmp_path, capsys):
    folder = _three(tmp_path / "mine")
    moved = files.affine()
    moved[0, 3] += 5
    write_mask(folder / "masks" / "reader2" / "p1.nii.gz", Mask(_box(10, 20), moved))
    cut = Mask(_box(10, 20)[:5], files.affine())
    write_mask(folder / "masks" / "reader3" / "p2.nii.gz", cut)
    assert _run("consensus", folder, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "case p1, mask p1.nii.gz by reader2" in said
    assert "case p2, mask p2.nii.gz by reader3" in said
    assert not (tmp_path / "out" / "cases.csv").exists()


def test_who_reads_alone_decides_and_this_is_told(tmp_path, capsys):
    folder = _cohort(
        tmp_path / "mine",
        {"reader1": {"p1": _box(10, 20), "p2": _box(5, 9)}, "reader2": {"p1": _box(10, 20)}},
    )
    assert _run("consensus", folder, "--out", tmp_path / "out") == 0
    assert "read by one reader only, who decides alone (p2)" in capsys.readouterr().out
    assert read_mask(tmp_path / "out" / "masks" / "p2.nii.gz").voxels.sum() == 32


def test_unjudged_voxels_are_left_to_those_who_judged(tmp_path):
    unsure = _box(10, 20)
    unsure[3] = 255
    both = {"reader1": {"p1": unsure}, "reader2": {"p1": _box(10, 20)}}
    assert _run("consensus", _cohort(tmp_path / "a", both), "--out", tmp_path / "out") == 0
    mask = read_mask(tmp_path / "out" / "masks" / "p1.nii.gz").voxels
    assert (mask == _box(10, 20)).all()
    nobody = {"reader1": {"p1": unsure}, "reader2": {"p1": unsure}}
    assert _run("consensus", _cohort(tmp_path / "b", nobody), "--out", tmp_path / "two") == 0
    assert (read_mask(tmp_path / "two" / "masks" / "p1.nii.gz").voxels[3] == 255).all()
