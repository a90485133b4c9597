"""The words of a lab, as frozen values: what a topology says once every default and reference is resolved.

This room knows no YAML and no kernel: `topology/` makes these values, `lab/plan.py` reads them. A value here is
complete: addresses are assigned, names are checked, references resolve.

Values are named tuples, not dataclasses, because every command begins by making the classes: 0.06 ms each instead
of 0.5.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import NamedTuple, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
InterfaceAddress: TypeAlias = IPv4Interface | IPv6Interface

IFNAMSIZ = 15
"""Longest interface name in characters: the kernel's IFNAMSIZ is 16 with its NUL (include/uapi/linux/if.h)."""


BE_LIBERAL = "net.netfilter.nf_conntrack_tcp_be_liberal"
"""The sysctl with which a node's conntrack calls no packet INVALID for being out of its window."""


class Role(StrEnum):
    """What a namespace plays: a node forwards and runs kube-proxy's rules, a pod hangs on a node, a host is plain."""

    NODE = "node"
    POD = "pod"
    HOST = "host"


class Protocol(StrEnum):
    """Transport protocol of a Service port."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"


class TrafficPolicy(StrEnum):
    """Which endpoints of a Service a node may choose: all of the cluster's, or those on the node itself."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


class Mode(StrEnum):
    """kube-proxy's mode: whose chains and rules the nodes get."""

    IPTABLES = "iptables"
    NFTABLES = "nftables"


class Loader(StrEnum):
    """Who brings the rules of the iptables mode into a node; those of the nftables mode are always libnftables'."""

    LIBNFTABLES = "libnftables"
    IPTABLES_RESTORE = "iptables-restore"


class DropInvalid(StrEnum):
    """On which nodes INVALID packets are dropped, first of all in the forward hook.

    UNLESS_LIBERAL is kube-proxy since v1.29: where the node's BE_LIBERAL is 0.
    """

    NEVER = "never"
    ALWAYS = "always"
    UNLESS_LIBERAL = "unless-liberal"


class LinkAttributes(NamedTuple):
    """Attributes of one interface as rtnetlink has them; None leaves the kernel's default.

    mtu, txqlen and the `*_max_*` sizes are in bytes or packets as `ip link` has them; mac is "02:00:00:00:00:01",
    alias a note on the interface (at most 255 bytes), group the number that `ip link … group` selects by.
    """

    mtu: int | None = None
    mac: str | None = None
    txqlen: int | None = None
    gso_max_segs: int | None = None
    gso_max_size: int | None = None
    gro_max_size: int | None = None
    num_tx_queues: int = 1
    num_rx_queues: int = 1
    alias: str | None = None
    group: int | None = None


class Qdisc(NamedTuple):
    """A root queueing discipline: `tc qdisc add dev IFNAME root KIND PARAMETERS`.

    parameters are tc's own words, in order, as (word, value) pairs: (("rate", "1mbit"), ("burst", "16kb")).
    For htb one default class is made with the given rate (and ceil).
    """

    kind: str
    parameters: tuple[tuple[str, str], ...]


class Interface(NamedTuple):
    """One interface in one namespace, of any kind, or `lo`.

    master is the ifname of the bridge in the same namespace that this interface is a port of. Without prefix_route the
    kernel makes no route to the addresses' subnets (`ip addr add … noprefixroute`).
    """

    netns: str
    ifname: str
    addresses: tuple[InterfaceAddress, ...] = ()
    attributes: LinkAttributes = LinkAttributes()
    qdisc: Qdisc | None = None
    master: str | None = None
    up: bool = True
    prefix_route: bool = True


class Attribute(NamedTuple):
    """A netlink attribute: its name in the kernel's headers, and its number."""

    name: str
    number: int


LinkData: TypeAlias = tuple[tuple[Attribute, int | bytes | Interface], ...]
"""What a kind of link is asked for beside the attributes that all have (IFLA_INFO_DATA): an int is a u32, an Interface
the other end, which is made with this one in its own namespace."""


class Link(typing.Protocol):
    """What is made in one go: a bridge, a veth pair. Each kind is a file in `links/`; this is what all of them answer.

    It stands here, below them, because a Topology holds links, and links are made of interfaces.
    """

    @property
    def kind(self) -> str:
        """The kernel's word for it (IFLA_INFO_KIND)."""

    def interfaces(self) -> tuple[Interface, ...]:
        """The interfaces that it is; the first is made where the request is sent, others are its peers."""

    def with_interfaces(self, *interfaces: Interface) -> Link:
        """The same link of these interfaces."""

    def describe(self) -> str:
        """The step that makes it, in a line."""

    def twin(self, prefix: str) -> str:
        """The command that makes it; prefix is what stands before the names of namespaces."""

    @property
    def queues(self) -> bool:
        """Whether it is told the numbers of its queues even where that is 1: a veth has one for each CPU by itself."""

    @property
    def mtu_follows_ports(self) -> bool:
        """Whether the MTU that it is made with gives way to that of its ports; one that is set later stays."""

    def data(self) -> LinkData:
        """What it is made with that only this kind has."""

    def fits(self, data: Mapping[str, int], was: Link | None) -> bool:
        """Whether a link of this kind with this data, by the names of its attributes, needs no new one in its place.

        was is what an earlier topology asked for there: what neither says, somebody else may have set."""

    def note(self, interface: Interface) -> str:
        """What one of its interfaces is, for a picture: `bridge`, `to client`."""


class Route(NamedTuple):
    """One route. kind is rtnetlink's type name: unicast, blackhole, unreachable or prohibit."""

    dst: Network
    via: Address | None = None
    dev: str | None = None
    src: Address | None = None
    metric: int | None = None
    kind: str = "unicast"


class Readiness(NamedTuple):
    """When a program counts as started. Exactly one of the three is set; None and None and None means at once.

    listening is a TCP port that something in the namespace listens on; output is a regular expression looked for in
    the program's own output; command is an argv that exits with 0 in the namespace.
    """

    listening: int | None = None
    output: str | None = None
    command: tuple[str, ...] | None = None
    timeout_s: float = 10.0


_CAPABILITIES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES = tuple(_CAPABILITIES.split())
"""The kernel's capabilities in the order of their numbers (include/uapi/linux/capability.h)."""


class Program(NamedTuple):
    """A program started in a namespace once the lab is up. name is unique in its namespace; it names the log file.

    capabilities are those beside the ones that every program has. listen are the TCP ports that it gets sockets for.
    """

    name: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    ready: Readiness = Readiness()
    capabilities: tuple[str, ...] = ()
    listen: tuple[int, ...] = ()


class NftTable(NamedTuple):
    """An nftables table: body is what stands between its braces, as nft reads it. family is nft's: "inet", "bridge"."""

    family: str
    name: str
    body: str


class Netns(NamedTuple):
    """A network namespace. loopback are addresses on `lo` beside 127.0.0.1 and ::1; sysctls keep the YAML's order.

    sysctls_if_there are those that a kernel without the feature lacks, and needs no value for. tables are those beside
    kube-proxy's.
    """

    name: str
    role: Role
    node: str | None = None
    loopback: tuple[InterfaceAddress, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    sysctls_if_there: tuple[tuple[str, str], ...] = ()
    routes: tuple[Route, ...] = ()
    programs: tuple[Program, ...] = ()
    tables: tuple[NftTable, ...] = ()


class ServicePort(NamedTuple):
    """One port of a Service. name is kube-proxy's port name, empty for an unnamed port.

    node_port is the port of every address of a node at which the Service is reached too; None: at no such port.
    """

    port: int
    target_port: int
    protocol: Protocol = Protocol.TCP
    name: str = ""
    node_port: int | None = None


class Endpoint(NamedTuple):
    """A Service's backend: a pod by name and the addresses it has (at most one of each family).

    node is the node that the pod is on (a node that serves is on itself); None where it is on none.
    """

    netns: str
    addresses: tuple[Address, ...]
    node: str | None = None


class Service(NamedTuple):
    """A kube-proxy Service: at most one cluster IP of each family, any number of ports and endpoints.

    external_ips and load_balancer_ips are addresses beside the cluster IPs, of families that it has a cluster IP of;
    the latter are open to load_balancer_source_ranges only, where there are any of the family. session_affinity_s is
    how long, in seconds, a client that comes back is sent to the same endpoint; None: never. The policies are those of
    traffic to the cluster IPs, and to everything else: node ports, external and load-balancer IPs.
    """

    name: str
    cluster_ips: tuple[Address, ...]
    ports: tuple[ServicePort, ...]
    endpoints: tuple[Endpoint, ...]
    namespace: str = "default"
    external_ips: tuple[Address, ...] = ()
    load_balancer_ips: tuple[Address, ...] = ()
    load_balancer_source_ranges: tuple[Network, ...] = ()
    session_affinity_s: int | None = None
    internal_traffic_policy: TrafficPolicy = TrafficPolicy.CLUSTER
    external_traffic_policy: TrafficPolicy = TrafficPolicy.CLUSTER


class KubeProxy(NamedTuple):
    """How the nodes' NAT rules are laid out. nodes are the namespaces that get them.

    cluster_cidrs are the pods' own networks: traffic to a cluster IP from elsewhere is masqueraded. drop_invalid puts
    the `ct state invalid drop` rule first into KUBE-FORWARD, as kube-proxy v1.15 to v1.28 does, or into filter-forward
    of the nftables mode, where kube-proxy has none. service_cidrs are the ranges that cluster IPs are given from: the
    nftables mode drops what is sent to those of them that no Service has.
    """

    nodes: tuple[str, ...] = ()
    cluster_cidrs: tuple[Network, ...] = ()
    drop_invalid: DropInvalid = DropInvalid.NEVER
    mode: Mode = Mode.IPTABLES
    load_with: Loader = Loader.LIBNFTABLES
    service_cidrs: tuple[Network, ...] = ()


class UserFix(NamedTuple):
    """A fix that the topology's file defines; what it sets is put into the file before this model is made of it.

    cost and command are for who has the trouble elsewhere, as a `Remedy` has them; they may be empty.
    """

    name: str
    summary: str
    cost: str = ""
    command: str = ""


class Topology(NamedTuple):
    """A whole lab. Tuples keep the YAML's order; links come kind by kind, in the order in which they are made."""

    name: str
    namespaces: tuple[Netns, ...]
    links: tuple[Link, ...] = ()
    services: tuple[Service, ...] = ()
    kube_proxy: KubeProxy = KubeProxy()
    description: str = ""
    fixes: tuple[UserFix, ...] = ()

    def netns(self, name: str) -> Netns:
        """The namespace of that name; KeyError if there is none."""
        for netns in self.namespaces:
            if netns.name == name:
                return netns
        raise KeyError(name)

    def service(self, name: str) -> Service:
        """The Service of that name; KeyError if there is none."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)

    def drops_invalid(self, node: str) -> bool:
        """Whether this node drops INVALID packets; KeyError if there is no such namespace."""
        asked = self.kube_proxy.drop_invalid
        if asked is DropInvalid.UNLESS_LIBERAL:
            return dict(self.netns(node).sysctls).get(BE_LIBERAL, "0") == "0"
        return asked is DropInvalid.ALWAYS

    def primary_addresses(self) -> dict[tuple[str, int], Address]:
        """The address of each family, as (netns, IP version), that a namespace goes by: its name's in the lab's
        /etc/hosts, and a node's own in Kubernetes' sense.

        Of a node it is none of those at which only its pods are, unless there is no other.
        """
        node = {netns.name: netns.node for netns in self.namespaces}
        ends = [*self.pairs(), *((b, a) for a, b in self.pairs())]
        to_pods = {(a.netns, a.master or a.ifname) for a, b in ends if node[b.netns] == a.netns}
        found: dict[tuple[str, int], Address] = {}
        for netns in self.namespaces:
            for address in netns.loopback:
                found.setdefault((netns.name, address.version), address.ip)
        for last in (False, True):
            for interface in self.interfaces():
                if ((interface.netns, interface.ifname) in to_pods) is last:
                    for address in interface.addresses:
                        if not is_per_link(address.ip):
                            found.setdefault((interface.netns, address.version), address.ip)
        return found

    def interfaces(self) -> Iterator[Interface]:
        """Every interface but `lo`, link by link."""
        for link in self.links:
            yield from link.interfaces()

    def pairs(self) -> list[tuple[Interface, Interface]]:
        """The two ends of each link that has two."""
        return pairs(self.links)


def is_per_link(address: Address) -> bool:
    """Whether an address means something on one link only: IPv6's link-local ones (RFC 4291, 2.5.6), which are in no
    hosts file, get no routes, and may be on several interfaces of a namespace."""
    return address.version == 6 and address.is_link_local


def pairs(links: Iterable[Link]) -> list[tuple[Interface, Interface]]:
    """The two ends of each link that has two."""
    ends = (link.interfaces() for link in links)
    return [(each[0], each[1]) for each in ends if len(each) == 2]
