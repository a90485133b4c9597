"""Services in labs that `netlab up` built: who reaches them, whatever the host makes of bridges, and who they see."""

from __future__ import annotations

import json
from pathlib import Path

import labs
import pytest
import skips
from command import Netlab

pytestmark = [pytest.mark.kernel, pytest.mark.inside]

SERVER = """
import socket
listener = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    connection, (address, *_) = listener.accept()
    connection.sendall(address.encode())
    connection.close()
"""
ONE_BRIDGE = f"""
ipv6: true
namespaces:
  node: {{role: node}}
  client: {{role: pod}}
  server:
    role: pod
    programs:
      - name: who
        command: [python3, -c, {json.dumps(SERVER)}]
        ready: {{listening: 80}}
bridges:
  - {{name: cni0, netns: node, subnet: [10.0.0.0/24, "fd00::/64"], ports: [client, server]}}
services:
  web: {{cluster_ip: [10.96.0.1, "fd00:96::1"], port: 80, endpoints: [server]}}
  none: {{cluster_ip: [10.96.0.2, "fd00:96::2"], port: 80, endpoints: []}}
"""
ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], 80), timeout=20) as connection:
        print(connection.recv(99).decode().removeprefix("::ffff:"))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def lab(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> labs.Lab:
    """A service whose client and endpoint share a bridge."""
    skips.skip_unless_program("python3")
    return labs.make(netlab, lab_name, tmp_path, privilege, ONE_BRIDGE)


def ask(lab: labs.Lab, netns: str, address: str) -> str:
    """What a connection from there brings: the address that the server sees, or the error."""
    return lab.exec(netns, "python3", "-c", ASK, address).strip()


def test_client_and_endpoint_on_one_bridge(lab: labs.Lab) -> None:
    """The answer passes the node though both are beside each other, and though the bridge hands it nothing."""
    lab.up()
    assert ask(lab, "client", "10.96.0.1") == "10.0.0.2"
    assert ask(lab, "client", "fd00:96::1") == "fd00::2"
    assert ask(lab, "client", "10.0.0.3") == "10.0.0.2"


def test_hairpin_on_a_bridge(lab: labs.Lab) -> None:
    """An endpoint that calls its own service comes back with its node's address: masqueraded."""
    lab.up()
    assert ask(lab, "server", "10.96.0.1") == "10.0.0.1"
    assert ask(lab, "server", "fd00:96::1") == "fd00::1"


def test_the_node_itself(lab: labs.Lab) -> None:
    lab.up()
    assert ask(lab, "node", "10.96.0.1") == "10.0.0.1"
    assert ask(lab, "node", "fd00:96::1") == "fd00::1"


@pytest.mark.parametrize("netns", ["client", "node"])
def test_no_endpoints_means_refused(lab: labs.Lab, netns: str) -> None:
    """At once, or with the next SYN: the kernel drops an ICMP error that finds the socket locked."""
    lab.up()
    assert [ask(lab, netns, address) for address in ("10.96.0.2", "fd00:96::2")] == ["ConnectionRefusedError"] * 2


def test_a_service_comes_and_goes(lab: labs.Lab) -> None:
    """The pods' routes follow: with nobody translating, they talk over the bridge."""
    plain = ONE_BRIDGE[: ONE_BRIDGE.index("services:")]
    lab.write(plain)
    lab.up()
    assert " dev eth0 proto kernel" in lab.exec("client", "ip", "route", "show", "10.0.0.0/24")
    lab.write(ONE_BRIDGE)
    lab.up()
    assert " via 10.0.0.1 " in lab.exec("client", "ip", "route", "show", "10.0.0.0/24")
    assert ask(lab, "client", "10.96.0.1") == "10.0.0.2"
    assert lab.drift() == []
    lab.write(plain)
    lab.up()
    assert " dev eth0 proto kernel" in lab.exec("client", "ip", "route", "show", "10.0.0.0/24")
    assert lab.drift() == []
