"""Signals that ask a run to end: what a cluster sends before it takes the machine away, and Ctrl-C.

In a training the first signal is remembered: the update is finished and a checkpoint written. A second one
ends the process at once. Outside of a training nothing would be lost, and the run ends right away.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from fewmask.core.errors import StoppedError

Handler = Callable[[int, FrameType | None], object] | int | None

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""SIGTERM and SIGUSR1 come from SLURM (pre-emption, end of the time limit), SIGINT from Ctrl-C."""


class Stop:
    """Whether somebody has asked this process to end."""

    def __init__(self) -> None:
        self.asked = 0
        """The number of the first signal; 0 while none has come."""

    def error(self, where: str, images_seen: int) -> StoppedError:
        """What ends a training that was asked to stop, after its checkpoint."""
        by_hand = self.asked == signal.SIGINT
        name = signal.Signals(self.asked).name if self.asked else "another process"
        return StoppedError(
            f"stopped by {name} after {images_seen} images; a checkpoint was written",
            where=where,
            mend="The same command goes on from there.",
            exit_code=StoppedError.BY_HAND if by_hand else StoppedError.REQUEUE,
        )


@contextmanager
def remembered() -> Iterator[Stop]:
    """While the block runs, the first signal is remembered and a second one ends the process."""
    stop = Stop()

    def remember(number: int, _: FrameType | None) -> None:
        if stop.asked:
            _restore(dict.fromkeys(SIGNALS, signal.SIG_DFL))
            os.kill(os.getpid(), number)
            return
        stop.asked = number
        told = f"\n{signal.Signals(number).name}: finishing this update and writing a checkpoint; "
        os.write(2, (told + "a second signal ends at once\n").encode())

    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield stop
        return
    before = {number: signal.signal(number, remember) for number in SIGNALS}
    try:
        yield stop
    finally:
        _restore(before)
    if stop.asked:  # it came after the last update: whoever listened before hears it now
        os.kill(os.getpid(), stop.asked)


@contextmanager
def ended_at_once() -> Iterator[None]:
    """While the block runs, SIGTERM and SIGUSR1 raise `StoppedError`, except within a training."""

    def end(number: int, _: FrameType | None) -> None:
        raise StoppedError(
            f"stopped by {signal.Signals(number).name}",
            mend="The same command goes on from the last finished step.",
        )

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        _restore(before)


def _restore(handlers: Mapping[signal.Signals, Handler]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
