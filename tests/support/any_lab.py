"""Topologies by chance: sound ones of every kind of thing that a file can ask for, small enough to be built in a blink.

The same seed gives the same ones on every machine.
"""

from __future__ import annotations

import json
import random
from typing import Any

from netlab.errors import TopologyError
from netlab.model import Topology
from netlab.topology import parse

Spec = dict[str, Any]

PODS, HOSTS, NODES = ("p1", "p2", "p3", "p4"), ("h1", "h2"), ("n1", "n2")
SLEEP = ("sleep 1000", "sleep 2000")
SYSCTLS: dict[str, tuple[object, ...]] = {
    "net.ipv4.tcp_sack": (0, 1),
    "net.ipv4.tcp_rmem": ("4096 8192 8192", "4096 16384 65536"),
    "net.ipv4.ip_local_port_range": ("20000 30000", "30000 40000"),
    "net.ipv4.ip_forward": (0, 1),
    "net.ipv4.conf.all.rp_filter": (0, 1, 2),
    "net.ipv4.conf.default.rp_filter": (0, 1, 2),
    "net.ipv4.conf.default.arp_announce": (1, 2),
    "net.ipv4.conf.eth0.arp_ignore": (1, 2),
    "net.ipv4.conf.eth0.accept_redirects": (0, 1),
    "net.ipv4.conf.all.accept_redirects": (0, 1),
    "net.ipv4.neigh.eth0.gc_stale_time": (30, 90),
    "net.ipv6.conf.all.forwarding": (0, 1),
    "net.ipv6.conf.eth0.accept_ra": (0, 2),
    "net.ipv6.conf.eth0.mtu": (1280, 1300),
    "net.ipv6.conf.default.hop_limit": (32, 64),
    "net.ipv4.ip_local_reserved_ports": ("80,81,90", "7-9"),
    "net.netfilter.nf_conntrack_tcp_be_liberal": (0, 1),
    "net.netfilter.nf_conntrack_tcp_timeout_established": (300, 600),
}
QDISCS = (
    {"kind": "pfifo", "limit": 10},
    {"kind": "pfifo", "limit": 20},
    {"kind": "bfifo", "limit": 3000},
    {"kind": "tbf", "rate": "10mbit", "burst": "16kb", "latency": "50ms"},
    {"kind": "tbf", "rate": "20mbit", "burst": "16kb", "latency": "50ms"},
)
TABLES = (
    ("inet tour", "chain seen { type filter hook input priority 0; iif lo counter; }"),
    ("inet tour", "set seen { type ipv4_addr; elements = { 192.0.2.1 } }"),
    ("ip tour", "chain seen { ip daddr 192.0.2.1 drop; }"),
)


class Chance(random.Random):
    """A die for specs."""

    def some(self, items: tuple[Any, ...], chance: float = 0.5) -> list[Any]:
        """Each of the items by that chance, in their order or another."""
        found = [item for item in items if self.random() < chance]
        if self.random() < 0.3:
            self.shuffle(found)
        return found

    def maybe(self, key: str, value: object, chance: float = 0.3) -> Spec:
        """A key with its value, by that chance."""
        return {key: value} if self.random() < chance else {}

    def attributes(self) -> Spec:
        """What any interface may be given."""
        return {
            **self.maybe("mtu", self.choice([1300, 1400, 1450, 9000]), 0.2),
            **self.maybe("mac", f"02:00:00:00:00:{self.randrange(1, 255):02x}", 0.15),
            **self.maybe("txqlen", self.choice([5, 500]), 0.1),
            **self.maybe("alias", self.choice(["one", "two words"]), 0.1),
            **self.maybe("group", self.choice([7, 8]), 0.1),
            **self.maybe("gso_max_segs", self.choice([1, 10]), 0.1),
        }

    def end(self, netns: str, addresses: list[Any]) -> Any:
        """A port or a link's end in a namespace; the first of the addresses is "open": left out."""
        given = self.choice(addresses)
        found = {
            "netns": netns,
            **({} if given == "open" else {"addresses": given}),
            **self.attributes(),
            **self.maybe("qdisc", self.choice(QDISCS), 0.15),
            **self.maybe("up", False, 0.08),
            **self.maybe("num_tx_queues", 2, 0.05),
        }
        return found if len(found) > 1 else netns

    def netns(self, name: str) -> Spec:
        """A namespace."""
        role = "node" if name in NODES else "pod" if name in PODS else "host"
        own = "br0" if role == "node" else "eth0"
        said = [(key.replace("eth0", own), self.choice(values)) for key, values in SYSCTLS.items()]
        sysctls = dict(self.some(tuple(said), 0.12))
        routes = self.some(
            (
                {"to": "203.0.113.0/24", "kind": self.choice(["blackhole", "prohibit", "unreachable"])},
                {"to": "203.0.113.0/24", "kind": "blackhole", "metric": self.choice([7, 50])},
                {"to": "2001:db8:9::/48", "kind": self.choice(["blackhole", "unreachable"])},
                {"to": "198.51.100.0/24", "dev": own, **self.maybe("metric", 5)},
                {"to": "198.51.100.0/25", "via": "10.244.0.1" if role == "pod" else "10.255.0.1"},
            ),
            0.12,
        )
        loopback = self.some(("10.9.9.1/32", "10.9.9.2/32", "fd00:9::1/128"), 0.1)
        programs = [
            {"name": name, "command": self.choice(SLEEP), **self.maybe("ready", {"command": "true"})}
            for name in self.some(("one", "two"), 0.15)
        ]
        return {
            "role": role,
            **({"sysctls": sysctls} if sysctls else {}),
            **({"routes": routes} if routes else {}),
            **({"loopback": loopback} if loopback else {}),
            **({"programs": programs} if programs else {}),
            **({"tables": dict(self.some(TABLES, 0.5))} if self.random() < 0.15 else {}),
        }

    def bridge(self, name: str, netns: str, subnet: int, ports: list[str]) -> Spec:
        """A bridge in a node."""
        prefix = f"10.7.{subnet}"
        own: list[Any] = ["open", "open", "open", f"{prefix}.1/24", [f"{prefix}.1/24", f"{prefix}.2/24"], []]
        given = self.choice(own)
        ports_addresses = ["open", "open", "open", []]
        if given not in ("open", []):
            ports_addresses += [f"{prefix}.{9 + n}/24" for n in range(3)]
            ports_addresses += [[f"{prefix}.40/24", f"{prefix}.41/24"], [f"{prefix}.41/24", f"{prefix}.40/24"]]
        return {
            "name": name,
            "netns": netns,
            **({} if given == "open" else {"addresses": given}),
            **self.attributes(),
            **self.maybe("stp", True, 0.15),
            "ports": [self.end(port, ports_addresses) for port in ports],
        }

    def spec(self) -> Spec:
        """A topology, which may be unsound."""
        nodes = list(NODES[: self.choice([1, 1, 2])])
        pods = self.some(PODS, 0.7)
        hosts = self.some(HOSTS, 0.4)
        names = [*nodes, *pods, *hosts]
        if self.random() < 0.3:
            self.shuffle(names)
        split = self.randrange(len(pods) + 1) if len(nodes) > 1 else len(pods)
        bridges = [
            self.bridge(self.choice(["br0", "br0", "br9"]), node, number, ports)
            for number, (node, ports) in enumerate(zip(nodes, (pods[:split], pods[split:]), strict=False))
        ]
        wires = [(one, other) for one in nodes for other in hosts] + ([("n1", "n2")] if len(nodes) > 1 else [])
        on_a_link = ["open", "open", "open", [], ["fe80::1/64"]]
        links = [{"ends": [self.end(netns, on_a_link) for netns in wire]} for wire in self.some(tuple(wires), 0.8)]
        served = self.some(tuple(pods), 0.6)
        service = {
            "port": self.choice([80, 81]),
            "endpoints": served,
            **self.maybe("protocol", "UDP", 0.2),
            **self.maybe("session_affinity", {"timeout_s": 60}, 0.2),
        }
        return {
            **self.maybe("ipv6", True),
            **self.maybe("routing", "none", 0.15),
            "namespaces": {name: self.netns(name) for name in names},
            "bridges": bridges,
            "links": links,
            **self.maybe("services", {"web": service}, 0.5),
            **self.maybe(
                "kube_proxy",
                {
                    **self.maybe("drop_invalid", True),
                    **self.maybe("masquerade_pods", True),
                    **self.choice([{}, {"mode": "nftables"}]),
                },
                0.5,
            ),
        }

    def topology(self) -> tuple[str, Topology]:
        """A sound topology's text and what it means."""
        while True:
            text = json.dumps(self.spec())
            try:
                parsed = parse(text, "lab.yaml")
                lab = parsed.sound()
            except TopologyError:
                continue
            # Their programs make no interfaces.
            if not any(warning.message.endswith("unless a program makes it") for warning in parsed.reader.warnings):
                return text, lab
