"""What the keys of a topology mean together: references, defaults and derived values, from Items to a Topology.

Each function makes one part of the model and notes every problem it sees; a part with problems comes out
incomplete, and `load` throws the whole away. Interfaces and addresses are `wiring.py`'s, derived routes are
`routing.py`'s and what they make of the rest `derived.py`'s, Services `services.py`'s.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network

from yaml.nodes import MappingNode, SequenceNode

from netlab.links import KINDS
from netlab.model import (
    Address,
    Interface,
    InterfaceAddress,
    Netns,
    Network,
    NftTable,
    Program,
    Readiness,
    Role,
    Route,
    Topology,
    UserFix,
    is_per_link,
    pairs,
)
from netlab.topology import routing, sysctls, words
from netlab.topology.addresses import Networks
from netlab.topology.derived import (
    detoured,
    hairpins_of,
    open_at_localhost,
    own_routes_first,
    with_defaults,
    with_routes,
    without_prefix_routes,
    without_redirects,
)
from netlab.topology.language import TOPOLOGY
from netlab.topology.routing import Detour
from netlab.topology.sections import Sections
from netlab.topology.services import Services, kube_proxy_of, pod_masquerade
from netlab.topology.wiring import Wiring, wire
from netlab.yamlspec.document import Item, Reader, suggest
from netlab.yamlspec.limits import MAX_PROBLEMS
from netlab.yamlspec.shapes import InvalidError


def topology(reader: Reader, root: Item, name: str) -> Topology:
    """The whole lab; what is wrong with it goes to the reader."""
    lab = _Lab(reader, root)
    wiring = lab.wire()
    namespaces = lab.namespaces(wiring)
    wiring, namespaces = own_routes_first(wiring, namespaces)
    declared = Services(lab, wiring, namespaces)
    services = declared.all()
    kube_proxy = kube_proxy_of(lab, wiring, declared.ranges())
    translating = frozenset(kube_proxy.nodes)
    lab.size.rules(services, kube_proxy.nodes)
    if root.get("routing", "auto") == "auto":
        namespaces = with_routes(namespaces, routing.derive(namespaces, wiring.segments, lab.size.routes))
        nodes = [netns for netns in namespaces if netns.name in translating]
        virtual_ips = dict.fromkeys(
            address for each in services for address in (*each.cluster_ips, *each.external_ips, *each.load_balancer_ips)
        )
        to_services = routing.to_virtual_ips(nodes, wiring.segments, list(virtual_ips), lab.size.routes)
        detours = routing.through_nodes(namespaces, wiring.segments, translating)
        wiring = without_prefix_routes(wiring, {(detour.netns, detour.ifname) for detour in detours})
        of: dict[str, list[Detour]] = {netns.name: [] for netns in namespaces}
        for detour in detours:
            of[detour.netns].append(detour)
            of[detour.node].append(detour)
        hairpins = hairpins_of(wiring, services, kube_proxy)
        namespaces = [
            detoured(netns, of[netns.name], netns.name in hairpins) for netns in with_routes(namespaces, to_services)
        ]
        namespaces = [without_redirects(netns, to_services, of[netns.name]) for netns in namespaces]
    extra = pod_masquerade(lab, kube_proxy)
    localhost = open_at_localhost(services, kube_proxy)
    for index, netns in enumerate(namespaces):
        if netns.name in translating:
            given = {key for key, _ in netns.sysctls}
            sysctls = (*netns.sysctls, *((key, value) for key, value in localhost if key not in given))
            namespaces[index] = netns._replace(sysctls=sysctls, tables=(*netns.tables, *extra))
    ifnames: dict[str, list[str]] = {netns.name: [] for netns in namespaces}
    for interface in wiring.interfaces():
        ifnames[interface.netns].append(interface.ifname)
    namespaces = [with_defaults(netns, ifnames[netns.name]) for netns in namespaces]
    _warn_of_lonely(reader, wiring, namespaces)
    return Topology(
        name=name,
        namespaces=tuple(namespaces),
        links=wiring.links,
        services=tuple(services),
        kube_proxy=kube_proxy,
        description=root.get("description", ""),
        fixes=tuple(
            UserFix(name, *(item.get(key, "") for key in ("summary", "cost", "command")))
            for name, item in root.get("fixes", {}).items()
        ),
    )


def _warn_of_lonely(reader: Reader, wiring: Wiring, namespaces: Iterable[Netns]) -> None:
    """Warn of an address that is its whole subnet where no route leads from it to the others on its link."""
    routes = {netns.name: [route.dst for route in netns.routes] for netns in namespaces}
    warned = 0
    for segment in wiring.segments:
        there = _Apart(segment)
        for interface in segment:
            for address in interface.addresses:
                if address.network.prefixlen < address.max_prefixlen:
                    continue
                networks = [*(a.network for a in interface.addresses), *routes[interface.netns]]
                first = there.first(interface.netns, address.version, networks)
                if first is not None:
                    item = wiring.items[interface.netns, interface.ifname]
                    place = item.value.get("addresses", item)
                    message = f"{interface.netns} has no route from {address} to {first} at the other end"
                    hint = f"a route: {{to: {first}, dev: {interface.ifname}}}, or a subnet that both are in"
                    reader.warn(place.node, place.path, message, hint)
                    warned += 1
                    if warned == MAX_PROBLEMS:
                        return


class _Apart:
    """The addresses on one segment, in order of their numbers too: to look up which of them no network has."""

    def __init__(self, segment: Sequence[Interface]) -> None:
        self._all = {
            version: sorted(
                (int(address.ip), place, interface.netns, address.ip)
                for place, interface in enumerate(segment)
                for address in interface.addresses
                if address.version == version
            )
            for version in (4, 6)
        }

    def first(self, netns: str, version: int, networks: Iterable[Network]) -> Address | None:
        """The first address of another namespace, as the segment has them, that is in none of the networks."""
        known = self._all[version]
        spans = sorted(
            (int(network.network_address), int(network.broadcast_address))
            for network in networks
            if network.version == version
        )
        found: tuple[int, Address] | None = None
        at = 0
        for start, end in [*spans, (1 << 128, 1 << 128)]:
            while at < len(known) and known[at][0] < start:
                _, place, of, address = known[at]
                if of != netns and (found is None or place < found[0]):
                    found = place, address
                at += 1
            at = max(at, bisect_right(known, end, key=lambda each: each[0]))
        return None if found is None else found[1]


class _Lab(Sections):
    """Each part of the model, from the sections of the document."""

    def wire(self) -> Wiring:
        """Bridges and veths, around the addresses that loopbacks and services have."""
        reserved: list[Network] = []
        for item in self.items.values():
            reserved += [ip_network(_ip(address.value)) for address in item.get("loopback", [])]
        for item in self.service_items.values():
            reserved += [ip_network(address.value) for address in item.get("cluster_ip", [])]
        wiring = wire(self.reader, self.root, self.roles, self.pools, reserved, self.ipv6, self.former, self.size)
        if _lost_wiring(self.reader, self.root):
            return wiring._replace(broken=frozenset(self.roles))
        return wiring

    # Namespaces

    def namespaces(self, wiring: Wiring) -> list[Netns]:
        """Every namespace with the routes and sysctls given for it, and a node's forwarding."""
        interfaces: dict[str, list[Interface]] = {name: [] for name in self.items}
        for interface in wiring.interfaces():
            interfaces[interface.netns].append(interface)
        beside = self._nodes_beside(wiring)
        loopbacks = {name: self._loopback(item, interfaces[name]) for name, item in self.items.items()}
        any_ipv6 = any(
            address.version == 6
            for addresses in (
                *(interface.addresses for interface in wiring.interfaces()),
                *loopbacks.values(),
            )
            for address in addresses
        )
        result = []
        for name, item in self.items.items():
            role = self.roles[name]
            broken = name in wiring.broken or ("loopback" in item and item["loopback"].broken)
            result.append(
                Netns(
                    name=name,
                    role=role,
                    node=self._node(item, role, beside[name], broken),
                    loopback=tuple(loopbacks[name]),
                    sysctls=self._sysctls(item, role, any_ipv6, interfaces[name], broken),
                    routes=tuple(self._routes(item, interfaces[name], loopbacks[name], broken)),
                    programs=tuple(self._programs(item)),
                    tables=tuple(self._tables(item)),
                )
            )
        return result

    def _nodes_beside(self, wiring: Wiring) -> dict[str, list[dict[str, None]]]:
        """The nodes that each namespace shares a bridge or link with, in order; those on one bridge know the same."""
        beside: dict[str, list[dict[str, None]]] = {name: [] for name in self.items}
        for segment in wiring.segments:
            nodes = {on.netns: None for on in segment if self.roles[on.netns] is Role.NODE}
            for interface in segment:
                beside[interface.netns].append(nodes)
        # A pod may have no address of its own, and hangs on its bridge's node all the same.
        for a, b in pairs(wiring.links):
            for near, far in ((a, b), (b, a)):
                if self.roles[far.netns] is Role.NODE:
                    beside[near.netns].append({far.netns: None})
        return beside

    def _node(self, item: Item, role: Role, beside: list[dict[str, None]], broken: bool) -> str | None:
        if "node" not in item:
            return next((node for nodes in beside for node in nodes), None) if role is Role.POD else None
        given = item["node"]
        if role is not Role.POD:
            self.reader.at(given, f"a {role} has no node", "only a pod hangs on one: role: pod")
        elif self.known(given):
            node: str = given.value
            if self.roles[node] is not Role.NODE:
                nodes = [name for name, other in self.roles.items() if other is Role.NODE]
                hint = suggest(node, nodes) or f"give {node} role: node"
                self.reader.at(given, f"{node!r} is a {self.roles[node]}, not a node", hint)
            elif not broken and not any(node in nodes for nodes in beside):
                shared = dict.fromkeys(node for nodes in beside for node in nodes)
                hint = (
                    f"they share: {', '.join(shared)}" if shared else f"put it on a bridge of {node}, or link the two"
                )
                self.reader.at(given, f"no bridge or link joins it with {node!r}", hint)
            return node
        return None

    def _loopback(self, item: Item, interfaces: Sequence[Interface]) -> list[InterfaceAddress]:
        owned = {address.ip for interface in interfaces for address in interface.addresses}
        result: list[InterfaceAddress] = []
        for given in item.get("loopback", []):
            address = ip_interface(given.value)
            if address.ip in owned:
                self.reader.at(given, f"the namespace has the address {address.ip} already")
            owned.add(address.ip)
            result.append(address)
        return result

    def _sysctls(
        self, item: Item, role: Role, any_ipv6: bool, interfaces: Sequence[Interface], broken: bool
    ) -> tuple[tuple[str, str], ...]:
        given: dict[str, Item] = item.get("sysctls", {})
        names = dict.fromkeys(("all", "default", "lo", *(interface.ifname for interface in interfaces)))
        for name, value in given.items():
            conf = sysctls.CONF.match(name)
            ifname = conf[1].replace("/", ".") if conf else "all"
            if ifname not in names and not broken:
                self._no_interface(item, value, ifname, names)
        # Before the given ones: writing ip_forward resets others below net.ipv4.conf (ip-sysctl.rst).
        derived: list[tuple[str, str]] = []
        if role is Role.NODE:
            derived.append(("net.ipv4.ip_forward", "1"))
            if any_ipv6:
                derived.append(("net.ipv6.conf.all.forwarding", "1"))
        first = [(name, value) for name, value in derived if name not in given]
        return (*first, *((name, value.value) for name, value in given.items()))

    def _routes(
        self, item: Item, interfaces: Sequence[Interface], loopback: Sequence[InterfaceAddress], broken: bool
    ) -> list[Route]:
        items: list[Item] = item.get("routes", [])
        own = [address for interface in interfaces for address in interface.addresses] + list(loopback)
        own_ips = {address.ip for address in own}
        names = dict.fromkeys(interface.ifname for interface in interfaces)
        direct: list[Network] = [address.network for address in own]
        direct += [
            route["to"].value
            for route in items
            if "dev" in route and "via" not in route and route.get("to") is not None
        ]
        reached = Networks(direct)
        self.size.routes(len(items))
        result = []
        seen: dict[tuple[Network, int | None], int] = {}
        for route in items:
            if "to" not in route:
                continue
            via: Address | None = route.get("via")
            src: Address | None = route.get("src")
            dev: str | None = route.get("dev")
            versions = {address.version for address in (route["to"].value, via, src) if address is not None}
            if len(versions) > 1:
                self.reader.at(route, "the route mixes IPv4 and IPv6", "to, via and src are of one family")
                continue
            dst = route["to"].value or routing.DEFAULTS[versions.pop() if versions else 4]
            kind = route.get("kind", "unicast")
            if kind != "unicast" and (via or dev):
                self.reader.at(route["kind"], f"a {kind} route leads nowhere", "leave out via and dev")
            elif kind == "unicast" and via is None and dev is None:
                self.reader.at(route, "the route has no gateway and no interface", "give it via: or dev:")
            if not broken:
                if dev is not None and dev != "lo" and dev not in names:
                    self._no_interface(item, route["dev"], dev, names)
                if src is not None and src not in own_ips:
                    self.reader.at(route["src"], f"{src} is not an address of the namespace", _list(own))
                if via is not None and dev is None and is_per_link(via):
                    hint = f"dev: {next(iter(names))}" if names else "the namespace has no interface"
                    self.reader.at(
                        route["via"], f"the gateway {via} is link-local: which link it is on is not said", hint
                    )
                elif via is not None and (dev is None or dev in names) and not _on_link(via, dev, reached):
                    hint = f"connected: {_list(direct)}" if direct else "the namespace has no address"
                    self.reader.at(route["via"], f"the gateway {via} is on no connected subnet", hint)
            key = dst, route.get("metric")
            if key in seen:
                self.reader.at(
                    route, f"there is a route to {dst} already", f"see line {seen[key]}, or give it a metric"
                )
            seen[key] = route.line
            result.append(Route(dst, via, dev, src, route.get("metric"), kind))
        return result

    def _no_interface(self, netns: Item, item: Item, ifname: str, names: Iterable[str]) -> None:
        """Tell of an interface that the topology has not: a program of the namespace may make it, and nobody else."""
        message, hint = f"the namespace has no interface {ifname!r}", suggest(ifname, names)
        if not netns.get("programs"):
            self.reader.at(item, message, hint)
        elif hint.startswith("did you mean"):
            self.reader.warn(item.node, item.path, f"{message}, unless a program makes it", hint)

    def _programs(self, item: Item) -> list[Program]:
        result: list[Program] = []
        seen: dict[str, int] = {}
        for program in item.get("programs", []):
            if "name" not in program or "command" not in program:
                continue
            name = program["name"].value
            if name in seen:
                self.reader.at(program["name"], f"there is a program {name!r} already", f"see line {seen[name]}")
            seen[name] = program.line
            env = tuple((key, value.value) for key, value in program.get("env", {}).items())
            ready = Readiness()
            if "ready" in program:
                ready = self._ready(program["ready"])
            capabilities = tuple(item.value for item in program.get("capabilities", []))
            listen = tuple(dict.fromkeys(item.value for item in program.get("listen", [])))
            result.append(Program(name, program["command"].value, env, ready, capabilities, listen))
        return result

    def _tables(self, item: Item) -> Iterator[NftTable]:
        for name, body in item.get("tables", {}).items():
            with suppress(InvalidError):  # the name's problem is noted
                yield NftTable(*words.nft_table(name), body.value)

    def _ready(self, item: Item) -> Readiness:
        conditions = [key for key in ("listening", "output", "command") if key in item]
        if len(conditions) > 1:
            self.reader.at(item, f"two conditions: {' and '.join(conditions)}", "keep one of them")
        elif not conditions and not item.broken:
            self.reader.at(item, "no condition", "one of listening, output, command")
        timeout_s = item.get("timeout_s", Readiness().timeout_s)
        return Readiness(item.get("listening"), item.get("output"), item.get("command"), timeout_s)


def _lost_wiring(reader: Reader, root: Item) -> bool:
    """Whether some link couldn't be read at all: then nobody knows who was meant to be joined to whom."""
    known = [kind.section for kind in KINDS]
    if isinstance(root.node, MappingNode):
        for key, _ in reader.pairs(root.node, ""):
            if key.value not in root and (key.value in known or key.value not in TOPOLOGY.keys):
                return True
    sections = [root[name] for name in known if name in root]
    return any(isinstance(item.node, SequenceNode) and len(item.value) < len(item.node.value) for item in sections)


def _ip(address: Address | InterfaceAddress) -> Address:
    return address.ip if isinstance(address, IPv4Interface | IPv6Interface) else address


def _on_link(via: Address, dev: str | None, direct: Networks) -> bool:
    """Whether a gateway can be reached without another gateway; a link-local one needs to know its interface."""
    if is_per_link(via) and dev is not None:
        return True
    return via in direct


def _list(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values))
