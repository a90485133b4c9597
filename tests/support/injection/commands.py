"""Runs netlab's commands, each in a forked process, and injects one fault into one of them at a call that it names.

This process is PID 1 of the sandbox (see `sandbox.py`): it answers the calls of every command, and of what they left
running, and reaps what is orphaned.
"""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

from injection import notify
from injection.calls import BY_NUMBER, Call

LIMIT_S = 30.0
"""How long a command may take."""

_REAP_S = 0.05

_LISTENER, _TALK = 4, 3


class Place(NamedTuple):
    """A call of a command: the nth of its process-th process (both from 0), counted as they come."""

    process: int
    nth: int


class Fault(NamedTuple):
    """What becomes of the call at a place.

    kind is "errno" (the call fails with number), "signal" (number is sent before, in or after the call: to the process
    that makes it, or for SIGINT and SIGHUP to all of the command's group, as a terminal does), or "holder" (the lab's
    holder is killed in that moment). delay_s: how long after the call.
    """

    kind: str
    number: int
    place: Place
    moment: str = "before"
    delay_s: float = 0.0


class How(NamedTuple):
    """How a command is run: with a fault, its calls recorded, by a Python of its own (started); before is called in its
    process, with all that it inherits in place."""

    fault: Fault | None = None
    record: bool = False
    before: Callable[[], None] | None = None
    started: bool = False

    @property
    def filtered(self) -> bool:
        """Whether its calls are told to this process."""
        return self.fault is not None or self.record


PLAIN = How()


class Made(NamedTuple):
    """A call that a command made, by a process of its own or by one of its descendants."""

    place: Place
    call: Call


@dataclass(slots=True)
class Command:
    """A command that runs, and how it ended: its wait status, what it wrote, which calls it made."""

    argv: Sequence[str]
    pid: int
    pidfd: int
    listener: int | None
    streams: tuple[int, int]
    fault: Fault | None
    record: bool
    started: bool
    begun: float = field(default_factory=time.monotonic)
    status: int | None = None
    took_s: float = 0.0
    timed_out: bool = False
    silent: bool = False
    injected: Made | None = None
    stdout: str = ""
    stderr: str = ""
    made: list[Made] = field(default_factory=list)
    processes: dict[int, int] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    threads: dict[int, int] = field(default_factory=dict)

    def place(self, tid: int) -> Place:
        """The place of the call that this thread makes now, counted."""
        tgid = self.threads.get(tid)
        if tgid is None:
            tgid = self.threads[tid] = _thread_group(tid)
        if tgid not in self.processes:
            self.processes[tgid] = len(self.processes)
            # A started command has executed Python first.
            self.counts[tgid] = -1 if self.started and tgid == self.pid else 0
        index = self.counts[tgid]
        self.counts[tgid] += 1
        return Place(self.processes[tgid], index)

    @property
    def deaf(self) -> bool:
        """Whether what it wrote may have been lost: a write of it was made to fail."""
        fault = self.fault
        return (
            fault is not None
            and fault.kind == "errno"
            and self.injected is not None
            and self.injected.call.step == "write"
        )

    @property
    def holder_gone(self) -> bool:
        """Whether the fault was that the lab's holder is killed: a command may have been done with looking at it."""
        return self.fault is not None and self.fault.kind == "holder"

    @property
    def other_struck(self) -> bool:
        """Whether it was another process of the lab that the fault has hit: a program of the topology may be gone."""
        return self.fault is not None and self.fault.kind == "signal" and self.fault.place.process != 0

    @property
    def code(self) -> int:
        """The exit code; the signal's number, negative, for one that was killed."""
        assert self.status is not None
        return os.waitstatus_to_exitcode(self.status)


class Commands:
    """Runs commands; holder tells the pid of the lab's holder, where a fault asks for it."""

    def __init__(self, environment: Mapping[str, str], directory: Path, holder: Callable[[], int | None]) -> None:
        self._environment, self._directory, self._holder = dict(environment), directory, holder
        self._poll = select.poll()
        self._commands: dict[int, Command] = {}
        self._listeners: dict[int, Command] = {}
        self._later: list[tuple[float, Command, Fault, int]] = []

    def run(self, *argv: str | Path, how: How = PLAIN) -> Command:
        """Run `netlab ARGV` to its end, or to the end of its time."""
        command = self.begin(*argv, how=how)
        self.finish(command)
        return command

    def begin(self, *argv: str | Path, how: How = PLAIN) -> Command:
        """Begin `netlab ARGV`."""
        words = [*map(str, argv)]
        streams = os.memfd_create("stdout", os.MFD_CLOEXEC), os.memfd_create("stderr", os.MFD_CLOEXEC)
        mine, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            try:
                self._become(words, (os.open(os.devnull, os.O_RDWR), *streams), theirs.fileno(), how)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        theirs.close()
        pidfd = os.pidfd_open(pid)
        listener = None
        with mine:
            if how.filtered:
                if mine.recv(1):
                    raise AssertionError("the filter says nothing")
                with suppress(OSError):
                    listener = notify.take(pidfd, _LISTENER)
                if listener is None:
                    os.close(pidfd)
                    os.waitpid(pid, 0)
                    raise OSError(f"no filter in {words}: {_text(streams[1])}")
                mine.send(b"g")
        command = Command(words, pid, pidfd, listener, streams, how.fault, how.record, how.started)
        self._commands[pidfd] = command
        self._poll.register(pidfd, select.POLLIN)
        if listener is not None:
            self._listeners[listener] = command
            self._poll.register(listener, select.POLLIN)
        return command

    def _become(self, argv: Sequence[str], streams: Sequence[int], talk: int, how: How) -> NoReturn:
        """Be the command, in a fresh child."""
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for target, fd in enumerate((*streams, talk)):
            os.dup2(fd, target)
        os.closerange(_TALK + 1, 4096)
        os.chdir(self._directory)
        os.environ.clear()
        os.environ.update(self._environment)
        if how.before is not None:
            how.before()
        if how.filtered:
            if notify.install() != _LISTENER:
                raise AssertionError("another descriptor was expected")
            waiting = socket.socket(fileno=_TALK)
            waiting.shutdown(socket.SHUT_WR)  # not a write, which would wait for an answer
            waiting.recv(1)
            waiting.detach()
            os.close(_LISTENER)
        os.close(_TALK)
        if how.started:
            os.execv(sys.executable, [sys.executable, "-m", "netlab", *argv])
        sys.argv = ["netlab", *argv]
        sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
        from netlab.__main__ import main

        main()

    def finish(self, command: Command, limit_s: float = LIMIT_S) -> None:
        """Wait for its end; it and its group are killed when its time is over."""
        deadline = command.begun + limit_s
        while command.status is None:
            if time.monotonic() > deadline:
                command.timed_out = True
                command.silent = not _text(command.streams[1]) and not _text(command.streams[0])
                with suppress(ProcessLookupError):
                    os.killpg(command.pid, signal.SIGKILL)
                deadline += limit_s
            self.serve(deadline)
        command.stdout, command.stderr = map(_text, command.streams)
        for fd in command.streams:
            os.close(fd)

    def serve(self, deadline: float) -> None:
        """Wait for something to happen, not longer than to the deadline, and see to it."""
        now = time.monotonic()
        self.reap()  # as a machine's PID 1 does all the time: a lab's holder can't end before its zombies have
        until = min([deadline, now + _REAP_S, *(when for when, *_ in self._later)])
        for fd, _events in self._poll.poll(max(0.0, (until - now) * 1000)):
            if fd in self._listeners:
                self._answer(fd)
            elif fd in self._commands:
                self._ended(fd)
        for due in [one for one in self._later if one[0] <= time.monotonic()]:
            self._later.remove(due)
            _, command, fault, tid = due
            self._strike(command, fault, tid)

    def _ended(self, pidfd: int) -> None:
        command = self._commands.pop(pidfd)
        self._poll.unregister(pidfd)
        _, command.status = os.waitpid(command.pid, 0)
        command.took_s = time.monotonic() - command.begun
        os.close(pidfd)

    def reap(self) -> None:
        """Take away the zombies of what was orphaned."""
        with suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if any(command.pid == found.si_pid for command in self._commands.values()):
                    return
                os.waitpid(found.si_pid, 0)

    def forget(self) -> None:
        """Close what listens to processes that are gone."""
        for listener in [*self._listeners]:
            self._drop(listener)

    def _drop(self, listener: int) -> None:
        self._poll.unregister(listener)
        del self._listeners[listener]
        os.close(listener)

    def _answer(self, listener: int) -> None:
        command = self._listeners[listener]
        call = notify.receive(listener)
        if call is None:
            poll = select.poll()
            poll.register(listener, select.POLLIN)
            if any(events & select.POLLHUP for _, events in poll.poll(0)):
                self._drop(listener)
            return
        if command.status is not None:
            notify.proceed(listener, call)
            return
        place = command.place(call.tid)
        fault = command.fault
        if command.record:
            command.made.append(Made(place, BY_NUMBER[call.number]))
        if fault is None or command.injected is not None or fault.place != place:
            notify.proceed(listener, call)
            return
        command.injected = Made(place, BY_NUMBER[call.number])
        if fault.kind == "errno":
            notify.refuse(listener, call, fault.number)
        elif fault.moment == "after":
            notify.proceed(listener, call)
            self._later.append((time.monotonic() + fault.delay_s, command, fault, call.tid))
        elif fault.moment == "in" and fault.number == signal.SIGKILL and fault.kind == "signal":
            notify.proceed(listener, call)
            self._strike(command, fault, call.tid)
        else:
            self._strike(command, fault, call.tid)
            notify.proceed(listener, call)

    def _strike(self, command: Command, fault: Fault, tid: int) -> None:
        """Send what the fault sends."""
        with suppress(ProcessLookupError):
            if fault.kind == "holder":
                holder = self._holder()
                if holder is not None:
                    os.kill(holder, signal.SIGKILL)
            elif fault.number in (signal.SIGINT, signal.SIGHUP):
                os.killpg(command.pid, fault.number)
            else:
                os.kill(command.threads.get(tid, tid), fault.number)


def import_all() -> None:
    """Import all of netlab, so that a forked command finds it there."""
    import nftables  # noqa: F401
    import pyroute2  # noqa: F401

    import netlab

    for module in pkgutil.walk_packages(netlab.__path__, "netlab."):
        importlib.import_module(module.name)
    gc.collect()
    gc.freeze()  # a child that touches what it shares would have to copy it


def _text(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    return os.read(fd, 1 << 20).decode(errors="replace")


def _thread_group(tid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{tid}/status").read_text().splitlines():
            if line.startswith("Tgid:"):
                return int(line.split()[1])
    return tid
