"""The files that documents are read from: what a user names, and what a document names. Nothing else here opens any.

Only regular files, standard input, and pipes that the caller's shell made: a FIFO may wait for ever for its writer, and
a device do more than be read. What a document names may be anywhere, so it is known where it lies.
"""

from __future__ import annotations

import stat
import sys
from contextlib import nullcontext
from pathlib import Path

from netlab.errors import UsageError
from netlab.yamlspec.limits import MAX_BYTES

_CALLERS = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""How the names begin of what the caller has opened: `<(command)` of a shell is /dev/fd/63, and has its writer."""


def read_text(path: str) -> str:
    """The text of a topology file; `-` is stdin. UsageError where it can't be read."""
    if not path:
        raise UsageError("the topology file's name is empty", "name a topology file, or - for stdin")
    return _text(path)


class Named:
    """A file that another one names: path is how it is reached from here; outside: it isn't in the other's directory or
    below, links followed."""

    def __init__(self, file: str, named: str) -> None:
        directory = Path(file).parent
        path = str(directory / named)
        self.path = path if path != "-" else "./-"  # it is never standard input
        self.outside = not _inside(self.path, str(directory))

    def read_text(self) -> str:
        """Its text; UsageError where it can't be read, or is no regular file."""
        return _text(self.path, callers=False)


def _inside(path: str, directory: str) -> bool:
    try:
        return Path(path).resolve().is_relative_to(Path(directory).resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, or no path at all: reading it says so
        return False


def _text(path: str, *, callers: bool = True) -> str:
    """The text of a regular file, or, if it is the caller's, of standard input or a pipe; UsageError."""
    try:
        if path == "-" or _is_full(path, callers):
            with nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as source:
                data = source.read(MAX_BYTES + 1)
        else:
            data = b""
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file", "name a topology file, or - for stdin") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES:,} bytes", "is it a topology?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(f"{path} is not UTF-8 text (line {line})", "save it as UTF-8") from None


def _is_full(path: str, callers: bool) -> bool:
    """Whether there is something in a file; UsageError where that can't be told without opening it.

    A file of no size is not opened: those of /proc that wait for what the kernel says, such as kmsg, have none.
    """
    found = Path(path).stat()
    if stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{path} is a directory", f"name a file in it, such as {Path(path) / 'topology.yaml'}")
    if stat.S_ISFIFO(found.st_mode) and callers and path.startswith(_CALLERS):
        return True
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path} is not a regular file", "name a file; - reads standard input")
    return found.st_size > 0
