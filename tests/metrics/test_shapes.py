"""Area, place and pieces of classes, and what lies outside of the real masks' range."""

import numpy as np
import pytest

from fewmask.core.errors import ShapeError
from fewmask.metrics.shapes import ClassRow, Margin, Shape, class_table, implausible, ranges, shapes

CLASSES = {"heart": 1, "lung": 2}


def mask(*boxes):
    drawn = np.zeros((20, 20), np.uint8)
    for value, y, x, size in boxes:
        drawn[y : y + size, x : x + size] = value
    return drawn


def test_shapes_by_hand():
    found = shapes(mask((2, 0, 0, 2), (2, 2, 2, 2), (2, 10, 4, 1)), CLASSES)
    # two boxes that touch at a corner are one piece
    assert found == {"heart": Shape(0, None, 0), "lung": Shape(9, (round(22 / 9, 3), round(16 / 9, 3)), 2)}
    with pytest.raises(ShapeError, match="one slice"):
        shapes(np.zeros((1, 4, 4), np.uint8), CLASSES)


REAL = [shapes(mask((1, 4, 4, 4)), CLASSES), shapes(mask((1, 6, 4, 6), (2, 0, 0, 2)), CLASSES)]


@pytest.mark.parametrize(
    ("boxes", "reasons"),
    [
        ([(1, 5, 4, 5)], ()),
        ([], ("heart: absent",)),
        ([(1, 6, 4, 3)], ("heart: area",)),
        ([(1, 5, 4, 8)], ("heart: area",)),
        ([(1, 5, 12, 5)], ("heart: centre",)),
        ([(1, 5, 4, 5), (1, 0, 12, 1)], ()),
        ([(1, 5, 4, 5), (1, 0, 12, 1), (1, 0, 15, 1)], ("heart: pieces",)),
        ([(1, 5, 4, 5), (2, 0, 0, 3)], ("lung: area",)),
    ],
)
def test_what_is_implausible(boxes, reasons):
    assert implausible(shapes(mask(*boxes), CLASSES), ranges(REAL), Margin(area=1.5, centre=4)) == reasons


def test_the_margin_widens_the_range():
    found = shapes(mask((1, 5, 12, 7)), CLASSES)
    assert implausible(found, ranges(REAL), Margin(area=1, centre=0)) == ("heart: area", "heart: centre")
    assert implausible(found, ranges(REAL), Margin(area=1.5, centre=9)) == ()


def test_a_lesion_may_be_anywhere_small_or_absent_but_not_larger_or_in_more_pieces():
    seen, margin = ranges(REAL, anywhere=["heart"]), Margin(area=1.5, centre=4)
    for fine in ([], [(1, 5, 12, 5)], [(1, 0, 0, 1)]):
        assert implausible(shapes(mask(*fine), CLASSES), seen, margin) == ()
    assert implausible(shapes(mask((1, 5, 4, 8)), CLASSES), seen, margin) == ("heart: area",)
    three = [(1, 5, 4, 5), (1, 0, 12, 1), (1, 0, 15, 1)]
    assert implausible(shapes(mask(*three), CLASSES), seen, margin) == ("heart: pieces",)


def test_a_class_that_no_real_mask_shows_is_unknown():
    seen = ranges(REAL[:1])
    assert implausible(REAL[0], seen, Margin()) == ()
    assert "lung: unknown" in implausible(REAL[1], seen, Margin())
    with pytest.raises(ShapeError, match="no mask"):
        ranges([])


def test_presence_and_area_real_against_generated():
    made = [shapes(mask((1, 0, 0, size)), CLASSES) for size in (1, 2, 3)]
    heart, lung = class_table(REAL, made)
    assert heart == ClassRow("heart", 2, 1.0, (21.0, 26.0, 31.0), 3, 1.0, (2.5, 4.0, 6.5))
    assert lung == ClassRow("lung", 2, 0.5, (4.0, 4.0, 4.0), 3, 0.0, None)
    with pytest.raises(ShapeError, match="no masks"):
        class_table(REAL, [])
