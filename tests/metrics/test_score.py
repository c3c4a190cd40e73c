"""Rows of a case, and the table of rows on the disk."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmask.core.errors import ConfigError, DataError, ShapeError
from fewmask.metrics.score import Row, ceiling_of, read_rows, score_case, write_rows

CLASSES = {"lung": 1, "heart": 2, "nodule": 3}
WHO = {"arm": "unet", "shots": 3, "draw": 1, "case": "c1", "patient": "p1"}
ROW = Row(
    arm="unet", shots=None, draw=0, case="c", patient="p", class_name="lung", site="", dice=1 / 3, iou=0.2,
    assd_mm=1e-17, hd95_mm=350.0, ceiling=None, pixel_accuracy=0.9, empty_accuracy=0.8, prevalence=0.2,
    reference_ml=12.5, predicted_ml=0.1, outcome="overlap",
)  # fmt: skip


def labels():
    reference = np.zeros((2, 10, 10), np.uint8)
    reference[:, 1:5, 1:5] = 1
    reference[:, 6:9, 6:9] = 2
    return reference


def test_rows_of_a_case():
    reference = labels()
    predicted = reference.copy()
    predicted[reference == 2] = 0
    predicted[0, 1, 1] = 0
    lung, heart, nodule = score_case(
        predicted, reference, (5.0, 2.0, 2.0), CLASSES, **WHO, site="Ghent",
        ceiling={"lung": 0.97}, lesion_classes=["nodule", "heart"],
    )  # fmt: skip
    assert (lung.arm, lung.shots, lung.draw, lung.case, lung.patient, lung.site) == (
        "unet", 3, 1, "c1", "p1", "Ghent",
    )  # fmt: skip
    assert lung.dice == pytest.approx(62 / 63)
    assert lung.ceiling == 0.97
    assert lung.reference_ml == pytest.approx(32 * 20 / 1000)
    assert lung.predicted_ml == pytest.approx(31 * 20 / 1000)
    assert lung.pixel_accuracy == pytest.approx(199 / 200)
    assert lung.lesions is None
    assert (heart.outcome, heart.dice, heart.lesions, heart.lesions_hit) == ("missed", 0.0, 1, 0)
    assert heart.assd_mm == heart.hd95_mm == pytest.approx(np.sqrt(10**2 + 20**2 + 20**2))
    assert (nodule.outcome, nodule.dice, nodule.assd_mm, nodule.ceiling) == ("true_negative", 1.0, 0.0, None)
    assert (nodule.lesions, nodule.lesions_invented) == (0, 0)


def test_ignored_voxels_change_nothing():
    reference = labels()
    reference[:, 0] = 255
    predicted = labels()
    clean = score_case(predicted, reference, (1, 1, 1), CLASSES, **WHO, lesion_classes=["nodule"])
    predicted[:, 0] = [3, 1] * 5
    assert score_case(predicted, reference, (1, 1, 1), CLASSES, **WHO, lesion_classes=["nodule"]) == clean
    assert clean[0].dice == 1.0
    assert clean[0].prevalence == pytest.approx(32 / 180)


def test_sparse_slices_score_the_judged_slices():
    reference = np.full((9, 10, 10), 255, np.uint8)
    reference[[2, 6]] = labels()[0]
    predicted = np.zeros_like(reference)
    predicted[:, 2:6, 1:5] = 1  # one row lower everywhere
    lung = score_case(predicted, reference, (1, 1, 1), {"lung": 1}, **WHO)[0]
    assert lung.dice == pytest.approx(0.75)
    picture = score_case(predicted[2:3], reference[2:3], (1, 1, 1), {"lung": 1}, **WHO)[0]
    assert lung.assd_mm == pytest.approx(picture.assd_mm)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"predicted": np.zeros((2, 10, 9), np.uint8)}, ShapeError, r"\(2, 10, 9\)"),
        ({"reference": np.full((2, 10, 10), 255, np.uint8)}, ShapeError, "nothing to score"),
        ({"classes": {"lung": 255}}, ConfigError, "unjudged"),
        ({"classes": {"air": 0}}, ConfigError, "background"),
        ({"lesion_classes": ["tumour"]}, ConfigError, "tumour"),
    ],
)
def test_mistakes_are_errors(change, error, match):
    arguments = {"predicted": labels(), "reference": labels(), "spacing_mm": (1, 1, 1), "classes": CLASSES}
    with pytest.raises(error, match=match):
        score_case(**{**arguments, **WHO, **change})


def test_two_axes_are_an_error():
    with pytest.raises(ShapeError, match="Z = 1"):
        score_case(labels()[0], labels()[0], (1, 1, 1), CLASSES, **WHO)


def test_ceiling_of_a_lost_structure():
    reference = labels()
    returned = np.where(reference == 2, 0, reference)
    assert ceiling_of(returned, reference, CLASSES) == {"lung": 1.0, "heart": 0.0, "nodule": 1.0}


def test_table_round_trip(tmp_path):
    rows = [
        ROW,
        replace(
            ROW, shots=8, case='a "quoted", name', site="Köln", ceiling=0.1 + 0.2, lesions=2, lesions_hit=1
        ),
        replace(ROW, outcome="missed", lesions=0, lesions_hit=0, lesions_invented=4),
    ]
    path = write_rows(tmp_path / "results.csv", rows)
    assert read_rows(path) == rows
    assert path.read_text(encoding="utf-8").splitlines()[0].startswith("arm,shots,draw,case,patient")
    assert list(tmp_path.iterdir()) == [path]
    assert read_rows(write_rows(tmp_path / "empty.csv", [])) == []


@settings(max_examples=40, deadline=None)
@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8", exclude_characters="\r")),
)
def test_every_digit_and_name_survives(tmp_path_factory, value, name):
    row = replace(ROW, dice=value, ceiling=value, case=name)
    assert read_rows(write_rows(tmp_path_factory.mktemp("rows") / "r.csv", [row])) == [row]


def test_scores_per_slice_stand_beside_those_of_the_case(tmp_path):
    reference = labels()
    predicted = reference.copy()
    predicted[0, 1:4, 1:5] = 0  # most of the lung is missed on one of two slices
    lung, heart, nodule = score_case(predicted, reference, (1, 1, 1), CLASSES, **WHO)
    assert lung.slice_dice == pytest.approx((8 / 20 + 1) / 2)
    assert lung.slice_iou == pytest.approx((4 / 16 + 1) / 2)
    assert lung.slice_dice != pytest.approx(lung.dice)
    assert (heart.slice_dice, nodule.slice_dice, nodule.slice_iou) == (1.0, 1.0, 1.0)
    picture = score_case(predicted[:1], reference[:1], (1, 1, 1), CLASSES, **WHO)
    assert [r.slice_dice for r in picture] == pytest.approx([r.dice for r in picture])
    assert [r.slice_iou for r in picture] == pytest.approx([r.iou for r in picture])
    reference[0] = 255  # nobody judged the bad slice
    assert score_case(predicted, reference, (1, 1, 1), CLASSES, **WHO)[0].slice_dice == 1.0


def test_a_table_of_an_older_run_is_read(tmp_path):
    path = write_rows(tmp_path / "results.csv", [ROW])
    older = [line.rsplit(",", 3)[0] for line in path.read_text().splitlines()]
    assert older[0].endswith("lesions_invented")
    path.write_text("\n".join(older))
    assert read_rows(path) == [ROW]


def test_damaged_tables_are_errors(tmp_path):
    path = write_rows(tmp_path / "results.csv", [ROW, ROW])
    text = path.read_text()
    path.write_text(text.replace("350.0", "far", 1))
    with pytest.raises(DataError, match=r"(?s)line 2: column hd95_mm is damaged.*'far'"):
        read_rows(path)
    path.write_text(text.replace("350.0", "", 1))
    with pytest.raises(DataError, match="hd95_mm"):
        read_rows(path)
    path.write_text("case,dice\na,0.5\n")
    with pytest.raises(DataError, match="no column arm, shots"):
        read_rows(path)
    path.write_text(text[: text.rindex("12.5")])
    with pytest.raises(DataError, match="damaged"):
        read_rows(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "absent.csv")
    path.write_bytes(b"\xff\xfe\x00arm")
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(path)
