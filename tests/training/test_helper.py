"""Who is the run and who helps, and that nobody runs it twice."""

import pytest

from fewmask.core.errors import ConfigError
from fewmask.training.helper import helper
from fewmask.training.launch import launch


@pytest.mark.parametrize("name", ["RANK", "SLURM_PROCID", "LOCAL_RANK"])
def test_a_process_with_a_number_above_zero_helps(name: str) -> None:
    assert helper({name: "3"})
    assert not helper({name: "0"})
    assert not helper({})


def test_the_number_over_all_machines_counts() -> None:
    assert helper({"RANK": "4", "LOCAL_RANK": "0"})
    assert not helper({"RANK": "0", "LOCAL_RANK": "0"})


def test_many_processes_on_a_run_for_one_device_are_refused(monkeypatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    with pytest.raises(ConfigError, match=r"(?s)several processes.*devices=1"):
        launch()
