"""Addresses, subnets and interface names that a topology left open: what is free, in a stable order.

This room knows numbers and names only. Who needs an address, and from where, is decided in `wiring.py`.
The same requests in the same order give the same answers, on every machine.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Collection, Iterable, Iterator
from ipaddress import IPv4Network
from itertools import count

from netlab.model import IFNAMSIZ, Address, Network


class Pool:
    """A network that subnets are cut from, in order, around the networks that are taken already."""

    def __init__(self, network: Network, taken: Iterable[Network]) -> None:
        self.network = network
        first, last = int(network.network_address), int(network.broadcast_address)
        spans = sorted(
            (int(other.network_address), int(other.broadcast_address))
            for other in taken
            if other.version == network.version and other.overlaps(network)
        )
        # Ends that never fall, so that the last span starting before a subnet ends tells whether any overlaps it.
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in spans:
            self._starts.append(start)
            self._ends.append(max(end, self._ends[-1]) if self._ends else end)
        self._next, self._last = first, last

    def claim(self, network: Network) -> bool:
        """Take this subnet; False where it isn't one of the pool's, or some of it is taken."""
        if network.version != self.network.version or not network.subnet_of(self.network):  # type: ignore[arg-type]
            return False
        start, end = int(network.network_address), int(network.broadcast_address)
        index = bisect_right(self._starts, end)
        if index and self._ends[index - 1] >= start:
            return False
        insort(self._starts, start)
        insort(self._ends, end)
        return True

    def take(self, prefixlen: int) -> Network | None:
        """The next free subnet with that prefix length; None where the pool is used up."""
        size = 1 << (self.network.max_prefixlen - prefixlen)
        start = -(-self._next // size) * size
        while start + size - 1 <= self._last:
            index = bisect_right(self._starts, start + size - 1) - 1
            if index < 0 or self._ends[index] < start:
                self._next = start + size
                return self.network.__class__((start, prefixlen))
            start = -(-(self._ends[index] + 1) // size) * size
        return None


class Networks:
    """Networks, each with its number in the order in which they came: which of many an address lies in is told at once.

    They are looked up by their prefix lengths, of which there are few.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        self._numbers: dict[tuple[int, int], dict[int, int]] = {}
        for number, network in enumerate(networks):
            host_bits = network.max_prefixlen - network.prefixlen
            numbers = self._numbers.setdefault((network.version, host_bits), {})
            numbers.setdefault(int(network.network_address) >> host_bits, number)

    def first(self, address: Address) -> int | None:
        """The number of the first network that the address lies in; None where it is in none."""
        value, version = int(address), address.version
        found = [
            numbers[value >> host_bits]
            for (of, host_bits), numbers in self._numbers.items()
            if of == version and value >> host_bits in numbers
        ]
        return min(found, default=None)

    def __contains__(self, address: Address) -> bool:
        return self.first(address) is not None


def hosts(network: Network, taken: Collection[int]) -> Iterator[int]:
    """The addresses of a network that an interface can have and nobody has, as numbers, lowest first.

    Leaves out IPv4's network and broadcast address and IPv6's Subnet-Router anycast address (RFC 4291, 2.6.1);
    the last two of IPv4 (RFC 3021) and IPv6 (RFC 6164) prefixes of one bit are both usable.
    """
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.prefixlen < network.max_prefixlen - 1:
        first += 1
        if isinstance(network, IPv4Network):
            last -= 1
    return (number for number in range(first, last + 1) if number not in taken)


class Names:
    """Names of interfaces in one namespace that a topology left open; taken are those that are given."""

    def __init__(self, taken: Collection[str]) -> None:
        self._taken = set(taken)
        self._next: dict[str, Iterator[int]] = {}
        """The numbers not tried yet, by what they are put to: a name that is taken stays so."""

    def eth(self) -> str:
        """The first of eth0, eth1, … that is free, which is then taken."""
        return self._take("eth", 0, "eth{}".format)

    def peer(self, kind: str, peer: str) -> str:
        """`<kind>-<peer>`, with a number where that is taken, and shortened with a hash where it exceeds 15 characters.

        It is then taken.
        """

        def name(number: int) -> str:
            whole = f"{kind}-{peer}" if number == 1 else f"{kind}-{peer}-{number}"
            if len(whole) <= IFNAMSIZ:
                return whole
            import hashlib  # 3 ms, and most names fit

            return f"{kind}-{peer[:5]}-{hashlib.sha256(whole.encode()).hexdigest()[:4]}"

        return self._take(f"{kind}-{peer}", 1, name)

    def _take(self, key: str, first: int, name: Callable[[int], str]) -> str:
        numbers = self._next.setdefault(key, count(first))
        found = next(each for number in numbers if (each := name(number)) not in self._taken)
        self._taken.add(found)
        return found
