"""What can go wrong, said so that the reader can mend it.

Every error that a user can cause carries five things: what is wrong, where, what was found, what was
expected, and how to mend it. `cli` prints the message without a traceback and exits with `exit_code`.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One fault of one file, case or setting. A cohort's faults are gathered and reported together."""

    what: str
    where: str = ""
    found: str = ""
    expected: str = ""
    mend: str = ""

    def __str__(self) -> str:
        """The fault as a short paragraph: `where: what`, then found, expected and the mend."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        lines = [head]
        if self.found:
            lines.append(f"  found: {self.found}")
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.mend:
            lines.append(f"  {self.mend}")
        return "\n".join(lines)


class FewmaskError(Exception):
    """Base of all errors that fewmask raises on purpose. Its text is complete: no traceback is needed."""

    exit_code = 2

    def __init__(
        self, what: str, *, where: str = "", found: str = "", expected: str = "", mend: str = ""
    ) -> None:
        self.problems: tuple[Problem, ...] = (Problem(what, where, found, expected, mend),)
        super().__init__(str(self.problems[0]))

    @classmethod
    def of(cls, problems: Sequence[Problem], *, title: str = "") -> "FewmaskError":
        """One error that reports all `problems` at once, under a `title`."""
        error = cls(problems[0].what if len(problems) == 1 else title or f"{len(problems)} problems")
        error.problems = tuple(problems)
        body = "\n".join(str(problem) for problem in problems)
        error.args = (f"{title}\n{body}" if title else body,)
        return error


class DataError(FewmaskError):
    """A file, a case or a cohort is not what it should be."""


class ShapeError(FewmaskError):
    """Two arrays or grids that must agree do not."""


class ConfigError(FewmaskError):
    """A setting is unknown, out of range, or contradicts another."""


class RunError(FewmaskError):
    """A run's folder cannot be written, or belongs to another run."""


class TrainingError(FewmaskError):
    """Training cannot go on: a loss is not a number, or a worker died. Not the user's mistake."""

    exit_code = 1


class StoppedError(FewmaskError):
    """A signal ended the run between two resumable states; the same command goes on."""

    REQUEUE = 75
    """Exit code EX_TEMPFAIL, "try again later" (sysexits.h): a batch script queues the run once more."""
    BY_HAND = 130
    """Exit code of Ctrl-C: nobody wants to see the run again at once."""

    exit_code = REQUEUE

    def __init__(self, what: str, *, where: str = "", mend: str = "", exit_code: int = REQUEUE) -> None:
        super().__init__(what, where=where, mend=mend)
        self.exit_code = exit_code
