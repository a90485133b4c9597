"""Both modes of kube-proxy do the same to packets: one table of who asks what, and what must come back. So do both
loaders of the iptables mode.

The lab is `services.yaml`, with a host on either side of each limit: `client` and `a1` are pods on node-a, `b1` on
node-b, `office` and `stranger` are outside the cluster, of which only the office may use the load balancers' addresses.
A row that both modes must answer alike is asked in both; what kube-proxy itself does differently in its two modes is in
a table of its own.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import labs
import pytest
import skips
from command import Netlab, new_lab_name
from places import DATA, SUPPORT

from netlab.capabilities.conntrack import translates_sctp
from netlab.capabilities.scratch import attempt

pytestmark = [pytest.mark.kernel, pytest.mark.inside]


PATIENCE_S = 20.0
"""How long an answer may take: the node says how often it will refuse, and a SYN is sent again after 1, 3, 7 s."""
SILENCE_S = 1.5
"""How long to wait where no answer is expected."""
REFUSED, SILENCE = ("refused",), ("silence",)


class Row(NamedTuple):
    """Who asks; protocol, address and port; the greetings that must come, each at least once, and no others."""

    client: str
    protocol: str
    address: str
    port: int
    answers: tuple[str, ...]

    @property
    def question(self) -> tuple[str, str, int, int, float]:
        """As asker.py takes it. Of two endpoints one stays away in 40 answers once in 10**12 times."""
        wait_s = SILENCE_S if self.answers == SILENCE else PATIENCE_S
        return self.protocol, self.address, self.port, 40 if len(self.answers) > 1 else 1, wait_s


CLUSTER_IPS = [
    # The pods' own addresses are seen, but where a pod reaches itself.
    Row("client", "TCP", "10.96.0.1", 80, ("a1 10.0.1.2", "b1 10.0.1.2")),
    Row("client", "TCP", "fd00:96::2", 80, ("a1 fd00:1::2", "b1 fd00:1::2")),
    Row("client", "UDP", "10.96.0.2", 53, ("a1 10.0.1.2", "b1 10.0.1.2")),
    Row("client", "UDP", "fd00:96::2", 53, ("a1 fd00:1::2", "b1 fd00:1::2")),
    Row("a1", "TCP", "10.96.0.1", 80, ("a1 10.0.1.1", "b1 10.0.1.3")),
    Row("b1", "TCP", "10.96.0.1", 80, ("a1 10.0.2.2", "b1 10.0.2.1")),
    Row("b1", "TCP", "fd00:96::2", 80, ("a1 fd00:2::2", "b1 fd00:2::1")),
    Row("a1", "UDP", "fd00:96::2", 53, ("a1 fd00:1::1", "b1 fd00:1::3")),
    # A node has an address among its pods; who comes from outside is masqueraded, by the address towards the endpoint.
    Row("node-a", "TCP", "10.96.0.1", 80, ("a1 10.0.1.1", "b1 10.0.1.1")),
    Row("node-a", "UDP", "10.96.0.2", 53, ("a1 10.0.1.1", "b1 10.0.1.1")),
    Row("office", "TCP", "10.96.0.1", 80, ("a1 10.0.1.1", "b1 10.255.1.2")),
    Row("office", "TCP", "fd00:96::2", 80, ("a1 fd00:1::1", "b1 fd00:255:1::2")),
]
OTHER_WAYS = [
    Row("client", "TCP", "192.0.2.2", 80, ("a1 10.0.1.1", "b1 10.255.1.2")),
    Row("client", "UDP", "2001:db8::2", 53, ("a1 fd00:1::1", "b1 fd00:255:1::2")),
    Row("node-b", "TCP", "192.0.2.2", 80, ("a1 10.255.2.2", "b1 10.0.2.1")),
    Row("stranger", "TCP", "192.0.2.2", 80, ("a1 10.0.1.1", "b1 10.255.1.2")),
    Row("stranger", "UDP", "192.0.2.2", 53, ("a1 10.0.1.1", "b1 10.255.1.2")),
    Row("stranger", "TCP", "2001:db8::2", 80, ("a1 fd00:1::1", "b1 fd00:255:1::2")),
    Row("office", "TCP", "192.0.2.12", 80, ("a1 10.0.1.1", "b1 10.255.1.2")),
    Row("office", "UDP", "2001:db8::12", 53, ("a1 fd00:1::1", "b1 fd00:255:1::2")),
    # Not in the load balancer's source ranges.
    Row("stranger", "TCP", "192.0.2.12", 80, SILENCE),
    Row("stranger", "UDP", "2001:db8::12", 53, SILENCE),
    Row("client", "TCP", "192.0.2.12", 80, SILENCE),
    # Node ports, of either node, from everywhere.
    Row("stranger", "TCP", "10.255.1.2", 30080, ("a1 10.0.1.1", "b1 10.255.1.2")),
    Row("stranger", "UDP", "10.255.1.2", 30053, ("a1 10.0.1.1", "b1 10.255.1.2")),
    Row("stranger", "TCP", "10.255.2.2", 30080, ("a1 10.255.2.2", "b1 10.0.2.1")),
    Row("stranger", "TCP", "fd00:255:1::2", 30080, ("a1 fd00:1::1", "b1 fd00:255:1::2")),
    Row("client", "TCP", "10.255.1.2", 30080, ("a1 10.0.1.1", "b1 10.255.1.2")),
    Row("client", "TCP", "10.255.2.2", 30080, ("a1 10.255.2.2", "b1 10.0.2.1")),
    Row("node-a", "TCP", "10.255.1.2", 30080, ("a1 10.0.1.1", "b1 10.255.1.2")),
    Row("node-a", "TCP", "10.255.2.2", 30080, ("a1 10.255.2.2", "b1 10.0.2.1")),
]
SCTP = [
    Row("client", "SCTP", "10.96.0.2", 2905, ("a1 10.0.1.2", "b1 10.0.1.2")),
    Row("a1", "SCTP", "10.96.0.2", 2905, ("a1 10.0.1.1", "b1 10.0.1.3")),
    Row("office", "SCTP", "192.0.2.12", 2905, ("a1 10.0.1.1", "b1 10.255.1.2")),
    Row("stranger", "SCTP", "192.0.2.12", 2905, SILENCE),
    Row("stranger", "SCTP", "10.255.2.2", 30905, ("a1 10.255.2.2", "b1 10.0.2.1")),
    Row("client", "SCTP", "fd00:96::2", 2905, ("a1 fd00:1::2", "b1 fd00:1::2")),
    Row("stranger", "SCTP", "fd00:255:1::2", 30905, ("a1 fd00:1::1", "b1 fd00:255:1::2")),
]
POLICIES = [
    # From outside only through the node that the endpoint is on, which then sees the client's own address.
    Row("stranger", "TCP", "10.255.1.2", 30084, SILENCE),
    Row("stranger", "TCP", "10.255.2.2", 30084, ("b1 203.0.113.2",)),
    Row("stranger", "TCP", "192.0.2.4", 80, SILENCE),
    Row("office", "TCP", "192.0.2.14", 80, ("b1 198.51.100.2",)),
    Row("stranger", "TCP", "192.0.2.14", 80, SILENCE),
    Row("stranger", "TCP", "10.96.0.4", 80, ("b1 10.255.1.2",)),
    Row("stranger", "TCP", "10.255.1.2", 30088, ("a2 203.0.113.2",)),
    Row("stranger", "TCP", "10.255.2.2", 30088, ("b1 203.0.113.2",)),
    # Pods and nodes are held back by no policy: their traffic never leaves for a load balancer.
    Row("client", "TCP", "192.0.2.4", 80, ("b1 10.0.1.2",)),
    Row("client", "TCP", "10.255.1.2", 30084, ("b1 10.0.1.2",)),
    Row("client", "TCP", "10.255.1.2", 30088, ("a2 10.0.1.2", "b1 10.0.1.2")),
    Row("node-a", "TCP", "192.0.2.4", 80, ("b1 10.0.1.1",)),
    Row("node-a", "TCP", "10.255.1.2", 30084, ("b1 10.255.1.2",)),
    # From inside only to endpoints on the client's own node.
    Row("client", "TCP", "10.96.0.5", 80, ("a2 10.0.1.2",)),
    Row("node-a", "TCP", "10.96.0.5", 80, ("a2 10.0.1.1",)),
    Row("office", "TCP", "10.96.0.5", 80, ("a2 10.0.1.1",)),
    Row("b1", "TCP", "10.96.0.5", 80, ("b1 10.0.2.1",)),
    Row("client", "TCP", "10.96.0.6", 80, SILENCE),
    Row("node-a", "TCP", "10.96.0.6", 80, SILENCE),
    Row("node-b", "TCP", "10.96.0.6", 80, ("b1 10.0.2.1",)),
]
NO_ENDPOINTS = [
    Row("client", "TCP", "10.96.0.7", 80, REFUSED),
    Row("client", "UDP", "10.96.0.7", 53, REFUSED),
    Row("client", "TCP", "fd00:96::7", 80, REFUSED),
    Row("client", "UDP", "fd00:96::7", 53, REFUSED),
    Row("client", "TCP", "192.0.2.7", 80, REFUSED),
    Row("node-a", "TCP", "10.96.0.7", 80, REFUSED),
    Row("node-a", "UDP", "10.96.0.7", 53, REFUSED),
    Row("node-a", "TCP", "fd00:96::7", 80, REFUSED),
    Row("office", "TCP", "10.96.0.7", 80, REFUSED),
    Row("office", "TCP", "192.0.2.7", 80, REFUSED),
    Row("office", "TCP", "192.0.2.17", 80, REFUSED),
    Row("office", "TCP", "10.255.1.2", 30087, REFUSED),
    Row("office", "UDP", "10.255.1.2", 30057, REFUSED),
    Row("office", "TCP", "fd00:255:1::2", 30087, REFUSED),
]
ALIKE = [*CLUSTER_IPS, *OTHER_WAYS, *POLICIES, *NO_ENDPOINTS]

# --nodeport-addresses is "primary" in the nftables mode and everything in the other, and only the nftables mode refuses
# what is sent to a cluster IP's other ports, and what a node itself sends to load balancers' addresses of Services
# without endpoints, and drops what is sent to cluster IPs of no Service; else all of it is sent on to addresses that
# nobody has.
ONLY_IPTABLES = [
    Row("stranger", "TCP", "10.0.1.1", 30080, ("a1 10.0.1.1", "b1 10.255.1.2")),
    Row("node-a", "TCP", "127.0.0.1", 30080, ("a1 10.0.1.1", "b1 10.255.1.2")),
]
ONLY_NFTABLES = [
    Row("stranger", "TCP", "10.0.1.1", 30080, REFUSED),
    Row("node-a", "TCP", "127.0.0.1", 30080, REFUSED),
    Row("client", "TCP", "10.96.0.1", 81, REFUSED),
    Row("node-a", "TCP", "10.96.0.1", 81, REFUSED),
    Row("client", "TCP", "10.96.9.9", 80, SILENCE),
    Row("node-a", "TCP", "192.0.2.17", 80, REFUSED),
]
ROWS = {"iptables": [*ALIKE, *ONLY_IPTABLES], "nftables": [*ALIKE, *ONLY_NFTABLES]}


@pytest.fixture(scope="module", params=["--root", "--rootless"])
def lab(request: pytest.FixtureRequest, session_rundir: Path) -> Iterator[labs.Lab]:
    """The services' lab, not up yet."""
    skips.skip_unless_program("python3")
    (skips.skip_unless_root if request.param == "--root" else skips.skip_unless_userns)()
    made = labs.Lab(Netlab(session_rundir / "modes"), new_lab_name(), DATA / "services.yaml", request.param)
    yield made
    made.down()


def test_status_tells_every_way_to_a_service(lab: labs.Lab) -> None:
    lab.up("--set", f"vars.greeter={SUPPORT / 'greeter.py'}")
    told = {service.pop("service"): service for service in lab.status()["services"]}
    assert told["near"] == {
        "cluster_ips": ["10.96.0.4"],
        "external_ips": ["192.0.2.4", "192.0.2.14"],
        "ports": ["80:30084/TCP"],
        "endpoints": ["b1"],
    }
    text = lab.netlab("status", lab.name).stdout
    rows = [line.split("  ") for line in text[text.index("SERVICE ") :].splitlines()]
    near = next(row for row in rows if row[0] == "near")
    assert [cell.strip() for cell in rows[0] if cell] == ["SERVICE", "CLUSTER IP", "EXTERNAL IP", "PORTS", "ENDPOINTS"]
    assert [cell.strip() for cell in near if cell] == [
        "near",
        "10.96.0.4",
        "192.0.2.4, 192.0.2.14",
        "80:30084/TCP",
        "b1",
    ]


@pytest.mark.parametrize("loader", ["libnftables", "iptables-restore", "nftables"])
def test_who_asks_what_and_what_comes_back(lab: labs.Lab, loader: str) -> None:
    mode = "nftables" if loader == "nftables" else "iptables"
    settings = ["--set", f"kube_proxy.mode={mode}", "--set", f"vars.greeter={SUPPORT / 'greeter.py'}"]
    if loader == "iptables-restore":
        skips.skip_unless_program("ip6tables-restore")
        settings += ["--set", "kube_proxy.load_with=iptables-restore"]
    lab.up(*settings)
    assert lab.drift() == []
    rows = [*ROWS[mode], *(SCTP if isinstance(attempt(translates_sctp), str) else ())]
    asking = {}
    for client in dict.fromkeys(row.client for row in rows):
        questions = json.dumps([row.question for row in rows if row.client == client])
        argv = lab.netlab.argv("exec", "--lab", lab.name, client, "--", "python3", SUPPORT / "asker.py", questions)
        asking[client] = subprocess.Popen(argv, env=lab.netlab.environment(), stdout=subprocess.PIPE, text=True)
    told: dict[str, list[list[str]]] = {}
    for client, process in asking.items():
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, client
        told[client] = json.loads(output)
    found = [row._replace(answers=tuple(told[row.client].pop(0))) for row in rows]
    assert "\n".join(map(str, found)) == "\n".join(map(str, rows))
    assert lab.drift() == []
