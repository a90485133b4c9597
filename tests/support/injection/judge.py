"""What must hold after a fault, whatever it was; each complaint names what doesn't."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from injection.commands import Command

CODES = frozenset((0, 1, 2, 3, 77, 130, 128 + signal.SIGPIPE))
"""The exit codes that netlab documents, `exec` aside."""

LEFT, TOUCHED, TRACEBACK, WAIT, CODE, MUTE, UNTRUE, BROKEN = (
    "left behind",
    "foreign touched",
    "traceback",
    "wait over 30 s",
    "undocumented exit code",
    "failed without a word",
    "said done, was not",
    "not mended by the next command",
)
COMPLAINTS = (LEFT, TOUCHED, TRACEBACK, WAIT, CODE, MUTE, UNTRUE, BROKEN)
"""In the order of the table."""

_SIGNS = ("Traceback (most recent call last)", "Exception ignored in", "Segmentation fault", "Fatal Python error")


class Complaint(NamedTuple):
    """A rule of the above that was broken, and what shows it."""

    rule: str
    words: str


def outcome(command: Command) -> str:
    """How the command ended, as a column of the table."""
    if command.timed_out:
        return "ended by force"
    if command.code < 0:
        return "killed"
    return {0: "done", 130: "interrupted"}.get(command.code, "refused")


def ended(command: Command, *, any_code: bool = False, deaf: bool = False) -> Iterator[Complaint]:
    """Complaints about the command itself. any_code: it passes on a program's. deaf: its stderr may have been lost."""
    said = command.stdout + command.stderr
    told = f"exit {command.code} after {command.took_s:.1f} s: {said[-600:]!r}"
    if command.timed_out:
        yield Complaint(WAIT, told)
        return
    if any(sign in said for sign in _SIGNS):
        yield Complaint(TRACEBACK, said[-3000:])
    fault = command.fault
    struck = () if fault is None or fault.kind != "signal" else (-fault.number,)
    if command.code < 0 and command.code not in struck and not any_code:
        yield Complaint(CODE, told)
    if command.code >= 0 and command.code not in CODES and not any_code:
        yield Complaint(CODE, told)
    if command.code > 0 and not command.stderr and not deaf and not any_code and command.code not in (1, 3, 141):
        yield Complaint(MUTE, told)
    if command.code in (1, 3) and not said and not deaf and not any_code:
        yield Complaint(MUTE, told)


def compare(before: Sequence[str], after: Sequence[str]) -> Iterator[Complaint]:
    """Complaints about what is there now and wasn't, and about what was and isn't."""
    if before == after:
        return
    lines = [*difflib.unified_diff(before, after, n=0, lineterm="")][2:]
    yield from _complaint(LEFT, (line[1:] for line in lines if line.startswith("+")))
    yield from _complaint(TOUCHED, (line[1:] for line in lines if line.startswith("-")))


def _complaint(rule: str, lines: Iterable[str]) -> Iterator[Complaint]:
    if words := "\n".join(lines):
        yield Complaint(rule, words[:3000])


def same_lab(expected: Sequence[str], found: Sequence[str], rule: str, what: str) -> Iterator[Complaint]:
    """A complaint where a lab isn't as it should be."""
    if expected != found:
        diff = "\n".join(difflib.unified_diff(expected, found, "expected", "found", n=0, lineterm=""))
        yield Complaint(rule, f"{what}\n{diff[:3000]}")
