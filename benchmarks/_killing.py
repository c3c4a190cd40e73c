"""Forks that work, and die when they are told to."""

import os
import signal
import sys
from collections.abc import Callable

from fewmask.core.errors import FewmaskError


def fork(work: Callable[[], object]) -> int:
    """Process id of a child that does `work` and leaves with 0, a `FewmaskError`'s exit code, or 99."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        work()
        code = 0
    except FewmaskError as error:
        code = error.exit_code
    except BaseException as error:
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
        sys.stdout.flush()
    os._exit(code)


def ended(child: int) -> int:
    """Wait for a child: its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dying_at(call: int) -> Callable[[object], None]:
    """Stands for flushing a file; at the n-th call, from 1, the process kills itself. 0: never."""
    calls = [0]

    def flush(_: object) -> None:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)

    return flush
