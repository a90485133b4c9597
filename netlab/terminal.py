"""What reaches the terminal: no other file writes to stdout or stderr, and nothing that is written here is obeyed.

Data goes to stdout, messages to stderr. Both are Streams: whatever is written, by netlab, by typer, or by Python about
an error in netlab, goes through their `write`, which escapes it. What a terminal is to obey are the constants in
Control.
"""

from __future__ import annotations

import io
import os
import select
import signal
import sys
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from netlab import escapes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from netlab.style import Piece, Style


class Control(Enum):
    """Control sequences of our own (ECMA-48)."""

    CLEAR_LINE = "\r\033[K"


class Stream(io.TextIOWrapper):
    """A text stream that escapes what it is given. What its encoding lacks becomes an escape too."""

    def write(self, text: str, /) -> int:
        """Write text; newlines and tabs are obeyed, nothing else."""
        super().write(escapes.lines(text))
        return len(text)

    def control(self, sequence: Control) -> None:
        """Write a control sequence."""
        super().write(sequence.value)

    def styled(self, text: str, style: Style) -> None:
        """Write text that looks so."""
        super().write(f"\033[{style.value}m")
        self.write(text)
        super().write("\033[0m")

    @property
    def buffer(self) -> NoReturn:
        """None, so that nothing is written past `write`: typer would, where the encoding is ASCII."""
        raise AttributeError("buffer")


class _Patient(io.FileIO):
    """A descriptor that is written to whole, also where another process that has it made it non-blocking."""

    def write(self, data: Any, /) -> int:
        """Write as much as there is room for, once there is some. OSError names the stream."""
        try:
            while (written := super().write(data)) is None:
                poll = select.poll()
                poll.register(self, select.POLLOUT)
                poll.poll()
        except OSError as error:
            error.filename = "stdout" if self.fileno() == 1 else "stderr"
            raise
        return written


def open_streams() -> None:
    """Put a Stream in the place of stdout and stderr.

    A standard stream that is closed leads to /dev/null: the next file or socket would get its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, closefd=False))
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)


def _stream(fd: int, instead_of: TextIO) -> Stream:
    buffer = io.BufferedWriter(_Patient(fd, "w", closefd=False))
    line_buffering = fd == 2 or os.isatty(fd)
    return Stream(buffer, instead_of.encoding, "backslashreplace", line_buffering=line_buffering)


def write(text: str) -> None:
    """Write data to stdout. Where nobody reads it any more, the command ends as by SIGPIPE; OSError."""
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        _end_unread()


def show(pieces: Iterable[Piece]) -> None:
    """Write pieces of text as `write` does, each in its style where stdout is a terminal that is to have colours."""
    coloured = _has_colours(1)
    for piece in pieces:
        if coloured and piece.style is not None and isinstance(sys.stdout, Stream):
            sys.stdout.styled(piece.text, piece.style)
        else:
            write(piece.text)


def _has_colours(fd: int) -> bool:
    """Whether what is written there may be coloured: a terminal that isn't dumb, and no NO_COLOR (no-color.org)."""
    return os.isatty(fd) and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def flush() -> None:
    """Have stdout written as far as it goes; as `write`."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _end_unread()


def _end_unread() -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(128 + signal.SIGPIPE)


def say(message: str) -> None:
    """Write a message to stderr, in one line unless it is Lines.

    A lab is built, and taken down, whether or not somebody can be told.
    """
    with suppress(OSError):
        sys.stderr.write(f"{escapes.shown(message)}\n")
        sys.stderr.flush()


def say_error(message: str) -> None:
    """Say what ends the command, as `say` does, with netlab's name before it."""
    with suppress(OSError):
        if _has_colours(2) and isinstance(sys.stderr, Stream):
            from netlab.style import Style

            sys.stderr.styled("netlab:", Style.BAD)
        else:
            sys.stderr.write("netlab:")
        sys.stderr.write(f" {escapes.shown(message)}\n")
        sys.stderr.flush()


def show_line(line: str = "") -> None:
    """Show this line alone, cut to the terminal's width, where `show_line` has shown another; on stderr.

    There is room behind it for the ^C that a terminal echoes: it would begin a new line, and this one would stay.
    """
    assert isinstance(sys.stderr, Stream)
    with suppress(OSError):
        columns = os.get_terminal_size(2).columns or 80
        sys.stderr.control(Control.CLEAR_LINE)
        shown, room = escapes.line(line), columns - len("^C") - 1
        sys.stderr.write(shown if len(shown) <= room else f"{shown[: max(room - 3, 0)]}...")
        sys.stderr.flush()


def complain(message: str) -> None:
    """Write a line to stderr at once, past what Python has buffered: for a forked child."""
    encoding = getattr(sys.stderr, "encoding", "ascii")
    with suppress(OSError):
        os.write(2, f"{escapes.line(message)}\n".encode(encoding, errors="backslashreplace"))


def columns() -> int:
    """How wide data is to be: the terminal's width, or what COLUMNS says it is; 80 where stdout is no terminal."""
    if not data_is_shown():
        return 80
    given = os.environ.get("COLUMNS", "")
    if given.isascii() and given.isdigit() and int(given):
        return int(given)
    return os.get_terminal_size(1).columns or 80


def list_columns() -> int | None:
    """How wide a list is to be whose entries a program may want whole, each in a line: None where it may be one."""
    return columns() if data_is_shown() else None


def data_is_shown() -> bool:
    """Whether stdout is a terminal."""
    return os.isatty(1)


def messages_are_shown() -> bool:
    """Whether stderr is a terminal."""
    return os.isatty(2)
