"""A lab's own programs looked after: `logs`, `restart`, and how they ended in `status`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import labs
import pytest
from command import Netlab

pytestmark = pytest.mark.kernel

SERVER = """
import os, socket, sys
listening = socket.create_server(("", 80))
print("serving as", os.getpid(), flush=True)
while True:
    peer, _ = listening.accept()
    word = peer.recv(100).decode()
    print("got", word, flush=True)
    peer.close()
    if word == "end":
        sys.exit(7)
"""
TOPOLOGY = f"""
namespaces:
  client: {{programs: [{{name: idle, command: sleep 1000}}]}}
  server:
    programs:
      - {{name: web, command: [python3, -c, {json.dumps(SERVER)}], ready: {{listening: 80}}}}
      - {{name: idle, command: sleep 1000}}
links: [{{ends: [client, server]}}]
"""
SAY = "import socket, sys; socket.create_connection(('server', 80)).sendall(sys.argv[1].encode())"


@pytest.fixture
def lab(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> labs.Lab:
    """A client, and a server with two programs, up."""
    made = labs.make(netlab, lab_name, tmp_path, privilege, TOPOLOGY)
    made.up()
    return made


def tell(lab: labs.Lab, word: str) -> None:
    """Send a word to the web server."""
    lab.exec("client", "python3", "-c", SAY, word)


def printed(lab: labs.Lab, *words: str) -> str:
    """What `netlab logs` shows."""
    done = lab.netlab("logs", "-l", lab.name, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_a_program_prints(lab: labs.Lab) -> None:
    tell(lab, "hello")
    labs.until(lambda: "got hello\n" in printed(lab, "server", "web"), "the word in the log")
    whole = printed(lab, "server", "web")
    assert re.fullmatch(r"serving as \d+\ngot hello\n", whole)
    assert printed(lab, "web") == whole
    assert printed(lab, "client") == ""


def test_which_programs_there_are_and_where_their_output_is(lab: labs.Lab) -> None:
    logs = lab.directory() / "logs"
    assert printed(lab) == (
        f"client  idle  {logs}/client.idle.log\n"
        f"server  web   {logs}/server.web.log\n"
        f"server  idle  {logs}/server.idle.log\n"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nobody"], "the lab LAB has no program nobody"),
        (["client", "web"], "the lab LAB has no program client web"),
        (["idle"], "several programs are meant by idle\n  hint: name one of them: client idle, server idle"),
        (["server"], "several programs are meant by server\n  hint: name one of them: server web, server idle"),
        (["a", "b", "c"], "more than NETNS PROGRAM"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_which_program_is_meant_must_be_clear(lab: labs.Lab, words: list[str], told: str) -> None:
    for command in ("logs", "restart"):
        done = lab.netlab(command, "-l", lab.name, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"netlab: {told.replace('LAB', lab.name)}")


def following(lab: labs.Lab, *words: str) -> subprocess.Popen[str]:
    """`netlab logs -f`, its streams to be read."""
    argv = lab.netlab.argv("logs", "-f", "-l", lab.name, *words)
    return subprocess.Popen(
        argv, env=lab.netlab.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_output_is_followed_until_the_program_ends(lab: labs.Lab) -> None:
    with following(lab, "web") as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline().startswith("serving as ")
        tell(lab, "more")
        assert follower.stdout.readline() == "got more\n"
        tell(lab, "end")
        rest, said = follower.communicate(timeout=labs.DEADLINE_S)
    assert (follower.returncode, rest, said) == (0, "got end\n", "web in server has ended: exit code 7\n")


@pytest.mark.parametrize("ends", ["signal", "down"])
def test_following_ends_with_ctrl_c_and_with_the_lab(lab: labs.Lab, ends: str) -> None:
    with following(lab, "web") as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline().startswith("serving as ")
        if ends == "signal":
            follower.send_signal(signal.SIGINT)
        else:
            lab.down()
        rest, said = follower.communicate(timeout=labs.DEADLINE_S)
    assert (follower.returncode, rest) == (0, "")
    assert said == "" or "has ended" in said


def test_a_program_is_restarted(lab: labs.Lab) -> None:
    before = printed(lab, "web")
    done = lab.netlab("restart", "-l", lab.name, "web")
    assert (done.returncode, done.stderr) == (0, "web in server is running again\n")
    after = printed(lab, "web")
    assert re.fullmatch(r"serving as \d+\n", after) and after != before
    tell(lab, "hello")
    assert lab.drift() == []


def test_how_a_program_ended_is_shown_and_it_is_started_again(lab: labs.Lab) -> None:
    tell(lab, "end")
    labs.until(lambda: lab.drift() != [], "the program's end")
    server = next(netns for netns in lab.status()["namespaces"] if netns["netns"] == "server")
    assert (server["programs"], server["ended"]) == ({"web": False, "idle": True}, {"web": "exit code 7"})
    shown = lab.netlab("status", lab.name).stdout
    assert "web (ended: exit code 7), idle\n" in shown
    done = lab.netlab("restart", "-l", lab.name, "server", "web")
    assert (done.returncode, done.stderr) == (0, "web in server is running again\n")
    assert lab.drift() == []


def test_a_program_that_is_killed(lab: labs.Lab) -> None:
    lab.exec("client", "pkill", "-9", "-f", "sleep 1000")
    labs.until(lambda: len(lab.drift()) == 2, "the end of both: a lab's processes see each other")
    assert "idle (ended: signal 9)\n" in lab.netlab("status", lab.name).stdout


def test_a_program_that_does_not_come_up_again(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    once = "[sh, -c, 'mkdir once && exec sleep 1000']"
    text = f"namespaces: {{a: {{programs: [{{name: it, command: {once}, ready: {{command: test -d once}}}}]}}}}"
    lab = labs.make(netlab, lab_name, tmp_path, privilege, text)
    lab.up()
    (tmp_path / "once").rmdir()
    (tmp_path / "once").write_text("")
    done = netlab("restart", "-l", lab_name, "it")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "netlab: a: program it (sh -c 'mkdir once && exec sleep 1000') ended (exit code 1) before"
    )
    assert lab.drift() == ["a: program it: sh -c 'mkdir once && exec sleep 1000'"]
    (tmp_path / "once").unlink()
    assert netlab("restart", "-l", lab_name, "it").returncode == 0


def test_status_shows_the_addresses_that_the_kernel_has(lab: labs.Lab) -> None:
    def server() -> dict[str, object]:
        return next(netns for netns in lab.status()["namespaces"] if netns["netns"] == "server")

    assert server()["addresses"] == ["10.255.0.2/30 eth0"]
    for round_ in range(2):
        lab.exec("server", "ip", "address", "add", f"192.0.2.{round_ + 1}/24", "dev", "eth0")
        lab.exec("server", "ip", "address", "add", f"198.51.100.{round_ + 1}/32", "dev", "lo")
        lab.up()  # it is no drift, and what is kept of the lab at rest has it
    assert server()["addresses"] == [
        *("10.255.0.2/30 eth0", "198.51.100.1/32", "198.51.100.2/32", "192.0.2.1/24 eth0", "192.0.2.2/24 eth0"),
    ]
    assert server()["interfaces"] == [
        {"ifname": "lo", "up": True, "addresses": ["198.51.100.1/32", "198.51.100.2/32"]},
        {"ifname": "eth0", "up": True, "addresses": ["10.255.0.2/30", "192.0.2.1/24", "192.0.2.2/24"]},
    ]
    lab.exec("server", "ip", "address", "del", "10.255.0.2/30", "dev", "eth0")
    assert "10.255.0.2/30 eth0" not in server()["addresses"]  # type: ignore[operator]
