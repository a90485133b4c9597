"""What derived routes make of a lab: namespaces with them, interfaces without the kernel's own that stand in their way,
and the sysctls that go with them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_network

from netlab.model import (
    Interface,
    KubeProxy,
    Mode,
    Netns,
    Route,
    Service,
    pairs,
)
from netlab.topology.routing import Detour
from netlab.topology.wiring import Wiring


def open_at_localhost(services: Sequence[Service], kube_proxy: KubeProxy) -> tuple[tuple[str, str], ...]:
    """The sysctl with which a node port is open at 127.0.0.1 too, as kube-proxy sets it in the iptables mode."""
    ports = (
        port.node_port
        for service in services
        for port in service.ports
        if any(address.version == 4 for address in service.cluster_ips)
    )
    wanted = kube_proxy.mode is Mode.IPTABLES and any(port is not None for port in ports)
    return (("net.ipv4.conf.all.route_localnet", "1"),) if wanted else ()


def with_routes(namespaces: list[Netns], derived: dict[str, list[Route]]) -> list[Netns]:
    return [netns._replace(routes=netns.routes + tuple(derived.get(netns.name, ()))) for netns in namespaces]


def own_routes_first(wiring: Wiring, namespaces: list[Netns]) -> tuple[Wiring, list[Netns]]:
    """Make way for routes of the file's own to a subnet that an interface is in: the kernel has a route there by
    itself, of the same metric (IPv4) or of a smaller one (IPv6).

    The interface's addresses come without it then; a gateway in the subnet, and the interface's other subnets, get a
    route each.
    """
    ends: set[tuple[str, str]] = set()
    made: dict[str, list[Route]] = {}
    given = {netns.name: {route.dst: route for route in netns.routes if not route.metric} for netns in namespaces}
    for interface in wiring.interfaces():
        routes = given[interface.netns]
        networks = dict.fromkeys(a.network for a in interface.addresses if a.network.prefixlen < a.max_prefixlen)
        own = [routes[network] for network in networks if network in routes]
        if own:
            ends.add((interface.netns, interface.ifname))
            gateways = [ip_network(route.via) for route in own if route.via is not None]
            others = [network for network in networks if network not in routes]
            first = made.setdefault(interface.netns, [])
            first += [Route(dst, dev=interface.ifname) for dst in dict.fromkeys((*gateways, *others))]
    changed = [netns._replace(routes=(*made.get(netns.name, ()), *netns.routes)) for netns in namespaces]
    return without_prefix_routes(wiring, ends), changed


def without_prefix_routes(wiring: Wiring, ends: set[tuple[str, str]]) -> Wiring:
    def end(interface: Interface) -> Interface:
        detour = (interface.netns, interface.ifname) in ends
        return interface._replace(prefix_route=False) if detour else interface

    return wiring._replace(links=tuple(link.with_interfaces(*map(end, link.interfaces())) for link in wiring.links))


def hairpins_of(wiring: Wiring, services: Iterable[Service], kube_proxy: KubeProxy) -> set[str]:
    """The nodes with a bridge on which an endpoint may reach itself through a Service."""
    endpoints = {endpoint.netns for service in services for endpoint in service.endpoints}
    ports = (near for near, far in pairs(wiring.links) if near.master is not None and far.netns in endpoints)
    return {near.netns for near in ports} & set(kube_proxy.nodes)


def detoured(netns: Netns, detours: Sequence[Detour], hairpin: bool) -> Netns:
    """A pod with the routes of its own detours; a node with those through it, whose bridges leave frames alone.

    Where br_netfilter is loaded it would hand the node's rules each frame twice: on the bridge, and as a packet. And it
    would translate a frame for its sender on the bridge, which sends nothing back by the port that it came from.
    """
    first = [route for detour in detours if detour.netns == netns.name for route in detour.routes]
    given = {key for key, _ in netns.sysctls}
    bridge = [f"net.bridge.bridge-nf-call-{name}" for name in ("iptables", "ip6tables")]
    through = hairpin or any(detour.node == netns.name for detour in detours)
    quiet = tuple((key, "0") for key in bridge if key not in given) if through else ()
    return netns._replace(routes=(*first, *netns.routes), sysctls_if_there=quiet)


def without_redirects(netns: Netns, to_services: dict[str, list[Route]], detours: Sequence[Detour]) -> Netns:
    """Keep a node from redirecting its pods to a cluster IP "beside" them, or to each other.

    A redirect uses up the client's share of ICMP (both count in its inet_peer's rate_tokens), and the rejection of a
    Service without endpoints is then never sent: IcmpOutRateLimitHost counts it. The interface's sysctl and `all` must
    both be off. IPv6 has no such sysctl on the node: there the pods don't follow.
    """
    given = {key for key, _ in netns.sysctls}
    over = dict.fromkeys(route.dev for route in to_services.get(netns.name, ()) if route.dev and route.dst.version == 4)
    over |= dict.fromkeys(detour.node_ifname for detour in detours if detour.node == netns.name)
    keys = [f"net.ipv4.conf.{_in_key(ifname)}.send_redirects" for ifname in (("all", *over) if over else ())]
    keys += [
        f"net.ipv6.conf.{_in_key(detour.ifname)}.accept_redirects"
        for detour in detours
        if detour.netns == netns.name and any(route.dst.version == 6 for route in detour.routes)
    ]
    return netns._replace(sysctls=(*netns.sysctls, *((key, "0") for key in keys if key not in given)))


def with_defaults(netns: Netns, ifnames: Sequence[str]) -> Netns:
    """What is said of an interface to come, `net.ipv4.conf.default.…`, said of each of the topology's.

    The kernel hands it to those that have no IPv4 address yet (devinet_copy_dflt_conf, net/ipv4/devinet.c), and in IPv6
    to those that come later: what an interface gets would hang on when a lab was changed.
    """
    said = {key for key, _ in netns.sysctls}
    more = []
    for key, value in netns.sysctls:
        before, default, parameter = key.partition(".conf.default.")
        if default and parameter != "mtu":
            loopback = ["lo"] if before == "net.ipv4" else []
            keys = [f"{before}.conf.{_in_key(ifname)}.{parameter}" for ifname in (*loopback, *ifnames)]
            more += [(one, value) for one in keys if one not in said]
    return netns._replace(sysctls=(*netns.sysctls, *more)) if more else netns


def _in_key(ifname: str) -> str:
    """An interface's name as part of a sysctl's key, in which a dot separates (sysctl(8))."""
    return ifname.replace(".", "/")
