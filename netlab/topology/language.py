"""The keys of a topology file: the one description that the loader checks with and the JSON Schema is made from.

Reading is `yamlspec/shapes.py`'s, the words are `words.py`'s, and what keys mean together is `resolve.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from netlab.links import KINDS
from netlab.links.keys import ADDRESSES, NETNS, SUBNETS, UINT32_MAX
from netlab.links.words import network
from netlab.model import DropInvalid, Loader, Mode, TrafficPolicy
from netlab.model import Protocol as TransportProtocol
from netlab.topology import sysctls, words
from netlab.yamlspec.command import Command
from netlab.yamlspec.limits import MAX_ADDRESSES, MAX_INTERFACES, MAX_SET
from netlab.yamlspec.shapes import (
    Anything,
    Boolean,
    Choice,
    Fields,
    Integer,
    Key,
    ListOf,
    MapOf,
    Seconds,
    Shape,
    Text,
)

PORT = Integer(1, 65535)


def _one_of(what: str, words: type[StrEnum]) -> Choice:
    return Choice(what, tuple(word.value for word in words))


ROUTE = Fields(
    {
        "to": Key(Text("a destination", words.destination), "default, a subnet, or one address", required=True),
        "via": Key(Text("an address", words.address), "the gateway"),
        "dev": Key(Text("an interface's name"), "the interface to send through"),
        "src": Key(Text("an address", words.address), "the source address to prefer"),
        "metric": Key(Integer(0, UINT32_MAX), "the smaller one wins"),
        "kind": Key(Choice("a kind of route", words.ROUTE_KINDS), "what is done with a packet (default unicast)"),
    },
    words.route,
    "default via 10.0.0.1",
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
        "capabilities": Key(
            ListOf(Text("a capability", words.capability, words.CAPABILITY), single=True),
            "capabilities that it has beside every program's",
        ),
        "listen": Key(
            ListOf(PORT, single=True),
            "TCP ports to listen on at all addresses: it gets the sockets as descriptors 3 and up (LISTEN_FDS)",
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
            MapOf(Text("a value", sysctls.sysctl_value, numbers=True), sysctls.sysctl, sysctls.SYSCTL, may_add=True),
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
VIRTUAL_IPS = ListOf(Text("an address", words.virtual_ip), maximum=MAX_ADDRESSES, single=True)
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
            ListOf(Text("an address", words.virtual_ip), 1, single=True),
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
_KEPT = ADDRESSES._replace(maximum=MAX_INTERFACES)
"""A namespace's addresses, of all its interfaces together."""
ADDRESSING = Fields(
    {
        **{
            pool: Key(_POOL6 if pool.endswith("6") else _POOL4, f"pool for {pool.rstrip('6')} (default {default})")
            for pool, default in POOL_DEFAULTS.items()
        },
        "keep": Key(
            MapOf(_KEPT, words.netns_name, words.LABEL, may_add=True),
            "addresses by namespace or service, to be assigned to it again; `up` keeps what a lab that stands has",
        ),
    }
)

KUBE_PROXY = Fields(
    {
        "nodes": Key(ListOf(NETNS), "where the rules are installed (default: every node, where there are services)"),
        "cluster_cidrs": Key(
            ListOf(Text("a subnet", network)), "the pods' networks (default: the subnets with pods in them)"
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
            "first of all, drop INVALID (default false, as before v1.15; true: as in v1.15 to v1.28; unless-liberal: as"
            " since v1.29)",
        ),
    }
)


FIX = Fields(
    {
        "summary": Key(Text("a line of text", words.one_line), "what it does, for `netlab fix list`", required=True),
        "cost": Key(Text("a line of text", words.one_line), "what it breaks or loses, for a report"),
        "command": Key(
            Text("a line of text", words.one_line), "what does the same on a machine that is no lab, for a report"
        ),
        "set": Key(
            MapOf(Anything(), minimum=1, maximum=MAX_SET),
            "values of this file that the fix changes, by their paths as in --set",
            True,
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
        **{kind.section: kind.key for kind in KINDS},
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
