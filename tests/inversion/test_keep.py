"""Inversions come back from the disk as they were, and a damaged file is refused in words."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from fewmask.core.errors import RunError
from fewmask.core.seed import stream
from fewmask.inversion.keep import read_inversion, read_recipe, write_inversion
from fewmask.inversion.project import Inversion


def _kept(noise=()):
    chance = stream(0, "keep")
    shapes = ((3, 6, 8), (3, 1, 16, 16), (3,), (3,), (3,))
    maps = tuple(chance.normal(size=(3, 1, s, s)).astype(np.float32) for s in noise)
    return Inversion(*(chance.normal(size=shape).astype(np.float32) for shape in shapes), maps)


@pytest.mark.parametrize("sizes", [(), (4, 8, 8)])
def test_round_trip(tmp_path, sizes):
    kept, recipe = _kept(sizes), {"space": "w+", "steps": 3}
    path = write_inversion(tmp_path / "x.safetensors", kept, recipe)
    back = read_inversion(path)
    for name in ("ws", "images", "mse", "perceptual", "ms_ssim"):
        assert np.array_equal(getattr(back, name), getattr(kept, name))
    assert len(back.noise) == len(sizes)
    assert all(np.array_equal(a, b) for a, b in zip(back.noise, kept.noise, strict=True))
    assert read_recipe(path) == recipe
    again = write_inversion(tmp_path / "y.safetensors", back, dict(reversed(recipe.items())))
    assert path.read_bytes() == again.read_bytes()


def test_a_write_that_stops_half_way_leaves_what_was_there(tmp_path, files_of_at_most):
    before = write_inversion(tmp_path / "x.safetensors", _kept()).read_bytes()
    with files_of_at_most(2000), pytest.raises(RunError, match="File too large"):
        write_inversion(tmp_path / "x.safetensors", _kept((4, 8)))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_damaged_files_are_refused(tmp_path):
    path = write_inversion(tmp_path / "x.safetensors", _kept())
    path.write_bytes(path.read_bytes()[:-100])
    for read in (read_inversion, read_recipe):
        with pytest.raises(RunError, match="not a readable safetensors"):
            read(path)
        with pytest.raises(RunError, match="not a readable safetensors"):
            read(tmp_path / "missing.safetensors")
    save_file({"ws": np.zeros((1, 2, 3), np.float32)}, path)
    with pytest.raises(RunError, match="not an inversion"):
        read_inversion(path)
