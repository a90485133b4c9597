"""program: any program runs in a namespace, to its end."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from netlab.experiments.not_applied import NotApplied
from netlab.experiments.words import NETNS
from netlab.yamlspec.command import Command
from netlab.yamlspec.shapes import Fields, Key, Seconds

if TYPE_CHECKING:
    from netlab.experiments.context import Context

DOC = (
    "a program runs in a namespace to its end, confined as a topology's is; it must exit with 0; "
    "what it leaves running ends with the trial"
)
TIMEOUT_S = 10.0
ARGUMENTS = Fields(
    {
        "in": Key(NETNS, "the namespace", required=True),
        "command": Key(Command(), "a list of words, or text split as a shell splits it", required=True),
        "timeout_s": Key(Seconds(), f"how long it may take (default {TIMEOUT_S:g}); then it is killed"),
    }
)


def apply(context: Context, arguments: Mapping[str, Any]) -> None:
    """Run it, as a topology's program; NotApplied where it can't be run, fails, or takes too long."""
    netns, argv, timeout_s = arguments["in"], arguments["command"], arguments.get("timeout_s", TIMEOUT_S)
    what = f"`{' '.join(argv)}` in {netns}"
    with tempfile.TemporaryFile() as output:
        pid = _start(context, netns, argv, output.fileno())
        if not context.wait(lambda: _status(pid) is not None, timeout_s):
            raise NotApplied(f"the end of {what}, within {timeout_s:g} s")
        status = _status(pid)
        output.seek(0)
        words = output.read().decode(errors="replace").strip().splitlines()
    if status:
        raise NotApplied(f"a success of {what}: it ended with {status}{f': {words[-1]}' if words else ''}")


def _start(context: Context, netns: str, argv: tuple[str, ...], output: int) -> int:
    """Begin it; its process group is killed when the trial is over."""
    from netlab.lab.exec import spawn

    pid = 0

    def begin() -> None:
        nonlocal pid
        pid = spawn(context.namespaces, netns, argv, output)

    def end() -> None:
        os.kill(pid, signal.SIGKILL)  # it may not lead its group yet
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    context.make(begin, end)
    return pid


def _status(pid: int) -> int | None:
    """Its exit code, minus the number of the signal that ended it; None while it runs.

    It is waited for at the trial's end only: until then no other process group can have its number.
    """
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
