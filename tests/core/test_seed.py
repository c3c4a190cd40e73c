"""Chance is named: the same names give the same numbers, other names give others."""

from hypothesis import given
from hypothesis import strategies as st

from fewmask.core.seed import integer, stream

NAMES = st.lists(st.one_of(st.text(max_size=8), st.integers()), max_size=4)


@given(st.integers(), NAMES)
def test_same_names_same_stream(seed: int, names: list) -> None:
    assert stream(seed, *names).random() == stream(seed, *names).random()
    assert 0 <= integer(seed, *names) < 2**63


def test_other_names_other_streams() -> None:
    wanted = [
        integer(0),
        integer(1),
        integer(0, "a"),
        integer(0, "b"),
        integer(0, 1),
        integer(0, "1"),
        integer(0, 1, 2),
    ]
    assert len(set(wanted)) == len(wanted)


def test_values_are_fixed_for_ever() -> None:
    """A published seed must mean the same in every later version."""
    assert integer(0, "split") == 6682928078616706572
    assert stream(7, "order", 3).integers(0, 1000, 3).tolist() == [518, 144, 842]
