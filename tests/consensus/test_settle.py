"""Structure by structure, by each rule."""

import numpy as np
import pytest

from fewmask.consensus.growing import Growth
from fewmask.consensus.morphology import away_mm
from fewmask.consensus.settle import settle
from fewmask.core.errors import ConfigError, ShapeError
from fewmask.metrics.overlap import dice

SPACING = (2.0, 0.8, 0.8)
SHAPE = (17, 60, 60)
CENTRE = (8, 20, 20)


def _ball(radius: float, centre=CENTRE) -> np.ndarray:
    return away_mm(SHAPE, centre, SPACING) <= radius


def _readers() -> dict[str, np.ndarray]:
    """Two of four marked the nodule at 20, and one of them another at 45."""
    other = _ball(4.0, (8, 45, 45))
    empty = np.zeros(SHAPE, bool)
    return {"a": _ball(6.0) | other, "b": _ball(5.0), "c": empty, "d": empty}


@pytest.mark.parametrize(
    ("rule", "of", "first", "second"),
    [
        ("majority", "marking", 5.0, True),
        ("half", "marking", 6.0, True),
        ("majority", "all", 0.0, False),
        ("half", "all", 5.0, False),
    ],
)
def test_strict_or_not_of_those_who_marked_or_of_all(rule, of, first, second):
    found = settle(_readers(), SPACING, rule=rule, of=of)
    near = found.mask & (away_mm(SHAPE, CENTRE, SPACING) < 15)
    assert (near == (_ball(first) if first else np.zeros(SHAPE, bool))).all()
    assert found.mask[8, 45, 45] == second
    assert [one.marked_by for one in found.structures] == [("a", "b"), ("a",)]
    assert bool(found.structures[1].dropped) is not second


def test_structures_of_few_readers_are_dropped_and_told():
    found = settle(_readers(), SPACING, at_least=2)
    assert (found.mask == _ball(5.0)).all()
    assert found.structures[1].dropped == "marked by 1 of 4 readers, fewer than 2"


def test_staple_tells_of_its_readers():
    masks = {"a": _ball(6.0), "b": _ball(6.0), "c": _ball(4.0)}
    found = settle(masks, SPACING, rule="staple")
    assert (found.mask == _ball(6.0)).all()
    (one,) = found.structures
    assert one.sensitivity["c"] == pytest.approx(_ball(4.0).sum() / _ball(6.0).sum(), abs=0.01)
    assert one.specificity["a"] == pytest.approx(1.0, abs=1e-3)


def _ct(truth: np.ndarray) -> np.ndarray:
    return np.where(truth, 20.0, -850.0)


def test_growers_pull_sloppy_readers_to_the_scan():
    truth = _ball(6.0)
    masks = {"a": _ball(6.0, (8, 24, 20)), "b": _ball(6.0, (8, 17, 18)), "c": _ball(7.0, (8, 20, 23))}
    grown = settle(masks, SPACING, rule="grow", image=_ct(truth))
    plain = settle(masks, SPACING, rule="majority")
    assert grown.structures[0].grown == 3
    assert dice(grown.mask, truth) > dice(plain.mask, truth) + 0.02


def test_growers_that_leak_everywhere_leave_the_readers_alone():
    masks = {"a": _ball(6.0), "b": _ball(6.0), "c": _ball(5.0)}
    found = settle(masks, SPACING, rule="grow", image=np.full(SHAPE, 30.0))
    assert found.structures[0].grown == 0
    assert len(found.structures[0].abstained) == 3
    assert (found.mask == settle(masks, SPACING).mask).all()


def test_small_structures_are_dropped_by_the_document():
    masks = {"a": _ball(1.0), "b": _ball(1.0)}
    found = settle(masks, SPACING, rule="grow", image=_ct(_ball(1.0)))
    assert not found.mask.any()
    assert "less than 3 mm" in found.structures[0].dropped
    assert settle(masks, SPACING).mask.any()


def test_regions_do_not_grow_in_organs():
    masks = {"a": _ball(6.0), "b": _ball(6.0)}
    found = settle(masks, SPACING, rule="grow", image=_ct(_ball(6.0)), growth=Growth(largest_mm=10.0))
    assert found.structures[0].grown == 0
    assert "12 mm across" in found.structures[0].abstained[0]


def test_the_lung_may_have_a_hole_where_the_nodule_is():
    truth = _ball(6.0)
    masks = {"a": truth, "b": truth}
    found = settle(masks, SPACING, rule="grow", image=_ct(truth), lung=~truth & _ball(30.0))
    assert found.structures[0].grown == 2
    assert dice(found.mask, truth) > 0.97


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match="needs the scan"):
        settle(_readers(), SPACING, rule="grow")
    with pytest.raises(ConfigError, match="at least one reader"):
        settle(_readers(), SPACING, at_least=0)
    with pytest.raises(ShapeError, match="differ"):
        settle(_readers(), SPACING, rule="grow", image=np.zeros((1, 2, 3)))
    with pytest.raises(ShapeError, match="one shape"):
        settle({"a": np.zeros((1, 2, 3), bool), "b": np.zeros((1, 2, 2), bool)}, SPACING)
