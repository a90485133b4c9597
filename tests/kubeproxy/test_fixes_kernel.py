"""The fixes on a lab that is up: reverted, they leave everything as it was, and connections live through both."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import labs
import pytest
import skips
from command import Netlab

from netlab.kubeproxy.fixes import FIXES

pytestmark = [pytest.mark.kernel, pytest.mark.inside]

ECHO = """
import socket, threading
def serve(connection):
    while data := connection.recv(100):
        connection.sendall(data)
server = socket.create_server(("", 7))
while True:
    threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()
"""
TALK = """
import socket, sys
connection = socket.create_connection(("10.96.0.1", 80), timeout=20)
for line in sys.stdin:
    connection.sendall(line.encode())
    print(connection.recv(100).decode(), end="", flush=True)
"""

CLUSTER = f"""
namespaces:
  node:
    role: node
    sysctls: {{net.netfilter.nf_conntrack_tcp_be_liberal: 0}}
  far: {{role: node}}
  client: {{role: pod, routes: [{{to: 203.0.113.0/24, kind: blackhole}}]}}
  server:
    role: pod
    programs: [{{name: echo, command: {json.dumps(["python3", "-c", ECHO])}, ready: {{listening: 7}}}}]
bridges:
  - {{name: cni0, netns: node, ports: [client]}}
  - {{name: cni0, netns: far, ports: [server]}}
links:
  - ends: ["node:eth0", "far:eth0"]
services:
  web: {{cluster_ip: 10.96.0.1, port: 80, target_port: 7, endpoints: [server]}}
kube_proxy: {{nodes: [node]}}
fixes:
  own:
    summary: a bit of everything
    set:
      namespaces.node.sysctls.net.netfilter.nf_conntrack_tcp_be_liberal: 1
      namespaces.node.sysctls.net.netfilter.nf_conntrack_tcp_max_retrans: 9
      namespaces.node.sysctls.net.ipv4.conf.lo.forwarding: 0
      namespaces.node.sysctls.net.ipv4.conf.eth0.log_martians: 1
      namespaces.node.tables.inet guard: |
        chain input {{
          type filter hook forward priority -5
          ct state invalid counter drop
        }}
      namespaces.client.routes[+]: {{to: 198.51.100.0/24, kind: prohibit}}
      namespaces.client.routes[0].kind: unreachable
      bridges[0].ports[0]: {{netns: client, qdisc: {{kind: pfifo, limit: 50}}}}
"""
"""A client on one node and a server on another, an echo service between them."""

NODES = ("node", "far")

LOOK = "nft -s list ruleset; ip route; ip addr; tc qdisc; sysctl -a 2>/dev/null | grep ^net | grep -v conntrack_count"


@pytest.fixture
def lab(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> labs.Lab:
    """The cluster, up."""
    for program in ("ip", "nft", "tc", "sysctl"):
        skips.skip_unless_program(program)
    cluster = labs.make(netlab, lab_name, tmp_path, privilege, CLUSTER)
    cluster.up()
    labs.until(
        lambda: not any("linkdown" in cluster.exec(node, "ip", "route") for node in NODES), "the bridges' carriers"
    )
    return cluster


def looks(lab: labs.Lab) -> list[str]:
    """Rules, routes, addresses, qdiscs and sysctls of each namespace, as the kernel tells them."""
    prefix = f"{lab.name}-" if lab.privilege == "--root" else ""
    each = f"for n in node far client server; do echo $n; ip netns exec {prefix}$n sh -c '{LOOK}'; done"
    return lab.exec("node", "sh", "-c", each).splitlines()


class Talk:
    """An established connection of the client's to the service."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def says(self, word: str) -> str:
        """What comes back of a word that is sent."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@contextmanager
def talking(lab: labs.Lab) -> Iterator[Talk]:
    """A connection, which must end well."""
    command = lab.netlab.argv("exec", "--lab", lab.name, "client", "--", "python3", "-c", TALK)
    with subprocess.Popen(
        command, env=lab.netlab.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Talk(process)
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


def fix(lab: labs.Lab, *arguments: str) -> str:
    """`netlab fix …`, which must succeed; what it said."""
    done = lab.netlab("fix", *arguments, "--lab", lab.name)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("names", [*([name] for name in FIXES), ["own"], [*FIXES, "own"]], ids="+".join)
def test_a_fix_that_was_reverted_leaves_all_as_it_was_and_connections_alive(lab: labs.Lab, names: list[str]) -> None:
    before = looks(lab)
    with talking(lab) as talk:
        assert talk.says("before") == "before"
        fix(lab, "apply", *names)
        status = lab.status()
        assert (status["fixes"], status["drift"]) == (names, [])
        assert looks(lab) != before
        assert talk.says("fixed") == "fixed"
        fix(lab, "revert", *names)
        assert talk.says("after") == "after"
    assert looks(lab) == before
    status = lab.status()
    assert (status["fixes"], status["drift"]) == ([], [])


def test_a_sysctl_has_the_value_back_that_somebody_gave_it_by_hand(lab: labs.Lab) -> None:
    lab.exec("node", "sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_max_retrans=5")
    fix(lab, "apply", "own")
    assert lab.exec("node", "sysctl", "-n", "net.netfilter.nf_conntrack_tcp_max_retrans") == "9\n"
    lab.exec("node", "sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_max_retrans=6")
    assert "node: sysctl net.netfilter.nf_conntrack_tcp_max_retrans = 9\n" in lab.up("--fix", "own")
    said = fix(lab, "revert")
    assert "node: sysctl net.netfilter.nf_conntrack_tcp_max_retrans back to 5\n" in said
    assert lab.exec("node", "sysctl", "-n", "net.netfilter.nf_conntrack_tcp_max_retrans") == "5\n"


def test_a_fix_that_nft_refuses_changes_nothing(lab: labs.Lab) -> None:
    lab.write(CLUSTER.replace("ct state invalid counter drop", "ct state invalid counter dorp"))
    assert lab.up() == f"lab {lab.name} is up: nothing to do\n"
    before = looks(lab)
    refused = lab.netlab("fix", "apply", "own", "--lab", lab.name)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "namespaces.node.tables.inet guard: nft: " in refused.stderr
    assert looks(lab) == before
    assert lab.status()["fixes"] == []


def test_the_labs_own_fixes_are_listed_and_offered(lab: labs.Lab) -> None:
    fix(lab, "apply", "own", "be-liberal")
    listed = lab.netlab("fix", "list")
    assert (listed.returncode, listed.stderr) == (0, "")
    lines = listed.stdout.splitlines()
    assert lines[-1].endswith(f" a bit of everything  [of {lab.name}; applied: {lab.name}]")
    assert [line.split()[0] for line in lines if line.endswith(f"applied: {lab.name}]")] == ["be-liberal", "own"]
    env = {"_NETLAB_COMPLETE": "complete_bash", "COMP_WORDS": "netlab fix revert o", "COMP_CWORD": "3"}
    assert lab.netlab(env=env).stdout == "own\n"
    unknown = lab.netlab("fix", "revert", "owm")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    known = ", ".join([*FIXES, "own"])
    assert unknown.stderr == f"netlab: there is no fix 'owm'\n  hint: did you mean 'own'? the fixes are: {known}\n"
