"""The links of a topology: who is joined to whom, and the names and addresses of every interface.

A segment is what one Ethernet frame can cross: a bridge with its ports, several joined bridges, or one link. Here its
members and subnets are found; their addresses are `assignment.py`'s. What an item makes is its kind's (`links/`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from netlab.links import KINDS
from netlab.links.kind import Draft, Drafter, LinkDraft, where
from netlab.model import Interface, Link, Network, Role, is_per_link
from netlab.topology import addresses as addressing
from netlab.topology.assignment import IPV6_MIN_MTU, Addresses, Segment
from netlab.topology.kept import Former
from netlab.topology.size import Size
from netlab.yamlspec.document import Item, Reader, suggest

ETH_DATA_LEN = 1500
"""The MTU of an interface that is given none (include/uapi/linux/if_ether.h)."""


class Wiring(NamedTuple):
    """All interfaces of a lab, finished, and who shares a segment with whom.

    items are what was read of each, by (netns, ifname). broken are the namespaces that miss an interface or address
    because of a problem reported already.
    """

    links: tuple[Link, ...]
    segments: tuple[tuple[Interface, ...], ...]
    broken: frozenset[str]
    items: Mapping[tuple[str, str], Item]

    def interfaces(self) -> Iterator[Interface]:
        """Every interface but `lo`, link by link."""
        for link in self.links:
            yield from link.interfaces()


def wire(
    reader: Reader,
    root: Item,
    roles: Mapping[str, Role],
    pools: Mapping[str, Network],
    reserved: Iterable[Network],
    ipv6: bool,
    former: Former,
    size: Size,
) -> Wiring:
    """Interfaces, names and addresses of all links of a topology. reserved: networks that no subnet may be taken from;
    former: addresses that are given again where they are open.

    Links come kind by kind, as the registry has them.
    """
    drafter = Drafter(reader, roles)
    drafts = [draft for kind in KINDS for item in root.get(kind.section, []) for draft in kind.draft(drafter, item)]
    place = {kind.name: number for number, kind in enumerate(KINDS)}
    size.interfaces(sum(len(draft.ends) for draft in drafts))
    drafts.sort(key=lambda draft: place[draft.kind.name])
    wiring = _Wiring(reader, roles, drafts)
    wiring.check_masters()
    wiring.name_interfaces()
    segments = wiring.segments()
    Addresses(reader, segments, pools, reserved, ipv6, former).assign()
    wiring.check_mtus(segments)
    finished = {draft: draft.interface() for segment in segments for draft in segment.members}

    def value(end: Draft) -> Interface:
        return finished.get(end) or end.interface()

    return Wiring(
        tuple(draft.link(value) for draft in drafts),
        tuple(tuple(_routed(finished[member] for member in segment.members)) for segment in segments),
        frozenset({end.netns for end in wiring.ends() if end.item.broken} | drafter.left_out),
        {(end.netns, end.ifname): end.item for end in wiring.ends()},
    )


def _routed(members: Iterable[Interface]) -> Iterator[Interface]:
    """The members of a segment with the addresses that routes lead to; without those that have none."""
    for member in members:
        addresses = tuple(address for address in member.addresses if not is_per_link(address.ip))
        if addresses:
            yield member if addresses == member.addresses else member._replace(addresses=addresses)


class _Wiring:
    """Joins drafts to segments; what doesn't fit together is reported."""

    def __init__(self, reader: Reader, roles: Mapping[str, Role], drafts: Sequence[LinkDraft]) -> None:
        self.reader = reader
        self.roles = roles
        self.drafts = drafts
        self.carriers = {_key(draft): draft for draft in drafts if draft.kind.carries_ports}

    def ends(self) -> Iterator[Draft]:
        for draft in self.drafts:
            yield from draft.ends

    def check_masters(self) -> None:
        """Bridges that ends name must be there, and a bridge's port has no addresses of its own."""
        for end in self.ends():
            if end.master is None or "bridge" not in end.item or end.item["bridge"].value != end.master:
                continue
            if (end.netns, end.master) not in self.carriers:
                names = [name for netns, name in self.carriers if netns == end.netns]
                hint = suggest(end.master, names) or "bridges are listed under bridges"
                self.reader.at(end.item["bridge"], f"{end.netns} has no bridge {end.master!r}", hint)
                end.master = None
            elif end.given:
                hint = f"give them to the bridge {end.master}"
                self.reader.at(end.item["addresses"], "a bridge's port has no addresses of its own", hint)
                end.given = []

    def name_interfaces(self) -> None:
        """Names given first, each once in its namespace; then the open ones, in order."""
        taken: dict[str, dict[str, int]] = {name: {"lo": 0} for name in self.roles}
        for end in self.ends():
            if not end.ifname:
                continue
            names = taken[end.netns]
            if end.ifname in names:
                key = next((key for key in ("ifname", "port", "name") if end.item.get(key) == end.ifname), "netns")
                message = f"{end.netns} has an interface {end.ifname!r} already"
                self.reader.at(end.item[key], message, where(names[end.ifname]))
            names[end.ifname] = end.item.line
        chosen = {name: addressing.Names(names) for name, names in taken.items()}
        for draft in self.drafts:
            for end in draft.ends:
                if not end.ifname:
                    names_there = chosen[end.netns]
                    by_peer = end.master is not None or self.roles[end.netns] is Role.NODE
                    end.ifname = names_there.peer(draft.kind.name, end.peer) if by_peer else names_there.eth()

    def check_mtus(self, segments: Iterable[Segment]) -> None:
        """What has ports takes the smallest of their MTUs, if it has none of its own; a segment has one."""
        ports: dict[_Key, list[Draft]] = {}
        for end in self.ends():
            if end.master is not None:
                ports.setdefault((end.netns, end.master), []).append(end)
        mtus = {end: _mtu(end) for end in self.ends()}
        for key, carrier in self.carriers.items():
            head = carrier.ends[0]
            if head.attributes.mtu is None and key in ports:
                smallest = min(ports[key], key=_mtu)
                mtus[head] = _mtu(smallest)
                if mtus[head] < IPV6_MIN_MTU and any(address.version == 6 for address in head.addresses):
                    message = f"{head.ifname} takes the smallest MTU of its ports, too small for its IPv6 address"
                    hint = f"IPv6 needs {IPV6_MIN_MTU}; or give {head.ifname} an mtu"
                    self.reader.at(smallest.item["mtu"], message, hint)
        for segment in segments:
            self._compare_mtus(segment, mtus)

    def _compare_mtus(self, segment: Segment, mtus: Mapping[Draft, int]) -> None:
        """Warn where one sends more than fits: without a word the kernel drops what is longer than the MTU of the
        port that it is to go on by, or of the other end of a pair. What carries ports takes in anything."""
        senders = [end for end in segment.members if end.up and (end.addresses or not self._is_carrier(end))]
        takers = [*segment.ports, *(end for end in segment.members if end.up and not self._is_carrier(end))]
        if not senders or not takers:
            return
        widest, narrowest = max(senders, key=mtus.__getitem__), min(takers, key=mtus.__getitem__)
        if mtus[widest] <= mtus[narrowest]:
            return
        by = f" on {widest.ifname}" if self._is_carrier(widest) else ""
        who = narrowest.netns if narrowest.master is None else f"{narrowest.netns}'s port {narrowest.ifname}"
        message = f"{widest.netns} sends packets of {mtus[widest]} bytes{by}, and {who} drops those over"
        given = next(end for end in (widest, narrowest, *segment.ports) if end.attributes.mtu is not None)
        mtu = given.item["mtu"]
        everyone = "every interface of the segment" if segment.ports else "both ends of the link"
        hint = f"give {everyone} the same MTU: mtu: {mtu.value}"
        if self._is_carrier(given):
            hint = f"leave it out: {given.ifname} then takes the smallest MTU of its ports"
        self.reader.warn(mtu.node, mtu.path, f"{message} {mtus[narrowest]}", hint)

    def _is_carrier(self, end: Draft) -> bool:
        return (end.netns, end.ifname) in self.carriers

    def segments(self) -> list[Segment]:
        """Those of what carries ports, joined ones together, then the others; a loop is a problem."""
        joined = {key: key for key in self.carriers}
        self._join(joined)
        found: list[Segment] = []
        carried: dict[_Key, Segment] = {}
        for draft in self.drafts:
            masters = [(end.netns, end.master) for end in draft.ends if end.master is not None]
            key = masters[0] if masters else _key(draft) if draft.kind.carries_ports else None
            segment = None if key is None else carried.get(_root(joined, key))
            if segment is None:
                segment = Segment(draft.label, draft.kind, [], [], [])
                found.append(segment)
            if key is not None:
                carried[_root(joined, key)] = segment
            segment.members.extend(end for end in draft.ends if end.master is None)
            segment.ports.extend(end for end in draft.ends if end.master is not None)
            self._add_subnets(segment, draft.item)
        return found

    def _join(self, joined: dict[_Key, _Key]) -> None:
        """Join what links with two masters join."""
        without_stp = dict(joined)
        for draft in self.drafts:
            masters = [(end.netns, end.master) for end in draft.ends if end.master is not None]
            if len(masters) < 2:
                continue
            _join(joined, *masters)
            stp = any(self.carriers[master].stp for master in masters)
            if not stp and not _join(without_stp, *masters):
                names = " and ".join(f"{name} in {netns}" for netns, name in masters)
                hint = "a frame would circle for ever: leave one out, or set stp: true on a bridge of the loop"
                self.reader.at(draft.item, f"this joins {names}, which are joined already", hint)

    def _add_subnets(self, segment: Segment, item: Item) -> None:
        for subnet in item.get("subnet", []):
            if any(other.version == subnet.value.version for other in segment.subnets):
                family = f"an IPv{subnet.value.version} subnet"
                self.reader.at(subnet, f"{segment.label} has {family} already", "one subnet of each family")
            else:
                segment.subnets.append(subnet.value)


_Key = tuple[str, str]


def _mtu(end: Draft) -> int:
    return end.attributes.mtu or ETH_DATA_LEN


def _key(draft: LinkDraft) -> _Key:
    return draft.ends[0].netns, draft.ends[0].ifname


def _root(parents: dict[_Key, _Key], key: _Key) -> _Key:
    while parents[key] != key:
        parents[key] = parents[parents[key]]
        key = parents[key]
    return key


def _join(parents: dict[_Key, _Key], a: _Key, b: _Key) -> bool:
    """Join two sets; False where they are one already."""
    first, second = _root(parents, a), _root(parents, b)
    parents[second] = first
    return first != second
