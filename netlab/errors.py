"""Everything netlab raises on purpose, as a tree:

NetlabError            a message, a hint, an exit code; `cli/` prints it, nothing else does
├── TopologyError      one or more problems in a topology file (exit 2)
├── UsageError         a wrong name, option or combination on the command line (exit 2)
├── StepError          the kernel refused a step of the plan (exit 1)
├── LabError           the lab is not as it should be: held by another command, gone, foreign names (exit 1)
└── UnsupportedError   this kernel or this user can't: a skip, not a failure (exit 77)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from netlab.escapes import Lines, line, shown


class NetlabError(Exception):
    """An error with a message for the user and, where there is one, a hint that says what to do.

    Each is shown as one line, whatever is quoted in it, unless it is Lines.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        hint = f"\n  hint: {shown(self.hint)}" if self.hint else ""
        return f"{shown(self.message)}{hint}"

    def __reduce__(self) -> tuple[Callable[..., NetlabError], tuple[type[NetlabError]], dict[str, Any]]:
        """Copied by its members: not every kind is made of a message and a hint."""
        return type(self).__new__, (type(self),), self.__dict__


class Problem(NamedTuple):
    """One thing wrong in a topology. line and column count from 1; path is "links[0].ends[1]"; hint may be empty.

    line 0 says that the value came from `--set`, not from the file.
    """

    line: int
    column: int
    path: str
    message: str
    hint: str = ""

    def told(self, file: str, kind: str = "") -> Lines:
        """The problem as it is shown: its place in the file, what it is (`warning: `), and the hint in a line below."""
        at = f"{line(file)}:{self.line}:{self.column}" if self.line else "--set"
        path = f"{line(self.path)}: " if self.path else ""
        hint = f"\n  hint: {line(self.hint)}" if self.hint else ""
        return Lines(f"{at}: {kind}{path}{line(self.message)}{hint}")


class TopologyError(NetlabError):
    """All problems of one file, in the order of their lines. str() is the whole text shown to the user."""

    exit_code = 2

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = sorted(problems)
        super().__init__(Lines("\n".join(problem.told(file) for problem in self.problems)))


class UsageError(NetlabError):
    """The command line asks for something that isn't there or doesn't fit."""

    exit_code = 2


class StepError(NetlabError):
    """The kernel refused one step; the message holds the step's description and the kernel's own words."""


class LabError(NetlabError):
    """The lab's files or processes are not as they should be."""


class UnsupportedError(NetlabError):
    """This kernel, or this user on it, can't do what was asked."""

    exit_code = 77


@contextmanager
def unsupported(what: str) -> Iterator[None]:
    """An OSError in here says that this kernel, or this user, can't: UnsupportedError with `what` and its words."""
    try:
        yield
    except OSError as error:
        raise UnsupportedError(f"{what}: {told(error)}") from error


def told(error: OSError) -> str:
    """An error of the system's as it is told to the user: the file and the kernel's words."""
    return f"{error.filename or 'system error'}: {error.strerror or error}"
