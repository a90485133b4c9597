"""A program of a test on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import labs

_TIOCGPTN = 0x80045430  # include/uapi/asm-generic/ioctls.h


class Terminal:
    """A terminal with one program on it, its leader."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execvpe(argv[0], argv, environment)
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Send what a user types; ^C is "\\x03"."""
        os.write(self._fd, text.encode())

    def expect(self, pattern: str) -> str:
        """Wait for a text on the screen, and forget what came before it; returns what matched."""
        deadline = time.monotonic() + labs.DEADLINE_S
        while not (found := re.search(pattern, self.seen)):
            left_s = deadline - time.monotonic()
            assert left_s > 0 and select.select([self._fd], [], [], left_s)[0], (
                f"waited in vain for {pattern!r} in {self.seen!r}"
            )
            try:
                self.seen += os.read(self._fd, 4096).decode(errors="replace")
            except OSError:  # EIO: nobody has the terminal open any more
                assert re.search(pattern, self.seen), f"{pattern!r} never came in {self.seen!r}"
        self.seen = self.seen[found.end() :]
        return found.group()

    def name(self) -> str:
        """Its file below /dev."""
        (number,) = struct.unpack("I", fcntl.ioctl(self._fd, _TIOCGPTN, bytes(4)))
        return f"/dev/pts/{number}"

    def foreground(self) -> str:
        """The name of the program that ^C and ^Z go to: a shell hands them over some time after it tells so."""
        return Path(f"/proc/{os.tcgetpgrp(self._fd)}/comm").read_text().strip()

    def wait(self) -> int:
        """Read to the end; the program's exit code."""
        try:
            while data := os.read(self._fd, 4096):
                self.seen += data.decode(errors="replace")
        except OSError:
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        """Hang up."""
        os.close(self._fd)


@contextmanager
def terminal(lab: labs.Lab, *argv: str) -> Iterator[Terminal]:
    """A program on a terminal of its own, ended with it."""
    environment = lab.netlab.environment({"SHELL": "/bin/bash", "TERM": "dumb", "PS1": "", "HOME": "/nonexistent"})
    opened = Terminal(list(argv), environment)
    try:
        yield opened
    finally:
        opened.close()


def terminal_of(argv: Sequence[str], environment: Mapping[str, str], columns: int = 80) -> str:
    """All that a program writes on a terminal of so many columns, stderr too, with plain newlines.

    COLUMNS is taken out of the environment where it is the tests' own.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    without = {key: value for key, value in environment.items() if (key, value) != ("COLUMNS", os.environ.get(key))}
    process = subprocess.Popen([*argv], stdin=theirs, stdout=theirs, stderr=theirs, env=without)
    os.close(theirs)
    told = b""
    with suppress(OSError):  # EIO: the last one has closed the terminal
        while data := os.read(ours, 4096):
            told += data
    os.close(ours)
    process.wait(labs.DEADLINE_S)
    return told.decode().replace("\r\n", "\n")
