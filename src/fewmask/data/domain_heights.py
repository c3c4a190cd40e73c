"""How high in its volume a slice lies, and two sets of slices drawn so that their heights are alike.

Lesions lie in the middle of a stack: without this, a method that makes images healthy learns the height.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ConfigError, DataError
from fewmask.core.seed import stream
from fewmask.data.case import Case

Heights = NDArray[np.float64]
"""0..1 from the first slice to the last; NaN where nobody knows."""


def slice_heights(
    cases: Sequence[Case], depths: Mapping[str, int], position: str | None
) -> dict[str, Heights]:
    """The relative height of each slice (Z,) of each case, by its name.

    Args:
        cases: the cases.
        depths: how many slices each has.
        position: for cases that are pictures, the tag with the number of the slice, counted against the
            other pictures of the patient ("slice"), or two tags ("slice/slices"): number over total. None:
            the height of a picture is not known. Volumes of several slices need none.

    Raises:
        ConfigError: no case has the tag.
        DataError: a tag that is no number.
    """
    heights = {
        case.name: np.linspace(0.0, 1.0, depths[case.name]) if depths[case.name] > 1 else np.array([np.nan])
        for case in cases
    }
    pictures = [case for case in cases if depths[case.name] == 1]
    if position is None or not pictures:
        return heights
    number, _, total = position.partition("/")
    places = _numbers(pictures, number)
    if total:
        totals = _numbers(pictures, total)
        return heights | {name: np.array([places[name] / max(totals[name], 1.0)]) for name in places}
    of: dict[str, list[float]] = defaultdict(list)
    for case in pictures:
        of[case.patient].append(places[case.name])
    for case in pictures:
        low, high = min(of[case.patient]), max(of[case.patient])
        heights[case.name] = np.array([(places[case.name] - low) / (high - low) if high > low else 0.5])
    return heights


def match_heights(
    diseased: Heights, healthy: Heights, *, bins: int, repeats: int, seed: int, name: str
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of both sets, in order, such that as many of each lie in every bin of height.

    In each bin slices are drawn from the larger set, as many as the smaller one has, which is shown up to
    `repeats` times. Slices of unknown height are a bin of their own; where no height is known, all rows stay.

    Args:
        diseased: (N,).
        healthy: (M,).
        bins: of equal width from 0 to 1.
        repeats: 1: no slice is shown twice, and the larger set is cut down to the smaller one.
        seed: of the draw.
        name: of the draw, e.g. the part.
    """
    if np.isnan(diseased).all() and np.isnan(healthy).all():
        return np.arange(len(diseased)), np.arange(len(healthy))
    kept: tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]] = ([], [])
    places = [_bins(heights, bins) for heights in (diseased, healthy)]
    for number in range(bins + 1):
        rows = [np.flatnonzero(place == number) for place in places]
        fewer, more = sorted(len(some) for some in rows)
        count = min(more, repeats * fewer)
        for out, some, kind in zip(kept, rows, ("diseased", "healthy"), strict=True):
            order = stream(seed, "match heights", name, kind, number).permutation(some)
            out.append(np.resize(order, count).astype(np.intp))
    return np.sort(np.concatenate(kept[0])), np.sort(np.concatenate(kept[1]))


def _bins(heights: Heights, bins: int) -> NDArray[np.intp]:
    known = np.nan_to_num(np.clip(heights, 0.0, 1.0), nan=0.0)
    return np.where(np.isnan(heights), bins, np.minimum((known * bins).astype(np.intp), bins - 1))


def _numbers(cases: Sequence[Case], tag: str) -> dict[str, float]:
    """The number in a tag of each case."""
    if not any(case.tags.get(tag) for case in cases):
        raise ConfigError(
            f"no case has the tag {tag!r}",
            where="domains.position",
            expected=", ".join(sorted({name for case in cases for name in case.tags}))
            or "a cohort with tags",
        )
    numbers: dict[str, float] = {}
    wrong: list[str] = []
    for case in cases:
        try:
            numbers[case.name] = float(case.tags.get(tag, ""))
        except ValueError:
            wrong.append(f"{case.name}: {case.tags.get(tag, '')!r}")
    if wrong:
        raise DataError(
            f"the tag {tag!r} is no number",
            where="domains.position",
            found=f"{len(wrong)} cases: {', '.join(wrong[:6])}",
            expected="the number of the slice in its volume",
        )
    return numbers
