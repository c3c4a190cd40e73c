"""Fixtures that every test may use: where the real scans and the reference numbers lie, if they are there."""

import os
from pathlib import Path

import pytest

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
