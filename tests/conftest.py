"""Fixtures that every test may use: where the real scans and the reference numbers lie, if they are there."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def _folder(variable: str, default: str) -> Path:
    path = Path(os.environ.get(variable, default))
    path = path if path.is_absolute() else ROOT / path
    if not path.is_dir():
        pytest.skip(f"no folder {path}: set {variable} to run the tests on it")
    return path


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real scans, from FEWMASK_DATA."""
    return _folder("FEWMASK_DATA", "../shared/data")


@pytest.fixture(scope="session")
def parity_folder() -> Path:
    """The folder of numbers from public reference implementations, from FEWMASK_PARITY."""
    return _folder("FEWMASK_PARITY", "../shared/parity")


@pytest.fixture
def files_of_at_most() -> Callable[[int], AbstractContextManager[None]]:
    """The operating system ends every write after so many bytes of a file, as a full disk does."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def plain_convolutions() -> Iterator[None]:
    """Without oneDNN, whose convolutions lose digits in gradients on some processors (1e-3 seen; 2e-6 so)."""
    torch.backends.mkldnn.enabled = False
    yield
    torch.backends.mkldnn.enabled = True
