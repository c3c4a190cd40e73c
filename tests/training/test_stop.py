"""Signals outside of trainings, and the second one inside; inside, see test_together."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from fewmask.core.errors import StoppedError
from fewmask.training.stop import SIGNALS, ended_at_once, remembered


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_outside_of_a_training_a_run_ends_at_once_to_be_queued_again(number: int) -> None:
    before = handlers()
    with (
        pytest.raises(StoppedError, match=f"stopped by {signal.Signals(number).name}") as caught,
        ended_at_once(),
    ):
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == 75
    assert handlers() == before


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_remembered_and_the_handlers_come_back(number: int, capfd) -> None:
    before = handlers()

    def train() -> None:
        with remembered() as stop:
            assert not stop.asked
            os.kill(os.getpid(), number)
            assert stop.asked == number
            raise stop.error("gan", 12)

    with pytest.raises(StoppedError, match="after 12 images") as caught:
        train()
    assert caught.value.exit_code == (130 if number == signal.SIGINT else 75)
    assert handlers() == before
    assert "writing a checkpoint; a second signal ends at once" in capfd.readouterr().err


def test_a_signal_after_the_last_update_is_heard_outside() -> None:
    with pytest.raises(StoppedError, match="stopped by SIGUSR1"), ended_at_once(), remembered():
        os.kill(os.getpid(), signal.SIGUSR1)


def test_a_second_signal_ends_at_once() -> None:
    code = (
        "import os, signal\nfrom fewmask.training.stop import remembered\n"
        "with remembered():\n    os.kill(os.getpid(), signal.SIGTERM)\n    print('on', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    print('never')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "on\n")


def test_in_another_thread_signals_are_left_alone() -> None:
    before, seen = handlers(), []

    def work() -> None:
        with remembered() as stop, ended_at_once():
            seen.extend([stop.asked, handlers() == before])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0, True]
