"""A small phantom cohort that tests may copy and damage."""

import shutil
from pathlib import Path

import pytest

from fewmask.data.phantom import write_phantom


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """Ten patients, two slices of 32 pixels each; never changed."""
    return write_phantom(tmp_path_factory.mktemp("phantom") / "torso", patients=10, size=32, slices=2)


@pytest.fixture
def cohort(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom that a test may damage."""
    return Path(shutil.copytree(phantom, tmp_path / "cohort"))
