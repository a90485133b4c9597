"""Bridges and links of a topology: who is joined to whom, and the names and addresses of every interface.

A segment is what one Ethernet frame can cross: a bridge with its ports, several joined bridges, or one link. Here its
subnets are found, given addresses are checked against them, and what was left open is filled in (`addresses.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Interface, IPv6Interface
from typing import NamedTuple, TypeGuard

from netlab.model import Bridge, Interface, InterfaceAddress, LinkAttributes, Network, Qdisc, Role, Veth
from netlab.topology import addresses as addressing
from netlab.topology.language import LINK_ATTRIBUTES
from netlab.topology.words import GivenAddress
from netlab.yamlspec.document import Item, Reader, suggest

IPV6_MIN_MTU = 1280
"""Smallest MTU of a link that carries IPv6 (RFC 8200, section 5); the kernel has no IPv6 on an interface below it."""


DEFAULT_ATTRIBUTES = LinkAttributes()


class Draft:
    """An interface in the making. peer is the namespace at the other end; wants_addresses: some are to be assigned."""

    def __init__(
        self,
        item: Item,
        netns: str,
        ifname: str,
        peer: str,
        *,
        given: list[tuple[GivenAddress, Item]] | None = None,
        wants_addresses: bool = False,
        attributes: LinkAttributes = DEFAULT_ATTRIBUTES,
        qdisc: Qdisc | None = None,
        master: str | None = None,
        up: bool = True,
    ) -> None:
        self.item, self.netns, self.ifname, self.peer = item, netns, ifname, peer
        self.given = given or []
        self.wants_addresses = wants_addresses
        self.attributes, self.qdisc, self.master, self.up = attributes, qdisc, master, up
        self.addresses: list[InterfaceAddress] = []

    def interface(self) -> Interface:
        """The finished value."""
        addresses = tuple(self.addresses)
        return Interface(self.netns, self.ifname, addresses, self.attributes, self.qdisc, self.master, self.up)


class BridgeDraft(NamedTuple):
    """A bridge in the making; head is its own interface."""

    item: Item
    head: Draft


class Segment(NamedTuple):
    """The interfaces that can have addresses on joined bridges or on a link, and the subnets the topology gives it."""

    label: str
    pool: str
    members: list[Draft]
    subnets: list[Network]


class Wiring(NamedTuple):
    """All interfaces of a lab, finished, and who shares a segment with whom.

    broken are the namespaces that miss an interface or address because of a problem reported already.
    """

    bridges: tuple[Bridge, ...]
    veths: tuple[Veth, ...]
    segments: tuple[tuple[Interface, ...], ...]
    broken: frozenset[str]

    def interfaces(self) -> Iterator[Interface]:
        """Every interface but `lo`: bridges first, then both ends of each veth."""
        for bridge in self.bridges:
            yield bridge.interface
        for veth in self.veths:
            yield veth.a
            yield veth.b


def wire(
    reader: Reader,
    bridges: Iterable[Item],
    links: Iterable[Item],
    roles: Mapping[str, Role],
    pools: Mapping[str, Network],
    reserved: Iterable[Network],
    ipv6: bool,
) -> Wiring:
    """Interfaces, names and addresses of all bridges and links. reserved: networks that no subnet may be taken from."""
    draft = _Wiring(reader, roles)
    for bridge in bridges:
        draft.add_bridge(bridge)
    for bridge in bridges:
        draft.add_ports(bridge)
    for link in links:
        draft.add_link(link)
    draft.check_masters()
    draft.name_interfaces()
    segments = draft.segments()
    _Addresses(reader, segments, pools, reserved, ipv6).assign()
    finished = {draft: draft.interface() for segment in segments for draft in segment.members}

    def value(end: Draft) -> Interface:
        return finished.get(end) or end.interface()

    return Wiring(
        tuple(
            Bridge(
                value(bridge.head),
                stp=bridge.item.get("stp", False),
                mcast_snooping=bridge.item.get("mcast_snooping", False),
                vlan_filtering=bridge.item.get("vlan_filtering", False),
            )
            for bridge in draft.bridges.values()
        ),
        tuple(Veth(value(a), value(b)) for a, b in draft.veths),
        tuple(tuple(finished[member] for member in segment.members if member.addresses) for segment in segments),
        frozenset({end.netns for end in draft.all() if end.item.broken} | draft.left_out),
    )


class _Wiring:
    """Collects drafts from the items; what can't be placed is reported and left out."""

    def __init__(self, reader: Reader, roles: Mapping[str, Role]) -> None:
        self.reader = reader
        self.roles = roles
        self.bridges: dict[tuple[str, str], BridgeDraft] = {}
        self.veths: list[tuple[Draft, Draft]] = []
        self.links: dict[int, Item] = {}
        self.left_out: set[str] = set()
        self._bridge_of: dict[int, BridgeDraft] = {}

    def all(self) -> Iterable[Draft]:
        for bridge in self.bridges.values():
            yield bridge.head
        for a, b in self.veths:
            yield a
            yield b

    def _known(self, item: Item) -> bool:
        if "netns" not in item:
            return False
        named = item["netns"]
        if named.value in self.roles:
            return True
        self.reader.at(named, f"no namespace is called {named.value!r}", suggest(named.value, self.roles))
        return False

    def _draft(self, item: Item, peer: str) -> Draft:
        given = [(address.value, address) for address in item.get("addresses", [])]
        attributes = {name: item[name].value for name in LINK_ATTRIBUTES if name in item}
        return Draft(
            item,
            netns=item["netns"].value,
            ifname=item.get("ifname", ""),
            peer=peer,
            given=given,
            wants_addresses="addresses" not in item,
            attributes=LinkAttributes(**attributes) if attributes else DEFAULT_ATTRIBUTES,
            qdisc=self._qdisc(item["qdisc"]) if "qdisc" in item else None,
            master=item.get("bridge"),
            up=item.get("up", True),
        )

    def _qdisc(self, item: Item) -> Qdisc | None:
        if "kind" not in item:
            return None
        kind = item["kind"].value
        if kind == "tbf" and not item.broken:
            if ("latency" in item) == ("limit" in item):
                self.reader.at(item, "tbf needs either latency or limit", "latency: 50ms")
            if ("peakrate" in item) != ("mtu" in item):
                self.reader.at(item, "tbf's peakrate and mtu belong together", "mtu: the size of peakrate's bucket")
        return Qdisc(kind, tuple((word, value.value) for word, value in item.value.items() if word != "kind"))

    def add_bridge(self, item: Item) -> None:
        if not self._known(item) or "name" not in item:
            return
        head = self._draft(item, "")
        head.ifname = item["name"].value
        key = head.netns, head.ifname
        if key in self.bridges:
            first = self.bridges[key].item.line
            self.reader.at(item["name"], f"{head.netns} has a bridge {head.ifname!r} already", _where(first))
            return
        self.bridges[key] = self._bridge_of[id(item)] = BridgeDraft(item, head)

    def add_ports(self, item: Item) -> None:
        bridge = self._bridge_of.get(id(item))
        for port in item.get("ports", []):
            # A port of a bridge that has problems of its own is still checked for its namespace.
            if not self._known(port) or bridge is None:
                self.left_out.add(port.get("netns", ""))
                continue
            head = bridge.head
            far = self._draft(port, head.netns)
            attributes = LinkAttributes(mtu=far.attributes.mtu)
            near = Draft(port, head.netns, port.get("port", ""), far.netns, attributes=attributes, master=head.ifname)
            self.veths.append((near, far))

    def add_link(self, item: Item) -> None:
        ends = item.get("ends", [])
        known = [self._known(end) for end in ends]
        if known != [True, True]:
            self.left_out.update(end.get("netns", "") for end in ends)
            return
        a = self._draft(ends[0], ends[1]["netns"].value)
        b = self._draft(ends[1], ends[0]["netns"].value)
        if b.master is not None and a.master is None:
            a, b = b, a
        self.veths.append((a, b))
        self.links[id(a)] = item

    def check_masters(self) -> None:
        """Bridges that ends name must be there, and a bridge's port has no addresses of its own."""
        for end in self.all():
            if end.master is None or "bridge" not in end.item or end.item["bridge"].value != end.master:
                continue
            if (end.netns, end.master) not in self.bridges:
                names = [name for netns, name in self.bridges if netns == end.netns]
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
        for end in self.all():
            if not end.ifname:
                continue
            names = taken[end.netns]
            if end.ifname in names:
                key = next((key for key in ("ifname", "port", "name") if end.item.get(key) == end.ifname), "netns")
                message = f"{end.netns} has an interface {end.ifname!r} already"
                self.reader.at(end.item[key], message, _where(names[end.ifname]))
            names[end.ifname] = end.item.line
        for end in self.all():
            if not end.ifname:
                names = taken[end.netns]
                veth = end.master is not None or self.roles[end.netns] is Role.NODE
                end.ifname = addressing.veth_name(end.peer, names) if veth else addressing.eth_name(names)
                names[end.ifname] = end.item.line

    def segments(self) -> list[Segment]:
        """Bridges in their order, joined ones together, then the links; a loop of bridges is a problem."""
        joined = {key: key for key in self.bridges}
        without_stp = {key: key for key in self.bridges}
        for a, b in self.veths:
            if a.master is None or b.master is None:
                continue
            ends = (a.netns, a.master), (b.netns, b.master)
            _join(joined, *ends)
            stp = any(self.bridges[end].item.get("stp", False) for end in ends)
            if not stp and not _join(without_stp, *ends):
                item = self.links.get(id(a), b.item)
                names = f"{a.master} in {a.netns} and {b.master} in {b.netns}"
                hint = "a frame would circle for ever: leave one out, or set stp: true on a bridge of the loop"
                self.reader.at(item, f"this joins {names}, which are joined already", hint)
        segments: dict[tuple[str, str], Segment] = {}
        for key, bridge in self.bridges.items():
            netns, name = key
            segment = segments.setdefault(_root(joined, key), Segment(f"bridge {name} in {netns}", "bridges", [], []))
            segment.members.append(bridge.head)
            self._add_subnets(segment, bridge.item)
        links: list[Segment] = []
        for a, b in self.veths:
            masters = [end for end in (a, b) if end.master is not None]
            free = [end for end in (a, b) if end.master is None]
            link = self.links.get(id(a))
            if masters:
                segment = segments[_root(joined, (masters[0].netns, masters[0].master or ""))]
            else:
                segment = Segment(f"the link {a.netns} - {b.netns}", "links", [], [])
                links.append(segment)
            segment.members.extend(free)
            if link is not None:
                self._add_subnets(segment, link)
        return [*segments.values(), *links]

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
            before = self._in_netns.get((member.netns, ip))
            if other is not None:
                user = f"{other[0].netns}:{other[0].ifname}"
                self.reader.at(item, f"{ip} is the address of {user} already", _where(other[1].line))
            elif before is not None:
                self.reader.at(item, f"{member.netns} has the address {ip} already", _where(before.line))
            else:
                taken[ip] = member, item
                self._in_netns[member.netns, ip] = item
                member.addresses.append(address)

    def _with_prefix(self, segment: Segment, written: GivenAddress, item: Item) -> InterfaceAddress | None:
        """An address as written, or with the prefix length of the subnet it lies in."""
        if _has_prefix(written):
            return written
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
            if _has_prefix(address) and address.network.prefixlen < address.max_prefixlen
        ]

    def _check_subnet(self, segment: Segment, address: InterfaceAddress, item: Item) -> None:
        """An address lies in the subnet that is given, or in one of those that the first member's addresses say."""
        if address.network.prefixlen == address.max_prefixlen:
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
                if address.version == version
                and _has_prefix(address)
                and address.network.prefixlen < address.max_prefixlen
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
            name = segment.pool if version == 4 else f"{segment.pool}6"
            members = len(segment.members)
            prefixlen = (
                addressing.bridge_prefixlen(version, members)
                if segment.pool == "bridges"
                else addressing.link_prefixlen(version)
            )
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
        if version == 6 and any(address.version == 6 for address in member.addresses):
            return False
        if version == 6 and self.ipv6 and member.addresses:
            return True
        return member.wants_addresses and (known or (version == 4 and not other_known))

    def _check_mtu(self, member: Draft) -> None:
        mtu = member.attributes.mtu
        if mtu is not None and mtu < IPV6_MIN_MTU and any(address.version == 6 for address in member.addresses):
            hint = f"IPv6 needs {IPV6_MIN_MTU}"
            self.reader.at(member.item["mtu"], f"an MTU of {mtu} is too small for its IPv6 address", hint)


def _has_prefix(address: GivenAddress) -> TypeGuard[InterfaceAddress]:
    return isinstance(address, IPv4Interface | IPv6Interface)


def _where(line: int) -> str:
    return f"see line {line}" if line else "see --set"


_Key = tuple[str, str]


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
