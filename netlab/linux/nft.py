"""nftables, through libnftables: it takes nft's own words and answers in them.

Everything here acts in the calling thread's network namespace, and raises OSError: EINVAL with nft's complaint,
EMSGSIZE for more at once than this user may send, ENOPKG where the library is missing, EIO where the library has ended.

libnftables is never called in this process. Where it gets no socket or no memory, and where a dump is interrupted, it
calls exit(3); what it holds for impossible, it answers with abort(3); and deep nesting in a text uses up its stack. A
child calls it, and whatever becomes of the child is told as an error.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from netlab import advice
from netlab.linux import children
from netlab.linux.libnftables import Context, binding


def run(commands: str) -> str:
    """What nft prints for these commands. Equivalent to `nft -f -`."""
    return str(_in_child(lambda libnftables: _run(libnftables, commands)))


def run_in_parts(commands: Iterable[str], most: int = 128) -> None:
    """Run these commands, of a line each, in transactions of so many.

    An ordinary user's transaction has to fit a socket's buffer, which root's may exceed: net.core.wmem_max.
    """
    lines = [*commands]
    parts = ["\n".join(lines[at : at + most]) + "\n" for at in range(0, len(lines), most)]

    def each(libnftables: _Context) -> None:
        for part in parts:
            _run(libnftables, part)

    _in_child(each)


def ruleset_with_handles() -> str:
    """Equivalent to `nft -s -a list ruleset`."""

    def listed(libnftables: _Context) -> str:
        libnftables.set_handle_output(True)
        libnftables.set_stateless_output(True)
        return _run(libnftables, "list ruleset")

    return str(_in_child(listed))


def complaint(text: str) -> str:
    """What nft has against a text that it loads; "" for nothing. Lines are told by their numbers.

    Equivalent to `nft -f FILE`.
    """

    def loaded(libnftables: _Context) -> str:
        # nft tells lines of a file only.
        file = os.memfd_create("rules", 0)
        with os.fdopen(file, "wb") as out:
            out.write(text.encode())
            out.flush()
            code, _, said = libnftables.cmd_from_file(f"/proc/self/fd/{file}")
        return said if code else ""

    return str(_in_child(loaded))


def list_tables(tables: Iterable[tuple[str, str]], after: str = "") -> str:
    """The (family, name) tables that exist, without counters and handles; once the commands of `after` have been run.

    Equivalent to `nft -s list table FAMILY NAME` for each, sorted; what packets have put into sets is left out.
    """

    def listed(libnftables: _Context) -> list[str]:
        if after:
            _run(libnftables, after)
        libnftables.set_stateless_output(True)
        return [_listing(libnftables, family, name) for family, name in sorted(tables)]

    return "".join(re.sub(_DYNAMIC_ELEMENTS, r"\1", text) for text in _in_child(listed))


def list_with_handles(tables: Iterable[tuple[str, str]]) -> str:
    """The (family, name) tables that exist. Equivalent to `nft -s -a list table FAMILY NAME` for each."""

    def listed(libnftables: _Context) -> str:
        libnftables.set_handle_output(True)
        libnftables.set_stateless_output(True)
        return "".join(_listing(libnftables, family, name) for family, name in sorted(tables))

    return str(_in_child(listed))


def _listing(libnftables: _Context, family: str, name: str) -> str:
    """A table's listing, nothing where there is none; OSError where that can't be told."""
    code, output, complaint = libnftables.cmd(f"list table {family} {name}")
    if code and os.strerror(errno.ENOENT) not in complaint:
        raise OSError(errno.EIO, complaint.strip() or f"table {family} {name} can't be listed")
    return output if code == 0 else ""


_OWN = "netlab's, for a while"
"""The comment of the tables that a command of netlab's makes for a time; since Linux 5.10 a table keeps it."""


def make_own_table(name: str, body: str) -> None:
    """Make an inet table for a while, marked as ours; in the place of one of ours that a killed command has left.

    EEXIST where somebody else's table has the name: it is left alone. Equivalent to `nft create table inet NAME`, and
    what nft reads between its braces.
    """

    def make(libnftables: _Context) -> None:
        there, handle = _own_table(libnftables, name)
        if there and handle is None:
            raise OSError(errno.EEXIST, f"another program's table inet {name} is there: nft delete table inet {name}")
        over = f"delete table inet handle {handle}\n" if there else ""
        _run(libnftables, f'{over}create table inet {name} {{ comment "{_OWN}"; }}\ntable inet {name} {{\n{body}\n}}\n')

    _in_child(make)


def remove_own_table(name: str) -> None:
    """Remove what `make_own_table` has made, where it still is."""

    def remove(libnftables: _Context) -> None:
        _, handle = _own_table(libnftables, name)
        if handle is not None:
            _run(libnftables, f"delete table inet handle {handle}")

    try:
        _in_child(remove)
    except OSError:  # the child was killed, or there was no memory for a moment: who asks can't come back
        _in_child(remove)


def _own_table(libnftables: _Context, name: str) -> tuple[bool, str | None]:
    """Whether there is an inet table of that name, and its handle where it is one of ours."""
    libnftables.set_handle_output(True)
    code, listing, _ = libnftables.cmd(f"list table inet {name}")
    libnftables.set_handle_output(False)
    ours = re.match(rf'table inet {name} \{{ # handle (\d+)\n\tcomment "{_OWN}"\n', listing)
    return code == 0, ours and ours[1]


_DYNAMIC_ELEMENTS = (
    r"(?m)(^\t(?:set|map) [^\n]* \{\n(?:\t\t[^\n]*\n)*?\t\tflags [^\n]*\bdynamic\b[^\n]*\n(?:\t\t[^\n]*\n)*?)"
    r"\t\telements = \{[^}]*\}\n"
)
"""The elements of a set or map with `flags dynamic`, and what stands before them there."""


def _run(libnftables: _Context, commands: str) -> str:
    code, output, complaint = libnftables.cmd(commands)
    if code:
        too_long = os.strerror(errno.EMSGSIZE) in complaint
        raise OSError(errno.EMSGSIZE if too_long else errno.EINVAL, complaint.strip(), "nft")
    return output


_ANSWER = b"\0"
"""What the child writes before its answer, after whatever the library itself has printed."""


def _in_child(work: Callable[[_Context], Any]) -> Any:
    """What work makes of a libnftables context: a value that JSON can hold, or OSError.

    Whatever interrupts it, a transaction has happened or has not, and the child is gone.
    """
    make = binding()  # here, not in each child anew
    try:  # held back from the child: a Ctrl-C at the terminal would end it
        said, status = children.ask(lambda told: _answer(make, work, told.fileno()), held_back=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "nft") from error
    printed, answered, last = said.partition(_ANSWER)
    if status or not answered:
        words = printed.decode(errors="replace").strip()
        raise OSError(errno.EIO, f"libnftables ended ({children.ending(status)}){words and f': {words}'}", "nft")
    refusal, value = json.loads(last)
    if refusal is not None:
        raise OSError(*refusal, "nft")
    return value


def _answer(make: Callable[[], Context], work: Callable[[_Context], Any], told: int) -> int:
    """In the child: the answer, or the words of what stood in its way."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # its abort is no crash of ours
    for stream in (1, 2):
        os.dup2(told, stream)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # the caller's descriptors may leave no room for a socket
    sys.unraisablehook = lambda _: None  # where making one fails, the binding's own __del__ does, too
    try:
        context = _Context(make())
        _let_send_much()
        answer = [None, work(context)]
    except OSError as error:
        number, words = error.errno, error.strerror or str(error)
        if number is None:  # the library can't be loaded
            number, words = errno.ENOPKG, f"{words}: {advice.install('libnftables1')}"
        answer = [[number, words], None]
    with os.fdopen(1, "wb", closefd=False) as out:
        out.write(_ANSWER + json.dumps(answer).encode())
    return 0


_BUFFER_BYTES = 1 << 26


def _let_send_much() -> None:
    """Let the library's socket send as much at once as this user may: the library only asks for what root may.

    It is the one descriptor above the standard streams.
    """
    with suppress(OSError):
        sock = socket.socket(fileno=3)
        if sock.family == socket.AF_NETLINK:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        sock.detach()


class _Context:
    """A context, in text, where a comment may hold what is no UTF-8: such a byte is spelt `\\xff`."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def set_handle_output(self, wanted: bool) -> None:
        self._context.set_handle_output(wanted)

    def set_stateless_output(self, wanted: bool) -> None:
        self._context.set_stateless_output(wanted)

    def cmd(self, commands: str) -> tuple[int, str, str]:
        return self._text(*self._context.cmd(commands.encode()))

    def cmd_from_file(self, path: str) -> tuple[int, str, str]:
        return self._text(*self._context.cmd_from_file(path.encode()))

    def _text(self, code: int, output: bytes, complaint: bytes) -> tuple[int, str, str]:
        return code, output.decode(errors="backslashreplace"), complaint.decode(errors="backslashreplace")
