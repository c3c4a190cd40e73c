"""What an image's label is to networks that are told or tell whether it is healthy."""

import numpy as np
from numpy.typing import NDArray

from fewmask.synthesis.healthy import Domains

HEALTHY, DISEASED = 0, 1
"""Class numbers of the two domains."""

CLASSES = 2


def labelled(domains: Domains) -> tuple[NDArray[np.float32], NDArray[np.floating]]:
    """All slices (N + M, C, H, W), the healthy ones first, and their one-hot labels (N + M, 2)."""
    kinds = np.repeat([HEALTHY, DISEASED], [len(domains.healthy), len(domains.diseased)])
    slices = np.concatenate([domains.healthy, domains.diseased])
    return np.asarray(slices, np.float32), np.eye(CLASSES)[kinds]
