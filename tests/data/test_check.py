"""The check: every kind of fault and remark, raised by a cohort that has it; the real packs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewmask.core.errors import DataError
from fewmask.core.seed import stream
from fewmask.core.volume import Grid, Mask, Volume
from fewmask.data.check import CheckReport, check_cohort
from fewmask.data.check_geometry import axes, judge
from fewmask.data.cohort import read_cohort
from fewmask.data.io import write_mask, write_volume

SHAPE = (4, 6, 8)
SPACING = np.diag([0.5, 0.5, 2.0, 1.0])


def noise(name: str, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return stream(0, name).integers(-500, 500, shape).astype(np.int16)


def scan(folder: Path, name: str, voxels: np.ndarray | None = None, affine: np.ndarray = SPACING) -> Path:
    return write_volume(
        folder / "images" / f"{name}.nii.gz", Volume(noise(name) if voxels is None else voxels, affine)
    )


def labels(folder: Path, name: str, value: int = 1, affine: np.ndarray = SPACING, shape=SHAPE) -> Path:
    voxels = np.zeros(shape, np.uint8)
    voxels[1, 2:4, 2:4] = value
    return write_mask(folder / "labels" / f"{name}.nii.gz", Mask(voxels, affine))


def good(folder: Path, *names: str) -> Path:
    for name in names:
        scan(folder, name)
        labels(folder, name)
    write_index(folder, **{name: f"p-{name}" for name in names})
    return folder


def write_index(folder: Path, **patients: str) -> None:
    rows = [f"{name}.nii.gz,{patient}" for name, patient in patients.items()]
    (folder / "index.csv").write_text("\n".join(["file,patient", *rows]))


def check(folder: Path, **kwargs) -> CheckReport:
    return check_cohort(read_cohort(folder, on_fault="report"), **kwargs)


def whats(problems) -> str:
    return "\n".join(str(problem) for problem in problems)


def test_a_good_cohort_has_nothing_to_say(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = check(good(tmp_path, "a", "b"), on_progress=lambda *done: calls.append(done))
    assert report.faults == ()
    assert report.remarks == ()
    report.raise_if_faulty()
    assert calls == [(1, 2), (2, 2)]
    row = report.rows[0]
    assert (row.case, row.patient, row.shape, row.spacing_mm) == ("a", "p-a", SHAPE, (2.0, 0.5, 0.5))
    assert (row.verdict, row.displacement_mm, row.voxels) == ("fine", 0.0, {"foreground": 4})
    assert row.images == {"image": "images/a.nii.gz"}
    assert row.masks == ("labels/a.nii.gz",)
    text = report.to_text()
    assert "2 cases of 2 patients, 2 with masks" in text
    assert "no faults" in text
    assert "classes: 1 foreground" in text


def test_a_mask_of_another_shape(tmp_path: Path) -> None:
    good(tmp_path, "a", "b")
    labels(tmp_path, "b", shape=(4, 6, 7))
    report = check(tmp_path)
    assert report.rows[1].verdict == "wrong"
    assert report.rows[1].displacement_mm == float("inf")
    with pytest.raises(DataError, match=r"(?s)case b, mask b.nii.gz: the mask does not lie.*\(4, 6, 7\) on"):
        report.raise_if_faulty()


@pytest.mark.parametrize(
    ("affine", "why"),
    [
        (np.diag([0.5, 0.5, 3.0, 1.0]), "spacing (3, 0.5, 0.5) on (2, 0.5, 0.5) mm"),
        (np.diag([-0.5, 0.5, 2.0, 1.0]), "orientation LAS on RAS"),
        (SPACING + np.array([[0, 0, 0, 4.0], *np.zeros((3, 4))]), "moved by (4, 0, 0) mm"),
    ],
    ids=["spacing", "orientation", "place"],
)
def test_a_mask_with_another_geometry(tmp_path: Path, affine: np.ndarray, why: str) -> None:
    good(tmp_path, "a")
    labels(tmp_path, "a", affine=affine)
    report = check(tmp_path)
    assert report.rows[0].verdict == "wrong"
    assert why in report.faults[0].found
    header = check(tmp_path, limit=0)
    assert header.faults == report.faults


def test_less_than_half_a_voxel_is_tolerable(tmp_path: Path) -> None:
    good(tmp_path, "a")
    moved = SPACING.copy()
    moved[0, 3] = 0.2
    labels(tmp_path, "a", affine=moved)
    report = check(tmp_path)
    assert report.faults == ()
    assert report.rows[0].verdict == "tolerable"
    assert report.rows[0].displacement_mm == pytest.approx(0.2, abs=1e-6)
    assert "less than half a voxel" in report.remarks[0].what


def test_swapped_axes_turns_and_letters() -> None:
    image = Grid((4, 6, 8), SPACING)
    assert "axes are in another order" in judge(Grid((8, 6, 4), SPACING), image).why
    assert "same field of view" in judge(Grid((2, 6, 8), np.diag([0.5, 0.5, 4.0, 1.0])), image).why
    turned = SPACING.copy()
    turned[:2, :2] = 0.5 * np.array([[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]])
    assert "turned by up to 5.7 degrees" in judge(Grid((4, 6, 8), turned), image).why
    assert axes(Grid((1, 1, 1), np.diag([-1.0, -1.0, 1.0, 1.0]))) == "LPS"
    unplaced = judge(Grid((4, 6, 8), np.eye(4)), image, unplaced=True)
    assert unplaced.verdict == "fine"


def test_a_second_modality_elsewhere(tmp_path: Path) -> None:
    scan(tmp_path, "a")
    write_volume(tmp_path / "images" / "b.nii.gz", Volume(noise("b", (4, 6, 7)), SPACING))
    (tmp_path / "cases.csv").write_text(
        "case,patient,image:t1,image:t2\nx,p,images/a.nii.gz,images/b.nii.gz\n"
    )
    assert "the second modality does not lie on the image" in check(tmp_path).faults[0].what


def test_label_values_nobody_declared(tmp_path: Path) -> None:
    good(tmp_path, "a")
    labels(tmp_path, "a", value=7)
    fault = check(tmp_path).faults[0]
    assert fault.what == "label values nobody declared: 7"
    assert "7 (4 voxels)" in fault.found
    assert "1 = foreground" in fault.expected
    assert "classes.json" in fault.mend


def test_empty_masks_are_listed(tmp_path: Path) -> None:
    good(tmp_path, "a", "b")
    labels(tmp_path, "b", value=0)
    report = check(tmp_path)
    assert report.faults == ()
    assert "1 of 2 masks are empty: b" in report.remarks[0].what


def test_a_mask_in_which_nothing_is_judged_is_a_fault_and_not_empty(tmp_path: Path) -> None:
    good(tmp_path, "a", "b")
    write_mask(tmp_path / "labels" / "b.nii.gz", Mask(np.full(SHAPE, 255, np.uint8), SPACING))
    report = check(tmp_path)
    assert "are empty" not in whats(report.remarks)
    with pytest.raises(DataError, match=r"(?s)case b.*nobody judged anything.*remove the mask"):
        report.raise_if_faulty()


def test_a_class_that_no_mask_shows(tmp_path: Path) -> None:
    good(tmp_path, "a")
    (tmp_path / "classes.json").write_text('{"one": 1, "two": 2}')
    assert "no mask by reference shows two" in whats(check(tmp_path).remarks)


def test_duplicates(tmp_path: Path) -> None:
    good(tmp_path, "a", "b", "c")
    for name in ("b", "c"):
        scan(tmp_path, name, noise("a"))
    fault = check(tmp_path).faults[0]
    assert fault.what == "the same image under different patients"
    assert fault.where == "cases a, b, c"
    write_index(tmp_path, a="p", b="p", c="p")
    report = check(tmp_path)
    assert report.faults == ()
    assert "the same image twice, of patient p" in report.remarks[0].what


def test_no_numbers_and_constant_images(tmp_path: Path) -> None:
    good(tmp_path, "a", "b", "c", "d")
    bad = noise("a").astype(np.float32)
    bad[0, 0, :3] = (np.nan, np.inf, -np.inf)
    scan(tmp_path, "a", bad)
    scan(tmp_path, "b", np.full(SHAPE, 3, np.int16))
    scan(tmp_path, "c", np.full(SHAPE, 3, np.int16))
    labels(tmp_path, "c", value=0)
    report = check(tmp_path)
    assert [fault.what.split(" (")[0] for fault in report.faults] == [
        "voxels that are no numbers",
        "a constant image with a mask that is not empty",
    ]
    assert "3 of 192 voxels" in report.faults[0].found
    assert "case c, image: a constant image" in whats(report.remarks)


def test_unreadable_files(tmp_path: Path) -> None:
    good(tmp_path, "a", "b", "c", "d", "e")
    images = tmp_path / "images"
    (images / "a.nii.gz").write_bytes((images / "a.nii.gz").read_bytes()[:150])
    (images / "b.nii.gz").write_bytes(b"")
    (images / "c.nii.gz").write_text("these are my notes, not a scan\n" * 20)
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(images / "d.nii.gz")
    (tmp_path / "labels" / "e.nii.gz").write_bytes(b"")
    report = check(tmp_path, pictures=tmp_path / "pictures")
    assert len(report.faults) == 5
    assert [fault.where.split(",")[0] for fault in report.faults] == [f"case {name}" for name in "abcde"]
    text = whats(report.faults)
    assert "empty (0 bytes)" in text
    assert "a text file" in text
    assert "a PNG picture" in text
    assert report.rows[0].shape is None
    assert report.pictures == ()
    assert all(fault.mend for fault in report.faults)


def test_a_patient_in_two_parts_and_all_problems_at_once(tmp_path: Path) -> None:
    good(tmp_path, "a", "b", "c")
    labels(tmp_path, "c", value=9)
    (tmp_path / "index.csv").write_text(
        "file,patient,part\na.nii.gz,p1,train\nb.nii.gz,p1,test\nc.nii.gz,p2,test\n"
    )
    labels(tmp_path, "zz")
    with pytest.raises(DataError) as caught:
        check(tmp_path).raise_if_faulty()
    text = str(caught.value)
    assert "has 3 faults" in text
    assert "mask without image" in text
    assert "label values nobody declared: 9" in text
    assert "patient p1: a patient in two parts" in text
    assert "case a in train, case b in test" in text


def test_many_faults_of_one_kind_are_gathered(tmp_path: Path) -> None:
    good(tmp_path, *"abcdefgh")
    for name in "abcdefgh":
        labels(tmp_path, name, value=7)
    report = check(tmp_path)
    assert len(report.faults) == 8
    text = report.to_text()
    assert "8 faults" in text
    assert text.count("label values nobody declared") == 3
    assert "... the same in 5 more: case d, case e, case f, case g, case h" in text


def square(path: Path, top: int, bottom: int, value: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((16, 16), np.uint8)
    pixels[top:bottom] = value
    Image.fromarray(pixels).save(path)


def film(folder: Path, name: str) -> None:
    (folder / "images").mkdir(exist_ok=True)
    pixels = noise(name, (1, 16, 16))[0] % 256
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{name}.png")


def test_overlapping_classes(tmp_path: Path) -> None:
    film(tmp_path, "a")
    square(tmp_path / "masks" / "heart" / "a.png", 0, 8)
    square(tmp_path / "masks" / "lung" / "a.png", 7, 16)
    report = check(tmp_path)
    assert report.faults == ()
    assert "masks of heart and lung overlap in 1 case: 16 voxels, 12.5% of heart" in whats(report.remarks)


def test_cases_that_overlap_unlike_the_others_are_named(tmp_path: Path) -> None:
    for number in range(12):
        film(tmp_path, f"a{number:02}")
        square(tmp_path / "masks" / "heart" / f"a{number:02}.png", 4 if number == 7 else 1, 12)
        square(tmp_path / "masks" / "lung" / f"a{number:02}.png", 8 if number == 7 else 12, 16)
    remarks = check(tmp_path).remarks
    odd = next(one for one in remarks if "unlike the other cases" in one.what)
    assert odd.what == "masks of heart and lung overlap unlike the other cases in 1 case: a07 (50% of heart)"
    assert not [one for one in remarks if "a06" in one.what]


def test_a_class_that_would_vanish_under_a_larger_one(tmp_path: Path) -> None:
    film(tmp_path, "a")
    square(tmp_path / "masks" / "lesion" / "a.png", 4, 6)
    square(tmp_path / "masks" / "lung" / "a.png", 0, 12)
    fault = check(tmp_path).faults[0]
    assert fault.what == "100% of lesion would vanish under lung, declared later"
    assert "{lung: 1, lesion: 2}" in fault.expected
    mended = check_cohort(read_cohort(tmp_path, classes={"lung": 1, "lesion": 2}))
    assert mended.faults == ()
    assert mended.rows[0].voxels == {"lung": 160, "lesion": 32}


def test_class_files_that_are_no_masks(tmp_path: Path) -> None:
    for name in "ab":
        film(tmp_path, name)
        square(tmp_path / "masks" / "lung" / f"{name}.png", 0, 12)
    Image.fromarray(np.arange(0, 64, 4, dtype=np.uint8).reshape(1, 16).repeat(16, 0)).save(
        tmp_path / "masks" / "lung" / "a.png"
    )
    Image.fromarray(np.zeros((16, 15), np.uint8)).save(tmp_path / "masks" / "lung" / "b.png")
    square(tmp_path / "masks" / "heart" / "b.png", 0, 12)
    text = whats(check(tmp_path).faults)
    assert "case a, mask a.png: is not a mask of one class" in text
    assert "mask b.png is (1, 16, 15), mask b.png is (1, 16, 16)" in text


def test_grey_and_missing_class_files_are_remarked(tmp_path: Path) -> None:
    for name in "ab":
        film(tmp_path, name)
        square(tmp_path / "masks" / "lung" / f"{name}.png", 0, 12)
    pixels = np.zeros((16, 16), np.uint8)
    pixels[0, :3] = (90, 200, 255)
    Image.fromarray(pixels).save(tmp_path / "masks" / "lung" / "a.png")
    square(tmp_path / "masks" / "heart" / "b.png", 12, 16)
    said = whats(check(tmp_path).remarks)
    assert "masks with grey levels in 1 case (2 voxels)" in said
    assert "no mask of heart in 1 labelled case: it counts as absent (a)" in said


def test_jpeg_and_fraction_masks_of_one_class(tmp_path: Path) -> None:
    film(tmp_path, "a")
    (tmp_path / "masks").mkdir()
    pixels = np.zeros((16, 16), np.uint8)
    pixels[4:12, 4:12] = 255
    Image.fromarray(pixels).save(tmp_path / "masks" / "a.jpg")
    assert check(tmp_path).rows[0].voxels["foreground"] == 64
    volume = tmp_path / "volumes"
    scan(volume, "a")
    fractions = np.zeros(SHAPE, np.float32)
    fractions[0, 0, :3] = (0.3, 0.5, 1.0)
    write_volume(volume / "masks" / "lung" / "a.nii.gz", Volume(fractions, SPACING))
    assert check(volume).rows[0].voxels == {"lung": 2}


def test_a_limit_reads_fewer_voxels_and_says_so(tmp_path: Path) -> None:
    report = check(good(tmp_path, "a", "b", "c"), limit=2)
    assert [bool(row.voxels) for row in report.rows] == [True, False, True]
    assert all(row.shape == SHAPE for row in report.rows)
    assert "voxels of 2 of 3 cases were read" in report.remarks[-1].what


def test_pictures(tmp_path: Path) -> None:
    good(tmp_path, "a", "b", "c")
    labels(tmp_path, "c", affine=np.diag([9.0, 9.0, 9.0, 1.0]))
    report = check(tmp_path, pictures=tmp_path / "pictures", most_pictures=5)
    assert [path.name for path in report.pictures] == ["overlays.png", "a.png", "b.png"]
    for path in report.pictures:
        pixels = np.asarray(Image.open(path))
        assert pixels.ndim == 3
        assert (pixels == (230, 159, 0)).all(axis=2).any()


PACKS = {
    "cxr-lungs-heart": ({}, 172, 172, ("heart", "left_lung", "right_lung")),
    "mr-hippocampus-3d": ({"classes": {"anterior": 1, "posterior": 2}}, 174, 114, ("anterior", "posterior")),
    "cxr-covid-other-sites-NC": (
        {
            "classes": {
                "left_lung": 1,
                "right_lung": 2,
                "cardiomediastinum": 3,
                "ground_glass": 4,
                "consolidation": 5,
            }
        },
        29,
        22,
        ("left_lung", "right_lung", "cardiomediastinum", "ground_glass", "consolidation"),
    ),
    "mr-glioma-3-sequences-NC": (
        {"channels": {"t1": 0, "flair": 1, "t1c": 2}},
        1178,
        75,
        ("foreground",),
    ),
    "lidc-nodules-4-readers": ({}, 1252, 240, ("foreground",)),
}


@pytest.mark.parametrize("pack", sorted(PACKS))
def test_real_packs(data_folder: Path, pack: str) -> None:
    options, cases, patients, classes = PACKS[pack]
    if not (data_folder / pack).is_dir():
        pytest.skip(f"no pack {pack}")
    cohort = read_cohort(data_folder / pack, **options)
    report = check_cohort(cohort, limit=8)
    assert report.faults == ()
    assert (len(report.rows), report.patients, tuple(report.classes)) == (cases, patients, classes)
    assert all(row.verdict == "fine" for row in report.rows)
    assert report.labelled == cases


def test_real_packs_details(data_folder: Path) -> None:
    lidc = read_cohort(data_folder / "lidc-nodules-4-readers")
    assert lidc.readers == ("rater0", "rater1", "rater2", "rater3")
    assert lidc.reader == "rater0"
    glioma = read_cohort(data_folder / "mr-glioma-3-sequences-NC")
    assert glioma.modalities == ("red", "green", "blue")
    assert glioma.cases[0].tags["site"] == "CS"
    series = read_cohort(data_folder / "dicom" / "ct-chest-64" / "dicom")
    assert [case.images["image"].path.name for case in series.cases] == ["dicom"]
    covid = check_cohort(read_cohort(data_folder / "cxr-covid-other-sites-NC"), limit=6)
    assert "ground_glass would vanish" in whats(covid.faults)
