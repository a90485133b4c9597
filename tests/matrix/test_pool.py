"""Work in forked children: that none is left, not even one that doesn't want to end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence

import pytest

from netlab.matrix import pool


def test_a_child_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_END_S", 0.0)
    news, stop = socket.socketpair()
    ended: list[tuple[str, bytes, int]] = []

    def work(_task: str) -> bytes:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        news.send(b"!")  # who waits is to stop now
        while True:
            signal.pause()

    def look(_at_work: Sequence[str]) -> None:
        pass

    with news, stop:
        made = pool.Pool(1, work, lambda *each: ended.append(each))
        assert not made.run(["a", "b"], stop, look)
    assert [(task, answer, os.WTERMSIG(status)) for task, answer, status in ended] == [("a", b"", signal.SIGKILL)]
