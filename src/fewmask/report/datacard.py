"""The data card of a cohort."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from fewmask.core.volume import Grid
from fewmask.data.case import Cohort
from fewmask.report.content import DataCard


def data_card(
    cohort: Cohort,
    grids: Mapping[str, Grid],
    *,
    parts: Mapping[str, Sequence[str]],
    site_tag: str = "site",
    notes: Iterable[str] = (),
) -> DataCard:
    """What a reader needs to know of the scans.

    Args:
        cohort: the cohort as read.
        grids: the grid of each case by its name; cases without one are left out of sizes and slices.
        parts: patients by part (train, validation, test, ...).
        site_tag: the tag that names hospital or scanner.
        notes: what else to say; the cohort's remarks are added.
    """
    sites = Counter({case.patient: case.tags.get(site_tag, "") for case in cohort.cases}.values())
    shapes = [grid.shape for grid in grids.values()]
    spacings = [grid.spacing_mm for grid in grids.values()]
    return DataCard(
        cohort=cohort.name,
        patients=len(cohort.patients),
        cases=len(cohort.cases),
        slices=sum(shape[0] for shape in shapes),
        classes=tuple(cohort.classes),
        modalities=cohort.modalities,
        parts={name: len(set(patients)) for name, patients in parts.items()},
        sites={} if set(sites) == {""} else {name or "unknown": n for name, n in sorted(sites.items())},
        shapes=(_each(shapes, min), _each(shapes, max)) if shapes else None,
        spacings_mm=(_each(spacings, min), _each(spacings, max)) if spacings else None,
        notes=(*notes, *(str(remark) for remark in cohort.remarks)),
    )


_N = TypeVar("_N", int, float)


def _each(triples: Sequence[tuple[_N, _N, _N]], pick: Callable[[Iterable[_N]], _N]) -> tuple[_N, _N, _N]:
    """The smallest or largest value of every axis."""
    return pick(t[0] for t in triples), pick(t[1] for t in triples), pick(t[2] for t in triples)
