"""Making a diseased image healthy: what every such method takes and gives, so that all are compared alike."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Domains:
    """Slices of two kinds, unpaired, of disjoint patients.

    diseased, healthy: (N, C, H, W) and (M, C, H, W) in [-1, 1].
    """

    diseased: Floats
    healthy: Floats


@dataclass(frozen=True, eq=False)
class Healthy:
    """Images (N, C, H, W) in [-1, 1] without their disease, and where it was.

    delta: (N, H, W), 0 or more: how much each pixel was changed, in the method's own unit (grey levels on
    the scale of [-1, 1], a probability, a displacement in pixels); larger is more diseased.
    """

    images: Floats
    delta: Floats


class ToHealthy(Protocol):
    """A trained method. Deterministic: the same images give the same answer, one by one or together."""

    def __call__(self, images: Floats) -> Healthy:
        """Images (N, C, H, W) in [-1, 1], healthy or not."""
        ...
