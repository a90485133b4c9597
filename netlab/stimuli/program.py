"""program: any program runs in a namespace, to its end."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.experiments.words import NETNS
from netlab.stimuli import NotApplied
from netlab.topology.shapes import Command, Fields, Key, Seconds

if TYPE_CHECKING:
    from netlab.experiments.stage import Stage

DOC = "a program runs in a namespace to its end; it must exit with 0"
TIMEOUT_S = 10.0
ARGUMENTS = Fields(
    {
        "in": Key(NETNS, "the namespace", required=True),
        "command": Key(Command(), "a list of words, or text split as a shell splits it", required=True),
        "timeout_s": Key(Seconds(), f"how long it may take (default {TIMEOUT_S:g}); then it is killed"),
    }
)


def apply(stage: Stage, arguments: Mapping[str, Any]) -> None:
    """Run it, as `netlab exec` does; NotApplied where it can't be run, fails, or takes too long."""
    netns, argv, timeout_s = arguments["in"], arguments["command"], arguments.get("timeout_s", TIMEOUT_S)
    what = f"`{' '.join(argv)}` in {netns}"
    status: list[int] = []
    with tempfile.TemporaryFile() as output:
        pid = stage.namespaces.spawn(netns, argv, os.environ, output.fileno())

        def ended() -> bool:
            found, wait_status = os.waitpid(pid, os.WNOHANG)
            if found:
                status.append(os.waitstatus_to_exitcode(wait_status))
            return bool(found)

        try:
            if not stage.wait(ended, timeout_s):
                raise NotApplied(f"the end of {what}, within {timeout_s:g} s")
        finally:
            if not status:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        output.seek(0)
        words = output.read().decode(errors="replace").strip().splitlines()
    if status[0]:
        raise NotApplied(f"a success of {what}: it ended with {status[0]}{f': {words[-1]}' if words else ''}")
