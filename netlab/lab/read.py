"""What the kernel has of a lab, as a Status: made of a Reading, and of what libnftables and iptables say.

For rules and qdiscs, whose texts have many spellings, the kernel is asked twice: what is there, and what an empty
namespace says after being given what the topology wants.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address
from typing import NamedTuple

from netlab import advice
from netlab.errors import LabError, told
from netlab.escapes import Lines
from netlab.kubeproxy import Family, Ruleset, iptables_save, loaded_by
from netlab.kubeproxy.iptables_save import own_chains
from netlab.kubeproxy.nft import covers
from netlab.kubeproxy.rules import Table
from netlab.kubeproxy.shared import ObjectName, Owned, declared, ours, ours_of, owned_by
from netlab.lab import iptables, programs, qdiscs
from netlab.lab.diff.there import IP6_RT_PRIO_USER
from netlab.lab.netns import Namespaces
from netlab.lab.reading import Reading, Scope
from netlab.lab.rule_steps import LoadTable
from netlab.lab.state import LabState
from netlab.lab.status import Compared, LinkKey, LinkStatus, Status
from netlab.lab.tables import interfaces_named, pretend
from netlab.links import KINDS
from netlab.linux import nft, rtdump, rtnl, sysctl, tcdump
from netlab.model import (
    InterfaceAddress,
    LinkAttributes,
    Loader,
    NftTable,
    Qdisc,
    Route,
    Topology,
)

_KINDS = {number: kind for kind, number in rtnl.ROUTE_KINDS.items()}
_DATA_NUMBERS = {kind.name: tuple(attribute.number for attribute in kind.compared) for kind in KINDS}
_DATA_NAMES = {(kind.name, attribute.number): attribute.name for kind in KINDS for attribute in kind.compared}


class Known(NamedTuple):
    """The topology whose rules and tables stand, as they were loaded, in namespaces with this number and this count of
    changes: (cookie, generation), where cookie is None for a namespace that this process has made."""

    topology: Topology
    counts: Mapping[str, tuple[int | None, int]]

    def namespaces(self, reading: Reading) -> frozenset[str]:
        """Those of which that is so."""
        return frozenset(
            name
            for name, (cookie, count) in self.counts.items()
            if count == reading.generations.get(name) and cookie in (None, reading.told[name].cookie)
        )


def scope_of(*topologies: Topology) -> Scope:
    """What is to be read for these topologies."""
    keys: dict[str, dict[str, None]] = {}
    rules: dict[str, None] = {}
    for topology in topologies:
        rules |= dict.fromkeys(topology.kube_proxy.nodes)
        for netns in topology.namespaces:
            if netns.sysctls or netns.sysctls_if_there:
                pairs = (*netns.sysctls, *netns.sysctls_if_there)
                keys.setdefault(netns.name, {}).update(dict.fromkeys(key for key, _ in pairs))
            if netns.tables:
                rules[netns.name] = None
    shaped = dict.fromkeys(i.netns for topology in topologies for i in topology.interfaces() if i.qdisc is not None)
    return Scope({name: tuple(found) for name, found in keys.items()}, tuple(shaped), tuple(rules), _DATA_NUMBERS)


def there(namespaces: Namespaces, state: LabState) -> list[str]:
    """The lab's own network namespaces that are there."""
    return [name for name, inode in state.namespaces if namespaces.exists(name, inode)]


def status_of(
    namespaces: Namespaces,
    reading: Reading,
    had: Sequence[Topology],
    new: Topology,
    state: LabState,
    hosts: str,
    known: Known,
    before: tuple[Reading, Status] | None = None,
) -> Status:
    """All that any of the topologies speaks of, as the kernel has it; hosts is the text of the lab's hosts file.

    before is what was made of a reading from just before, of which this one may have taken over some namespaces.
    """
    status = Status(
        namespaces=frozenset(reading.told),
        links={},
        addresses={},
        unrouted=set(),
        routes={},
        sysctls={(name, key): value for name, found in reading.sysctls.items() for key, value in found.items()},
        former={(netns, key): value for netns, key, value in state.former},
        rules={},
        standing={},
        covered=set(),
        iptables={},
        tables={},
        qdiscs={},
        hosts=hosts,
        programs=programs.all_running(namespaces, state),
        routes_by_dst={},
    )
    for name, has in reading.told.items():
        if before is not None and before[0].told.get(name) is has:
            _tell_again(name, has, before[1], status)
        else:
            _tell(name, has, status)
    for (netns, ifname), link in status.links.items():
        if root := reading.qdiscs.get(netns, {}).get(link.ifindex):
            status.qdiscs[netns, ifname] = Compared(root, None)
    _fold_spellings(namespaces, new, status)
    standing = _Standing(known.topology, known.namespaces(reading))
    _compare_rules(namespaces, had, new, status, standing)
    _compare_iptables(namespaces, had, new, status)
    _compare_tables(namespaces, had, new, status, standing)
    _compare_qdiscs(namespaces, new, status)
    return status


def _fold_spellings(namespaces: Namespaces, new: Topology, status: Status) -> None:
    """Tell a value that the kernel has in other words than the topology ("80,81" is "80-81") in the topology's."""
    wanted = {(netns.name, key): value for netns in new.namespaces for key, value in netns.sysctls}
    odd = [
        place
        for place, value in wanted.items()
        if place in status.sysctls and "," in value and status.sysctls[place] != value
    ]
    for place in odd:
        with suppress(OSError), namespaces.scratch():
            sysctl.write(place[1], wanted[place])
            if sysctl.read(place[1]) == status.sysctls[place]:
                status.sysctls[place] = wanted[place]


def _tell(netns: str, has: rtdump.Told, status: Status) -> None:
    """Put what a namespace has into the status."""
    names = {link.ifindex: link.ifname for link in has.links}
    for link in has.links:
        status.links[netns, link.ifname] = _link(link, names)
    addresses: dict[LinkKey, set[InterfaceAddress]] = {}
    for each in has.addresses:
        address = _address(each.address, each.prefixlen)
        if not address.ip.is_loopback:
            ifname = names[each.ifindex]
            addresses.setdefault((netns, ifname), set()).add(address)
            if not each.prefix_route:
                status.unrouted.add((netns, ifname, address))
    status.addresses.update({key: frozenset(found) for key, found in addresses.items()})
    status.routes[netns] = frozenset(
        _route(route._replace(ifindex=None), names.get(route.ifindex or 0))
        for route in has.routes
        if route.kind in _KINDS
    )


def _tell_again(netns: str, has: rtdump.Told, before: Status, status: Status) -> None:
    """The same of what an earlier status was told."""
    for link in has.links:
        key = netns, link.ifname
        status.links[key] = before.links[key]
        if key in before.addresses:
            status.addresses[key] = before.addresses[key]
            status.unrouted.update(before.unrouted.intersection((*key, each) for each in before.addresses[key]))
    status.routes[netns] = before.routes[netns]


def _link(link: rtdump.Link, names: dict[int, str]) -> LinkStatus:
    return LinkStatus(
        ifindex=link.ifindex,
        kind=link.kind,
        up=link.up,
        master=names.get(link.master or 0),
        peer_index=link.link,
        data={_DATA_NAMES[link.kind, number]: value for number, value in link.data},
        attributes=LinkAttributes(
            mtu=link.mtu,
            mac=link.mac,
            txqlen=link.txqlen,
            gso_max_segs=link.gso_max_segs,
            gso_max_size=link.gso_max_size,
            gro_max_size=link.gro_max_size,
            num_tx_queues=link.num_tx_queues or 0,
            num_rx_queues=link.num_rx_queues or 0,
            alias=link.alias,
            group=link.group,
        ),
    )


@lru_cache(maxsize=256)  # every namespace has the one of its loopback
def _address(address: bytes, prefixlen: int) -> InterfaceAddress:
    make = IPv4Interface if len(address) == 4 else IPv6Interface
    return make((address, prefixlen))


@lru_cache(maxsize=256)  # those of a network's members differ in nothing but the number of their interface
def _route(route: rtdump.Route, dev: str | None) -> Route:
    make, metric = IPv4Network if len(route.dst) == 4 else IPv6Network, route.metric
    if make is IPv6Network and metric == IP6_RT_PRIO_USER:  # what the kernel puts where none is given
        metric = None
    return Route(
        dst=make((route.dst, route.prefixlen)),
        via=None if route.via is None else ip_address(route.via),
        dev=dev,
        src=None if route.src is None else ip_address(route.src),
        metric=metric,
        kind=_KINDS[route.kind],
    )


class _Standing(NamedTuple):
    """The topology whose rules and tables surely stand in these namespaces, as they were loaded."""

    topology: Topology
    namespaces: frozenset[str]


class _Scratch:
    """What an empty namespace says once it was given something; of the same, it is asked once."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._told: dict[Hashable, str] = {}

    def told(self, given: Hashable, give: Callable[[], str]) -> str:
        """give is called in such a namespace, with what is given, and returns what it says."""
        if given not in self._told:
            with self._namespaces.scratch():
                self._told[given] = give()
        return self._told[given]


def _compare_rules(
    namespaces: Namespaces, had: Sequence[Topology], new: Topology, status: Status, last: _Standing
) -> None:
    """Compare the tables that are the lab's own; a user's other tables are nobody's business."""
    scratch = _Scratch(namespaces)
    for name in status.namespaces:
        *before, wanted = (loaded_by(Loader.LIBNFTABLES, topology, name) for topology in (*had, new))
        rules = [each for each in (*before, wanted) if each is not None]
        if len(had) > 1 and any(name in topology.kube_proxy.nodes for topology in had):
            with namespaces.inside(name):
                status.covered.update([name] if _listed(name, covers()) else [])
        if not rules:
            continue
        standing = loaded_by(Loader.LIBNFTABLES, last.topology, name) if name in last.namespaces else None
        if standing is not None and {each for one in rules for each in one.names} == set(standing.names):
            status.rules[name] = _as_loaded(standing, wanted)
            status.standing[name] = standing
            continue
        owned = owned_by(table for each in rules for table in each.tables)
        wants = None if wanted is None else scratch.told(wanted, partial(_told_of_rules, name, owned, wanted))
        has = ""
        # What iptables-restore has made goes before anything else is loaded, and libnftables can't say all of it.
        if not any(loaded_by(Loader.IPTABLES_RESTORE, old, name) for old in had):
            with namespaces.inside(name):
                has = ours(_listed(name, owned), owned)
        status.rules[name] = Compared(has, wants)


def _told_of_rules(netns: str, owned: Owned, ruleset: Ruleset) -> str:
    return ours(_listed(netns, owned, ruleset.nft(replace=False)), owned)


def _as_loaded(has: object, wants: object) -> Compared:
    """What was loaded and stands, beside what is wanted: no text of the kernel's is needed where they are the same."""
    return Compared("as loaded", None if wants is None else "as loaded" if has == wants else "")


def _listed(netns: str, tables: Iterable[tuple[str, str]], after: str = "") -> str:
    try:
        return nft.list_tables(tables, after)
    except OSError as error:
        raise LabError(Lines(f"{netns}: its rules can't be read: {told(error)}"), advice.limits(error.errno)) from error


def _compare_iptables(namespaces: Namespaces, had: Sequence[Topology], new: Topology, status: Status) -> None:
    """Compare what iptables-restore loads, in iptables' own words."""
    scratch = _Scratch(namespaces)
    for name in status.namespaces:
        *before, wanted = (loaded_by(Loader.IPTABLES_RESTORE, topology, name) for topology in (*had, new))
        for family in dict.fromkeys(family for rules in (*before, wanted) if rules for family in rules.families):
            own = own_chains(
                (t for rules in (*before, wanted) if rules for t in rules.tables if isinstance(t, Table)), family
            )
            with namespaces.inside(name):
                has = _saved(family, own)
            text = wanted.iptables_restore(family) if wanted else ""
            wants = scratch.told((family, text), partial(_told_of_iptables, family, own, text)) if text else None
            status.iptables[name, family] = Compared(has or None, wants)


def _told_of_iptables(family: Family, own: Mapping[str, Collection[str]], text: str) -> str:
    iptables.restore(family, text)
    return _saved(family, own)


def _saved(family: Family, own: Mapping[str, Collection[str]]) -> str:
    return iptables_save.ours(iptables.saved(family, ("filter", "nat")), own)


def _compare_tables(
    namespaces: Namespaces, had: Sequence[Topology], new: Topology, status: Status, last: _Standing
) -> None:
    """Compare the tables that any topology has in a namespace; those that the new one lacks, with nothing."""
    scratch = _Scratch(namespaces)
    wanted, standing = (
        {(netns, table.family, table.name): (table, named) for netns, table, named in interfaces_named(topology)}
        for topology in (new, last.topology)
    )
    owned: dict[tuple[str, str, str], set[ObjectName]] = {}
    for netns in (netns for topology in (*had, new) for netns in topology.namespaces):
        for table in netns.tables:
            owned.setdefault((netns.name, table.family, table.name), set()).update(declared(table.body))
    for key, own in owned.items():
        name, of = key[0], (key[1], key[2])
        # A rule may know an interface by its index, and is another one once that was made anew.
        if name in last.namespaces and key in standing and not standing[key][1]:
            status.tables[key] = _as_loaded(standing[key], wanted.get(key))
        elif name in status.namespaces:
            with namespaces.inside(name):
                has = _listed(name, [of])
            new_one = wanted.get(key)
            wants = None if new_one is None else scratch.told(new_one, partial(_told_of_table, name, own, *new_one))
            status.tables[key] = Compared(ours_of(has, of, own) if has else None, wants)


def _told_of_table(netns: str, own: Collection[ObjectName], table: NftTable, ifnames: Iterable[str]) -> str:
    pretend(ifnames)
    of = table.family, table.name
    return ours_of(_listed(netns, [of], LoadTable(netns, table).commands), of, own)


def _compare_qdiscs(namespaces: Namespaces, new: Topology, status: Status) -> None:
    scratch = _Scratch(namespaces)
    for interface in new.interfaces():
        if interface.qdisc is not None:
            has = status.qdiscs.get((interface.netns, interface.ifname), Compared(None, None)).has
            given = interface.qdisc, interface.attributes.mtu
            wants = scratch.told(given, partial(_told_of_qdisc, *given))
            status.qdiscs[interface.netns, interface.ifname] = Compared(has, wants)


def _told_of_qdisc(qdisc: Qdisc, mtu: int | None) -> str:
    """What the kernel says of a qdisc, asked with a veth."""
    from pyroute2 import IPRoute

    with IPRoute() as ipr:
        ipr.link("add", ifname="probe", kind="veth", peer={"ifname": "peer"})
        index = ipr.link_lookup(ifname="probe")[0]
        if mtu is not None:
            ipr.link("set", index=index, mtu=mtu)
        qdiscs.replace_root(index, qdisc)
        return " ".join(tcdump.roots()[index])
