"""Devices, threads, and the memory that is kept."""

import logging
import sys

import psutil
import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.training.launch import alone, launch
from fewmask.training.memory import keep_freed_blocks, memory_mb


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"(?s)the device is not there.*0 x cuda.*--device cpu"):
        launch(device="cuda")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "tpu"}, "unknown device"),
        ({"devices": 0}, "the device is not there"),
        ({"threads": 0}, "number of threads"),
        ({"precision": "16-mixed"}, "precision"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        launch(**settings)


def test_the_cpu_is_deterministic_with_the_threads_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        fabric = launch(device="cpu", threads=1)
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        assert (fabric.device.type, fabric.world_size, fabric.global_rank) == ("cpu", 1, 0)
    finally:
        torch.set_num_threads(before)


def test_fabric_says_nothing_of_the_precision(monkeypatch) -> None:
    told, library = [], logging.getLogger("lightning_fabric")
    listener = logging.Handler()
    monkeypatch.setattr(listener, "emit", told.append)
    monkeypatch.setattr(library, "handlers", [listener])
    before = library.level
    try:
        library.setLevel(logging.INFO)
        library.info("news")
        alone("cpu", "bf16")
    finally:
        library.setLevel(before)
    assert [record.getMessage() for record in told] == ["news"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_blocks_stay_in_the_process() -> None:
    assert keep_freed_blocks()


def test_memory_is_that_of_this_process() -> None:
    block = torch.ones(32 * 2**20)
    after = memory_mb(torch.device("cpu"))
    resident = psutil.Process().memory_info().rss / 2**20
    assert after["memory_mb"] >= block.nbytes / 2**20 == 128
    assert after["memory_mb"] == pytest.approx(resident, rel=0.05)
    assert after["peak_memory_mb"] >= after["memory_mb"] - 1
