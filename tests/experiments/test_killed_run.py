"""A `run` or a `matrix` that is killed leaves what `down --all` removes, and nothing else.

At which call of theirs they are killed is `tests/test_faults.py`'s to vary.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import host
import labs
import pytest
from command import Netlab
from flagship import FLAGSHIP
from killing import nothing_left

pytestmark = pytest.mark.kernel


def run_command(lab_name: str, privilege: str) -> list[str | Path]:
    """The smallest `run` that builds its lab."""
    return ["run", FLAGSHIP, "--name", lab_name, privilege, "--trials", "1"]


def down_all(netlab: Netlab) -> None:
    """`netlab down --all`, which must succeed."""
    done = netlab("down", "--all")
    assert done.returncode == 0, done.stderr


def test_run_killed_at_some_moment(netlab: Netlab, lab_name: str, privilege: str) -> None:
    before = host.snapshot(netlab.rundir)
    began = time.monotonic()
    assert netlab(*run_command(lab_name, privilege)).returncode == 0
    took_s = time.monotonic() - began
    choice = random.Random(0)
    for _ in range(4):
        with nothing_left(netlab, before, "run killed at some moment"):
            killed_after(netlab, choice.uniform(0, took_s), *run_command(lab_name, privilege))
            down_all(netlab)


def test_matrix_killed_at_some_moment(netlab: Netlab, lab_name: str, privilege: str) -> None:
    before = host.snapshot(netlab.rundir)
    command: list[str | Path] = [
        "matrix",
        FLAGSHIP,
        "--name",
        lab_name,
        privilege,
        "--fix",
        "drop-invalid",
        "--jobs",
        "2",
    ]
    choice = random.Random(0)
    for _ in range(3):
        with nothing_left(netlab, before, "matrix killed at some moment"):
            killed_after(netlab, choice.uniform(0.5, 4), *command)
            down_all(netlab)
            for journal in netlab.rundir.glob("[!.]*"):
                assert journal.suffix == ".matrix", journal
                journal.unlink()
            down_all(netlab)


def killed_after(netlab: Netlab, seconds: float, *arguments: str | Path) -> None:
    """Run a command, and kill it when that time is over."""
    null = subprocess.DEVNULL
    command = netlab.argv(*arguments)
    with subprocess.Popen(command, stdin=null, stdout=null, stderr=null, env=netlab.environment()) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()


PROBING = """
import os, select, sys

from netlab.capabilities import probes
from netlab.linux import children

end = os.pidfd_open(os.getpid())
told, child, sys.argv = int(sys.argv[1]), sys.argv[2], ["netlab", *sys.argv[3:]]

def slow(_probe):
    os.write(told, b"probing")
    poll = select.poll()
    poll.register(end, select.POLLIN)
    poll.poll()
    return True

probes._is_there = slow
if child == "outliving":
    children.end_with = lambda *_: None

from netlab.__main__ import main
main()
"""


@pytest.mark.parametrize("child", ["ending", "outliving"])
def test_run_killed_while_it_probes(netlab: Netlab, lab_name: str, privilege: str, child: str) -> None:
    """A child probes in the lab's PID namespace when its parent is killed, and answers nobody then."""
    before = host.snapshot(netlab.rundir)
    told, tell = os.pipe()
    command = [sys.executable, "-c", PROBING, str(tell), child, *map(str, run_command(lab_name, privilege))]
    null = subprocess.DEVNULL
    with (
        nothing_left(netlab, before, "run killed while it probed"),
        subprocess.Popen(
            command, stdin=null, stdout=null, stderr=null, env=netlab.environment(), pass_fds=[tell]
        ) as process,
    ):
        os.close(tell)
        assert os.read(told, 100) == b"probing"
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.read(told, 100)  # ends with the child
        assert (netlab.rundir / lab_name / "state.json").exists()
        down_all(netlab)
    os.close(told)


@pytest.mark.parametrize("standing", [False, True])
def test_a_load_ends_with_the_run(netlab: Netlab, lab_name: str, privilege: str, standing: bool) -> None:
    before = host.snapshot(netlab.rundir)
    if standing:
        assert netlab("up", FLAGSHIP, "--name", lab_name, privilege).returncode == 0
    load = FLAGSHIP.parent / "experiments/load.yaml"
    command = netlab.argv("run", load, "--name", lab_name, privilege, "--trials", "1")
    null = subprocess.DEVNULL
    with nothing_left(netlab, before, "run killed in a load"):
        with subprocess.Popen(command, stdin=null, stdout=null, stderr=null, env=netlab.environment()) as process:
            state = netlab.rundir / lab_name / "state.json"
            labs.until(lambda: len(children_of(process.pid, state)) > 1, "the load's two processes")
            load_pids = children_of(process.pid, state)
            process.send_signal(signal.SIGKILL)
        labs.until(lambda: not any(map(labs.running, load_pids)), "the end of the load's processes")
        down_all(netlab)


def children_of(pid: int, state: Path) -> list[int]:
    """The host's numbers of a process's children, but for the holder that the lab's state names."""
    found = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    holder = json.loads(state.read_text())["holder"] if state.exists() else None
    return [child for child in found if holder is None or child != holder["pid"]]
