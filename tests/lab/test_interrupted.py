"""Ctrl-C, SIGTERM and SIGHUP in `up` take back what this run made, and nothing else."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from pathlib import Path

import host
import labs
import pytest
from command import Netlab

pytestmark = pytest.mark.kernel

NEVER_READY = """
namespaces:
  client: {}
  server:
    programs: [{name: slow, command: [sh, -c, "echo started; sleep 1000"], ready: {output: never, timeout_s: 100}}]
links:
  - ends: [client, server]
"""
STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def start_up(lab: labs.Lab) -> subprocess.Popen[str]:
    """`netlab up` in a process group of its own, as a shell would start it."""
    return subprocess.Popen(
        lab.netlab.argv("up", lab.file, "--name", lab.name, lab.privilege),
        env=lab.netlab.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def started(lab: labs.Lab) -> bool:
    """Whether the slow program runs: all before it is made."""
    log = lab.directory() / "logs/server.slow.log"
    return log.exists() and log.read_text() == "started\n"


@pytest.mark.parametrize("number", STOPPING, ids=lambda number: number.name)
def test_interrupted_while_a_program_starts(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, number: signal.Signals
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, NEVER_READY)
    before = host.snapshot(netlab.rundir)
    with start_up(lab) as up:
        labs.until(lambda: started(lab), "the slow program")
        os.killpg(up.pid, number)
        stdout, stderr = up.communicate(timeout=labs.DEADLINE_S)
    assert (stdout, stderr, up.returncode) == ("", "netlab: interrupted\n", 130)
    assert host.changes(before, netlab.rundir) == ""
    assert not netlab.rundir.exists()


def test_interrupted_again_while_taking_back(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, NEVER_READY)
    before = host.snapshot(netlab.rundir)
    with start_up(lab) as up:
        labs.until(lambda: started(lab), "the slow program")
        for number in STOPPING * 20:
            os.killpg(up.pid, number)
        stdout, stderr = up.communicate(timeout=labs.DEADLINE_S)
    assert (stdout, stderr, up.returncode) == ("", "netlab: interrupted\n", 130)
    assert host.changes(before, netlab.rundir) == ""
    assert not netlab.rundir.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_interrupted_at_some_moment(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, number: signal.Signals
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    before = host.snapshot(netlab.rundir)
    choice = random.Random(0)
    for _ in range(5):
        with start_up(lab) as up:
            labs.until(lambda: lab.directory().exists() or up.poll() is not None, "the lab's directory")
            try:
                up.wait(choice.uniform(0, 0.08))
            except subprocess.TimeoutExpired:
                os.killpg(up.pid, number)
            _, stderr = up.communicate(timeout=labs.DEADLINE_S)
        if up.returncode == 0:
            assert stderr == f"lab {lab_name} is up: 2 namespaces, 1 link, 0 services\n"
            assert lab.drift() == []
            lab.down()
        else:
            assert (stderr, up.returncode) == ("netlab: interrupted\n", 130)
        assert host.changes(before, netlab.rundir) == ""
        assert not netlab.rundir.exists()


def test_another_lab_is_left_alone(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    other = labs.make(netlab, f"{lab_name}-b", tmp_path, privilege)
    other.up()
    lab = labs.make(netlab, lab_name, tmp_path, privilege, NEVER_READY)
    before = host.snapshot(netlab.rundir)
    with start_up(lab) as up:
        labs.until(lambda: started(lab), "the slow program")
        os.killpg(up.pid, signal.SIGINT)
        assert up.wait(labs.DEADLINE_S) == 130
    assert host.changes(before, netlab.rundir) == ""
    assert other.drift() == []


def test_interrupted_change_is_taken_back(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    lab.up()
    addresses = lab.exec("client", "ip", "addr")
    before = host.snapshot(netlab.rundir)
    more = """
  third: {}
links:
  - ends: [client, server]
  - ends: [third, server]
"""
    lab.write(NEVER_READY.partition("links:")[0] + more.lstrip("\n"))
    with start_up(lab) as up:
        labs.until(lambda: started(lab), "the slow program")
        os.killpg(up.pid, signal.SIGINT)
        assert up.wait(labs.DEADLINE_S) == 130
    (lab.directory() / "logs/server.slow.log").unlink()
    assert host.changes(before, netlab.rundir) == ""
    lab.write(labs.TWO)
    assert lab.drift() == []
    assert lab.up() == f"lab {lab_name} is up: nothing to do\n"
    assert lab.exec("client", "ip", "addr") == addresses
    assert [netns["netns"] for netns in lab.status()["namespaces"]] == ["client", "server"]
    assert len(lab.processes()) == 1


def test_a_hangup_that_is_ignored_stays_so(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    topology = NEVER_READY.replace("output: never", "command: [test, -e, go]")
    lab = labs.make(netlab, lab_name, tmp_path, privilege, topology)
    command = ["nohup", *netlab.argv("up", lab.file, privilege)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, env=netlab.environment(), cwd=tmp_path, stdin=quiet, stdout=quiet, stderr=quiet, process_group=0
    ) as up:
        labs.until(lambda: started(lab), "the slow program")
        os.killpg(up.pid, signal.SIGHUP)
        (tmp_path / "go").touch()
        assert up.wait(labs.DEADLINE_S) == 0
    assert lab.drift() == []


BRIDGED = """
namespaces:
  node: {role: node}
  client: {role: pod}
  server: {role: pod, sysctls: {net.ipv4.tcp_sack: 0}}
bridges: [{name: cni0, netns: node, mtu: 1400, ports: [client, server]}]
"""


@pytest.mark.parametrize("option", ["", "stp: true, "])
def test_a_bridge_that_went_by_hand_is_made_as_the_new_file_says(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, option: str
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, BRIDGED)
    lab.up()
    lab.exec("node", "ip", "link", "del", "cni0")
    lab.write(BRIDGED.replace("mtu: 1400, ", option).replace("tcp_sack: 0", "tcp_sack: 1"))
    assert "node: bridge cni0\n" in lab.up()
    assert "cni0" in lab.exec("node", "ls", "/sys/class/net")
    assert lab.drift() == []
    lab.exec("client", "ip", "route", "get", "10.244.0.3")
    assert lab.up() == f"lab {lab_name} is up: nothing to do\n"


def test_what_is_changed_back_again_and_again_is_an_error(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    lab.up()
    both = "{net.ipv4.ip_forward: 1, net.ipv4.conf.all.forwarding: 0}"  # one value under two names
    lab.write(labs.TWO.replace("client: {}", f"client: {{sysctls: {both}}}"))
    refused = lab.try_up()
    assert refused.returncode == 1
    assert refused.stderr == (
        f"netlab: the lab {lab_name} doesn't stay as its topology says: "
        "client: sysctl net.ipv4.conf.all.forwarding = 0\n"
        "  hint: a program in the lab, or another value of the topology, may change it back\n"
    )
    lab.write(labs.TWO)
    assert lab.drift() == []
    assert lab.exec("client", "sysctl", "-n", "net.ipv4.ip_forward") == "0\n"


def test_a_program_that_ends_by_itself_is_told_with_where_its_words_are(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    lab.up()
    pid = tmp_path / "shared" / "pid"
    pid.parent.mkdir()
    pid.parent.chmod(0o777)
    ended = f"p=$(cat {pid}) && ! kill -0 $p && rm {pid}"  # ready when it is no more: each look finds it ended
    program = {"name": "brief", "command": ["sh", "-c", f"echo $$ >{pid}"], "ready": {"command": ["sh", "-c", ended]}}
    lab.write(labs.TWO.replace("client: {}", f"client: {{programs: [{json.dumps(program)}]}}"))
    refused = lab.try_up()
    assert refused.returncode == 1
    assert refused.stderr == (
        f"netlab: the lab {lab_name} doesn't stay as its topology says: "
        f"client: program brief: sh -c 'echo $$ >{pid}'\n"
        "  hint: that program ends by itself, and a lab's are to run: "
        "`netlab logs client brief` shows what it printed\n"
    )


def test_what_somebody_else_has_made_under_a_name_of_the_labs_stays_and_is_an_error(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    lab.up()
    lab.exec("client", "ip", "link", "del", "eth0")
    lab.exec("client", "ip", "link", "add", "eth0", "type", "bridge")
    assert "client: veth eth0 to server eth0" in lab.drift()
    refused = lab.try_up()
    assert refused.returncode == 1
    assert refused.stderr == (
        "netlab: client: veth eth0 to server eth0: File exists\n"
        "  hint: another program has made one of that name there: remove it, or rename one of the two\n"
    )
    assert "bridge" in lab.exec("client", "ip", "-d", "link", "show", "eth0")
    lab.exec("client", "ip", "link", "del", "eth0")
    lab.up()
    assert lab.drift() == []
