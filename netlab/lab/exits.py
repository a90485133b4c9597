"""How processes in a lab ended whose parent had ended before: as every program of the topology does.

The holder, the lab's PID 1, reaps them. It keeps each wait status in a file that has no name, as one of its
descriptors, for the netlab that waits for a program: a slot for each remainder of a pid, as (pid, status).
"""

from __future__ import annotations

import os
from typing import Final

DESCRIPTOR = 3
"""The holder's."""

_SLOTS, _NUMBER = 128, 4
_ORDER: Final = "little"

REAPING = f"""\
import posix, signal
while 1:
    try:
        pid, status = posix.waitpid(-1, posix.WNOHANG)
    except ChildProcessError:
        pid = 0
    if not pid:
        signal.sigwait([signal.SIGCHLD])
        continue
    slot = pid.to_bytes({_NUMBER}, "{_ORDER}") + status.to_bytes({_NUMBER}, "{_ORDER}")
    try:
        posix.pwrite({DESCRIPTOR}, slot, pid % {_SLOTS} * len(slot))
    except OSError:
        pass
"""
"""The program that the holder becomes: it reaps for ever. SIGCHLD is to be blocked, and not ignored, before."""


def make() -> int:
    """A descriptor of a new file for them, all of it there: the holder never lacks memory for it. OSError."""
    file = os.memfd_create("exits")
    os.posix_fallocate(file, 0, _SLOTS * 2 * _NUMBER)
    return file


def forget(file: int, pid: int) -> None:
    """Forget how an earlier process of that number ended; pid is the lab's number of one that lives. OSError."""
    os.pwrite(file, bytes(2 * _NUMBER), _slot(pid))


def status(file: int, pid: int) -> int | None:
    """How the process ended, as waitpid(2) has it; None where that isn't told: not yet, or not any more. OSError."""
    slot = os.pread(file, 2 * _NUMBER, _slot(pid))
    reaped, how = (int.from_bytes(part, _ORDER) for part in (slot[:_NUMBER], slot[_NUMBER:]))
    return how if reaped == pid else None


def _slot(pid: int) -> int:
    return pid % _SLOTS * 2 * _NUMBER
