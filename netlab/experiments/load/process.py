"""The processes of a load: forked, ended by whoever made them, each with one loop, and a pipe to tell what it saw."""

from __future__ import annotations

import json
import os
import select
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from netlab.errors import NetlabError
from netlab.linux import interrupts

TICK_S = 0.05
"""How often a process looks whether it is to end."""

_LAST_WORDS_S = 5.0
"""How long a process may take to tell what it saw after it was told to end."""


class Process:
    """A forked child that writes one line of JSON when it is through, or told so by SIGTERM, and waits to be ended."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid, self._pipe = pid, pipe
        self._said = b""
        os.set_blocking(pipe, False)

    def spoke(self) -> bool:
        """Whether it has said all it has to say, or has ended."""
        while True:
            try:
                piece = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return self._said.endswith(b"\n")
            if not piece:
                return True
            self._said += piece

    def words(self) -> Any:
        """What it says: it is told to come to an end. NetlabError where nothing comes."""
        os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + _LAST_WORDS_S
        while not self.spoke():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise NetlabError("a process of the load doesn't answer")
            select.select([self._pipe], [], [], left_s)
        if not self._said.endswith(b"\n"):
            raise NetlabError("a process of the load ended before it told what it saw")
        return json.loads(self._said)


@contextmanager
def process(body: Callable[[int, int], NoReturn]) -> Iterator[Process]:
    """A child that calls body with its pipe and the pid of this process."""
    read, write = os.pipe()
    maker = os.getpid()
    pid = interrupts.fork()
    if pid == 0:
        try:
            os.close(read)
            body(write, maker)
        except BaseException as error:
            os.write(2, f"netlab: a process of the load failed: {error!r}\n".encode())
        finally:
            os._exit(1)
    os.close(write)
    try:
        yield Process(pid, read)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)


class Loop:
    """A selector, and the wish to end: SIGTERM brings it, and so does the end of who made this process."""

    def __init__(self, maker: int) -> None:
        self.selector = selectors.DefaultSelector()
        self._told = False
        self._makers = (maker, 0)  # 0: a process of another PID namespace
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, _number: int, _frame: object) -> None:
        self._told = True

    def ending(self) -> bool:
        """Whether it is to come to an end."""
        return self._told or self.alone()

    def alone(self) -> bool:
        """Whether who made it is gone."""
        return os.getppid() not in self._makers

    def tell(self, pipe: int, words: object) -> NoReturn:
        """Say it, and keep every socket as it is until this process is ended."""
        data = json.dumps(words).encode() + b"\n"
        with suppress(BrokenPipeError):  # nobody is left to hear it
            while data:
                data = data[os.write(pipe, data) :]
        while not self.alone():
            time.sleep(TICK_S)
        os._exit(0)
