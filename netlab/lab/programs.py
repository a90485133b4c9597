"""The topology's programs: started in their namespaces, waited for until they are ready, ended."""

from __future__ import annotations

import os
import re
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from netlab.errors import LabError
from netlab.escapes import Lines, line
from netlab.lab import exits
from netlab.lab.exec import kill_group, launch, run_quietly
from netlab.lab.netns import Namespaces
from netlab.lab.state import LabState, StartedProgram
from netlab.linux.children import ending
from netlab.linux.deadlines import scaled, within
from netlab.model import Program, Readiness

_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)
_POLL_S = 0.02
_SEARCHED = 1 << 22
"""Bytes of a program's output in which the regular expression is looked for: what comes later is not looked at."""
_SEARCH_S = 5.0
"""How long that may take."""
_REAPED_S = 1.0
"""How long the holder may take until it has reaped what has ended."""
_TOLD = 1 << 16
"""Bytes of the output's end of which the last lines are told."""


def start(
    namespaces: Namespaces, netns: str, program: Program, log: Path, journal: Callable[[StartedProgram], None]
) -> None:
    """Start a program, its output going to log, once journal has been called with it; LabError where it can't be.

    It can be connected to at the ports that it listens on from then on: a connection waits until it is accepted.
    """

    def begun(pid: int) -> None:
        with suppress(OSError), _exits(namespaces) as file:
            exits.forget(file, pid)
        journal(StartedProgram(netns, program.name, pid, namespaces.start_ticks(pid) or 0))

    with ExitStack() as listening:
        sockets = [listening.enter_context(_listener(namespaces, netns, program.name, port)) for port in program.listen]
        fds = [sock.fileno() for sock in sockets]
        launch(namespaces, netns, program.argv, dict(program.env), log, begun, program.capabilities, fds)


def _listener(namespaces: Namespaces, netns: str, program: str, port: int) -> socket.socket:
    """A socket that listens at all addresses; who listens at one of them with SO_REUSEPORT, an experiment, gets what
    comes there (compute_score() in net/ipv4/inet_hashtables.c). LabError where the port is taken."""
    try:
        with namespaces.inside(netns):
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            return socket.create_server(("", port), family=family, dualstack_ipv6=both, backlog=1024, reuse_port=True)
    except OSError as error:
        raise LabError(
            f"{netns}: program {program}: can't listen on port {port}: {error.strerror}",
            "another program of the namespace may have the port",
        ) from error


def running(namespaces: Namespaces, started: StartedProgram) -> bool:
    """Whether the program, and not another with its pid, is there."""
    return namespaces.start_ticks(started.pid) == started.start_ticks


def all_running(namespaces: Namespaces, state: LabState) -> frozenset[tuple[str, str]]:
    """The lab's programs that are there, as (netns, name)."""
    return frozenset((one.netns, one.name) for one in state.programs if running(namespaces, one))


def how_ended(namespaces: Namespaces, started: StartedProgram) -> str:
    """How a program that isn't running ended, in words; none where the lab's holder doesn't tell."""
    return _ending(namespaces, started.pid, 0.0)


def stop(namespaces: Namespaces, started: StartedProgram) -> None:
    """End a program and its children: SIGTERM, and SIGKILL for what is left when it is gone, or after a second.

    A child that made a session of its own stays until the lab goes down.
    """
    import signal

    if not running(namespaces, started):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        kill_group(namespaces, started.pid, number)  # it leads a group of its own: see `launch`
        deadline = time.monotonic() + scaled(1.0)
        while running(namespaces, started) and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def wait_ready(
    namespaces: Namespaces, program: Program, started: StartedProgram, log: Path, waiting: Callable[[str], None]
) -> None:
    """Wait for the program's readiness condition; LabError with the end of its output where it doesn't come.

    Meanwhile waiting is called again and again with what is waited for, in words.
    """
    deadline = time.monotonic() + scaled(program.ready.timeout_s)
    output = _Output(f"{started.netns}: program {program.name}", log, program.ready.output)
    awaited = f"{started.netns}: program {program.name} ({_condition(program.ready)})"
    while not _ready(namespaces, started.netns, program.ready, output, deadline):
        gone = not running(namespaces, started)
        if gone and _ready(namespaces, started.netns, program.ready, output, deadline):
            return
        if gone or time.monotonic() > deadline:
            how = _ending(namespaces, started.pid, _REAPED_S) if gone else ""
            why = (
                f"ended{f' ({how})' if how else ''} before it was ready"
                if gone
                else f"wasn't ready after {program.ready.timeout_s:g} s"
            )
            last = output.end().rstrip().split("\n")
            tail = "".join(f"\n    {line(each)}" for each in last[-5:] if any(last))
            said = f"; its last output:{tail}" if tail else "; it printed nothing"
            command = line(shlex.join(program.argv))
            raise LabError(Lines(f"{started.netns}: program {program.name} ({command}) {why}{said}"))
        waiting(awaited)
        time.sleep(_POLL_S)


@contextmanager
def _exits(namespaces: Namespaces) -> Iterator[int]:
    file = namespaces.open_exits()
    try:
        yield file
    finally:
        os.close(file)


def _ending(namespaces: Namespaces, pid: int, within_s: float) -> str:
    """How a program that has ended did, in words; none where the holder doesn't tell: that of an earlier netlab, or one
    that hasn't reaped it within that time."""
    deadline = time.monotonic() + scaled(within_s)
    with suppress(OSError), _exits(namespaces) as file:
        while (status := exits.status(file, pid)) is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return "" if status is None else ending(status)
    return ""


class _Output:
    """What a program prints, and whether it is what is waited for: looked at again only where there is more of it."""

    def __init__(self, whose: str, log: Path, pattern: str | None) -> None:
        self._whose = whose
        self._log = log
        self._pattern = re.compile(pattern or "")
        self._seen = -1

    def matches(self) -> bool:
        """LabError where the regular expression doesn't come to an end."""
        size = self._log.stat().st_size
        if size == self._seen or self._seen >= _SEARCHED:
            return False
        self._seen = size
        with self._log.open("rb") as log:
            text = log.read(_SEARCHED).decode(errors="replace")
        try:
            with within(_SEARCH_S):
                return self._pattern.search(text) is not None
        except TimeoutError:
            said = f"looking for {self._pattern.pattern!r} in its output doesn't finish within {_SEARCH_S:g} s"
            message = f"{self._whose}: {said}"
            hint = f"in {len(text):,} characters: don't repeat a repetition, as in (a+)+"
            raise LabError(message, hint) from None

    def end(self) -> str:
        """The last of it."""
        with self._log.open("rb") as log:
            log.seek(max(self._log.stat().st_size - _TOLD, 0))
            return log.read(_TOLD).decode(errors="surrogateescape")


def _condition(ready: Readiness) -> str:
    if ready.listening is not None:
        return f"listening on {ready.listening}"
    if ready.output is not None:
        return f"output {ready.output!r}"
    return f"command {shlex.join(ready.command or ())!r}"


def _ready(namespaces: Namespaces, netns: str, ready: Readiness, output: _Output, deadline: float) -> bool:
    if ready.listening is not None:
        return ready.listening in _listening(namespaces, netns)
    if ready.output is not None:
        return output.matches()
    if ready.command is not None:
        return run_quietly(namespaces, netns, ready.command, max(deadline - time.monotonic(), _POLL_S)) == 0
    return True


def _listening(namespaces: Namespaces, netns: str) -> set[int]:
    """The TCP ports that something in the namespace listens on."""
    ports = set()
    with namespaces.inside(netns):
        for table in ("tcp", "tcp6"):
            with suppress(FileNotFoundError):
                for line in namespaces.read_proc(f"thread-self/net/{table}").splitlines()[1:]:
                    _, local, _, tcp_state, *_ = line.split()
                    if tcp_state == _LISTEN:
                        ports.add(int(local.rpartition(":")[2], 16))
    return ports
