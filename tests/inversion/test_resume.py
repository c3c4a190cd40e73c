"""Parts of a step: what is removed when they are joined, and how arrays are told apart."""

import tracemalloc

import numpy as np

from fewmask.core.run import Step
from fewmask.inversion.resume import Part, array_key, clear_parts, part_name


def test_an_array_key_knows_values_and_shape_but_not_the_float() -> None:
    half = np.random.default_rng(0).normal(size=(6, 2, 4, 4)).astype(np.float16)
    key = array_key(half)
    assert key == array_key(half.astype(np.float32)) == array_key(half.astype(np.float64))
    assert key == array_key(np.asfortranarray(half))
    assert len({key, array_key(half[:5]), array_key(half[::-1]), array_key(half.reshape(6, 2, 16))}) == 4
    assert array_key(None) == ""


def test_an_array_key_makes_no_copy_of_the_array() -> None:
    half = np.zeros((256, 1, 64, 64), np.float16)
    tracemalloc.start()
    array_key(half)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < half.nbytes / 10


def test_only_parts_are_cleared(tmp_path) -> None:
    step = Step(tmp_path / "test")
    for first in (0, 16):
        Part(step, part_name(first), {"first": first}, every=1)
    for kept in ("a-1", "part-3-z0-0", "part-000016-z0-0", "image-000001"):  # cases in a subfolder "test"
        Step(step.folder / kept).finish({})
        Step(step.folder / kept).claim({})
    (step.folder / part_name(32)).mkdir()  # nobody's part
    clear_parts(step)
    left = {folder.name for folder in step.folder.iterdir()}
    assert left == {"a-1", "part-3-z0-0", "part-000016-z0-0", "image-000001", part_name(32)}
