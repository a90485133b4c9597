"""Signals that come where what they raise would be lost, or would leave something behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab.lab import locks, netns
from netlab.lab.directory import LabDirectory
from netlab.lab.exec import launch
from netlab.linux import interrupts


@pytest.fixture
def stopping() -> Iterator[None]:
    """Signals raise Interrupted in this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    interrupts.stop_on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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
