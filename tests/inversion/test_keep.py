"""Inversions come back from the disk as they were."""

import numpy as np

from fewmask.core.seed import stream
from fewmask.inversion.keep import read_inversion, write_inversion
from fewmask.inversion.project import Inversion


def test_round_trip(tmp_path):
    chance = stream(0, "keep")
    shapes = ((3, 6, 8), (3, 1, 16, 16), (3,), (3,))
    kept = Inversion(*(chance.normal(size=shape).astype(np.float32) for shape in shapes))
    back = read_inversion(write_inversion(tmp_path / "x.safetensors", kept))
    for name, value in vars(kept).items():
        assert np.array_equal(getattr(back, name), value)
