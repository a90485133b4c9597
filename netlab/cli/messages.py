"""What several commands say of numbers, and how far one has got."""

import time

from netlab import terminal


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

    def __init__(self, what: str = "", total: int = 1, *, quiet: bool = False) -> None:
        self._what = what
        self._total = total
        self._shown = 0.0 if not quiet and terminal.messages_are_shown() else float("inf")
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
            terminal.show_line(line)

    def end(self) -> None:
        """Clear the line."""
        if self._shown == 1.0:
            terminal.show_line()
