"""A second `up` changes exactly what differs: what was undone by hand, and what the YAML now says otherwise."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import labs
import pytest
import skips
from command import Netlab, new_lab_name
from kernel_says import as_the_kernel_says, diff

pytestmark = pytest.mark.kernel

CLUSTER = """
namespaces:
  node: {role: node}
  client:
    role: pod
    sysctls: {net.ipv4.tcp_rmem: 4096 8192 8192}
    routes: [{to: 203.0.113.0/24, via: 10.0.0.1}]
    tables: {inet tour: 'chain in { type filter hook input priority 0; iif eth0 counter; }'}
  server:
    role: pod
    programs: [{name: httpd, command: python3 -m http.server 80, ready: {listening: 80}}]
  other: {role: pod}
bridges:
  - name: cni0
    netns: node
    addresses: 10.0.0.1/24
    ports:
      - {netns: client, addresses: 10.0.0.2/24, mtu: 1400}
      - {netns: server, addresses: 10.0.0.3/24, qdisc: {kind: tbf, rate: 100mbit, burst: 32kb, latency: 50ms}}
      - {netns: other, addresses: 10.0.0.4/24}
services:
  web: {cluster_ip: 10.96.0.1, port: 80, endpoints: [server]}
"""
"""A node with three pods; every kind of thing that may drift."""


@pytest.fixture
def lab(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> labs.Lab:
    """The cluster, up."""
    for program in ("ip", "nft", "tc", "sysctl"):
        skips.skip_unless_program(program)
    skips.skip_unless_capability("tbf")
    cluster = labs.make(netlab, lab_name, tmp_path, privilege, CLUSTER)
    cluster.up()
    return cluster


def mended(lab: labs.Lab, *changes: str) -> None:
    """status shows exactly these changes, up says that it made them, and nothing is left to do."""
    assert lab.drift() == list(changes)
    number = f"{len(changes)} change{'s' if len(changes) != 1 else ''}"
    assert lab.up() == "".join([f"lab {lab.name} is up: {number}\n", *(f"  {change}\n" for change in changes)])
    assert lab.up() == f"lab {lab.name} is up: nothing to do\n"


def test_drift_by_hand_is_mended(lab: labs.Lab) -> None:
    assert lab.up() == f"lab {lab.name} is up: nothing to do\n"

    lab.exec("other", "ip", "addr", "del", "10.0.0.4/24", "dev", "eth0")
    mended(
        lab,
        "other: address 10.0.0.4/24 on eth0",
        "other: route 10.0.0.1/32 dev eth0",
        "other: route 10.0.0.0/24 via 10.0.0.1",
        "other: route default via 10.0.0.1",
    )

    lab.exec("client", "ip", "route", "del", "203.0.113.0/24")
    lab.exec("client", "ip", "route", "del", "default")
    mended(lab, "client: route 203.0.113.0/24 via 10.0.0.1", "client: route default via 10.0.0.1")

    lab.exec("client", "sysctl", "-qw", "net.ipv4.tcp_rmem=4096 16384 16384")
    mended(lab, "client: sysctl net.ipv4.tcp_rmem = 4096 8192 8192")

    lab.exec("client", "ip", "link", "set", "eth0", "mtu", "1300")
    mended(lab, "client: attributes of eth0")

    lab.exec("server", "tc", "qdisc", "del", "dev", "eth0", "root")
    mended(lab, "server: qdisc tbf on eth0")
    lab.exec("server", "tc", "qdisc", "replace", "dev", "eth0", "root", "pfifo")
    mended(lab, "server: qdisc on eth0 removed", "server: qdisc tbf on eth0")

    tables = re.findall(r"^table (\w+ \w+)", lab.exec("node", "nft", "list", "tables"), re.MULTILINE)
    lab.exec("node", "nft", "delete", "table", *next(table for table in tables if table.endswith("nat")).split())
    mended(lab, "node: kube-proxy's rules")

    lab.exec("client", "nft", "flush", "chain", "inet", "tour", "in")
    mended(lab, "client: table inet tour")
    lab.exec("client", "nft", "delete", "table", "inet", "tour")
    mended(lab, "client: table inet tour")

    lab.exec("client", "ip", "link", "set", "eth0", "down")
    routes = [f"client: route {route}" for route in ("10.0.0.1/32 dev eth0", "10.0.0.0/24 via 10.0.0.1")]
    routes += [f"client: route {to} via 10.0.0.1" for to in ("203.0.113.0/24", "default")]
    mended(lab, "client: eth0 up", *routes)

    lab.exec("client", "ip", "link", "del", "eth0")
    mended(
        lab,
        "node: veth veth-client to client eth0",
        "node: veth-client up",
        "client: eth0 up",
        "client: address 10.0.0.2/24 on eth0",
        *routes,
        "client: table inet tour",
        "neighbour entries of 10.0.0.2 removed",
    )

    [pid] = [pid for pid in lab.processes() if "http.server" in Path(f"/proc/{pid}/cmdline").read_text()]
    labs.kill(pid, signal.SIGKILL)
    mended(lab, "server: program httpd: python3 -m http.server 80")

    if lab.privilege == "--root":
        subprocess.run(["ip", "netns", "del", f"{lab.name}-other"], check=True)
    else:
        return
    # The kernel takes a namespace and the links in it apart only later.
    labs.until(lambda: "veth-other" not in lab.exec("node", "ls", "/sys/class/net"), "the end of its link")
    changes = lab.drift()
    assert "other: network namespace" in changes  # the peer of its veth may still be there, and then goes first
    mended(lab, *changes)


def test_what_a_user_added_stays(lab: labs.Lab) -> None:
    lab.exec("client", "ip", "addr", "add", "10.9.9.9/32", "dev", "eth0")
    lab.exec("client", "ip", "route", "add", "198.51.100.0/24", "via", "10.0.0.1")
    lab.exec("node", "nft", "add", "table", "ip", "mine")
    lab.exec("other", "ip", "link", "add", "dummy-mine", "type", "veth", "peer", "name", "peer-mine")
    assert lab.drift() == []
    lab.write(
        CLUSTER.replace("10.0.0.4/24", "10.0.0.5/24").replace("endpoints: [server]", "endpoints: [server, other]")
    )
    lab.up()
    assert "10.9.9.9/32" in lab.exec("client", "ip", "addr")
    assert "198.51.100.0/24 via 10.0.0.1" in lab.exec("client", "ip", "route")
    assert "table ip mine" in lab.exec("node", "nft", "list", "tables")
    assert "dummy-mine" in lab.exec("other", "ip", "link")


COUNTING = "    tables: {inet tour: 'chain in { type filter hook input priority 0; iif eth0 counter; }'}\n"
EDITS = {
    "a pod more": [
        ("  other: {role: pod}", "  other: {role: pod}\n  more: {role: pod}"),
        ("      - {netns: other,", "      - {netns: more, addresses: 10.0.0.9/24}\n      - {netns: other,"),
    ],
    "a pod less": [("  other: {role: pod}\n", ""), ("      - {netns: other, addresses: 10.0.0.4/24}\n", "")],
    "another address": [("10.0.0.4/24", "10.0.0.44/24")],
    "two addresses": [("addresses: 10.0.0.4/24", "addresses: [10.0.0.4/24, 10.0.0.5/24]")],
    "another gateway": [("addresses: 10.0.0.1/24", "addresses: 10.0.0.254/24"), ("via: 10.0.0.1}", "via: 10.0.0.254}")],
    "a route more": [("via: 10.0.0.1}]", "via: 10.0.0.1}, {to: 198.51.100.0/24, kind: prohibit}]")],
    "a route less": [("    routes: [{to: 203.0.113.0/24, via: 10.0.0.1}]\n", "")],
    "another metric": [("via: 10.0.0.1}]", "via: 10.0.0.1, metric: 50}]")],
    "a sysctl more": [("{net.ipv4.tcp_rmem:", "{net.ipv4.tcp_sack: 0, net.ipv4.tcp_rmem:")],
    "a sysctl less": [("    sysctls: {net.ipv4.tcp_rmem: 4096 8192 8192}\n", "")],
    "a qdisc more": [("addresses: 10.0.0.4/24}", "addresses: 10.0.0.4/24, qdisc: {kind: pfifo, limit: 7}}")],
    "another qdisc": [("rate: 100mbit", "rate: 50mbit")],
    "a qdisc less": [(", qdisc: {kind: tbf, rate: 100mbit, burst: 32kb, latency: 50ms}", "")],
    "another endpoint": [("endpoints: [server]", "endpoints: [other]")],
    "two endpoints": [("endpoints: [server]", "endpoints: [server, other]")],
    "no endpoint": [("endpoints: [server]", "endpoints: []")],
    "another cluster IP": [("10.96.0.1", "10.96.0.2")],
    "a service more": [("services:\n", "services:\n  dns: {port: 53, protocol: UDP, endpoints: [other]}\n")],
    "no service": [("services:\n  web: {cluster_ip: 10.96.0.1, port: 80, endpoints: [server]}\n", "")],
    "an attribute more": [("addresses: 10.0.0.4/24}", "addresses: 10.0.0.4/24, gso_max_segs: 1, txqlen: 5}")],
    "another attribute": [("mtu: 1400", "mtu: 1300")],
    "an attribute less": [(", mtu: 1400", "")],
    "another bridge": [
        ("bridges:\n", "bridges:\n  - {name: br1, netns: node, addresses: 10.0.1.1/24, ports: [other]}\n"),
        ("      - {netns: other, addresses: 10.0.0.4/24}\n", ""),
    ],
    "a bridge's option": [("    netns: node\n", "    netns: node\n    mcast_snooping: true\n")],
    "another bridge's name": [("name: cni0", "name: br0")],
    "down": [("addresses: 10.0.0.4/24}", "addresses: 10.0.0.4/24, up: false}")],
    "a loopback address": [("  other: {role: pod}", "  other: {role: pod, loopback: 172.16.0.1/32}")],
    "IPv6": [("namespaces:\n", "ipv6: true\nnamespaces:\n")],
    "a link more": [("services:\n", 'links:\n  - ends: ["client:x", "other:x"]\nservices:\n')],
    "another program": [("http.server 80", "http.server --bind 10.0.0.3 80")],
    "a table more": [("  other: {role: pod}", "  other: {role: pod, tables: {arp tour: 'chain in { }'}}")],
    "another table": [("iif eth0 counter", "iif eth0 ct state new counter")],
    "a table less": [(COUNTING, "")],
    "no program": [
        ("    programs: [{name: httpd, command: python3 -m http.server 80, ready: {listening: 80}}]\n", ""),
    ],
}
"""What someone does to the cluster's YAML: texts replaced."""


def edited(edit: str) -> str:
    """The cluster's YAML after an edit."""
    text = CLUSTER
    for old, new in EDITS.get(edit, []):
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def standing(session_rundir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[labs.Lab]:
    """The cluster, up once for all edits; root's where this is root."""
    for program in ("ip", "nft", "tc", "sysctl"):
        skips.skip_unless_program(program)
    skips.skip_unless_capability("tbf")
    if os.geteuid() != 0:
        skips.skip_unless_userns()
    netlab = Netlab(session_rundir / "edits")
    privilege = "--rootless" if os.geteuid() else "--root"
    lab = labs.make(netlab, new_lab_name(), tmp_path_factory.mktemp("edits"), privilege, CLUSTER)
    lab.up()
    yield lab
    assert netlab("down", "--all").returncode == 0


@pytest.mark.inside
@pytest.mark.parametrize("edit", [*EDITS, "none"])
def test_an_edit_gives_what_a_fresh_build_gives(standing: labs.Lab, tmp_path: Path, edit: str) -> None:
    # From the edit before: each is put in and taken out again.
    text = edited(edit)
    changes = text != standing.file.read_text()
    standing.write(text)
    fresh = labs.make(standing.netlab, f"{standing.name}f", tmp_path, standing.privilege, text)
    try:
        assert (standing.up() != f"lab {standing.name} is up: nothing to do\n") == changes
        assert standing.drift() == []
        fresh.up(*standing.kept())
        assert diff(as_the_kernel_says(standing), as_the_kernel_says(fresh)) == ""
    except BaseException:  # the next edit begins with a lab that is as it should be
        standing.down()
        standing.up()
        raise
    finally:
        fresh.down()


SERVE = """
import socket
server = socket.create_server(("", 7))
while True:
    client, _ = server.accept()
    while data := client.recv(100):
        client.sendall(data)
"""
TALK = """
import socket, sys
connection = socket.create_connection(("10.96.0.1", 80))
for line in sys.stdin:
    connection.sendall(line.encode())
    print(connection.recv(100).decode(), end="", flush=True)
"""


def test_a_connection_outlives_a_change_of_endpoints(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    echo = json.dumps(["python3", "-c", SERVE])
    program = f"programs: [{{name: echo, command: {echo}, ready: {{listening: 7}}}}]"
    text = CLUSTER.replace("port: 80,", "port: 80, target_port: 7,")
    text = re.sub(r"programs: .*", lambda _match: program, text)
    lab = labs.make(netlab, lab_name, tmp_path, privilege, text)
    lab.up()
    command = netlab.argv("exec", "client", "--", "python3", "-c", TALK)
    with subprocess.Popen(
        command, env=netlab.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as talk:
        assert talk.stdin is not None
        assert talk.stdout is not None
        talk.stdin.write("before\n")
        talk.stdin.flush()
        assert talk.stdout.readline() == "before\n"
        lab.write(text.replace("endpoints: [server]", "endpoints: [other]"))
        changes = lab.up()
        talk.stdin.write("after\n")
        talk.stdin.flush()
        assert talk.stdout.readline() == "after\n"
        talk.stdin.close()
    assert talk.returncode == 0
    assert changes == f"lab {lab_name} is up: 1 change\n  node: kube-proxy's rules\n"
    refused = netlab("exec", "client", "--", "python3", "-c", TALK)
    assert refused.stderr.endswith("ConnectionRefusedError: [Errno 111] Connection refused\n")


def test_a_wrong_edit_changes_nothing(lab: labs.Lab) -> None:
    lab.write(CLUSTER.replace("10.0.0.4/24", "10.0.0.4/240"))
    assert lab.try_up().returncode == 2
    lab.write(CLUSTER.replace("http.server 80", "http.server 80 --no-such-option"))
    failed = lab.try_up()
    assert failed.returncode == 1
    assert "ended (exit code 2) before it was ready; its last output:" in failed.stderr
    lab.write(CLUSTER)
    assert lab.up() == f"lab {lab.name} is up: nothing to do\n"
