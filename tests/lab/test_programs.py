"""Programs in a lab: those of the topology, and those that nobody here wrote, through `netlab exec`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import host
import labs
import pytest
import skips
from command import Netlab

pytestmark = pytest.mark.kernel

WEB = """
namespaces:
  node: {role: node}
  client: {role: pod}
  server:
    role: pod
    programs: [{name: httpd, command: python3 -u -m http.server 80, ready: {listening: 80}}]
bridges:
  - {name: cni0, netns: node, addresses: 10.0.0.1/24, ports: [client, {netns: server, addresses: 10.0.0.9/24}]}
services:
  web: {cluster_ip: 10.96.0.1, port: 80, endpoints: [server]}
"""


@pytest.fixture
def web(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> labs.Lab:
    """A client, and a web server behind a service, up."""
    lab = labs.make(netlab, lab_name, tmp_path, privilege, WEB)
    lab.up()
    return lab


def background(lab: labs.Lab, netns: str, *argv: str) -> subprocess.Popen[str]:
    """A program in the lab that runs on meanwhile, its output to be read."""
    return subprocess.Popen(
        lab.netlab.argv("exec", netns, "--", *argv),
        env=lab.netlab.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_names_resolve(web: labs.Lab) -> None:
    for name in ("web", "web.default", "web.default.svc.cluster.local"):
        assert web.exec("client", "getent", "hosts", name).split()[0] == "10.96.0.1"
    assert web.exec("node", "getent", "hosts", "server").split()[0] == "10.0.0.9"


def test_curl(web: labs.Lab) -> None:
    skips.skip_unless_program("curl")
    told = web.exec("client", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{remote_ip}", "http://web/")
    assert told == "200 10.96.0.1"
    assert '"GET / HTTP/1.1" 200' in (web.directory() / "logs/server.httpd.log").read_text()


def test_nc(web: labs.Lab) -> None:
    skips.skip_unless_program("nc")
    with background(web, "server", "nc", "-l", "9000") as server:
        labs.until(lambda: ":2328 " in web.exec("server", "cat", "/proc/net/tcp"), "nc to listen")  # 9000 in hex
        web.exec("client", "nc", "-N", "server", "9000", stdin="through the lab\n")
        assert server.communicate(timeout=labs.DEADLINE_S) == ("through the lab\n", "")


def test_iperf3(web: labs.Lab) -> None:
    skips.skip_unless_program("iperf3")
    with background(web, "server", "iperf3", "--server", "--one-off") as server:
        labs.until(lambda: ":1451 " in web.exec("server", "cat", "/proc/net/tcp6", "/proc/net/tcp"), "iperf3 to listen")
        report = json.loads(web.exec("client", "iperf3", "--client", "server", "--bytes", "1M", "--json"))
        server.communicate(timeout=labs.DEADLINE_S)
    assert report["end"]["sum_sent"]["bytes"] >= 1 << 20


def test_tcpdump(web: labs.Lab) -> None:
    skips.skip_unless_program("tcpdump")
    skips.skip_unless_program("curl")
    capture = ["tcpdump", "-i", "eth0", "-nn", "-c", "1", "--immediate-mode", "tcp"]
    with background(web, "client", *capture) as tcpdump:
        assert tcpdump.stderr is not None
        while "listening on eth0" not in tcpdump.stderr.readline():
            assert tcpdump.poll() is None
        web.exec("client", "curl", "-s", "-o", "/dev/null", "http://web/")
        seen, _ = tcpdump.communicate(timeout=labs.DEADLINE_S)
    assert "> 10.96.0.1.80: Flags [S]" in seen


def test_programs_that_change_users(web: labs.Lab) -> None:
    skips.skip_unless_program("setpriv")
    became = web.exec("client", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "id", "-u")
    assert became == ("65534\n" if web.privilege == "--root" else "0\n")  # a rootless lab has one user


def test_conntrack(web: labs.Lab) -> None:
    skips.skip_unless_program("conntrack")
    skips.skip_unless_program("curl")
    # It says nothing when it is ready: requests go on until it has seen one.
    with background(web, "node", "conntrack", "-E", "-e", "NEW", "-p", "tcp", "-o", "timestamp") as events:
        assert events.stdout is not None
        with background(
            web, "client", "sh", "-c", "while :; do curl -s -o /dev/null http://web/; sleep 0.1; done"
        ) as requests:
            event = events.stdout.readline()
            requests.terminate()
            requests.communicate(timeout=labs.DEADLINE_S)
        events.terminate()
        events.communicate(timeout=labs.DEADLINE_S)
    assert "dst=10.96.0.1" in event
    assert "src=10.0.0.9" in event
    assert "dst=10.96.0.1" in web.exec("node", "conntrack", "-L", "-p", "tcp")


# --- the topology's own ----------------------------------------------------------------------------------------------


def one_program(command: list[str], more: str) -> str:
    """A topology whose namespace runs one program; more are its other keys."""
    words = json.dumps(command)
    return f"namespaces:\n  server:\n    programs:\n      - {{name: it, command: {words}, {more}}}\n"


LISTEN = "import socket, time; time.sleep(0.2); server = socket.create_server(('', 7)); time.sleep(1000)"


@pytest.mark.parametrize(
    ("command", "ready", "proof"),
    [
        (["python3", "-c", LISTEN], "ready: {listening: 7}", ["grep", "-q", ":0007 ", "/proc/net/tcp"]),
        (["sh", "-c", "sleep 0.2; echo I am up; sleep 1000"], 'ready: {output: "^I am .p$"}', ["true"]),
        (
            ["sh", "-c", "sleep 0.2; ip link add made type veth; sleep 1000"],
            "ready: {command: ip link show made}",
            ["ip", "link", "show", "made"],
        ),
    ],
    ids=["listening", "output", "command"],
)
def test_up_waits_until_a_program_is_ready(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, command: list[str], ready: str, proof: list[str]
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, one_program(command, ready))
    lab.up()
    lab.exec("server", *proof)
    assert lab.drift() == []


def test_who_loses_its_parent_is_reaped(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    lab.up()
    orphans = "i=0; while [ $i -lt 300 ]; do sh -c 'true & sleep 0.1 &' & i=$((i+1)); done; kill -9 0"
    lab.netlab("exec", "--lab", lab_name, "client", "--", "setsid", "-w", "sh", "-c", orphans)
    left = 'for one in /proc/[0-9]*; do [ "$one" = /proc/1 ] || [ "$one" = /proc/$$ ] || echo "$one"; done'
    labs.until(lambda: lab.exec("client", "sh", "-c", left) == "", "the end of every orphan")


def test_environment_of_a_program(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    text = one_program(["sh", "-c", 'echo "$MINE $(cat)"; sleep 1000'], "ready: {output: given}, env: {MINE: given}")
    lab = labs.make(netlab, lab_name, tmp_path, privilege, text)
    lab.up()
    assert (lab.directory() / "logs/server.it.log").read_text() == "given \n"


@pytest.mark.parametrize(
    ("command", "ready", "complaint"),
    [
        (
            ["sh", "-c", "echo one; echo two >&2; exit 3"],
            "ready: {listening: 7}",
            "netlab: server: program it (sh -c 'echo one; echo two >&2; exit 3') ended (exit code 3) before it was "
            "ready; its last output:\n    one\n    two\n",
        ),
        (
            ["false"],
            "ready: {listening: 7}",
            "netlab: server: program it (false) ended (exit code 1) before it was ready; it printed nothing\n",
        ),
        (
            ["sh", "-c", "kill -9 $$"],
            "ready: {listening: 7}",
            "netlab: server: program it (sh -c 'kill -9 $$') ended (signal 9) before it was ready; "
            "it printed nothing\n",
        ),
        (
            ["sleep", "1000"],
            "ready: {listening: 7, timeout_s: 0.3}",
            "netlab: server: program it (sleep 1000) wasn't ready after 0.3 s; it printed nothing\n",
        ),
        (
            ["python3", "-uc", "print('a' * 40 + '!', end=''); import time; time.sleep(1000)"],
            'ready: {output: "(a+)+$", timeout_s: 1}',
            "netlab: server: program it: looking for '(a+)+$' in its output doesn't finish within 5 s\n"
            "  hint: in 41 characters: don't repeat a repetition, as in (a+)+\n",
        ),
        (
            ["sleep", "1000"],
            "ready: {command: sleep 1000, timeout_s: 0.3}",
            "netlab: server: program it (sleep 1000) wasn't ready after 0.3 s; it printed nothing\n",
        ),
        (
            ["/no/such/program"],
            "env: {}",
            "netlab: server: can't start /no/such/program: No such file or directory\n"
            "  hint: install it, or check PATH\n",
        ),
    ],
    ids=["ended", "ended without a word", "killed", "never ready", "never matched", "a check without end", "not there"],
)
def test_a_program_that_does_not_come_up(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, command: list[str], ready: str, complaint: str
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, one_program(command, ready))
    before = host.snapshot(netlab.rundir)
    done = lab.try_up()
    assert (done.returncode, done.stdout, done.stderr) == (1, "", complaint)
    assert host.changes(before, netlab.rundir) == ""
    assert not netlab.rundir.exists()


STOPS_ALL = """
import os, signal, time
print("begun", flush=True)
while True:
    time.sleep(0.001)
    try:
        os.kill(-1, signal.SIGSTOP)
    except ProcessLookupError:
        pass
"""


def test_a_program_that_stops_all_others_stops_no_command(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    programs = "namespaces:\n  server:\n    programs:\n      - {{name: it, command: {}, ready: {{output: begun}}}}\n"
    topology = programs.format(json.dumps([sys.executable, "-u", "-c", STOPS_ALL]))
    lab = labs.make(netlab, lab_name, tmp_path, privilege, topology)
    before = host.snapshot(netlab.rundir)
    lab.up()
    lab.write(topology + "      - {name: other, command: sleep 1000}\n")
    done = lab.try_up()
    said = re.search("it did not begin within|something stops it again and again", done.stderr)
    assert (done.returncode, said is not None) in ((0, False), (1, True)), done.stderr
    lab.status()
    lab.down()
    assert host.changes(before, netlab.rundir) == ""


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("pid", "w").close()
        time.sleep(1000)
    os._exit(0)
os.wait()
"""


def test_daemons_end_with_the_lab(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    text = one_program(["python3", "-c", DAEMON], "ready: {command: [test, -e, pid]}")
    lab = labs.make(netlab, lab_name, tmp_path, privilege, text)
    before = host.snapshot(netlab.rundir)
    done = netlab("up", lab.file, privilege, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    labs.until(lambda: len(lab.processes()) == 2, "the end of all but the holder and the daemon")
    lab.down()
    assert host.changes(before, netlab.rundir) == ""


def entering(lab: labs.Lab) -> list[str]:
    """How a command begins that enters the lab's client without netlab."""
    if lab.privilege == "--root":
        return ["ip", "netns", "exec", f"{lab.name}-client"]
    holder = str(lab.status()["holder"])
    enter = ["nsenter", "--target", holder, "--user", "--mount", "--preserve-credentials"]
    return [*enter, "nsenter", "--net=/run/netns/client"]


def test_who_only_visits_a_lab_outlives_it(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    """A `netlab watch` on a busy machine may be in a namespace for long: what tells is its way back."""
    skips.skip_unless_program("nsenter")
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    lab.up()
    with Path("/proc/self/ns/net").open() as home:
        command = [*entering(lab), "sh", "-c", "echo in; exec sleep 1000"]
        visitor = subprocess.Popen(command, stdin=home, stdout=subprocess.PIPE, text=True)
    with visitor:
        assert visitor.stdout is not None
        assert visitor.stdout.readline() == "in\n"
        lab.down()
        assert visitor.poll() is None
        visitor.kill()


def test_what_came_from_outside_ends_with_the_lab(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    skips.skip_unless_program("nsenter")
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    lab.up()
    command = ["sh", "-c", "echo in; exec sleep 1000"]
    outsider = subprocess.Popen([*entering(lab), *command], stdout=subprocess.PIPE, text=True)
    within = subprocess.Popen(
        [*netlab.argv("exec", "client", "--"), "sh", "-c", "echo in; exec sleep 1000"],
        env=netlab.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    with outsider, within:
        for process in (outsider, within):
            assert process.stdout is not None
            assert process.stdout.readline() == "in\n"
        lab.down()
        assert outsider.wait(labs.DEADLINE_S) == -9
        assert within.wait(labs.DEADLINE_S) == -9


@pytest.mark.kernel
def test_relative_paths_in_commands_are_relative_to_the_file(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("hello from beside the file\n")
    ready = "{command: [test, -e, data]}"
    text = f"namespaces: {{a: {{programs: [{{name: cat, command: [cat, data], ready: {ready}}}]}}}}\n"
    lab = labs.make(netlab, lab_name, tmp_path, privilege, text)
    lab.up()
    log = lab.directory() / "logs" / "a.cat.log"
    labs.until(lambda: log.read_text() == "hello from beside the file\n", "what the program prints")
