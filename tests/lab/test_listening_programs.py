"""Programs that get the sockets they listen on: connections wait for them, and an experiment listens beside them."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import labs
import pytest
import skips
from command import Netlab
from flagship import FLAGSHIP
from labs import Lab

pytestmark = pytest.mark.kernel

SLOW = """
namespaces:
  one:
    programs:
      - name: slow
        listen: [80, 443]
        command:
          - python3
          - -c
          - |
            import os, socket, time
            assert (os.environ["LISTEN_FDS"], os.environ["LISTEN_PID"]) == ("2", str(os.getpid()))
            time.sleep(0.5)
            while True:
                for fd in (3, 4):
                    listener = socket.socket(fileno=os.dup(fd))
                    peer, _ = listener.accept()
                    peer.sendall(b"%d\\n" % listener.getsockname()[1])
                    peer.close()
"""
ASKS = """
import socket, sys
for address in ("127.0.0.1", "::1"):
    for port in (80, 443):
        with socket.create_connection((address, port), 30) as client:
            print(client.makefile().read().strip())
"""


@pytest.fixture
def slow(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> Lab:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, SLOW)
    lab.up()
    return lab


def test_connections_wait_until_the_program_accepts_them(slow: Lab) -> None:
    assert slow.exec("one", "python3", "-c", ASKS).split() == ["80", "443"] * 2
    assert slow.drift() == []
    assert slow.netlab("restart", "-l", slow.name, "slow").returncode == 0
    assert slow.exec("one", "python3", "-c", ASKS).split() == ["80", "443"] * 2


def test_a_port_that_another_program_has(slow: Lab) -> None:
    slow.write(SLOW.replace("name: slow", "name: other").replace("[80, 443]", "81"))
    taken = "import socket, time; s = socket.create_server(('', 81)); print('there', flush=True); time.sleep(600)"
    argv = slow.netlab.argv("exec", "-l", slow.name, "one", "--", "python3", "-c", taken)
    with subprocess.Popen(argv, env=slow.netlab.environment(), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"there\n"
            done = slow.try_up()
            assert done.returncode == 1
            assert "one: program other: can't listen on port 81: Address already in use" in done.stderr
        finally:
            process.kill()


def test_the_plan_names_the_ports(netlab: Netlab, tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text("namespaces: {one: {programs: [{name: web, listen: [80, 443], env: {A: b}, command: sleep 9}]}}\n")
    done = netlab("plan", file)
    assert "one: program web: sleep 9 (listening on 80, 443)\n" in done.stdout
    assert "systemd-socket-activate -l 80 -l 443 env A=b sleep 9 " in done.stdout


def test_python3_is_netlabs_own_where_the_system_has_none(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    lab = labs.make(netlab, lab_name, tmp_path, privilege, SLOW)
    path = {"PATH": str(tmp_path / "bin")}
    done = netlab("up", lab.file, "--name", lab.name, privilege, env=path)
    assert done.returncode == 0, done.stderr
    assert lab.exec("one", "python3", "-c", ASKS).split() == ["80", "443"] * 2


def test_an_experiments_own_server_gets_what_comes_while_it_listens(
    netlab: Netlab, lab_name: str, privilege: str
) -> None:
    skips.skip_unless_capability("tcp-repair")
    lab = Lab(netlab, lab_name, FLAGSHIP, privilege)
    lab.up()
    get = "import socket; s = socket.create_connection(('web', 80)); s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); "
    page = ("python3", "-c", f"{get}print(s.makefile().read())")
    assert "It works." in lab.exec("client", *page)
    done = lab.netlab("run", "-l", lab.name, "--trials", "2", "--format", "json")
    result = json.loads(done.stdout)
    assert (result["result"], len(result["trials"])) == ("reproduced", 2), done.stderr
    assert "It works." in lab.exec("client", *page)
    assert (lab.directory() / "logs/server.web.log").read_text() == ""
    assert lab.drift() == []


def test_the_sockets_go_with_the_program(slow: Lab) -> None:
    """The lab's holder and `up` have no copy."""
    for pid in slow.processes()[1:]:
        with suppress(ProcessLookupError):
            labs.kill(pid, signal.SIGKILL)
    script = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 80)))"
    assert int(slow.exec("one", "python3", "-c", script)) == errno.ECONNREFUSED
