"""What stays over an edit: the addresses that namespaces and Services had take their places again where they are open.

Pure. A pod that is put in before others would shift the addresses of all that follow, and with them everything that is
under way: neighbours, connections, names that somebody has looked up. `held` says what a lab has, as `addressing.keep`
takes it; `Former` gives it back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from netlab.links.words import GivenAddress
from netlab.model import Address, InterfaceAddress, Network, Topology, is_per_link
from netlab.yamlspec.limits import MAX_READ_AGAIN

KEEP = "addressing.keep"
"""The path of the key, as in `--set`."""


def held(topology: Topology) -> dict[str, tuple[str, ...]]:
    """The addresses of each namespace's interfaces, with their prefix lengths, and of each Service, without."""
    found: dict[str, list[str]] = {}
    for interface in topology.interfaces():
        for address in interface.addresses:
            if not is_per_link(address.ip):
                found.setdefault(interface.netns, []).append(str(address))
    for service in topology.services:
        found[service.name] = [str(address) for address in service.cluster_ips]
    return {name: tuple(addresses) for name, addresses in found.items()}


class Former:
    """The addresses that there were, by the names of who had them; each is given back once."""

    def __init__(self, given: Mapping[str, Iterable[GivenAddress]]) -> None:
        self._interfaces: dict[str, list[InterfaceAddress]] = {}
        self._services: dict[str, list[Address]] = {}
        self._users: dict[Network, dict[str, None]] = {}
        self._looked_at = 0
        for name, addresses in given.items():
            for address in addresses:
                if isinstance(address, IPv4Interface | IPv6Interface):
                    self._interfaces.setdefault(name, []).append(address)
                    self._users.setdefault(address.network, {})[name] = None
                else:
                    self._services.setdefault(name, []).append(address)

    def subnets(
        self, version: int, segments: Mapping[int, Collection[str]], claim: Callable[[int, Network], bool]
    ) -> dict[int, Network]:
        """The subnet that each segment had, of those without one: the one that most of its namespaces were in.

        segments are numbers, with the names of who is on each. claim says whether a segment may have a subnet, and is
        asked for no other segment about one that it has granted.
        """
        left = {network: names for network, names in self._users.items() if network.version == version}
        found: dict[int, Network] = {}

        def settle(index: int, network: Network) -> None:
            if index not in found and network in left and claim(index, network):
                found[index] = network
                del left[network]

        # Most stay as they were: those are found without counting, which takes the square of a namespace's links.
        same: dict[frozenset[str], list[Network]] = {}
        for network, names in left.items():
            same.setdefault(frozenset(names), []).append(network)
        for index, members in segments.items():
            for network in same.get(frozenset(members), ()):
                settle(index, network)
        had: dict[str, list[Network]] = {}
        for network, names in left.items():
            for name in names:
                had.setdefault(name, []).append(network)
        shared: list[tuple[int, int, Network]] = []
        looked_at = 0
        for index, members in segments.items():
            if index not in found:
                looked_at += sum(len(had.get(name, ())) for name in members)
                if looked_at > MAX_READ_AGAIN:
                    break
                counts = Counter(network for name in dict.fromkeys(members) for network in had.get(name, ()))
                shared += [(count, index, network) for network, count in counts.items()]
        for _, index, network in sorted(shared, key=lambda each: -each[0]):
            settle(index, network)
        return found

    def interface(self, netns: str, subnet: Network, taken: Collection[int]) -> int | None:
        """An address that a namespace had in the subnet and nobody has taken, as a number; None where there is none."""
        for address in self._interfaces.get(netns, ()):
            self._looked_at += 1
            if self._looked_at > MAX_READ_AGAIN:  # thousands that a namespace had elsewhere
                return None
            if address.ip in subnet and int(address.ip) not in taken and _is_host(address.ip, subnet):
                self._interfaces[netns].remove(address)
                return int(address.ip)
        return None

    def service(self, name: str, pool: Network, taken: Collection[Address]) -> Address | None:
        """The address of a Service in its pool, where nobody has taken it."""
        for address in self._services.get(name, ()):
            if address in pool and address not in taken and _is_host(address, pool):
                return address
        return None


def _is_host(address: Address, network: IPv4Network | IPv6Network) -> bool:
    """Whether an interface can have the address there: see `addresses.hosts`."""
    if network.prefixlen >= network.max_prefixlen - 1:
        return True
    ends = [network.network_address, *([network.broadcast_address] if network.version == 4 else [])]
    return address not in ends
