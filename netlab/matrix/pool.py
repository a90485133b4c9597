"""Work in forked children, several at a time: each in a process of its own, ended and waited for whatever happens.

A child starts with all that its parent has imported, and answers through a pipe. It ends with its parent: it is then
told by SIGTERM, as it is by `stop`, and has the time to take back what it made; one that doesn't end is killed.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from netlab.linux import children, interrupts
from netlab.linux.deadlines import scaled

T = TypeVar("T")

_LOOK_S = 0.5
"""How often who waits is told what is at work, and a child that is to end is told so again."""

_END_S = 60.0
"""How long all children together may take to end, before they are killed: far longer than taking labs down takes."""


@dataclass(slots=True, eq=False)
class _Child(Generic[T]):
    task: T
    pid: int
    pidfd: int
    answers: int
    said: bytearray = field(default_factory=bytearray)

    def read(self) -> None:
        """What it has said so far."""
        with suppress(BlockingIOError):
            while piece := os.read(self.answers, 1 << 16):
                self.said += piece

    def tell(self, number: signal.Signals) -> None:
        """That it is to end."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)


class Pool(Generic[T]):
    """Children that work, at most `jobs` at a time.

    work gives a task's answer, in the child. ended is called in this process with each task, its answer (empty where
    there is none) and the child's exit status as waitpid(2) has it. stopping: the children were told to end.
    """

    def __init__(self, jobs: int, work: Callable[[T], bytes], ended: Callable[[T, bytes, int], None]) -> None:
        self._jobs, self._work, self._ended = jobs, work, ended
        self._children: list[_Child[T]] = []
        self.stopping = False

    def run(self, tasks: Sequence[T], stop: socket.socket, look: Callable[[Sequence[T]], None]) -> bool:
        """Work on the tasks in their order until all are done, or `stop` is readable: then False.

        look is called again and again with the tasks that are being worked on. Whatever is raised, no child is left.
        """
        waiting = list(reversed(tasks))
        try:
            while waiting or self._children:
                while waiting and len(self._children) < self._jobs:
                    self._start(waiting.pop())
                look([child.task for child in self._children])
                if stop.fileno() in self._wait(stop.fileno()):
                    return False
            return True
        finally:
            with interrupts.undisturbed():
                self._stop()

    def _start(self, task: T) -> None:
        read, write = os.pipe()

        def work() -> None:
            os.close(read)
            with os.fdopen(write, "wb") as answers:
                answers.write(self._work(task))

        pid = children.fork(work, ends_by=signal.SIGTERM)
        os.close(write)
        os.set_blocking(read, False)
        self._children.append(_Child(task, pid, os.pidfd_open(pid), read))

    def _wait(self, *others: int) -> list[int]:
        """Wait for a child's words or end, or for one of the others; what is ready."""
        mine = [fd for child in self._children for fd in (child.answers, child.pidfd)]
        ready, _, _ = select.select([*others, *mine], [], [], _LOOK_S)
        for child in [child for child in self._children if child.answers in ready or child.pidfd in ready]:
            child.read()
            if child.pidfd in ready:
                self._reap(child)
        return ready

    def _reap(self, child: _Child[T]) -> None:
        _, status = os.waitpid(child.pid, 0)
        child.read()
        os.close(child.pidfd)
        os.close(child.answers)
        self._children.remove(child)
        self._ended(child.task, bytes(child.said), status)

    def _stop(self) -> None:
        self.stopping = True
        deadline = time.monotonic() + scaled(_END_S)
        while self._children:
            for child in self._children:
                child.tell(signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
            self._wait()
