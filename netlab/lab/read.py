"""Reads what the kernel has of a lab, through pyroute2, libnftables and /proc/sys.

For rules and qdiscs, whose texts have many spellings, the kernel is asked twice: what is there, and what an empty
namespace says after being given what the topology wants.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from netlab.errors import LabError, told
from netlab.kubeproxy import Family, Ruleset, loaded_by
from netlab.lab import iptables, programs, qdiscs
from netlab.lab.netns import Namespaces
from netlab.lab.state import LabState
from netlab.lab.status import Compared, LinkKey, LinkStatus, Status
from netlab.lab.steps import LoadTable
from netlab.lab.tables import interfaces_named, pretend
from netlab.linux import nft, rtnl, sysctl, tc
from netlab.model import (
    Address,
    Interface,
    InterfaceAddress,
    LinkAttributes,
    Loader,
    NftTable,
    Qdisc,
    Route,
    Topology,
)

_RT_TABLE_MAIN = 254
_IFA_F_NOPREFIXROUTE = 0x200  # include/uapi/linux/if_addr.h
_RTPROT_KERNEL, _RTPROT_RA = 2, 9
_KINDS = {number: kind for kind, number in rtnl.ROUTE_KINDS.items()}


@contextmanager
def _iproute() -> Iterator[Any]:
    from pyroute2 import IPRoute

    with IPRoute() as ipr:
        yield ipr


def indexes(namespaces: Namespaces, state: LabState) -> dict[LinkKey, int]:
    """The ifindex of every interface in the lab."""
    found = {}
    for name in _there(namespaces, state):
        with namespaces.inside(name), _iproute() as ipr:
            for link in ipr.get_links():
                found[name, link.get_attr("IFLA_IFNAME")] = link["index"]
    return found


def read(namespaces: Namespaces, had: Sequence[Topology], new: Topology, state: LabState, hosts: str) -> Status:
    """All that any of the topologies speaks of, as the kernel has it now; hosts is the text of the lab's hosts file."""
    there = _there(namespaces, state)
    status = Status(
        namespaces=frozenset(there),
        former={(netns, key): value for netns, key, value in state.former},
        hosts=hosts,
        programs=frozenset((p.netns, p.name) for p in state.programs if programs.running(namespaces, p)),
    )
    keys = {name: _sysctl_keys(name, *had, new) for name in there}
    for name in there:
        with namespaces.inside(name), _iproute() as ipr:
            _read_links(name, ipr, status)
            roots = tc.roots(ipr)
            for key in keys[name]:
                with suppress(OSError):  # an interface's sysctl, and the interface is gone
                    status.sysctls[name, key] = sysctl.read(key)
        for (netns, ifname), link in status.links.items():
            if netns == name and (root := roots.get(link.index)):
                status.qdiscs[netns, ifname] = Compared(" ".join(root), None)
    _fold_spellings(namespaces, new, status)
    _compare_rules(namespaces, had, new, status)
    _compare_iptables(namespaces, had, new, status)
    _compare_tables(namespaces, had, new, status)
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


def _there(namespaces: Namespaces, state: LabState) -> list[str]:
    return [name for name, inode in state.namespaces if namespaces.exists(name, inode)]


def _sysctl_keys(name: str, *topologies: Topology) -> set[str]:
    keys: set[str] = set()
    for topology in topologies:
        keys |= {
            key
            for netns in topology.namespaces
            if netns.name == name
            for key, _ in (*netns.sysctls, *netns.sysctls_if_there)
        }
    return keys


def _read_links(netns: str, ipr: Any, status: Status) -> None:
    links = list(ipr.get_links())
    names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in links}
    for link in links:
        status.links[netns, names[link["index"]]] = _link(link, names)
    addresses: dict[LinkKey, set[InterfaceAddress]] = {}
    for message in ipr.get_addr():
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        address = ipaddress.ip_interface(f"{text}/{message['prefixlen']}")
        if not address.ip.is_loopback:
            ifname = names[message["index"]]
            addresses.setdefault((netns, ifname), set()).add(address)
            if (message.get_attr("IFA_FLAGS") or 0) & _IFA_F_NOPREFIXROUTE:
                status.unrouted.add((netns, ifname, address))
    status.addresses.update({key: frozenset(found) for key, found in addresses.items()})
    routes = (_route(message, names) for family in (2, 10) for message in ipr.get_routes(family=family))
    status.routes[netns] = frozenset(route for route in routes if route is not None)


def _link(link: Any, names: dict[int, str]) -> LinkStatus:
    info = link.get_attr("IFLA_LINKINFO")
    kind = (info and info.get_attr("IFLA_INFO_KIND")) or ""
    data = info and info.get_attr("IFLA_INFO_DATA")
    numbers = {name: value for name, value in (data["attrs"] if data else ()) if isinstance(value, int)}
    return LinkStatus(
        index=link["index"],
        kind=kind,
        up=bool(link["flags"] & 1),
        master=names.get(link.get_attr("IFLA_MASTER") or 0),
        peer_index=link.get_attr("IFLA_LINK"),
        data=numbers,
        attributes=LinkAttributes(
            mtu=link.get_attr("IFLA_MTU"),
            mac=link.get_attr("IFLA_ADDRESS"),
            txqlen=link.get_attr("IFLA_TXQLEN"),
            gso_max_segs=link.get_attr("IFLA_GSO_MAX_SEGS"),
            gso_max_size=link.get_attr("IFLA_GSO_MAX_SIZE"),
            gro_max_size=link.get_attr("IFLA_GRO_MAX_SIZE"),
            alias=link.get_attr("IFLA_IFALIAS"),
            group=link.get_attr("IFLA_GROUP"),
            num_tx_queues=link.get_attr("IFLA_NUM_TX_QUEUES"),
            num_rx_queues=link.get_attr("IFLA_NUM_RX_QUEUES"),
        ),
    )


def _route(message: Any, names: dict[int, str]) -> Route | None:
    """A route that someone added to the main table; None for the kernel's own."""
    own = message["proto"] in (_RTPROT_KERNEL, _RTPROT_RA) or message["type"] not in _KINDS
    if message.get_attr("RTA_TABLE", message["table"]) != _RT_TABLE_MAIN or own:
        return None
    default = "0.0.0.0/0" if message["family"] == 2 else "::/0"
    given = message.get_attr("RTA_DST")
    dst = ipaddress.ip_network(f"{given}/{message['dst_len']}" if given else default)
    metric = message.get_attr("RTA_PRIORITY")
    if dst.version == 6 and metric == 1024:  # IP6_RT_PRIO_USER, what the kernel puts where none is given
        metric = None
    return Route(
        dst=dst,
        via=_address(message.get_attr("RTA_GATEWAY")),
        dev=names.get(message.get_attr("RTA_OIF") or 0),
        src=_address(message.get_attr("RTA_PREFSRC")),
        metric=metric,
        kind=_KINDS[message["type"]],
    )


def _address(text: str | None) -> Address | None:
    return None if text is None else ipaddress.ip_address(text)


def _compare_rules(namespaces: Namespaces, had: Sequence[Topology], new: Topology, status: Status) -> None:
    """Compare the tables that are the lab's own; a user's other tables are nobody's business."""
    told: dict[Ruleset, str] = {}
    for name in status.namespaces:
        *before, wanted = (_ruleset(Loader.LIBNFTABLES, topology, name) for topology in (*had, new))
        tables = {name for rules in (*before, wanted) if rules for name in rules.names}
        if not tables:
            continue
        if wanted is not None and wanted not in told:
            with namespaces.scratch():
                told[wanted] = _listed(name, tables, wanted.nft(replace=False))
        has = ""
        # What iptables-restore has made goes before anything else is loaded, and libnftables can't say all of it.
        if not any(_ruleset(Loader.IPTABLES_RESTORE, old, name) for old in had):
            with namespaces.inside(name):
                has = _listed(name, tables)
        status.rules[name] = Compared(has, told[wanted] if wanted else None)


def _listed(netns: str, tables: Iterable[tuple[str, str]], after: str = "") -> str:
    try:
        return nft.list_tables(tables, after)
    except OSError as error:
        raise LabError(f"{netns}: its rules can't be read: {told(error)}") from error


def _compare_iptables(namespaces: Namespaces, had: Sequence[Topology], new: Topology, status: Status) -> None:
    """Compare what iptables-restore loads, in iptables' own words."""
    told: dict[tuple[Family, str], str] = {}
    for name in status.namespaces:
        *before, wanted = (_ruleset(Loader.IPTABLES_RESTORE, topology, name) for topology in (*had, new))
        for family in dict.fromkeys(family for rules in (*before, wanted) if rules for family in rules.families):
            with namespaces.inside(name):
                has = iptables.saved(family, _IPTABLES)
            text = wanted.iptables_restore(family) if wanted else ""
            if text and (family, text) not in told:
                with namespaces.scratch():
                    iptables.restore(family, text)
                    told[family, text] = iptables.saved(family, _IPTABLES)
            status.iptables[name, family] = Compared(has or None, told[family, text] if text else None)


_IPTABLES = ("filter", "nat")


def _ruleset(loader: Loader, topology: Topology, name: str) -> Ruleset | None:
    return loaded_by(loader, topology, name) if any(netns.name == name for netns in topology.namespaces) else None


def _compare_tables(namespaces: Namespaces, had: Sequence[Topology], new: Topology, status: Status) -> None:
    """Compare the tables that any topology has in a namespace; those that the new one lacks, with nothing."""
    told: dict[tuple[NftTable, tuple[str, ...]], str] = {}
    wanted = {(netns, table.family, table.name): (table, named) for netns, table, named in interfaces_named(new)}
    before = [(n.name, table.family, table.name) for old in had for n in old.namespaces for table in n.tables]
    for key in dict.fromkeys((*wanted, *before)):
        netns, table = key[0], key[1:]
        if netns in status.namespaces:
            with namespaces.inside(netns):
                has = _listed(netns, [table]) or None
            wants = wanted.get(key)
            if wants is not None and wants not in told:
                with namespaces.scratch():
                    pretend(wants[1])
                    told[wants] = _listed(netns, [table], LoadTable(netns, wants[0]).commands)
            status.tables[key] = Compared(has, told[wants] if wants else None)


def _compare_qdiscs(namespaces: Namespaces, new: Topology, status: Status) -> None:
    for interface in new.interfaces():
        if interface.qdisc is not None:
            has = status.qdiscs.get((interface.netns, interface.ifname), Compared(None, None)).has
            wants = _told(namespaces, interface, interface.qdisc)
            status.qdiscs[interface.netns, interface.ifname] = Compared(has, wants)


def _told(namespaces: Namespaces, interface: Interface, qdisc: Qdisc) -> str:
    """What the kernel says of a qdisc, asked with a veth in an empty namespace."""
    with namespaces.scratch(), _iproute() as ipr:
        ipr.link("add", ifname="probe", kind="veth", peer={"ifname": "peer"})
        index = ipr.link_lookup(ifname="probe")[0]
        if interface.attributes.mtu is not None:
            ipr.link("set", index=index, mtu=interface.attributes.mtu)
        qdiscs.replace_root(index, qdisc)
        return " ".join(tc.roots(ipr)[index])
