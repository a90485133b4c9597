"""A lab whose making or unmaking was killed, at any step, is removed by `down` and built by `up`."""

from __future__ import annotations

import random
import signal
import subprocess
from pathlib import Path

import host
import labs
import pytest
from command import Netlab
from killing import kill_at, nothing_left, sample, skip_unless_strace_kills, steps
from states import lab_directory

pytestmark = pytest.mark.kernel

PROGRAM = """
namespaces:
  client: {}
  server:
    programs: [{name: sleeper, command: sleep 1000, ready: {command: "true"}}]
links:
  - ends: [client, server]
"""


@pytest.fixture
def strace(tmp_path: Path) -> None:
    """Skips the test where strace can't kill."""
    skip_unless_strace_kills(tmp_path)


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
            "LAB        STATE  MODE".replace("MODE", f"MODE{' ' * max(0, len(mode) - 4)}")
            + f"  NAMESPACES  FIXES  TOPOLOGY\n{lab_name}  dead   {mode}  2           -      {lab.file}\n"
        )
        for command in (["status", lab_name], ["exec", "client", "--", "true"]):
            done = netlab(*command)
            assert done.stdout == ""
            assert done.stderr == (
                f"netlab: the lab {lab_name} is incomplete: it, or the command that built it, was killed\n"
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
    assert done.stderr.startswith(f"netlab: the lab {lab_name} is incomplete")
    assert done.returncode == 1
    assert lab.down() == f"lab {lab_name} is down\n"


def test_a_directory_alone_is_removed(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    lab_directory(netlab.rundir, lab_name)
    listed = netlab("status")
    assert listed.stdout == (
        "LAB        STATE        MODE  NAMESPACES  FIXES  TOPOLOGY\n"
        f"{lab_name}  never begun        0           -      -\n"
    )
    assert netlab("down").stderr == f"lab {lab_name} is down\n"
    assert not netlab.rundir.exists()
