"""The links of a topology: who is joined to whom, and the names and addresses of every interface.

A segment is what one Ethernet frame can cross: a bridge with its ports, several joined bridges, or one link. Here its
subnets are found, given addresses are checked against them, and what was left open is filled in (`addresses.py`). What
an item makes is its kind's to say (`links/`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Interface, IPv6Interface
from typing import NamedTuple, TypeGuard

from netlab.links import KINDS, Kind
from netlab.links.kind import Draft, Drafter, LinkDraft, where
from netlab.links.words import GivenAddress
from netlab.model import Interface, InterfaceAddress, Link, Network, Role, is_per_link
from netlab.topology import addresses as addressing
from netlab.yamlspec.document import Item, Reader, suggest

IPV6_MIN_MTU = 1280
"""Smallest MTU of a link that carries IPv6 (RFC 8200, section 5); the kernel has no IPv6 on an interface below it."""


ETH_DATA_LEN = 1500
"""The MTU of an interface that is given none (include/uapi/linux/if_ether.h)."""


class Segment(NamedTuple):
    """The interfaces that can have addresses on what one frame can cross, and the subnets the topology gives it.

    kind is that of the link that it begins with: it says where subnets left open come from.
    """

    label: str
    kind: Kind
    members: list[Draft]
    subnets: list[Network]


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
) -> Wiring:
    """Interfaces, names and addresses of all links of a topology. reserved: networks that no subnet may be taken from.

    Links come kind by kind, as the registry has them.
    """
    drafter = Drafter(reader, roles)
    drafts = [draft for kind in KINDS for item in root.get(kind.section, []) for draft in kind.draft(drafter, item)]
    place = {kind.name: number for number, kind in enumerate(KINDS)}
    drafts.sort(key=lambda draft: place[draft.kind.name])
    wiring = _Wiring(reader, roles, drafts)
    wiring.check_masters()
    wiring.name_interfaces()
    segments = wiring.segments()
    _Addresses(reader, segments, pools, reserved, ipv6).assign()
    wiring.check_mtus()
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
        for draft in self.drafts:
            for end in draft.ends:
                if not end.ifname:
                    names = taken[end.netns]
                    by_peer = end.master is not None or self.roles[end.netns] is Role.NODE
                    kind = draft.kind.name
                    end.ifname = addressing.peer_name(kind, end.peer, names) if by_peer else addressing.eth_name(names)
                    names[end.ifname] = end.item.line

    def check_mtus(self) -> None:
        """What has ports takes the smallest of their MTUs, if it has none of its own; two ends have the same one."""
        ports: dict[_Key, list[Draft]] = {}
        for end in self.ends():
            if end.master is not None:
                ports.setdefault((end.netns, end.master), []).append(end)
        for key, carrier in self.carriers.items():
            head = carrier.ends[0]
            smallest = min(ports.get(key, ()), key=_mtu, default=head)
            too_small = _mtu(smallest) < IPV6_MIN_MTU and any(address.version == 6 for address in head.addresses)
            if too_small and head.attributes.mtu is None:
                message = f"{head.ifname} takes the smallest MTU of its ports, too small for its IPv6 address"
                self.reader.at(
                    smallest.item["mtu"], message, f"IPv6 needs {IPV6_MIN_MTU}; or give {head.ifname} an mtu"
                )
        for draft in self.drafts:
            if draft.kind.paired and all(end.master is None and end.up for end in draft.ends):
                small, large = sorted(draft.ends, key=_mtu)
                given = large if large.attributes.mtu is not None else small
                if _mtu(small) != _mtu(large):
                    mtu = given.item["mtu"]
                    message = f"{large.netns} sends packets of {_mtu(large)} bytes, and {small.netns} drops those over"
                    hint = f"give both ends of the link the same MTU: mtu: {mtu.value}"
                    self.reader.warn(mtu.node, mtu.path, f"{message} {_mtu(small)}", hint)

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
                segment = Segment(draft.label, draft.kind, [], [])
                found.append(segment)
            if key is not None:
                carried[_root(joined, key)] = segment
            segment.members.extend(end for end in draft.ends if end.master is None)
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


class _Addresses:
    """Checks the addresses given and assigns those left open, one segment after the other."""

    def __init__(
        self,
        reader: Reader,
        segments: list[Segment],
        pools: Mapping[str, Network],
        reserved: Iterable[Network],
        ipv6: bool,
    ) -> None:
        self.reader = reader
        self.segments = segments
        self.ipv6 = ipv6
        given = list(reserved)
        for segment in segments:
            given += segment.subnets
            for member in segment.members:
                given += [address.network for address, _ in member.given if _has_prefix(address)]
        self.pools = {name: addressing.Pool(pool, given) for name, pool in pools.items()}
        self._in_netns: dict[tuple[str, object], Item] = {}

    def assign(self) -> None:
        """Fill in `addresses` of every member of every segment."""
        for segment in self.segments:
            taken: dict[object, tuple[Draft, Item]] = {}
            for member in segment.members:
                self._take_given(segment, member, taken)
            for version in (4, 6):
                self._fill(segment, version, {int(ip) for ip in taken if ip.version == version})  # type: ignore[attr-defined, call-overload]
            for member in segment.members:
                self._check_mtu(member)

    def _take_given(self, segment: Segment, member: Draft, taken: dict[object, tuple[Draft, Item]]) -> None:
        for written, item in member.given:
            address = self._with_prefix(segment, written, item)
            if address is None:
                continue
            self._check_subnet(segment, address, item)
            ip = address.ip
            other = taken.get(ip)
            before = None if ip.is_link_local else self._in_netns.get((member.netns, ip))
            if other is not None:
                user = f"{other[0].netns}:{other[0].ifname}"
                self.reader.at(item, f"{ip} is the address of {user} already", where(other[1].line))
            elif before is not None:
                self.reader.at(item, f"{member.netns} has the address {ip} already", where(before.line))
            else:
                taken[ip] = member, item
                self._in_netns[member.netns, ip] = item
                member.addresses.append(address)

    def _with_prefix(self, segment: Segment, written: GivenAddress, item: Item) -> InterfaceAddress | None:
        """An address as written, or with the prefix length of the subnet it lies in."""
        if _has_prefix(written):
            return written
        if is_per_link(written):
            return IPv6Interface((int(written), 64))
        networks = [*segment.subnets, *self._given_networks(segment)]
        for network in networks:
            if network.version == written.version and written in network:
                make = IPv4Interface if written.version == 4 else IPv6Interface
                return make((int(written), network.prefixlen))
        if any(network.version == written.version for network in segment.subnets):
            self._outside(segment, str(written), item, written.version)
        else:
            length = 24 if written.version == 4 else 64
            self.reader.at(item, f"{written} has no prefix length", f"write it as {written}/{length}")
        return None

    def _given_networks(self, segment: Segment) -> list[Network]:
        return [
            address.network
            for member in segment.members
            for address, _ in member.given
            if _has_prefix(address) and _is_subnet(address)
        ]

    def _check_subnet(self, segment: Segment, address: InterfaceAddress, item: Item) -> None:
        """An address lies in the subnet that is given, or in one of those that the first member's addresses say."""
        if not _is_subnet(address):
            return
        expected = self._expected(segment, address.version)
        if expected and not any(address.ip in network for network in expected):
            self._outside(segment, str(address), item, address.version)

    def _expected(self, segment: Segment, version: int) -> list[Network]:
        expected = [network for network in segment.subnets if network.version == version]
        for member in segment.members:
            if expected:
                break
            expected = [
                address.network
                for address, _ in member.given
                if address.version == version and _has_prefix(address) and _is_subnet(address)
            ]
        return expected

    def _outside(self, segment: Segment, address: str, item: Item, version: int) -> None:
        subnets = " or ".join(str(network) for network in self._expected(segment, version))
        self.reader.at(item, f"{address} is outside its subnet", f"{segment.label} has {subnets}")

    def _fill(self, segment: Segment, version: int, taken: set[int]) -> None:
        known = self._expected(segment, version)
        others = bool(self._expected(segment, 10 - version))
        wanting = [member for member in segment.members if self._wants(member, version, bool(known), others)]
        if not wanting:
            return
        if known:
            subnet = known[0]
        else:
            name = segment.kind.pool if version == 4 else f"{segment.kind.pool}6"
            prefixlen = segment.kind.prefixlen(version, len(segment.members))
            pool = self.pools[name]
            found = pool.take(max(prefixlen, pool.network.prefixlen))
            if found is None:
                message = f"no /{prefixlen} is left for {segment.label} in {pool.network}"
                self.reader.at(wanting[0].item, message, f"a larger pool: addressing.{name}")
                return
            subnet = found
        make = IPv4Interface if version == 4 else IPv6Interface
        free = addressing.hosts(subnet, taken)
        for member in wanting:
            number = next(free, None)
            if number is None:
                message = f"no address is left in {subnet} for {member.netns}"
                self.reader.at(member.item, message, f"a larger subnet for {segment.label}")
                return
            address = make((number, subnet.prefixlen))
            member.addresses.append(address)
            self._in_netns[member.netns, address.ip] = member.item

    def _wants(self, member: Draft, version: int, known: bool, other_known: bool) -> bool:
        """Whether a member gets an address of that family: of each family its segment has, or of IPv4 where none is.

        With `ipv6: true` whatever has an IPv4 address gets an IPv6 one too.
        """
        if version == 6 and any(address.version == 6 and not is_per_link(address.ip) for address in member.addresses):
            return False
        if version == 6 and self.ipv6 and member.addresses:
            return True
        return member.wants_addresses and (known or (version == 4 and not other_known))

    def _check_mtu(self, member: Draft) -> None:
        mtu = member.attributes.mtu
        if mtu is not None and mtu < IPV6_MIN_MTU and any(address.version == 6 for address in member.addresses):
            hint = f"IPv6 needs {IPV6_MIN_MTU}"
            self.reader.at(member.item["mtu"], f"an MTU of {mtu} is too small for its IPv6 address", hint)


def _is_subnet(address: InterfaceAddress) -> bool:
    """Whether an address says what subnet its segment has: one alone says nothing, a link-local one as little."""
    return address.network.prefixlen < address.max_prefixlen and not is_per_link(address.ip)


def _has_prefix(address: GivenAddress) -> TypeGuard[InterfaceAddress]:
    return isinstance(address, IPv4Interface | IPv6Interface)


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
