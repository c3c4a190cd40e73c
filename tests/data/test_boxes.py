"""Boxes: read from a table, on the picture, on the network's grid, and back."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewmask.core.errors import DataError
from fewmask.core.volume import Mask, Volume
from fewmask.data.boxes import FindingBox, native_rectangles, prepared_rectangles, read_boxes, undo_rectangles
from fewmask.data.cohort import read_cohort
from fewmask.data.io import write_volume
from fewmask.data.prepare import Preparation, prepare, prepare_mask


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name, height, width in (("ill/a.png", 80, 100), ("well/b.png", 64, 64), ("well/c.png", 64, 64)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((height, width), 90, dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


def table(folder: Path, *rows: str, header: str = "file,finding,x,y,w,h") -> Path:
    path = folder / "boxes.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_boxes_by_case(pictures: Path) -> None:
    cohort = read_cohort(pictures)
    path = table(pictures, "a.png,Mass,10,20,30.5,40", "well/b.png,,0,0,64,64", "a,Effusion,-0.4,0,5,5.4")
    found = read_boxes(path, cohort)
    assert found == {
        "a": (FindingBox("Mass", 10, 20, 30.5, 40), FindingBox("Effusion", 0, 0, pytest.approx(4.6), 5.4)),
        "b": (FindingBox("", 0, 0, 64, 64),),
    }
    assert native_rectangles(found["b"]).tolist() == [[0, 0, 64, 64]]
    assert native_rectangles(()).shape == (0, 4)


def test_all_faults_are_told_at_once(pictures: Path) -> None:
    rows = ["a.png,,90,20,30,40", "q.png,,1,1,1,1", "b.png,,1,1,0,1", "b.png,,1,one,1,1", "c.png,,1,2,3,4"]
    with pytest.raises(DataError) as told:
        read_boxes(table(pictures, *rows), read_cohort(pictures))
    text = str(told.value)
    assert "has 4 faults" in text
    assert "boxes.csv row 2: the box leaves its picture\n  found: x 90 to 120, y 20 to 60" in text
    assert "within x 0 to 100, y 0 to 80" in text
    assert "row 3: names a case that the cohort does not have\n  found: 'q.png'" in text
    assert "row 4: is no box" in text
    assert "row 5: is no box\n  found: x='1', y='one'" in text
    assert "row 6" not in text


def test_boxes_of_other_cases_may_be_left_out(pictures: Path) -> None:
    path = table(pictures, "q.png,,1,1,1,1", "c.png,,1,2,3,4")
    assert list(read_boxes(path, read_cohort(pictures), unknown="leave out")) == ["c"]


def test_missing_columns(pictures: Path) -> None:
    with pytest.raises(DataError, match="columns are missing") as told:
        read_boxes(table(pictures, "a.png,1,1,5", header="picture,x,y,w"), read_cohort(pictures))
    assert "Add file, h." in str(told.value)


def test_a_file_of_two_cases_and_a_volume(pictures: Path) -> None:
    Image.fromarray(np.zeros((64, 64), dtype=np.uint8)).save(pictures / "ill" / "b.png")
    write_volume(pictures / "v.nii.gz", Volume(np.zeros((3, 8, 8), dtype=np.int16), np.eye(4)))
    path = table(pictures, "b.png,,1,1,2,2", "ill/b.png,,1,1,2,2", "v,,1,1,2,2")
    with pytest.raises(DataError) as told:
        read_boxes(path, read_cohort(pictures))
    text = str(told.value)
    assert "row 2: names a file of several cases\n  found: 'b.png': ill__b, well__b" in text
    assert "row 4: a box lies on a picture, not in a volume" in text
    assert "row 3" not in text


@pytest.mark.parametrize("crop", ["none", "nonzero"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("square", [True, False])
def test_boxes_go_where_masks_go(crop: str, turned: bool, square: bool) -> None:
    """A mask of the box, prepared, is the prepared box; through crop, padding, turn and shrinking."""
    voxels = np.zeros((1, 96, 128), dtype=np.int16)
    voxels[:, 16:80, 32:128] = 100
    box = np.array([[40.0, 24.0, 32.0, 16.0]])
    marked = np.zeros(voxels.shape, dtype=np.uint8)
    marked[:, 24:40, 40:72] = 1
    # rows run to the head and columns to the right: a slice that LPS flips in one axis and RAS in another
    affine = np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]])
    if turned:
        affine = affine[[1, 0, 2, 3]] * np.array([-1.0, 1, 1, 1])
    how = Preparation(channels={"image": ("zscore",)}, size=(48, 64), crop=crop, square=square)
    trace = prepare({"image": Volume(voxels, affine)}, how).trace
    assert any(trace.turn.flips) or turned
    mask = prepare_mask(Mask(marked, affine), trace)
    found = prepared_rectangles(box, trace)
    x, y, w, h = found[0]
    rows, columns = np.nonzero(mask[0])
    assert (columns.min(), columns.max() + 1) == pytest.approx((x, x + w), abs=0.51)
    assert (rows.min(), rows.max() + 1) == pytest.approx((y, y + h), abs=0.51)
    assert undo_rectangles(found, trace) == pytest.approx(box)


def test_what_is_cropped_away_is_cut() -> None:
    voxels = np.zeros((1, 40, 40), dtype=np.int16)
    voxels[:, 10:30, 10:30] = 100
    how = Preparation(channels={"image": ("zscore",)}, size=(40, 40), crop="nonzero", orientation="native")
    trace = prepare({"image": Volume(voxels, np.eye(4))}, how).trace
    boxes = np.array([[0.0, 0, 5, 5], [5, 5, 10, 10], [12, 14, 4, 2]])
    assert prepared_rectangles(boxes, trace).tolist() == [[0, 0, 10, 10], [4, 8, 8, 4]]
    assert undo_rectangles(prepared_rectangles(boxes, trace), trace).tolist() == [
        [10, 10, 5, 5],
        [12, 14, 4, 2],
    ]


def test_volumes_are_refused() -> None:
    how = Preparation(channels={"image": ("zscore",)}, size=(8, 8))
    trace = prepare({"image": Volume(np.arange(192).reshape(3, 8, 8), np.eye(4))}, how).trace
    for way in (prepared_rectangles, undo_rectangles):
        with pytest.raises(DataError, match="not in a volume"):
            way(np.zeros((1, 4)), trace)


def test_real_boxes(data_folder: Path) -> None:
    folder = data_folder / "cxr-healthy-pneumonia"
    cohort = read_cohort(folder)
    found = read_boxes(folder / "boxes_256.csv", cohort)
    assert len(found) == 32
    assert sum(len(those) for those in found.values()) == 37
    assert found["00000150_002"] == (FindingBox("Pneumonia", 150.35, 148.99, 53.91, 45.24),)
    assert all(cohort.case(name).tags["label"] == "pneumonia" for name in found)
