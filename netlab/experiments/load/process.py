"""The processes of a load: forked, ended by whoever made them, each with one loop, and a pipe to tell what it saw."""

from __future__ import annotations

import json
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from netlab.errors import NetlabError
from netlab.linux import children
from netlab.linux.deadlines import scaled

TICK_S = 0.05
"""How often a process looks whether it is to end: a signal doesn't end a wait of Python's."""

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
        deadline = time.monotonic() + scaled(_LAST_WORDS_S)
        while not self.spoke():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise NetlabError("a process of the load doesn't answer")
            children.readable(self._pipe, left_s)
        if not self._said.endswith(b"\n"):
            raise NetlabError("a process of the load ended before it told what it saw")
        return json.loads(self._said)


@contextmanager
def process(body: Callable[[int], None]) -> Iterator[Process]:
    """A child that calls body with its pipe."""
    read, write = os.pipe()
    pid = children.fork(lambda: body(write))
    os.close(write)
    try:
        yield Process(pid, read)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)


class Loop:
    """A selector, and the wish to end, which SIGTERM brings. Who made this process is sure to end it."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.ending = False
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, _number: int, _frame: object) -> None:
        self.ending = True

    def tell(self, pipe: int, words: object) -> NoReturn:
        """Say it, and keep every socket as it is until this process is ended."""
        data = json.dumps(words).encode() + b"\n"
        while data:
            data = data[os.write(pipe, data) :]
        while True:
            signal.pause()
