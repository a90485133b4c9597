"""A kernel on paper: it carries a plan's steps out on dictionaries, and refuses what the kernel would refuse.

For tests of the difference. `look` gives what `reader.read` would.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from netlab.kubeproxy import Family, Ruleset, loaded_by
from netlab.lab.rule_steps import (
    ClearRules,
    CoverRules,
    DeleteEntries,
    DeleteRules,
    DeleteStaleEntries,
    DeleteTable,
    LoadRules,
    LoadTable,
    RestoreRules,
    UncoverRules,
)
from netlab.lab.status import Compared, LinkKey, LinkStatus, Status
from netlab.lab.steps import (
    AddAddress,
    AddQdisc,
    AddRoute,
    CreateLink,
    CreateNetns,
    DeleteAddress,
    DeleteLink,
    DeleteNetns,
    DeleteQdisc,
    DeleteRoute,
    ForgetNeighbours,
    ResetSysctl,
    SetLink,
    SetSysctl,
    SetUp,
    StartProgram,
    Step,
    StopProgram,
    WriteHosts,
)
from netlab.links import KINDS
from netlab.model import Interface, InterfaceAddress, LinkAttributes, Loader, Qdisc, Route, Topology

CARRIERS = [kind.name for kind in KINDS if kind.carries_ports]
DEFAULT = "the kernel's default"
NEW_LINK = LinkAttributes(
    mtu=1500, txqlen=1000, gso_max_segs=65535, gso_max_size=65536, gro_max_size=65536, num_tx_queues=1, num_rx_queues=1
)


@dataclass
class Simulated:
    """What there is, in the words of `Status`; sysctls that nobody has set are left out.

    rules are a namespace's tables, by (family, name).
    """

    links: dict[LinkKey, LinkStatus] = field(default_factory=dict)
    addresses: dict[LinkKey, set[InterfaceAddress]] = field(default_factory=dict)
    unrouted: set[tuple[str, str, InterfaceAddress]] = field(default_factory=set)
    routes: dict[str, set[Route]] = field(default_factory=dict)
    sysctls: dict[tuple[str, str], str] = field(default_factory=dict)
    rules: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)
    iptables: dict[tuple[str, Family], str] = field(default_factory=dict)
    tables: dict[tuple[str, str, str], str] = field(default_factory=dict)
    qdiscs: dict[LinkKey, str] = field(default_factory=dict)
    hosts: str = ""
    programs: set[tuple[str, str]] = field(default_factory=set)
    peers: dict[LinkKey, LinkKey] = field(default_factory=dict)

    def apply(self, steps: Iterable[Step]) -> None:
        """Carry the steps out; AssertionError where the kernel would say no."""
        for step in steps:
            self._apply(step)

    def _apply(self, step: Step) -> None:
        match step:
            case CreateNetns(netns):
                assert netns not in self.routes, f"{netns}: File exists"
                self.routes[netns] = set()
                self.links[netns, "lo"] = LinkStatus(1, "", False, None, LinkAttributes(mtu=65536), None, {})
            case CreateLink(made):
                first, *peers = made.interfaces()
                indexes = [self._next_index(end.netns) for end in (first, *peers)]
                data = {attribute.name: _number(value) for attribute, value in made.data()}
                self._new_link(first, made.kind, data, indexes[-1] if peers else None)
                for peer in peers:
                    self._new_link(peer._replace(master=None), made.kind, {}, indexes[0])
                    self.peers[first.netns, first.ifname] = (peer.netns, peer.ifname)
                    self.peers[peer.netns, peer.ifname] = (first.netns, first.ifname)
            case SetLink(interface, keeps_master):
                key = (interface.netns, interface.ifname)
                self._check_master(interface)
                link = self.links[key]
                self.links[key] = link._replace(
                    master=link.master if keeps_master else interface.master,
                    attributes=_over(link.attributes, interface.attributes),
                )
            case SetUp(netns, ifname, up, _):
                self.links[netns, ifname] = self.links[netns, ifname]._replace(up=up)
                if not up:
                    self.down((netns, ifname))
            case AddAddress(netns, ifname, address, prefix_route):
                assert (netns, ifname) in self.links, f"{step.describe()}: No such device"
                there = self.addresses.setdefault((netns, ifname), set())
                assert address not in there, f"{step.describe()}: File exists"
                there.add(address)
                if not prefix_route:
                    self.unrouted.add((netns, ifname, address))
            case DeleteAddress(netns, ifname, address):
                self.unrouted.discard((netns, ifname, address))
                self.addresses[netns, ifname].remove(address)
                self.routes[netns] = {
                    route if route.src != address.ip else route._replace(src=None)
                    for route in self.routes[netns]
                    if route.src != address.ip or address.version == 6
                }
                if not any(left.version == 4 for left in self.addresses[netns, ifname]):
                    self.routes[netns] = {r for r in self.routes[netns] if r.dev != ifname or r.dst.version == 6}
            case AddRoute(netns, route):
                self._add_route(netns, route)
            case DeleteRoute(netns, route):
                self.routes[netns].remove(route)
            case SetSysctl(netns, key, value):
                self._check_sysctl(netns, key)
                self.sysctls[netns, key] = " ".join(value.split())
            case ResetSysctl(netns, key):
                self._check_sysctl(netns, key)
                self.sysctls.pop((netns, key), None)
            case AddQdisc(netns, ifname, qdisc):
                assert (netns, ifname) in self.links, f"{step.describe()}: No such device"
                assert (netns, ifname) not in self.qdiscs, f"{step.describe()}: can't be changed"
                self.qdiscs[netns, ifname] = told(qdisc)
            case DeleteQdisc(netns, ifname):
                del self.qdiscs[netns, ifname]
            case LoadRules(netns, rules, over):
                tables = self.rules.setdefault(netns, {})
                for name in step.gone:
                    tables.pop(name, None)
                for name, table in zip(rules.names, rules.tables, strict=True):
                    assert over or name not in tables, f"{step.describe()}: File exists"
                    tables[name] = str(table)
            case ForgetNeighbours(_, namespaces):
                assert set(namespaces) <= set(self.routes)
            case CoverRules(netns) | UncoverRules(netns) | DeleteStaleEntries(netns) | DeleteEntries(netns):
                assert netns in self.routes
            case DeleteRules(netns):
                for name in step.tables:
                    self.rules.get(netns, {}).pop(name, None)
            case RestoreRules(netns, family, text):
                ours = (family, "filter"), (family, "nat")
                nfts = next((name for name in self.rules.get(netns, {}) if name in ours), None)
                assert nfts is None, f"{step.describe()}: Table is incompatible, use 'nft' tool"
                self.iptables[netns, family] = text
            case ClearRules(netns, family):
                del self.iptables[netns, family]
            case LoadTable(netns, table, over):
                place = (netns, table.family, table.name)
                assert netns in self.routes
                assert over or place not in self.tables, f"{step.describe()}: File exists"
                self.tables[place] = table.body
            case DeleteTable(netns, family, name):
                del self.tables[netns, family, name]
            case WriteHosts(text, _):
                self.hosts = text
            case StartProgram(netns, program):
                assert (netns, program.name) not in self.programs, f"{step.describe()}: runs already"
                self.programs.add((netns, program.name))
            case StopProgram(netns, name):
                self.programs.discard((netns, name))
            case DeleteLink(netns, ifname):
                self.delete_link((netns, ifname))
            case DeleteNetns(netns):
                for key in [key for key in self.links if key[0] == netns]:
                    if key in self.links:
                        self.delete_link(key)
                del self.routes[netns]
                self.rules.pop(netns, None)
                self.iptables = {key: text for key, text in self.iptables.items() if key[0] != netns}
                self.tables = {key: body for key, body in self.tables.items() if key[0] != netns}
                self.sysctls = {key: value for key, value in self.sysctls.items() if key[0] != netns}
                self.programs = {key for key in self.programs if key[0] != netns}

    def _new_link(
        self,
        interface: Interface,
        kind: str,
        data: dict[str, int],
        peer_index: int | None = None,
    ) -> None:
        key = (interface.netns, interface.ifname)
        assert interface.netns in self.routes, f"{interface.netns}: no such namespace"
        assert key not in self.links, f"{key}: File exists"
        self._check_master(interface)
        attributes = _over(NEW_LINK, interface.attributes)
        index = self._next_index(interface.netns)
        self.links[key] = LinkStatus(index, kind, False, interface.master, attributes, peer_index, data)

    def _next_index(self, netns: str) -> int:
        """Counted in each namespace by itself, as kernel.py does: two veths may look alike by their ends' indexes."""
        return max((link.ifindex for key, link in self.links.items() if key[0] == netns), default=1) + 1

    def _check_master(self, interface: Interface) -> None:
        if interface.master is not None:
            master = self.links.get((interface.netns, interface.master))
            assert master is not None, f"{interface.netns}: there is no bridge {interface.master}"
            assert master.kind in CARRIERS

    def _check_sysctl(self, netns: str, key: str) -> None:
        if key.startswith(("net.ipv4.conf.", "net.ipv6.conf.")):
            ifname = key.split(".")[3]
            assert ifname in ("all", "default") or (netns, ifname) in self.links, f"{netns}: no {key}"

    def _add_route(self, netns: str, route: Route) -> None:
        for there in self.routes[netns]:
            taken = (there.dst, there.metric) == (route.dst, route.metric)
            assert not taken, f"{netns}: route {route}: File exists"
        if route.kind == "unicast":
            route = route._replace(dev=route.dev or self._on_link(netns, route))
            link = self.links.get((netns, str(route.dev)))
            assert link is not None, f"{netns}: route {route}: No such device"
            assert link.up, f"{netns}: route {route}: Network is down"
        self.routes[netns].add(route)

    def _on_link(self, netns: str, route: Route) -> str:
        for (where, ifname), addresses in self.addresses.items():
            if where == netns and any(route.via in address.network for address in addresses):
                return ifname
        raise AssertionError(f"{netns}: route {route}: Network is unreachable")

    def down(self, key: LinkKey) -> None:
        """The kernel takes a downed interface's routes, and its IPv6 addresses."""
        netns, ifname = key
        self.routes[netns] = {route for route in self.routes[netns] if route.dev != ifname}
        self.addresses[key] = {address for address in self.addresses.get(key, set()) if address.version == 4}
        self.unrouted = {it for it in self.unrouted if it[:2] != key or it[2].version == 4}

    def delete_link(self, key: LinkKey) -> None:
        for dead in [key] if key not in self.peers else [key, self.peers.pop(key)]:
            self.peers.pop(dead, None)
            netns, ifname = dead
            self.down(dead)
            self.addresses.pop(dead, None)
            self.unrouted = {it for it in self.unrouted if it[:2] != dead}
            self.qdiscs.pop(dead, None)
            del self.links[dead]
            for other, link in self.links.items():
                if other[0] == netns and link.master == ifname:
                    self.links[other] = link._replace(master=None)
            self.sysctls = {
                name: value
                for name, value in self.sysctls.items()
                if not (name[0] == netns and f".conf.{ifname}." in name[1])
            }

    def look(self, *topologies: Topology) -> Status:
        """All that any topology speaks of; the last one is what is wanted."""
        return Status(
            namespaces=frozenset(self.routes),
            links=dict(self.links),
            addresses={key: frozenset(found) for key, found in self.addresses.items() if found},
            unrouted=set(self.unrouted),
            routes={netns: frozenset(found) for netns, found in self.routes.items()},
            sysctls=dict(self._sysctls(*topologies)),
            former={},
            standing={},
            covered=set(),
            routes_by_dst={},
            rules=dict(self._rules(*topologies)),
            iptables=dict(self._iptables(*topologies)),
            tables=dict(self._tables(*topologies)),
            qdiscs=dict(self._qdiscs(topologies[-1])),
            hosts=self.hosts,
            programs=frozenset(self.programs),
        )

    def _sysctls(self, *topologies: Topology) -> Iterator[tuple[tuple[str, str], str]]:
        for topology in topologies:
            for netns in topology.namespaces:
                for key, _ in (*netns.sysctls, *netns.sysctls_if_there) if netns.name in self.routes else ():
                    parts = key.split(".")
                    gone = parts[2] == "conf" and parts[3] not in ("all", "default")
                    if not gone or (netns.name, parts[3]) in self.links:
                        yield (netns.name, key), self.sysctls.get((netns.name, key), DEFAULT)

    def _rules(self, *topologies: Topology) -> Iterator[tuple[str, Compared]]:
        for netns in self.routes:
            *had, wanted = (_loaded_by(Loader.LIBNFTABLES, topology, netns) for topology in topologies)
            names = {name for rules in (*had, wanted) if rules is not None for name in rules.names}
            if names:
                there = {name: text for name, text in self.rules.get(netns, {}).items() if name in names}
                wants = None if wanted is None else dict(zip(wanted.names, map(str, wanted.tables), strict=True))
                yield netns, Compared(_told(there), None if wants is None else _told(wants))

    def _iptables(self, *topologies: Topology) -> Iterator[tuple[tuple[str, Family], Compared]]:
        for netns in self.routes:
            *had, wanted = (_loaded_by(Loader.IPTABLES_RESTORE, topology, netns) for topology in topologies)
            for family in dict.fromkeys(family for rules in (*had, wanted) if rules for family in rules.families):
                wants = wanted.iptables_restore(family) if wanted else ""
                yield (netns, family), Compared(self.iptables.get((netns, family)), wants or None)

    def _tables(self, *topologies: Topology) -> Iterator[tuple[tuple[str, str, str], Compared]]:
        *had, wanted = (
            {(n.name, table.family, table.name): table.body for n in topology.namespaces for table in n.tables}
            for topology in topologies
        )
        for key in dict.fromkeys(key for tables in (*had, wanted) for key in tables):
            if key[0] in self.routes:
                yield key, Compared(self.tables.get(key), wanted.get(key))

    def _qdiscs(self, new: Topology) -> Iterator[tuple[LinkKey, Compared]]:
        wants = {(i.netns, i.ifname): told(i.qdisc) for i in new.interfaces() if i.qdisc is not None}
        for key in {**self.qdiscs, **wants}:
            yield key, Compared(self.qdiscs.get(key), wants.get(key))


def _loaded_by(loader: Loader, topology: Topology, netns: str) -> Ruleset | None:
    return loaded_by(loader, topology, netns) if any(n.name == netns for n in topology.namespaces) else None


def _told(tables: dict[tuple[str, str], str]) -> str:
    return "".join(text for _, text in sorted(tables.items()))


def told(qdisc: Qdisc) -> str:
    """What the kernel tells of a qdisc."""
    return f"{qdisc.kind} {qdisc.parameters}"


def _number(value: int | bytes | Interface) -> int:
    return value if isinstance(value, int) else int.from_bytes(value, "little") if isinstance(value, bytes) else 0


def _over(has: LinkAttributes, wanted: LinkAttributes) -> LinkAttributes:
    return has._replace(**{name: value for name, value in wanted._asdict().items() if value is not None})
