"""Stored numbers to real values: integers stay integers where the scaling is whole."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rescale(raw: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """`raw * slope + intercept`: int16 or int32 if all three are whole numbers, else float32."""
    if (slope, intercept) == (1.0, 0.0) or raw.size == 0:
        return raw
    if raw.dtype.kind in "iu" and slope == round(slope) and intercept == round(intercept):
        ends = [int(end) * int(slope) + int(intercept) for end in (raw.min(), raw.max())]
        if min(ends) >= -(2**31) and max(ends) < 2**31:
            small = min(ends) >= -(2**15) and max(ends) < 2**15
            wide = raw.astype(np.int64 if raw.dtype.itemsize >= 4 else np.int32) * int(slope) + int(intercept)
            return wide.astype(np.int16 if small else np.int32)
    return (raw.astype(np.float64) * slope + intercept).astype(np.float32)
