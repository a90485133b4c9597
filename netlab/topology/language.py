"""The keys of a topology file: the one description that the loader checks with and the JSON Schema is made from.

Reading is `yamlspec/shapes.py`'s, the words are `words.py`'s, and what keys mean together is `resolve.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum

from netlab.model import DropInvalid, Loader, Mode, TrafficPolicy
from netlab.model import Protocol as TransportProtocol
from netlab.topology import words
from netlab.yamlspec.shapes import (
    Anything,
    Boolean,
    Choice,
    Command,
    Fields,
    Integer,
    InvalidError,
    Key,
    Kinds,
    ListOf,
    MapOf,
    Seconds,
    Shape,
    Text,
)
from netlab.yamlspec.units import rate_bytes_per_s

UINT32_MAX = 2**32 - 1
MTU = Integer(68, 65535)
"""veth's limits: ETH_MIN_MTU and ETH_MAX_MTU (include/uapi/linux/if_ether.h)."""
PORT = Integer(1, 65535)
NETNS = Text("a namespace's name")
IFNAME = Text("an interface's name", words.ifname, words.IFNAME)
ADDRESSES = ListOf(Text("an address", words.interface_address), single=True)
SUBNETS = ListOf(Text("a subnet", words.network), single=True)


def _one_of(what: str, words: type[StrEnum]) -> Choice:
    return Choice(what, tuple(word.value for word in words))


def _word(what: str, pattern: str, example: str, check: Callable[[str], None] | None = None) -> Text:
    """A qdisc's parameter: text that must match tc's own notation, and whose meaning check may refuse."""
    compiled = re.compile(pattern)

    def parse(text: str) -> str:
        if not compiled.fullmatch(text):
            raise InvalidError(f"{text!r} is not {what}", f"for instance {example}")
        if check is not None:
            check(text)
        return text

    return Text(what, parse, pattern, numbers=True)


def _moves(rate: str) -> None:
    """The kernel counts whole bytes a second; at none of them nothing would ever be sent."""
    if rate_bytes_per_s(rate) < 1:
        raise InvalidError(f"{rate!r} is less than a byte a second", "for instance 10mbit")


RATE = Key(_word("a rate", words.RATE, "10mbit", _moves), "bits per second (10mbit) or bytes per second (1mbps)")
SIZE = Key(_word("a size", words.SIZE, "16kb"), "bytes (16kb)")
TIME = Key(_word("a time", words.TIME, "50ms"), "a time (50ms)")
COUNT = Key(_word("a whole number", words.COUNT, "1000"), "a whole number")
CHANCE = Key(_word("a percentage", words.CHANCE, "1% or 25% 50%"), "a percentage, and its correlation with the last")
_REQUIRED_RATE = Key(RATE.shape, RATE.doc, required=True)


def _qdisc(kind: str, **keys: Key) -> Fields:
    return Fields({"kind": Key(Choice("a kind of qdisc", (kind,)), "the qdisc's kind", required=True), **keys})


QDISC = Kinds(
    "a kind of qdisc",
    {
        "tbf": _qdisc(
            "tbf",
            rate=_REQUIRED_RATE,
            burst=Key(SIZE.shape, "the bucket, at least rate/HZ and one packet (16kb)", required=True),
            latency=Key(TIME.shape, "longest wait in the queue; either this or limit"),
            limit=Key(SIZE.shape, "bytes that may wait in the queue; either this or latency"),
            peakrate=RATE,
            mtu=Key(SIZE.shape, "the bucket of peakrate"),
        ),
        "htb": _qdisc("htb", rate=_REQUIRED_RATE, ceil=RATE, burst=SIZE, cburst=SIZE, quantum=SIZE),
        "netem": _qdisc(
            "netem",
            delay=Key(
                _word("a delay", words.DELAY, "10ms or 10ms 2ms 25%"), "delay, its jitter, the jitter's correlation"
            ),
            loss=CHANCE,
            duplicate=CHANCE,
            corrupt=CHANCE,
            reorder=CHANCE,
            gap=COUNT,
            rate=RATE,
            limit=COUNT,
        ),
        "pfifo": _qdisc("pfifo", limit=Key(COUNT.shape, "packets that may wait in the queue")),
        "bfifo": _qdisc("bfifo", limit=Key(SIZE.shape, "bytes that may wait in the queue")),
    },
    definition="qdisc",
)


def _alias(text: str) -> str:
    if not 0 < len(text.encode()) < 256:  # IFALIASZ
        raise InvalidError("an alias has 1 to 255 bytes", "shorten it")
    return text


LINK_ATTRIBUTES = {
    "mtu": Key(MTU, "largest packet in bytes"),
    "mac": Key(Text("a MAC address", words.mac, words.MAC), "MAC address"),
    "txqlen": Key(Integer(0, UINT32_MAX), "transmit queue length in packets"),
    "gso_max_segs": Key(Integer(1, 65535), "most segments in one GSO packet; 1 means MTU-sized packets only"),
    "gso_max_size": Key(Integer(1, 524280), "largest GSO packet in bytes"),
    "gro_max_size": Key(Integer(1, 524280), "largest GRO packet in bytes"),
    "alias": Key(Text("an alias", _alias), "a note on the interface, as `ip link` shows it"),
    "group": Key(Integer(0, UINT32_MAX), "the group's number, by which `ip link show group` selects"),
    "num_tx_queues": Key(Integer(1, 4096), "transmit queues (default 1)"),
    "num_rx_queues": Key(Integer(1, 4096), "receive queues (default 1)"),
}
"""The fields of model.LinkAttributes, by their names there."""


def _end(text: str) -> dict[str, str]:
    netns, colon, ifname = text.partition(":")
    return {"netns": netns, "ifname": ifname} if colon else {"netns": netns}


END_KEYS = {
    "netns": Key(NETNS, "the namespace it is in", required=True),
    "ifname": Key(IFNAME, "the interface's name there; left out: eth0, eth1, … or, in a node, veth-<peer>"),
    "addresses": Key(ADDRESSES, "its addresses; left out: assigned; []: none"),
    **LINK_ATTRIBUTES,
    "qdisc": Key(QDISC, "its root queueing discipline"),
    "bridge": Key(Text("a bridge's name"), "the bridge in its namespace that it is a port of"),
    "up": Key(Boolean(), "whether it is set up (default true)"),
}
END_DOC = "client or client:eth0"
LINK_END = Fields(END_KEYS, _end, END_DOC)
BRIDGE_PORT = Fields({**END_KEYS, "port": Key(IFNAME, "the bridge-side interface's name")}, _end, END_DOC)

ROUTE = Fields(
    {
        "to": Key(Text("a destination", words.destination), "default, a subnet, or one address", required=True),
        "via": Key(Text("an address", words.address), "the gateway"),
        "dev": Key(Text("an interface's name"), "the interface to send through"),
        "src": Key(Text("an address", words.address), "the source address to prefer"),
        "metric": Key(Integer(0, UINT32_MAX), "the smaller one wins"),
        "kind": Key(
            Choice("a kind of route", ("unicast", "blackhole", "unreachable", "prohibit")),
            "what is done with a packet (default unicast)",
        ),
    }
)

READY = Fields(
    {
        "listening": Key(PORT, "a TCP port that something in the namespace listens on"),
        "output": Key(Text("a regular expression", words.regex, numbers=True), "looked for in the program's output"),
        "command": Key(Command(), "exits with 0 in the namespace"),
        "timeout_s": Key(Seconds(), "how long to wait (default 10)"),
    }
)

PROGRAM = Fields(
    {
        "name": Key(
            Text("a program's name", words.program_name, words.FILE_NAME), "unique in its namespace", required=True
        ),
        "command": Key(Command(), "a list of words, or text split as a shell splits it", required=True),
        "env": Key(
            MapOf(Text("text", words.env_value, numbers=True), words.env_name, words.ENV_NAME, may_add=True),
            "variables added to its environment",
        ),
        "ready": Key(READY, "when it counts as started; one of listening, output, command"),
    }
)

NAMESPACE = Fields(
    {
        "role": Key(
            Choice("a role", ("node", "pod", "host")),
            "node forwards and may run kube-proxy's rules, pod hangs on a node, host is plain (default host)",
        ),
        "node": Key(NETNS, "a pod's node; left out: the node on the same bridge or link"),
        "loopback": Key(ADDRESSES, "addresses on lo beside 127.0.0.1 and ::1"),
        "sysctls": Key(
            MapOf(Text("a value", words.sysctl_value, numbers=True), words.sysctl, words.SYSCTL, may_add=True),
            "sysctls, as in sysctl(8)",
        ),
        "routes": Key(ListOf(ROUTE), "routes beside the derived ones; for the same destination these win"),
        "programs": Key(ListOf(PROGRAM), "programs started once the lab is up"),
        "tables": Key(
            MapOf(Text("nft's text", words.nft_body), words.nft_table, words.NFT_TABLE, may_add=True),
            "nftables tables by family and name (inet filter), each with what nft reads between its braces",
        ),
    }
)

BRIDGE = Fields(
    {
        "name": Key(IFNAME, "the bridge's interface name", required=True),
        "netns": Key(NETNS, "the namespace it is in", required=True),
        "addresses": Key(ADDRESSES, "the bridge's own addresses; left out: assigned; []: none"),
        "subnet": Key(SUBNETS, "what is left open is assigned from here; one subnet, or one of each family"),
        **LINK_ATTRIBUTES,
        "qdisc": Key(QDISC, "the bridge interface's root queueing discipline"),
        "stp": Key(Boolean(), "spanning tree protocol (default false)"),
        "mcast_snooping": Key(Boolean(), "multicast snooping (default false)"),
        "vlan_filtering": Key(Boolean(), "VLAN filtering (default false)"),
        "ports": Key(ListOf(BRIDGE_PORT), "who hangs on it: namespace, namespace:ifname, or a mapping"),
    }
)

LINK = Fields(
    {
        "ends": Key(ListOf(LINK_END, 2, 2), "two ends: namespace, namespace:ifname, or a mapping", required=True),
        "subnet": Key(SUBNETS, "what is left open is assigned from here; one subnet, or one of each family"),
    }
)

PROTOCOL = _one_of("a protocol", TransportProtocol)
PORT_KEYS = {
    "port": Key(PORT, "the port of the cluster IP, and of external and load-balancer IPs"),
    "target_port": Key(PORT, "the endpoints' port (default: port)"),
    "protocol": Key(PROTOCOL, "TCP, UDP or SCTP (default TCP)"),
    "node_port": Key(PORT, "the port of every node address; in Kubernetes 30000 to 32767 (default: none)"),
}
SERVICE_PORT = Fields(
    {
        "name": Key(Text("a port's name", words.port_name, words.LABEL), "needed where there are several"),
        **PORT_KEYS,
        "port": Key(PORT, PORT_KEYS["port"].doc, required=True),
    }
)
VIRTUAL_IPS = ListOf(Text("an address", words.virtual_ip), single=True)
TRAFFIC_POLICY = _one_of("a traffic policy", TrafficPolicy)
SESSION_AFFINITY = Fields(
    {"timeout_s": Key(Integer(1, 86_400), "how long a client keeps its endpoint, in seconds", required=True)},
    words.session_affinity,
    f"ClientIP (for {words.SESSION_AFFINITY_S} seconds)",
)
SERVICE = Fields(
    {
        "namespace": Key(
            Text("a Kubernetes namespace's name", words.service_name, words.LABEL),
            "the Kubernetes namespace in kube-proxy's names (default 'default')",
        ),
        "cluster_ip": Key(
            ListOf(Text("an address", words.address), 1, single=True),
            "one address, or one of each family; left out: assigned",
        ),
        "external_ips": Key(VIRTUAL_IPS, "further addresses that reach the service through a node"),
        "load_balancer_ips": Key(VIRTUAL_IPS, "addresses of a load balancer that brings the packets to the nodes"),
        "load_balancer_source_ranges": Key(SUBNETS, "who may use the load-balancer IPs (default: everybody)"),
        "ports": Key(ListOf(SERVICE_PORT, 1), "its ports; a single one may stand in the service itself"),
        **PORT_KEYS,
        "endpoints": Key(ListOf(NETNS), "the namespaces that serve it; none: connections are rejected"),
        "session_affinity": Key(SESSION_AFFINITY, "keep a client at its endpoint (default: each connection anew)"),
        "internal_traffic_policy": Key(
            TRAFFIC_POLICY, "Local: cluster IPs lead to endpoints on the same node only (default Cluster)"
        ),
        "external_traffic_policy": Key(
            TRAFFIC_POLICY, "Local: the ways from outside do so, and keep the client's address (default Cluster)"
        ),
    }
)

_POOL4 = Text("a subnet", words.network4)
_POOL6 = Text("a subnet", words.network6)
POOL_DEFAULTS = {
    "bridges": "10.244.0.0/16",
    "links": "10.255.0.0/16",
    "services": "10.96.0.0/16",
    "bridges6": "fd00:10:244::/48",
    "links6": "fd00:10:255::/48",
    "services6": "fd00:10:96::/112",
}
"""Where addresses left open come from: Kubernetes' customary pod and service networks, and unique local ones."""
ADDRESSING = Fields(
    {
        pool: Key(_POOL6 if pool.endswith("6") else _POOL4, f"pool for {pool.rstrip('6')} (default {default})")
        for pool, default in POOL_DEFAULTS.items()
    }
)

KUBE_PROXY = Fields(
    {
        "nodes": Key(ListOf(NETNS), "where the rules are installed (default: every node, where there are services)"),
        "cluster_cidrs": Key(
            ListOf(Text("a subnet", words.network)), "the pods' networks (default: the subnets with pods in them)"
        ),
        "masquerade_pods": Key(
            Boolean(), "what pods send out of the cluster leaves with their node's address (default false)"
        ),
        "mode": Key(_one_of("a mode", Mode), "whose chains and rules the nodes get (default iptables)"),
        "load_with": Key(
            _one_of("a loader", Loader),
            "who brings the iptables mode's rules into the nodes; with iptables-restore, iptables-save there shows them"
            " (default libnftables)",
        ),
        "drop_invalid": Key(
            Boolean((DropInvalid.UNLESS_LIBERAL.value,)),
            "first of all, drop INVALID (default false, as before v1.15; unless-liberal: as since v1.29)",
        ),
    }
)


FIX = Fields(
    {
        "summary": Key(Text("a line of text", words.one_line), "what it does, for `netlab fix list`", required=True),
        "set": Key(
            MapOf(Anything(), minimum=1), "values of this file that the fix changes, by their paths as in --set", True
        ),
    }
)

_VARIABLE = Text("a number, true, false or text", numbers=True)


def _named(item: Fields | Text, parse: Callable[[str], str], pattern: str, minimum: int = 0) -> MapOf:
    return MapOf(item, parse, pattern, minimum=minimum)


TOPOLOGY = Fields(
    {
        "name": Key(Text("a lab's name", words.lab_name, words.LABEL), "the lab's name (default: the file's)"),
        "description": Key(Text(), "one line about the lab"),
        "vars": Key(
            _named(_VARIABLE, words.variable_name, words.VARIABLE_NAME),
            "variables: ${name} in any value stands for one",
        ),
        "ipv6": Key(Boolean(), "whatever has an IPv4 address gets an IPv6 address too (default false)"),
        "routing": Key(Choice("a kind of routing", ("auto", "none")), "auto derives the obvious routes (default auto)"),
        "addressing": Key(ADDRESSING, "the pools that addresses left open come from"),
        "namespaces": Key(
            _named(NAMESPACE, words.netns_name, words.LABEL, 1), "the network namespaces by name", required=True
        ),
        "bridges": Key(ListOf(BRIDGE), "bridges and who hangs on them"),
        "links": Key(ListOf(LINK), "veth pairs from one namespace to another"),
        "services": Key(_named(SERVICE, words.service_name, words.LABEL), "kube-proxy Services by name"),
        "kube_proxy": Key(KUBE_PROXY, "how the nodes' NAT rules are laid out"),
        "fixes": Key(_named(FIX, words.fix_name, words.LABEL), "fixes beside the built-in ones, by name"),
        "experiments": Key(ListOf(Anything()), "what `netlab run` and `netlab matrix` do with this lab"),
    }
)


def with_experiments(shape: Shape) -> Fields:
    """The same language to one who knows what an experiment is: the shape of each item under `experiments`."""
    known = TOPOLOGY.keys["experiments"]
    return Fields({**TOPOLOGY.keys, "experiments": known._replace(shape=ListOf(shape))})
