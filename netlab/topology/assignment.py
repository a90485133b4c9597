"""The addresses of the interfaces on one segment: those given are checked, those left open are filled in. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Interface, IPv6Interface
from typing import NamedTuple, TypeGuard

from netlab.links import Kind
from netlab.links.kind import Draft, where
from netlab.links.words import GivenAddress
from netlab.model import Address, InterfaceAddress, Network, is_per_link
from netlab.topology import addresses as addressing
from netlab.topology.kept import Former
from netlab.yamlspec.document import Item, Reader

IPV6_MIN_MTU = 1280
"""Smallest MTU of a link that carries IPv6 (RFC 8200, section 5); the kernel has no IPv6 on an interface below it."""


class Segment(NamedTuple):
    """The interfaces that can have addresses on what one frame can cross, the ports of bridges there, and the subnets
    that the topology gives it.

    kind is that of the link that it begins with: it says where subnets left open come from.
    """

    label: str
    kind: Kind
    members: list[Draft]
    ports: list[Draft]
    subnets: list[Network]


class _Subnets:
    """The subnets of a segment, as the topology and the addresses given there say: those of each IP version that its
    addresses must be in, and those that an address alone may take its prefix length from."""

    def __init__(self, segment: Segment) -> None:
        said = [
            [address.network for address, _ in member.given if _has_prefix(address) and _is_subnet(address)]
            for member in segment.members
        ]
        self.expected = {version: _expected(segment, said, version) for version in (4, 6)}
        self._known = {version: addressing.Networks(networks) for version, networks in self.expected.items()}
        self._networks = [*segment.subnets, *(network for networks in said for network in networks)]
        self._all = addressing.Networks(self._networks)

    def hold(self, address: Address) -> bool:
        """Whether an address is in one of those that it must be in, if there are any."""
        return not self.expected[address.version] or address in self._known[address.version]

    def around(self, address: Address) -> Network | None:
        """The first that the address is in."""
        number = self._all.first(address)
        return None if number is None else self._networks[number]


def _expected(segment: Segment, said: Iterable[list[Network]], version: int) -> list[Network]:
    """The subnets that are given, or those that the first member's addresses say."""
    of_version = ([network for network in networks if network.version == version] for networks in said)
    given = [network for network in segment.subnets if network.version == version]
    return given or next((networks for networks in of_version if networks), [])


class Addresses:
    """Checks the addresses given and assigns those left open, one segment after the other."""

    def __init__(
        self,
        reader: Reader,
        segments: list[Segment],
        pools: Mapping[str, Network],
        reserved: Iterable[Network],
        ipv6: bool,
        former: Former,
    ) -> None:
        self.reader = reader
        self.segments = segments
        self.ipv6 = ipv6
        self.former = former
        given = list(reserved)
        for segment in segments:
            given += segment.subnets
            for member in segment.members:
                given += [address.network for address, _ in member.given if _has_prefix(address)]
        self.pools = {name: addressing.Pool(pool, given) for name, pool in pools.items()}
        self._in_netns: dict[tuple[str, object], Item] = {}
        self._subnets = {id(segment): _Subnets(segment) for segment in segments}

    def assign(self) -> None:
        """Fill in `addresses` of every member of every segment."""
        kept = {version: self._former_subnets(version) for version in (4, 6)}
        for index, segment in enumerate(self.segments):
            taken: dict[object, tuple[Draft, Item]] = {}
            for member in segment.members:
                self._take_given(segment, member, taken)
            for version in (4, 6):
                numbers = {int(ip) for ip in taken if ip.version == version}  # type: ignore[attr-defined, call-overload]
                self._fill(segment, version, numbers, kept[version].get(index))
            for member in segment.members:
                self._check_mtu(member)

    def _former_subnets(self, version: int) -> dict[int, Network]:
        """The subnets that segments had, by their places, where they may have them again."""
        members = {
            index: [member.netns for member in segment.members if member.wants_addresses]
            for index, segment in enumerate(self.segments)
            if not self._expected(segment, version)
        }

        def claim(index: int, network: Network) -> bool:
            segment = self.segments[index]
            large_enough = network.prefixlen <= segment.kind.prefixlen(version, len(segment.members))
            return large_enough and self._pool(segment, version).claim(network)

        return self.former.subnets(version, members, claim)

    def _pool(self, segment: Segment, version: int) -> addressing.Pool:
        return self.pools[_pool_name(segment, version)]

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
        network = self._subnets[id(segment)].around(written)
        if network is not None:
            make = IPv4Interface if written.version == 4 else IPv6Interface
            return make((int(written), network.prefixlen))
        if any(network.version == written.version for network in segment.subnets):
            self._outside(segment, str(written), item, written.version)
        else:
            length = 24 if written.version == 4 else 64
            self.reader.at(item, f"{written} has no prefix length", f"write it as {written}/{length}")
        return None

    def _check_subnet(self, segment: Segment, address: InterfaceAddress, item: Item) -> None:
        """An address lies in the subnet that is given, or in one of those that the first member's addresses say."""
        if not _is_subnet(address):
            return
        if not self._subnets[id(segment)].hold(address.ip):
            self._outside(segment, str(address), item, address.version)

    def _expected(self, segment: Segment, version: int) -> list[Network]:
        return self._subnets[id(segment)].expected[version]

    def _outside(self, segment: Segment, address: str, item: Item, version: int) -> None:
        subnets = " or ".join(str(network) for network in self._expected(segment, version))
        self.reader.at(item, f"{address} is outside its subnet", f"{segment.label} has {subnets}")

    def _fill(self, segment: Segment, version: int, taken: set[int], kept: Network | None) -> None:
        known = self._expected(segment, version)
        others = bool(self._expected(segment, 10 - version))
        wanting = [member for member in segment.members if self._wants(member, version, bool(known), others)]
        if not wanting:
            return
        if known:
            subnet = known[0]
        elif kept is not None:
            subnet = kept
        else:
            prefixlen = segment.kind.prefixlen(version, len(segment.members))
            pool = self._pool(segment, version)
            found = pool.take(max(prefixlen, pool.network.prefixlen))
            if found is None:
                message = f"no /{prefixlen} is left for {segment.label} in {pool.network}"
                hint = f"a larger pool: addressing.{_pool_name(segment, version)}"
                self.reader.at(wanting[0].item, message, hint)
                return
            subnet = found
        make = IPv4Interface if version == 4 else IPv6Interface
        again: list[int | None] = []
        for member in wanting:
            again.append(self.former.interface(member.netns, subnet, taken))
            taken.update(number for number in again[-1:] if number is not None)
        free = addressing.hosts(subnet, taken)
        for member, had in zip(wanting, again, strict=True):
            number = next(free, None) if had is None else had
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


def _pool_name(segment: Segment, version: int) -> str:
    return segment.kind.pool if version == 4 else f"{segment.kind.pool}6"


def _is_subnet(address: InterfaceAddress) -> bool:
    """Whether an address says what subnet its segment has: one alone says nothing, a link-local one as little."""
    return address.network.prefixlen < address.max_prefixlen and not is_per_link(address.ip)


def _has_prefix(address: GivenAddress) -> TypeGuard[InterfaceAddress]:
    return isinstance(address, IPv4Interface | IPv6Interface)
