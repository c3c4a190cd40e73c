"""One mask by the votes of several: more than half, or at least half."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewmask.core.errors import ShapeError


def vote(
    masks: Sequence[NDArray[np.bool_]],
    *,
    strict: bool = True,
    voters: int | None = None,
    judged: Sequence[NDArray[np.bool_]] | None = None,
) -> NDArray[np.bool_]:
    """Voxels that enough voters marked; a voxel that nobody marked never is among them.

    Args:
        masks: one boolean mask (Z, Y, X) per voter, all of one shape.
        strict: more than half of the voters (the few-shot document); otherwise at least half (pylidc's
            consensus at level 0.5). They differ where voters are even in number, as with 2 of 4.
        voters: how many could have voted; more than there are masks when some marked nothing. Default: as
            many as masks.
        judged: where each voter judged at all; elsewhere he is not counted. None: everywhere.

    Raises:
        ShapeError: no mask, shapes that differ, or fewer voters than masks.
    """
    require_alike(masks)
    count = len(masks) if voters is None else voters
    if count < len(masks):
        raise ShapeError("fewer voters than masks", found=f"{count} voters, {len(masks)} masks")
    votes = np.zeros(masks[0].shape, dtype=np.int32)
    able = np.full(masks[0].shape, count, dtype=np.int32)
    for mask in masks:
        votes += mask
    for seen in judged or ():
        able -= ~seen
    if judged is not None:
        votes -= np.sum([mask & ~seen for mask, seen in zip(masks, judged, strict=True)], axis=0)
    enough = 2 * votes > able if strict else 2 * votes >= able
    return np.asarray(enough & (votes > 0), dtype=np.bool_)


def require_alike(masks: Sequence[NDArray[np.bool_]]) -> None:
    """Raise a `ShapeError` unless there is at least one mask and all have one shape (Z, Y, X)."""
    if not masks:
        raise ShapeError("a consensus needs at least one mask", found="none")
    shapes = sorted({mask.shape for mask in masks})
    if len(shapes) > 1 or masks[0].ndim != 3:
        raise ShapeError(
            "the masks of all readers must have one shape (Z, Y, X)",
            found=" and ".join(map(str, shapes)),
            mend="Resample them onto the scan first.",
        )
