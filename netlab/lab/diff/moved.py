"""The addresses that move or go: what neighbours know of them would keep silent who has them next. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_network

from netlab.lab.diff.links import key_of, makes
from netlab.lab.status import LinkKey, Status
from netlab.lab.steps import (
    AddAddress,
    ForgetNeighbours,
    SetLink,
    Step,
)
from netlab.model import (
    Address,
    Network,
    Topology,
    is_per_link,
)


def forget_moved(
    steps: list[Step], had: Sequence[Topology], new: Topology, status: Status, left: Status
) -> ForgetNeighbours | None:
    """The step by which all who may know the addresses that these steps move or remove look them up anew."""
    moved = dict.fromkeys((*_moved(steps, had, new, status, left), *_gone(steps, had, status, left)))
    if not moved:
        return None
    knowing = _on_link([*had, new], status)
    namespaces = {name for address in moved for name in _who_knows(address, knowing)}
    if any(is_per_link(address) for address in moved):
        namespaces |= left.namespaces
    asked = tuple(n.name for n in new.namespaces if n.name in namespaces and n.name in left.namespaces)
    return ForgetNeighbours(tuple(moved), asked) if asked else None


def _moved(
    steps: list[Step], had: Sequence[Topology], new: Topology, status: Status, left: Status
) -> Iterator[Address]:
    """The addresses that were at another interface, or at another MAC address, before these steps."""
    owners: dict[Address, set[LinkKey]] = {}
    before = list(status.addresses.items())
    before += [(key_of(interface), frozenset(interface.addresses)) for old in had for interface in old.interfaces()]
    for key, found in before:
        for address in found:
            owners.setdefault(address.ip, set()).add(key)
    wants = {key_of(interface): interface.attributes.mac for interface in new.interfaces()}
    had_mac = {key_of(interface): interface.attributes.mac for old in had for interface in old.interfaces()}
    had_mac |= {key: link.attributes.mac for key, link in status.links.items()}
    made = {key for step in steps for key in makes(step)}
    made = {key for key in made if wants[key] is None or wants[key] != had_mac.get(key)}
    for step in steps:
        match step:
            case AddAddress(netns, ifname, address):
                owner, key = owners.get(address.ip, set()), (netns, ifname)
                if owner and (key in made or (owner != {key} and not is_per_link(address.ip))):
                    yield address.ip
            case SetLink(interface):
                mac = interface.attributes.mac
                if mac is not None and key_of(interface) in left.links and mac != had_mac[key_of(interface)]:
                    addresses = {*interface.addresses, *left.addresses.get(key_of(interface), ())}
                    yield from sorted({a.ip for a in addresses}, key=_by_number)


def _gone(steps: list[Step], had: Sequence[Topology], status: Status, left: Status) -> Iterator[Address]:
    """The addresses that no interface has after these steps: the next who is given one has another MAC address."""
    stays = {address.ip for found in left.addresses.values() for address in found}
    stays |= {step.address.ip for step in steps if isinstance(step, AddAddress)}
    asked = {address.ip for old in had for interface in old.interfaces() for address in interface.addresses}
    there = {a.ip for found in status.addresses.values() for a in found if not is_per_link(a.ip)}
    yield from sorted((asked | there) - stays, key=_by_number)


def _by_number(address: Address) -> tuple[int, int]:
    return address.version, int(address)


def _on_link(topologies: Sequence[Topology], status: Status) -> dict[Network, set[str]]:
    """The networks that namespaces send to without a gateway, by any of these: only who does has neighbours there."""
    found: dict[Network, set[str]] = {}
    for topology in topologies:
        for interface in topology.interfaces():
            for address in interface.addresses if interface.prefix_route else ():
                found.setdefault(address.network, set()).add(interface.netns)
        for netns in topology.namespaces:
            for route in netns.routes:
                direct = route.dst if route.via is None else ip_network(route.via)
                found.setdefault(direct, set()).add(netns.name)
    for (name, ifname), addresses in status.addresses.items():
        for address in addresses:
            if ifname != "lo" and (name, ifname, address) not in status.unrouted:
                found.setdefault(address.network, set()).add(name)
    for name, routes in status.routes.items():
        for route in routes:
            found.setdefault(route.dst if route.via is None else ip_network(route.via), set()).add(name)
    return found


def _who_knows(address: Address, on_link: dict[Network, set[str]]) -> Iterator[str]:
    for length in {network.prefixlen for network in on_link if network.version == address.version}:
        yield from on_link.get(ip_network((int(address), length), strict=False), ())
