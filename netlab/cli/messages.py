"""What a command says beside its data: messages, and how far it has got. All of it on stderr."""

import os
import sys
import time


def say(message: str) -> None:
    """Print a message on stderr."""
    print(message, file=sys.stderr)


def counted(number: int, noun: str) -> str:
    """How many there are of a thing: 1 packet, 2 packets."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def bar(done: int, total: int) -> str:
    """How much of it is done, drawn: `[#####---------------]` is a quarter."""
    full = 20 * done // total
    return f"[{'#' * full}{'-' * (20 - full)}]"


class Progress:
    """A line on the terminal that counts, or says what is waited for, once something takes more than a second.

    Nothing into a pipe.
    """

    def __init__(self, what: str, total: int, *, quiet: bool = False) -> None:
        self._what = what
        self._total = total
        self._shown = 0.0 if not quiet and sys.stderr.isatty() else float("inf")
        self._next = time.monotonic() + 1.0
        self._count = 0

    def step(self, _step: object = None) -> None:
        """One more is done."""
        self.at(self._count + 1)

    def at(self, count: int) -> None:
        """So many are done."""
        self._count = count
        self.show(f"{bar(count, self._total)} {self._what}: {count}/{self._total}")

    def waiting(self, what: str) -> None:
        """Say what is waited for."""
        self.show(f"waiting for {what} …")

    def show(self, line: str) -> None:
        """Show this line, ten times a second at most."""
        if self._shown != float("inf") and time.monotonic() > self._next:
            self._next = time.monotonic() + 0.1
            self._shown = 1.0
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            print(f"\r\033[K{line[: columns - 1]}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the line."""
        if self._shown == 1.0:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
