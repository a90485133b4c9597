"""Signals that come where what they raise would be lost, or would leave something behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from netlab.errors import LabError
from netlab.lab import locks, netns
from netlab.lab.directory import LabDirectory
from netlab.lab.exec import launch
from netlab.linux import children, interrupts


def test_a_signal_leaves_no_directory_without_a_lock(
    stopping: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = locks.lock
    directory = LabDirectory(tmp_path / "run", "lab")

    def signalled(fd: int) -> bool:
        assert list(tmp_path.iterdir())
        signal.raise_signal(signal.SIGTERM)
        return real(fd)

    monkeypatch.setattr(locks, "lock", signalled)
    with pytest.raises(interrupts.Interrupted), directory.locked(create=True):
        pass
    assert not directory.root.exists()


class Here(netns.Namespaces):
    """Starts programs where this process is."""

    def __init__(self) -> None:
        pass

    def enter_pid_namespace(self) -> None:
        pass

    def move_in(self, name: str) -> None:
        pass


def test_a_program_whose_start_is_interrupted_is_known_all_the_same(
    stopping: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What starts it, and has yet to tell its pid, gets the signal too: they are one process group."""
    real, ours = os.write, os.getpid()

    def signalled(fd: int, data: bytes) -> int:
        if os.getpid() != ours:
            signal.raise_signal(signal.SIGTERM)
        return real(fd, data)

    monkeypatch.setattr(os, "write", signalled)
    told: list[int] = []
    launch(Here(), "here", ["true"], os.environ, tmp_path / "log", told.append)
    assert len(told) == 1


def test_a_signal_ends_what_waits_in_an_event_loop(stopping: None) -> None:
    """pyroute2 does, and a loop that goes on without the task that was interrupted waits for ever."""

    async def waiting() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
        await asyncio.sleep(5)

    with pytest.raises(interrupts.Interrupted):
        asyncio.run(waiting())


OPEN: set[str] = set()


@contextmanager
def something() -> Iterator[None]:
    """What would stay open if what closes it were interrupted."""
    OPEN.add("it")
    try:
        yield
    finally:
        OPEN.discard("it")


def use(done: list[str]) -> None:
    with interrupts.held_back(), something(), interrupts.let_through():
        done.append("something")
    done.append("all")


def test_a_signal_leaves_nothing_open_wherever_it_comes(stopping: None) -> None:
    """At each line and each call and return of it, one after another."""
    ended, mask = [], signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for moment in range(1000):
        interrupts.stop_on_signals()
        seen, done = 0, list[str]()

        def trace(_frame: FrameType, _event: str, _arg: object) -> Any:
            nonlocal seen
            seen += 1
            if seen == moment:  # noqa: B023 - called in this round only
                signal.raise_signal(signal.SIGTERM)
            return trace

        sys.settrace(trace)
        try:
            use(done)
        except interrupts.Interrupted:
            done.append("interrupted")
        finally:
            sys.settrace(None)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # as it was blocked where a signal came at that moment
        assert not OPEN, moment
        if seen < moment:
            break
        ended.append(tuple(done))
    assert {("interrupted",), ("something", "interrupted")} <= set(ended)
    assert done == ["something", "all"]


def test_a_program_that_is_stopped_before_it_begins_keeps_no_stream_of_its_starters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads what the starter says, as a pager does, would wait for it for ever."""
    monkeypatch.setattr("netlab.lab.exec._become", lambda *_: signal.raise_signal(signal.SIGSTOP))
    monkeypatch.setattr("netlab.lab.exec._BEGINS_S", 0.2)
    kept, said, told = os.dup(2), os.pipe(), list[int]()
    os.dup2(said[1], 2)
    os.close(said[1])
    try:
        with pytest.raises(LabError, match="did not begin"):
            launch(Here(), "here", ["true"], os.environ, tmp_path / "log", told.append)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    try:
        assert children.readable(said[0], 5)
        assert os.read(said[0], 1) == b""
    finally:
        os.kill(told[0], signal.SIGKILL)
        os.close(said[0])
