"""Files and directories that one command at a time works on (flock(2))."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from netlab.errors import LabError
from netlab.linux.deadlines import scaled


def lock(fd: int) -> bool:
    """Take the lock on an open file (flock(2)); False where another has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def free(fd: int) -> None:
    """Give the lock up, whoever has inherited it, and close the file."""
    with suppress(OSError):  # it goes when the file is closed, then
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


@contextmanager
def held(directory: Path, timeout_s: float = 10.0) -> Iterator[bool]:
    """Hold the lock on a directory; yields whether that is there. LabError where another has the lock for so long."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        deadline = time.monotonic() + scaled(timeout_s)
        while not lock(fd):
            wait_for_lock(deadline, f"another netlab command keeps {directory}")
        yield same(fd, directory)
    finally:
        free(fd)


def wait_for_lock(deadline: float, complaint: str) -> None:
    """Wait a little before another try; LabError with the complaint after the deadline."""
    if time.monotonic() > deadline:
        raise LabError(complaint, "wait for it, or end it")
    time.sleep(0.02)


def same(fd: int, path: Path) -> bool:
    """Whether the open file still stands there."""
    try:
        return path.stat().st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False
