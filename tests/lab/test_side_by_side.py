"""Labs beside each other: with the same addresses, of two users, and two commands on one lab at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import host
import labs
import pytest
import skips
from command import Netlab
from places import ROOT

pytestmark = pytest.mark.kernel

GREETING = """
namespaces:
  client: {}
  server:
    programs:
      - name: greet
        command:
          - python3
          - -c
          - |
            import socket
            server = socket.create_server(("", 7))
            while True:
                client, _ = server.accept()
                client.sendall(b"GREETED")
                client.close()
        ready: {listening: 7}
links:
  - ends: [client, server]
"""
ASK = "import socket; print(socket.create_connection(('server', 7)).recv(100).decode())"


def test_two_labs_with_the_same_addresses(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    before = host.snapshot(netlab.rundir)
    pair = []
    for name in (f"{lab_name}a", f"{lab_name}b"):
        lab = labs.make(netlab, name, tmp_path, privilege, GREETING.replace("GREETED", f"I am {name}"))
        lab.up()
        pair.append(lab)
    for lab in pair:
        assert lab.exec("client", "python3", "-c", ASK) == f"I am {lab.name}\n"
    several = f"netlab: several labs are up: {lab_name}a, {lab_name}b\n  hint: name the one you mean: -l LAB\n"
    for command in (["exec", "client", "--", "true"], ["shell", "client"], ["down"], ["fix", "apply", "be-liberal"]):
        done = netlab(*command)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", several)
    pair[0].down()
    assert pair[1].exec("client", "python3", "-c", ASK) == f"I am {lab_name}b\n"
    assert netlab("exec", "client", "--", "true").returncode == 0
    pair[1].down()
    assert host.changes(before, netlab.rundir) == ""


@pytest.fixture
def someone(as_root: None) -> Iterator[Netlab]:
    """netlab as another user, who is not root; skips where that user can't run it."""
    directory = Path(tempfile.mkdtemp(prefix="netlab-test-nobody-"))
    os.chown(directory, 65534, 65534)
    user = Nobody(directory / "run", forked=False)
    try:
        probe = user("--help")
        if probe.returncode != 0:
            pytest.skip(f"uid 65534 can't run netlab: {probe.stderr.strip()}")
        yield user
        user("down", "--all")
    finally:
        shutil.rmtree(directory)


class Nobody(Netlab):
    """netlab as uid 65534, from a directory that this user may read."""

    def argv(self, *arguments: str | Path) -> list[str]:
        """The command line that changes the user first."""
        change = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "-C", "/"]
        return [*change, sys.executable, "-m", "netlab", *map(str, arguments)]

    def environment(self, env: object = None) -> dict[str, str]:
        """Root's environment, but for where things are."""
        source = str(ROOT)
        return {**super().environment(), "PYTHONPATH": source, "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1"}


def test_two_users_labs_with_the_same_name(netlab: Netlab, lab_name: str, someone: Netlab, tmp_path: Path) -> None:
    skips.skip_unless_userns()
    mine = labs.make(netlab, lab_name, tmp_path, "--root", GREETING.replace("GREETED", "I am root"))
    theirs = labs.make(
        someone, lab_name, someone.rundir.parent, "--rootless", GREETING.replace("GREETED", "I am nobody")
    )
    theirs.file.chmod(0o644)
    before = host.snapshot(netlab.rundir)
    mine.up()
    theirs.up()
    assert mine.exec("client", "python3", "-c", ASK) == "I am root\n"
    assert theirs.exec("client", "python3", "-c", ASK) == "I am nobody\n"
    assert (mine.drift(), theirs.drift()) == ([], [])
    mine.down()
    assert theirs.exec("client", "python3", "-c", ASK) == "I am nobody\n"
    theirs.down()
    assert host.changes(before, netlab.rundir) == ""
    assert not someone.rundir.exists()


def test_another_users_directory_is_refused(netlab: Netlab, lab_name: str, someone: Netlab, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, "--root")
    lab.up()
    text = f"name: {lab_name}\n{labs.TWO}"
    done = subprocess.run(
        someone.argv("up", "-"),
        input=text,
        capture_output=True,
        text=True,
        env={**someone.environment(), "NETLAB_LAB_RUNDIR": str(netlab.rundir)},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("netlab: ")
    assert "Traceback" not in done.stderr
    assert lab.drift() == []


# --- at once ---------------------------------------------------------------------------------------------------------


def together(netlab: Netlab, *commands: Sequence[str | Path]) -> list[tuple[int, str]]:
    """Start the commands at once; (exit code, stderr) of each."""
    started = [
        subprocess.Popen(
            netlab.argv(*command),
            env=netlab.environment(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    ended = []
    for process in started:
        _, stderr = process.communicate(timeout=60)
        ended.append((process.returncode, stderr))
    return ended


def test_two_ups_at_once(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    up: list[str | Path] = ["up", lab.file, privilege]
    said = sorted(together(netlab, up, up, up))
    nothing = (0, f"lab {lab_name} is up: nothing to do\n")
    assert said == [(0, f"lab {lab_name} is up: 2 namespaces, 1 link, 0 services\n"), nothing, nothing]
    assert len(lab.processes()) == 1
    assert lab.drift() == []


def test_of_fixes_applied_at_once_none_is_lost(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    names = ("sack", "dsack", "fack", "timestamps")
    own = "".join(
        f"  {name}: {{summary: x, set: {{namespaces.client.sysctls.net.ipv4.tcp_{name}: 0}}}}\n" for name in names
    )
    lab = labs.make(netlab, lab_name, tmp_path, privilege, f"{labs.TWO}fixes:\n{own}")
    lab.up()
    for command, left in (("apply", sorted(names)), ("revert", [])):
        said = together(netlab, *(("fix", command, name) for name in names))
        assert [code for code, _ in said] == [0] * len(names), said
        assert sorted(lab.status()["fixes"]) == left
        assert lab.drift() == []


def test_up_and_down_at_once(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    before = host.snapshot(netlab.rundir)
    up: list[str | Path] = ["up", lab.file, privilege, "-q"]
    down: list[str | Path] = ["down", lab_name, "-q"]
    for _ in range(3):
        assert together(netlab, up, down, up, down) == [(0, "")] * 4
        if lab.directory().exists():
            assert lab.drift() == []
            lab.down()
        assert host.changes(before, netlab.rundir) == ""


def test_many_labs_come_and_go_at_once(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    several = [labs.make(netlab, f"{lab_name}{letter}", tmp_path, privilege) for letter in "abcd"]
    before = host.snapshot(netlab.rundir)
    ups: list[list[str | Path]] = [["up", lab.file, privilege, "-q"] for lab in several]
    downs: list[list[str | Path]] = [["down", lab.name, "-q"] for lab in several]
    assert together(netlab, *ups[:2]) == [(0, "")] * 2
    assert together(netlab, *downs[:2], *ups[2:]) == [(0, "")] * 4
    assert [lab.drift() for lab in several[2:]] == [[], []]
    assert together(netlab, *downs[2:]) == [(0, "")] * 2
    assert host.changes(before, netlab.rundir) == ""
    assert not netlab.rundir.exists()


def test_down_waits_for_an_up_that_takes_long(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    slow = labs.TWO.replace(
        "server: {}",
        "server: {programs: [{name: slow, command: sleep 1000, ready: {command: [test, -e, go], timeout_s: 60}}]}",
    )
    lab = labs.make(netlab, lab_name, tmp_path, privilege, slow)
    before = host.snapshot(netlab.rundir)
    with subprocess.Popen(netlab.argv("up", lab.file, privilege, "-q"), env=netlab.environment(), cwd=tmp_path) as up:
        labs.until((lab.directory() / "logs/server.slow.log").exists, "the slow program")
        with subprocess.Popen(netlab.argv("down", lab_name, "-q"), env=netlab.environment()) as down:
            (tmp_path / "go").touch()
            assert up.wait(labs.DEADLINE_S) == 0
            assert down.wait(labs.DEADLINE_S) == 0
    assert host.changes(before, netlab.rundir) == ""
