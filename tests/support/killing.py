"""Commands that are killed: by strace, on their way into a system call that changes something, one after another.

Calls that make a new file are left out: the file's first write, or the mount over it, is the next step. The default run
takes a sample of the steps, NETLAB_LAB_TEST_EVERY_STEP=1 takes them all.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import host
import pytest
import skips
from command import Netlab

CHANGES = (
    "unshare,setns,mount,umount2,mkdir,rmdir,unlink,rename,clone,clone3,fork,vfork,sendto,sendmsg,write,"
    "pidfd_send_signal,kill,symlink"
)
EVERY_STEP = "NETLAB_LAB_TEST_EVERY_STEP"


def skip_unless_strace_kills(tmp_path: Path) -> None:
    """Skip the test where strace can't follow a process and kill it."""
    skips.skip_unless_program("strace")
    probe = ["strace", "-f", "-qq", "-o", str(tmp_path / "probe"), "-e", "inject=mkdir:signal=KILL:when=1"]
    done = subprocess.run([*probe, "mkdir", str(tmp_path / "made")], capture_output=True, text=True)
    if done.returncode != -signal.SIGKILL:
        pytest.skip(f"strace can't inject a signal here: {done.stderr.strip() or done.returncode}")


@dataclass(frozen=True, slots=True)
class Kill:
    """At which call a command, or a child of it, is killed: the number-th of that name."""

    syscall: str
    number: int


def steps(
    netlab: Netlab, before: list[str], log: Path, *arguments: str | Path, undo: Callable[[], object]
) -> list[Kill]:
    """Every point at which the command can be killed, found by letting it run to its end, and undoing what it did.

    before is the host without the lab.
    """
    assert strace_run(netlab, log, ["--seccomp-bpf", "-e", f"trace={CHANGES}"], *arguments) == 0
    undo()
    assert (
        host.changes(before, netlab.rundir) == ""
    )  # waits for strace, which ends with the last process that it follows
    calls = Counter(re.findall(r"^(\d+) +(\w+)\(", log.read_text(), re.MULTILINE))
    most: dict[str, int] = {}
    for (_, syscall), count in calls.items():
        most[syscall] = max(count, most.get(syscall, 0))
    return [Kill(syscall, number) for syscall, count in most.items() for number in range(1, count + 1)]


def sample(kills: list[Kill]) -> list[Kill]:
    """A part of them that takes seconds; all of them where NETLAB_LAB_TEST_EVERY_STEP is set."""
    return kills if os.environ.get(EVERY_STEP) else kills[1::4]


def strace_run(netlab: Netlab, log: Path, options: list[str], *arguments: str | Path) -> int:
    """Run a command under strace; its own exit code."""
    # Detached (-D): the tracer of a lab's holder would otherwise not end before the lab does.
    command = ["strace", "-D", "-f", "-qq", "-o", str(log), *options, *netlab.argv(*arguments)]
    # Without .pyc files to write, and with the same hash seed, two runs make the same calls.
    environment = netlab.environment({"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"})
    null = subprocess.DEVNULL  # no pipe: the detached tracer would keep it open
    return subprocess.run(command, stdin=null, stdout=null, stderr=null, env=environment, timeout=60).returncode


def kill_at(netlab: Netlab, kill: Kill, *arguments: str | Path) -> None:
    """Run a command, which is killed there."""
    where = f"{kill.syscall}:signal=KILL:when={kill.number}"
    code = strace_run(netlab, Path(os.devnull), ["-e", f"trace={kill.syscall}", "-e", f"inject={where}"], *arguments)
    # 1: a child was killed, and the command said so.
    assert code in (0, 1, -signal.SIGKILL), f"exit code {code}"


@contextmanager
def nothing_left(netlab: Netlab, before: list[str], what: str) -> Iterator[None]:
    """The host must be as it was once the block has run."""
    yield
    left = host.changes(before, netlab.rundir)
    assert left == "", f"{what} left:\n{left}"
    assert not netlab.rundir.exists()
