"""The small objective that the tests of the training train."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def worker() -> ModuleType:
    """The module kill_worker.py of this folder."""
    spec = importlib.util.spec_from_file_location("kill_worker", Path(__file__).with_name("kill_worker.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fabric():
    from fewmask.training.launch import launch  # noqa: PLC0415 - tests without it need no Lightning

    return launch(device="cpu")
