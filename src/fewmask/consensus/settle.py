"""Readers' masks of one class in one case, structure by structure, to one reference by a rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fewmask.consensus.growing import Grown, Growth, grow
from fewmask.consensus.morphology import centre_of, largest, radius_mm
from fewmask.consensus.staple import staple
from fewmask.consensus.structures import Box, Structure, find_structures
from fewmask.consensus.voting import require_alike, vote
from fewmask.core.errors import ConfigError, ShapeError

Bool = NDArray[np.bool_]
Rule = Literal["majority", "half", "staple", "grow"]
Of = Literal["marking", "all"]

MARGIN_MM = 5.0
"""How far a structure's box reaches beyond what the readers marked; STAPLE's specificities depend on it."""

GROWERS_MARGIN_MM = 15.0
"""The same where regions grow: half of the largest nodule's radius, and the centres differ."""


@dataclass(frozen=True)
class Settled:
    """What became of one structure."""

    box: Box
    marked_by: tuple[str, ...]
    """The readers who marked it."""
    voxels: int
    """Of the consensus; 0 when it was dropped."""
    diameter_mm: float
    """Of the ball (disc) of the consensus' volume, before anything was dropped."""
    dropped: str = ""
    """Why nothing of it is in the consensus; empty: it is."""
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    """By reader, as STAPLE estimates it, 0..1; empty for other rules."""
    specificity: Mapping[str, float] = field(default_factory=dict)
    """By reader; it grows with the structure's box."""
    grown: int = 0
    """Growers that voted."""
    abstained: tuple[str, ...] = ()
    """Why other growers did not."""


@dataclass(frozen=True, eq=False)
class Consensus:
    """One class of one case."""

    mask: Bool
    """(Z, Y, X)."""
    structures: tuple[Settled, ...]


def settle(
    masks: Mapping[str, Bool],
    spacing_mm: Sequence[float],
    *,
    rule: Rule = "majority",
    of: Of = "marking",
    at_least: int = 1,
    judged: Mapping[str, Bool] | None = None,
    image: NDArray[np.generic] | None = None,
    lung: Bool | None = None,
    growth: Growth | None = None,
) -> Consensus:
    """One reference out of the masks of several readers.

    Args:
        masks: boolean mask (Z, Y, X) by reader; an empty one: he looked and marked nothing.
        spacing_mm: along (Z, Y, X).
        rule: "majority": more than half of the voters; "half": at least half; "staple"; "grow": readers and
            regions that grew in the scan vote together, more than half wins (the document's recipe).
        of: "marking": only the readers who marked a structure vote on it; "all": every reader does.
        at_least: structures marked by fewer readers are dropped (LUNA16: 3 of 4).
        judged: where each reader judged at all, for the two votes; None: everywhere.
        image: the scan (Z, Y, X), for "grow".
        lung: (Z, Y, X), for "grow"; None: not known.
        growth: settings of "grow".

    Raises:
        ShapeError: no mask, or shapes that differ.
        ConfigError: "grow" without a scan, or `at_least` below 1.
    """
    require_alike(list(masks.values()))
    if rule == "grow" and image is None:
        raise ConfigError("the rule grow needs the scan itself", where="rule")
    if at_least < 1:
        raise ConfigError("at least one reader must have marked a structure", found=f"at_least={at_least}")
    result = np.zeros(next(iter(masks.values())).shape, dtype=np.bool_)
    if image is not None and image.shape != result.shape:
        raise ShapeError("scan and masks differ in shape", found=f"{image.shape} and {result.shape}")
    settled = []
    margin_mm = GROWERS_MARGIN_MM if rule == "grow" else MARGIN_MM
    for one in find_structures(masks, spacing_mm, margin_mm=margin_mm):
        seen = None if judged is None else {reader: judged[reader][one.box] for reader in masks}
        scan = None if image is None else image[one.box]
        around = None if lung is None else lung[one.box]
        mask, what = _settle(one, spacing_mm, rule, of, at_least, seen, scan, around, growth or Growth())
        result[one.box] |= mask
        settled.append(what)
    return Consensus(result, tuple(settled))


def _settle(
    one: Structure,
    spacing_mm: Sequence[float],
    rule: Rule,
    of: Of,
    at_least: int,
    judged: Mapping[str, Bool] | None,
    image: NDArray[np.generic] | None,
    lung: Bool | None,
    growth: Growth,
) -> tuple[Bool, Settled]:
    """One structure's mask in its box, and what became of it."""
    nothing = np.zeros_like(one.marked[0])
    if len(one.marked_by) < at_least:
        of_how_many = f"marked by {len(one.marked_by)} of {len(one.masks)} readers, fewer than {at_least}"
        return nothing, Settled(one.box, one.marked_by, 0, 0.0, of_how_many)
    voters = one.marked_by if of == "marking" else tuple(one.masks)
    masks = [one.masks[reader] for reader in voters]
    told: dict[str, object] = {}
    if rule == "staple":
        found = staple(masks)
        mask = found.mask
        told["sensitivity"] = dict(zip(voters, found.sensitivity, strict=True))
        told["specificity"] = dict(zip(voters, found.specificity, strict=True))
    elif rule == "grow":
        assert image is not None
        grown = growers(one, image, spacing_mm, lung=lung, growth=growth)
        voting = [each.mask for each in grown if not each.abstains]
        mask = largest(vote([*masks, *voting]))
        told["grown"], told["abstained"] = len(voting), tuple(g.abstains for g in grown if g.abstains)
    else:
        seen = None if judged is None else [judged[reader] for reader in voters]
        mask = vote(masks, strict=rule == "majority", judged=seen)
    diameter = 2 * radius_mm(mask, spacing_mm)
    why = "" if mask.any() else "no voxel found enough votes"
    if mask.any() and rule == "grow" and diameter < growth.least_mm:
        why = f"{diameter:.1f} mm across, less than {growth.least_mm:g} mm"
    kept = nothing if why else mask
    what = Settled(one.box, one.marked_by, int(kept.sum()), diameter, why, **told)  # type: ignore[arg-type]
    return kept, what


def growers(
    one: Structure,
    image: NDArray[np.generic],
    spacing_mm: Sequence[float],
    *,
    lung: Bool | None = None,
    growth: Growth | None = None,
) -> list[Grown]:
    """One grower per reader who marked the structure: from his centroid, with the readers' median radius.

    Args:
        one: the structure, whose box cuts `image` and `lung`.
        image: the scan in the structure's box.
        spacing_mm: along (Z, Y, X).
        lung: the lung in the box; what the readers marked counts as lung too, since a label map shows one
            class at a voxel and a nodule's voxels are then no lung.
        growth: settings.
    """
    radius = float(np.median([radius_mm(mask, spacing_mm) for mask in one.marked]))
    how = growth or Growth()
    if 2 * radius > how.largest_mm:
        why = f"{2 * radius:.0f} mm across: regions grow in what is at most {how.largest_mm:g} mm"
        return [Grown(np.zeros_like(mask), why, 0, False, 0.0) for mask in one.marked]
    if lung is not None:
        lung = np.logical_or.reduce([lung, *one.marked])
    return [grow(image, centre_of(mask), radius, spacing_mm, lung=lung, growth=how) for mask in one.marked]
