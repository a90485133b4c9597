"""Endpoints that come and go on a lab that stands: connections under way stay, datagrams follow, affinity holds.

In each mode, and with either loader of the iptables mode, which one lab goes through in transition.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import labs
import pytest
import skips
from command import Netlab

pytestmark = [pytest.mark.kernel, pytest.mark.inside]

SERVER = """
import socket, socketserver, sys, threading
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        if isinstance(self.request, tuple):
            self.request[1].sendto(sys.argv[1].encode(), self.client_address)
            return
        self.request.sendall(f"{sys.argv[1]}\\n".encode())
        while data := self.request.recv(4096):
            self.request.sendall(data)
for kind in (socketserver.ThreadingTCPServer, socketserver.ThreadingUDPServer):
    kind.address_family, kind.daemon_threads = socket.AF_INET6, True
    threading.Thread(target=kind(("::", 8080), Handler).serve_forever).start()
print("ready", flush=True)
"""
"""On port 8080: by TCP its name, then back what comes; by UDP its name, whatever comes."""

TALK = """
import socket, sys
stream = socket.create_connection((sys.argv[1], 80), timeout=20).makefile("rwb", buffering=0)
print(stream.readline().decode(), end="", flush=True)
for line in sys.stdin:
    stream.write(line.encode())
    print(stream.readline().decode(), end="", flush=True)
"""
"""One connection: prints the greeting, then sends each line of stdin and prints what comes back."""

DATAGRAMS = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
sender = socket.socket(family, socket.SOCK_DGRAM)
sender.settimeout(20)
sender.connect((sys.argv[1], int(sys.argv[2])))
for line in sys.stdin:
    sender.send(line.encode())
    print(sender.recv(4096).decode(), flush=True)
"""
"""One flow: sends a datagram for each line of stdin, and prints who answers."""

ASK = """
import socket, sys
found = set()
for _ in range(int(sys.argv[2])):
    with socket.create_connection((sys.argv[1], 80), timeout=20) as connection:
        found.add(connection.makefile().readline().strip())
print(*sorted(found))
"""
"""So many connections one after another: prints who answered."""

TOPOLOGY = """
ipv6: true
namespaces:
  node: {role: node}
  client: {role: pod}
  a: {role: pod, programs: [{name: server, command: [python3, -c, SERVER, a], ready: {output: ready}}]}
  b: {role: pod, programs: [{name: server, command: [python3, -c, SERVER, b], ready: {output: ready}}]}
  c: {role: pod, programs: [{name: server, command: [python3, -c, SERVER, c], ready: {output: ready}}]}
bridges:
  - {name: cni0, netns: node, subnet: [10.0.0.0/24, "fd00::/64"], ports: [client, a, b, c]}
services:
  web: {cluster_ip: [10.96.0.1, "fd00:96::1"], port: 80, target_port: 8080, endpoints: ENDPOINTS}
  dns:
    cluster_ip: [10.96.0.2, "fd00:96::2"]
    port: 53
    target_port: 8080
    node_port: 30053
    protocol: UDP
    endpoints: ENDPOINTS
  sticky:
    cluster_ip: [10.96.0.3, "fd00:96::3"]
    port: 80
    target_port: 8080
    session_affinity: ClientIP
    endpoints: STICKY
kube_proxy: {WAY}
"""

WAYS = {
    "libnftables": "mode: iptables",
    "nftables": "mode: nftables",
    "iptables-restore": "mode: iptables, load_with: iptables-restore",
}
STALE = "  node: conntrack's UDP entries that lead to no endpoint any more removed"


class Conversation:
    """A program in the lab that answers each line with one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def say(self, line: str) -> str:
        """Send a line; what comes back."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self.listen()

    def listen(self) -> str:
        """The next line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")


@contextmanager
def conversation(lab: labs.Lab, script: str, *arguments: str) -> Iterator[Conversation]:
    argv = lab.netlab.argv("exec", "--lab", lab.name, "client", "--", "python3", "-c", script, *arguments)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, env=lab.netlab.environment()) as process:
        try:
            yield Conversation(process)
        finally:
            process.terminate()


def change(lab: labs.Lab, way: str, endpoints: Sequence[str], sticky: Sequence[str] = "abc") -> list[str]:
    """Other endpoints for the lab that stands; what `up` says it did."""
    text = TOPOLOGY.replace("SERVER", json.dumps(SERVER)).replace("WAY", WAYS[way])
    lab.write(text.replace("ENDPOINTS", f"[{', '.join(endpoints)}]").replace("STICKY", f"[{', '.join(sticky)}]"))
    return lab.up().splitlines()[1:]


def each_way() -> Iterator[str]:
    """The ways that rules can be loaded here, one after another; the others skip the rest of the test."""
    for way in WAYS:
        if way == "iptables-restore":
            skips.skip_unless_program("ip6tables-restore")
        yield way


def test_connections_stay_and_datagrams_follow(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    for way in each_way():
        change(lab, way, "a")
        with (
            conversation(lab, TALK, "10.96.0.1") as over_ipv4,
            conversation(lab, TALK, "fd00:96::1") as over_ipv6,
            conversation(lab, DATAGRAMS, "10.96.0.2", "53") as by_cluster_ip,
            conversation(lab, DATAGRAMS, "fd00:96::2", "53") as by_ipv6,
            conversation(lab, DATAGRAMS, "10.0.0.1", "30053") as by_node_port,
        ):
            streams, flows = (over_ipv4, over_ipv6), (by_cluster_ip, by_ipv6, by_node_port)
            assert [stream.listen() for stream in streams] == ["a", "a"]
            assert [flow.say("who is there?") for flow in flows] == ["a"] * 3
            for endpoints, answers in (("ab", "a"), ("b", "b"), ("", "b"), ("c", "c")):
                assert (STALE in change(lab, way, endpoints)) == bool(endpoints)
                assert [stream.say(f"now {endpoints}") for stream in streams] == [f"now {endpoints}"] * 2
                assert [flow.say("who is there?") for flow in flows] == [answers] * 3, (way, endpoints)
        assert lab.drift() == []


def test_a_client_keeps_its_endpoint_while_others_go(
    netlab: Netlab, lab_name: str, rootless: None, tmp_path: Path
) -> None:
    """Of ten connections that go anywhere all end at one endpoint once in 3**9 runs."""
    lab = labs.make(netlab, lab_name, tmp_path, "--rootless")

    def served_by(address: str) -> str:
        (name,) = lab.exec("client", "python3", "-c", ASK, address, "10").split()
        return name

    for way in each_way():
        change(lab, way, "abc", "abc")
        kept = served_by("10.96.0.3"), served_by("fd00:96::3")
        assert lab.drift() == []
        change(lab, way, "abc", sorted({*kept, "abc"[("abc".index(kept[0]) + 1) % 3]}))
        assert (served_by("10.96.0.3"), served_by("fd00:96::3")) == kept, way
        change(lab, way, "abc", [name for name in "abc" if name != kept[0]])
        assert served_by("10.96.0.3") != kept[0]
