"""kube-proxy's nftables mode in labs that stand: the reset and its fixes, edits, another mode, drift, memory.

What the rules do to packets, in either mode, is `test_modes.py`'s.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import labs
import pytest
import skips
from command import Netlab
from flagship import FLAGSHIP
from places import SUPPORT

pytestmark = [pytest.mark.kernel, pytest.mark.inside]

NFTABLES = ("--set", "kube_proxy.mode=nftables")
TRIALS = "3"

# --- the reset -------------------------------------------------------------------------------------------------------


def run(netlab: Netlab, lab_name: str, *options: str | Path) -> str:
    """The flagship's run, which must end as expected; what it printed."""
    skips.skip_unless_userns()
    done = netlab("run", FLAGSHIP, "--name", lab_name, *NFTABLES, "--trials", TRIALS, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_mode_alone_doesnt_help(netlab: Netlab, lab_name: str) -> None:
    """kube-proxy has no rule against INVALID packets in this mode, and the kernel still finds some INVALID."""
    assert run(netlab, lab_name).startswith("REPRODUCED 3/3\n")


def test_being_liberal_helps(netlab: Netlab, lab_name: str) -> None:
    assert run(netlab, lab_name, "--fix", "be-liberal").startswith("PREVENTED 3/3 completed\n")


def test_dropping_helps_and_every_picture_names_the_chains(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    bundle, page = tmp_path / "run.bundle", tmp_path / "run.html"
    assert run(netlab, lab_name, "--fix", "drop-invalid", "--bundle", bundle).startswith("PREVENTED 3/3 completed\n")
    told = " ".join(netlab("explain", bundle).stdout.split())
    assert "dropped on client-node by rule `ct state invalid drop` of chain filter-forward (ip kube-proxy, " in told
    done = netlab("report", bundle, "--ladder", "--html", page)
    assert done.returncode == 0, done.stderr
    assert "DROP: client-node, chain filter-forward: ct state invalid drop" in " ".join(done.stdout.split())
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page.read_text())
    ways = {tuple(cells[i : i + 3]) for i, cell in enumerate(cells) if cell.startswith("ip kube-proxy ")}
    service = "goto service-PFISGYVC-default/web/tcp/"
    assert ("ip kube-proxy services", "ip daddr . meta l4proto . th dport vmap @service-ips", service) in ways
    assert ("ip kube-proxy filter-forward", "ct state invalid drop", "drop") in ways


# --- edits -----------------------------------------------------------------------------------------------------------

ECHO = """
import socket, socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
socketserver.ThreadingTCPServer.address_family = socket.AF_INET6
socketserver.ThreadingTCPServer(("::", 7), Echo).serve_forever()
"""
TALK = """
import socket, sys
stream = socket.create_connection((sys.argv[1], 80), timeout=10).makefile("rwb", buffering=0)
for line in sys.stdin:
    stream.write(line.encode())
    sys.stdout.write(stream.readline().decode())
    sys.stdout.flush()
"""
ONE_NODE = f"""
ipv6: true
namespaces:
  node: {{role: node}}
  client: {{role: pod}}
  server:
    role: pod
    programs:
      - {{name: echo, command: {json.dumps(["python3", "-c", ECHO])}, ready: {{listening: 7}}}}
  other: {{role: pod}}
bridges:
  - {{name: cni0, netns: node, subnet: [10.0.0.0/24, "fd00::/64"], ports: [client, server, other]}}
services:
  web:
    cluster_ip: [10.96.0.1, "fd00:96::1"]
    port: 80
    target_port: 7
    endpoints: [server]
kube_proxy: {{mode: nftables}}
"""


@pytest.fixture
def lab(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> labs.Lab:
    """One node, not up yet."""
    for program in ("python3", "nft"):
        skips.skip_unless_program(program)
    return labs.make(netlab, lab_name, tmp_path, privilege, ONE_NODE)


def tables(lab: labs.Lab) -> list[str]:
    """The node's tables: "ip kube-proxy"."""
    return re.findall(r"^table (\w+ \S+)$", lab.exec("node", "nft", "list", "tables"), re.MULTILINE)


class Talk:
    """A connection of the client's to the service."""

    def __init__(self, to: IO[str], back: IO[str]) -> None:
        self._to, self._back = to, back

    def says(self, line: str) -> bool:
        """Whether what is said comes back."""
        self._to.write(f"{line}\n")
        self._to.flush()
        return self._back.readline() == f"{line}\n"


@contextmanager
def talk(lab: labs.Lab, address: str = "10.96.0.1") -> Iterator[Talk]:
    command = lab.netlab.argv("exec", "--lab", lab.name, "client", "--", "python3", "-c", TALK, address)
    with subprocess.Popen(
        command, env=lab.netlab.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Talk(process.stdin, process.stdout)
        process.stdin.close()
    assert process.returncode == 0


def refused(lab: labs.Lab) -> bool:
    """Whether a new connection is."""
    done = lab.netlab("exec", "--lab", lab.name, "client", "--", "python3", "-c", TALK, "10.96.0.1")
    return done.stderr.endswith("ConnectionRefusedError: [Errno 111] Connection refused\n")


def test_a_connection_outlives_changes_of_endpoints_and_of_the_mode(lab: labs.Lab) -> None:
    lab.up()
    change = f"lab {lab.name} is up: 1 change\n  node: kube-proxy's rules\n"
    with talk(lab) as v4, talk(lab, "fd00:96::1") as v6:
        assert v4.says("before")
        assert v6.says("before")
        lab.write(ONE_NODE.replace("endpoints: [server]", "endpoints: [other]"))
        assert lab.up() == change
        assert refused(lab)
        assert v4.says("another endpoint")
        lab.write(ONE_NODE.replace("endpoints: [server]", "endpoints: []"))
        assert lab.up() == change
        assert refused(lab)
        assert v6.says("no endpoint")
        lab.write(ONE_NODE.replace("mode: nftables", "mode: iptables"))
        assert lab.up() == change
        assert tables(lab) == ["ip filter", "ip nat", "ip6 filter", "ip6 nat"]
        assert v4.says("iptables")
        assert v6.says("iptables")
        lab.write(ONE_NODE)
        assert lab.up() == change
        assert tables(lab) == ["ip kube-proxy", "ip6 kube-proxy"]
        assert v4.says("nftables again")
        assert v6.says("nftables again")
    assert lab.drift() == []


def test_a_family_that_no_service_has_any_more_loses_its_table(lab: labs.Lab) -> None:
    lab.up()
    lab.exec("node", "nft", "add", "table", "ip6", "mine")
    lab.write(ONE_NODE.replace('[10.96.0.1, "fd00:96::1"]', "10.96.0.1"))
    lab.up()
    assert sorted(tables(lab)) == ["ip kube-proxy", "ip6 mine"]
    assert lab.drift() == []


def test_what_was_changed_by_hand_is_put_back(lab: labs.Lab) -> None:
    lab.up()
    listed = lab.exec("node", "nft", "list", "ruleset")
    for command in (
        "delete element ip kube-proxy service-ips { 10.96.0.1 . tcp . 80 }",
        "add element ip kube-proxy cluster-ips { 10.96.0.9 }",
        "flush chain ip kube-proxy masquerading",
        "add rule ip6 kube-proxy filter-forward drop",
    ):
        lab.exec("node", "nft", command)
        assert lab.drift() == ["node: kube-proxy's rules"], command
        assert lab.up() == f"lab {lab.name} is up: 1 change\n  node: kube-proxy's rules\n"
        assert lab.exec("node", "nft", "list", "ruleset") == listed
    with talk(lab) as it:
        assert it.says("as it was")


def test_down_takes_the_tables_with_the_lab(lab: labs.Lab) -> None:
    lab.up()
    lab.write(ONE_NODE[: ONE_NODE.index("services:")])
    assert "  node: kube-proxy's rules removed\n" in lab.up()
    assert tables(lab) == []
    assert lab.down() == f"lab {lab.name} is down\n"


# --- what is remembered ----------------------------------------------------------------------------------------------

STICKY = """
namespaces:
  node: {role: node}
  client: {role: pod}
  a1: {role: pod, programs: [{name: greeter, command: [python3, GREETER, a1], ready: {output: ready}}]}
  a2: {role: pod, programs: [{name: greeter, command: [python3, GREETER, a2], ready: {output: ready}}]}
  b1: {role: pod, programs: [{name: greeter, command: [python3, GREETER, b1], ready: {output: ready}}]}
  b2: {role: pod, programs: [{name: greeter, command: [python3, GREETER, b2], ready: {output: ready}}]}
bridges:
  - {name: cni0, netns: node, subnet: 10.0.0.0/24, ports: [client, a1, a2, b1, b2]}
services:
  web: {cluster_ip: 10.96.0.1, port: 80, target_port: 8080, endpoints: [a1, a2], session_affinity: {timeout_s: 600}}
kube_proxy: {mode: MODE}
"""


def asked(lab: labs.Lab, times: int) -> list[str]:
    """Who answers the client, each once."""
    question = json.dumps([["TCP", "10.96.0.1", 80, times, 10]])
    (answers,) = json.loads(lab.exec("client", "python3", str(SUPPORT / "asker.py"), question))
    return [answer.split()[0] for answer in answers]


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_a_client_keeps_its_endpoint_as_long_as_that_is_there(lab: labs.Lab, mode: str) -> None:
    """Where memory was lost, 20 answers would come from one endpoint of four once in 10**11 times."""
    text = STICKY.replace("GREETER", json.dumps(str(SUPPORT / "greeter.py"))).replace("MODE", mode)
    lab.write(text)
    lab.up()
    (first,) = asked(lab, 20)
    assert lab.drift() == []
    lab.write(text.replace("[a1, a2]", "[b2, a2, b1, a1]"))
    assert lab.up() == f"lab {lab.name} is up: 1 change\n  node: kube-proxy's rules\n"
    assert asked(lab, 20) == [first]
    lab.write(text.replace("[a1, a2]", "[b2, b1]"))
    lab.up()
    (second,) = asked(lab, 20)
    assert second in ("b1", "b2")
    lab.write(text.replace("[a1, a2]", "[b2, b1]").replace("timeout_s: 600", "timeout_s: 60"))
    lab.up()
    assert asked(lab, 20) == [second]
    assert lab.drift() == []
