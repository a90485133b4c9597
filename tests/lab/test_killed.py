"""A lab whose making or unmaking was killed, at any step, is removed by `down` and built by `up`.

strace kills the command on its way into a system call that changes something, one after another. Those that make a new
file are left out: the file's first write, or the mount over it, is the next step. The default run takes a sample of the
steps, NETLAB_LAB_TEST_EVERY_STEP=1 takes them all.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import host
import labs
import pytest
import skips
from command import Netlab

pytestmark = pytest.mark.kernel

PROGRAM = """
namespaces:
  client: {}
  server:
    programs: [{name: sleeper, command: sleep 1000, ready: {command: "true"}}]
links:
  - ends: [client, server]
"""
CHANGES = (
    "unshare,setns,mount,umount2,mkdir,rmdir,unlink,rename,clone,clone3,fork,vfork,sendto,sendmsg,write,"
    "pidfd_send_signal,kill,symlink"
)
EVERY_STEP = "NETLAB_LAB_TEST_EVERY_STEP"


@pytest.fixture
def strace(tmp_path: Path) -> None:
    """Skips the test where strace can't follow a process and kill it."""
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


def test_up_killed_at_any_step(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, strace: None) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, PROGRAM)
    before = host.snapshot(netlab.rundir)
    up: list[str | Path] = ["up", lab.file, privilege]
    kills = steps(netlab, before, tmp_path / "log", *up, undo=lab.down)
    assert len(kills) > 30
    for count, kill in enumerate(sample(kills)):
        with nothing_left(netlab, before, f"up killed at {kill}"):
            kill_at(netlab, kill, *up)
            if count % 4 == 0:  # the next `up` does as well as the next `down`
                lab.up()
                assert lab.drift() == []
            lab.down()


def test_down_killed_at_any_step(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, strace: None) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, PROGRAM)
    before = host.snapshot(netlab.rundir)
    lab.up()
    kills = steps(netlab, before, tmp_path / "log", "down", lab_name, undo=lambda: None)
    assert len(kills) > 8
    for count, kill in enumerate(sample(kills)):
        with nothing_left(netlab, before, f"down killed at {kill}"):
            lab.up()
            kill_at(netlab, kill, "down", lab_name)
            if count % 4 == 0:
                lab.up()
                assert lab.drift() == []
            lab.down()


def test_up_killed_at_some_moment(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, PROGRAM)
    before = host.snapshot(netlab.rundir)
    choice = random.Random(0)
    for _ in range(8):
        command = [*netlab.argv("up", lab.file, privilege, "-q")]
        with nothing_left(netlab, before, "up killed at some moment"):
            with subprocess.Popen(command, env=netlab.environment()) as process:
                labs.until(lambda: lab.directory().exists() or process.poll() is not None, "the lab's directory")
                try:
                    process.wait(choice.uniform(0, 0.15))
                except subprocess.TimeoutExpired:
                    process.kill()
            lab.down()


def test_holder_killed(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, PROGRAM)
    before = host.snapshot(netlab.rundir)
    lab.up()
    with nothing_left(netlab, before, "down of a dead lab"):
        labs.kill(lab.status()["holder"], signal.SIGKILL)
        listed = netlab("status")
        mode = privilege.lstrip("-")
        assert listed.stdout == (
            "LAB        IS    MODE".replace("MODE", f"MODE{' ' * max(0, len(mode) - 4)}")
            + f"  NAMESPACES  FIXES  TOPOLOGY\n{lab_name}  dead  {mode}  2           -      {lab.file}\n"
        )
        for command in (["status", lab_name], ["exec", "client", "--", "true"]):
            done = netlab(*command)
            assert done.stdout == ""
            assert done.stderr == (
                f"netlab: the lab {lab_name} isn't whole: it was killed, or its building was\n"
                f"  hint: `netlab down {lab_name}` removes what is left, `netlab up` builds it again\n"
            )
            assert done.returncode == 1
        assert lab.up() == (
            f"removed what an interrupted command had left; lab {lab_name} is up: 2 namespaces, 1 link, 0 services\n"
        )
        assert lab.drift() == []
        labs.kill(lab.status()["holder"], signal.SIGKILL)
        assert lab.down() == f"lab {lab_name} is down\n"


def test_a_killed_labs_files_are_read_as_far_as_they_go(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    lab.up()
    labs.kill(lab.status()["holder"], signal.SIGKILL)
    (lab.directory() / "topology.yaml").unlink()  # as in the middle of a `down`
    done = netlab("status", lab_name)
    assert done.stderr.startswith(f"netlab: the lab {lab_name} isn't whole")
    assert done.returncode == 1
    assert lab.down() == f"lab {lab_name} is down\n"


def test_a_directory_alone_is_removed(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    (netlab.rundir / lab_name).mkdir(parents=True)
    listed = netlab("status")
    assert listed.stdout == (
        "LAB        IS           MODE  NAMESPACES  FIXES  TOPOLOGY\n"
        f"{lab_name}  never begun        0           -      -\n"
    )
    assert netlab("down").stderr == f"lab {lab_name} is down\n"
    assert not netlab.rundir.exists()
