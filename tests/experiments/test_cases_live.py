"""Connections that no experiment makes, explained while a lab's own programs have them."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from command import Netlab
from places import DATA

pytestmark = [pytest.mark.kernel, pytest.mark.inside]

CASES = DATA / "cases"
KEEP_ALIVE = """
import http.client, os, time
for _ in range(20):
    connection = http.client.HTTPConnection("192.168.0.2", 80, timeout=5)
    connection.request("GET", "/")
    connection.getresponse().read()
    deadline = time.monotonic() + 10
    own = connection.sock.getsockname()[1]
    time.sleep(2.2)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except OSError as error:
        print(own, type(error).__name__)
        break
    connection.close()
"""
"""Requests on a connection that is idle for longer than its entry lives, until one goes to the other endpoint."""


def watched(netlab: Netlab, lab_name: str, seconds: int, *traffic: str) -> tuple[str, str]:
    """What the traffic's program prints in the client, and what `explain` tells of it, lines joined."""
    with subprocess.Popen(
        netlab.argv("explain", lab_name, "--for", str(seconds)),
        env=netlab.environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as watching:
        assert watching.stderr is not None
        assert watching.stderr.readline().startswith(f"watching {lab_name}")
        printed = netlab("exec", "--lab", lab_name, *traffic).stdout
        told, errors = watching.communicate(timeout=seconds + 20)
    assert "Traceback" not in errors, errors
    return printed, " ".join(told.split())


@pytest.mark.usefixtures("as_root")
def test_the_other_endpoint_answers_a_connection_that_it_never_had(netlab: Netlab, lab_name: str) -> None:
    done = netlab("up", CASES / "two-endpoints.yaml", "--name", lab_name, "-q")
    assert done.returncode == 0, done.stderr
    printed, told = watched(netlab, lab_name, 60, "client", "--", sys.executable, "-c", KEEP_ALIVE)
    port, error = printed.split()
    assert error in ("ConnectionResetError", "RemoteDisconnected")
    assert told.startswith(f"RESET BY PEER: 10.0.0.2:{port} > 192.168.0.2:80"), told
    ran_out = re.search(r"(web-[12]) (knows no|has no|answers)", told)
    assert ran_out, told
    assert not re.search(r"(client|server)-node (sends|answers|knows no)", told), told
    # Whether it was found to have run out, or seen to go before, is the kernel's garbage collection's to say.
    assert re.search(
        r"entry has run out|entry run out, after|deletes the connection's entry|has no entry for it", told
    ), told
    assert "disagree" not in told, told


SERVE = """
import socket
listener = socket.create_server(("", 80))
print("ready", flush=True)
while True:
    peer, _ = listener.accept()
    peer.recv(4)
    peer.sendall(bytes(200_000))
    peer.close()
"""
SLOW = """
import socket, time
with socket.create_connection(("192.0.2.1", 30080)) as sock:
    sock.sendall(b"GET\\n")
    time.sleep(0.3)
    got = 0
    while piece := sock.recv(4096):
        got += len(piece)
print(got)
"""


@pytest.mark.usefixtures("as_root")
def test_a_healthy_download_through_a_node_port_completes(netlab: Netlab, lab_name: str) -> None:
    done = netlab("up", CASES / "two-nodes.yaml", "--name", lab_name, "-q")
    assert done.returncode == 0, done.stderr
    serving = netlab.argv("exec", "--lab", lab_name, "web-1", "--", sys.executable, "-c", SERVE)
    with subprocess.Popen(serving, env=netlab.environment(), text=True, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            printed, told = watched(netlab, lab_name, 4, "outside", "--", sys.executable, "-c", SLOW)
        finally:
            server.terminate()
    assert printed == "200000\n"
    assert re.match(r"COMPLETED: 192\.0\.2\.2:\d+ > 192\.0\.2\.1:30080 \(endpoint 10\.244\.2\.2:80", told), told
    assert "INVALID" not in told
    assert "disagree" not in told
