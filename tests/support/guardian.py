"""What becomes of a test session's labs and processes when the session is killed and can't clean up after itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import host

_ROUNDS = 3
"""A command that the session had started may still build something while the first round takes down."""


def clean_up(directory: Path) -> None:
    """Take down all labs below a session's directory, end what carries its mark, and remove the directory."""
    for _ in range(_ROUNDS):
        for rundir in directory.iterdir():
            environment, null = {**os.environ, host.RUNDIR: str(rundir)}, subprocess.DEVNULL
            down = [sys.executable, "-m", "netlab", "down", "--all", "-q"]
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(down, env=environment, stdout=null, stderr=null, timeout=60)
        if not _end_marked():
            break
    shutil.rmtree(directory, ignore_errors=True)


def _end_marked() -> int:
    """Kill the processes that the session has started, all but this one; how many there were."""
    mark = f"{host.MARK}={os.environ[host.MARK]}".encode()
    found = 0
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                pid = int(entry.name)
                if pid != os.getpid():
                    os.kill(pid, signal.SIGKILL)
                    found += 1
    return found
