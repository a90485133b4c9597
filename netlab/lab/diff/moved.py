"""The addresses that move: what neighbours know of them would keep them silent. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from netlab.lab.diff.links import key_of, makes
from netlab.lab.status import LinkKey, Status
from netlab.lab.steps import (
    AddAddress,
    SetLink,
    Step,
)
from netlab.model import (
    Address,
    Topology,
    is_per_link,
)


def moved_addresses(
    steps: list[Step], had: Sequence[Topology], new: Topology, status: Status, left: Status
) -> tuple[Address, ...]:
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
    moved: dict[Address, None] = {}
    for step in steps:
        match step:
            case AddAddress(netns, ifname, address):
                owner, key = owners.get(address.ip, set()), (netns, ifname)
                if owner and (key in made or (owner != {key} and not is_per_link(address.ip))):
                    moved[address.ip] = None
            case SetLink(interface):
                mac = interface.attributes.mac
                if mac is not None and key_of(interface) in left.links and mac != had_mac[key_of(interface)]:
                    addresses = {*interface.addresses, *left.addresses.get(key_of(interface), ())}
                    moved.update(dict.fromkeys(sorted({a.ip for a in addresses}, key=lambda ip: (ip.version, int(ip)))))
    return tuple(moved)
