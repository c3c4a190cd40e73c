"""The only source of chance.

A random stream is named, not carried around: `stream(seed, "augment", 4096)` is the same stream in every
process, on every machine, whenever it is asked for. So nothing random has to be saved to resume a run:
the count of images seen names the stream.
"""

import hashlib

import numpy as np


def integer(seed: int, *names: str | int) -> int:
    """A non-negative 63-bit integer fixed by `seed` and `names`; it seeds generators of other libraries."""
    text = "\x1f".join([str(seed), *(f"{type(name).__name__}:{name}" for name in names)])
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator fixed by `seed` and `names`; streams of different names are independent."""
    return np.random.default_rng(integer(seed, *names))
