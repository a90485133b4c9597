"""What is left of what the kernel has once links, namespaces, addresses and routes are removed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from netlab.lab.diff.links import key_of
from netlab.lab.status import LinkKey, Status
from netlab.lab.steps import (
    DeleteAddress,
    DeleteRoute,
    Step,
    StopProgram,
)
from netlab.model import (
    InterfaceAddress,
    Program,
    Route,
    Topology,
)


def without(
    status: Status,
    stale: list[LinkKey],
    gone: list[str],
    peers: dict[LinkKey, LinkKey],
    had: Sequence[Topology],
    new: Topology,
) -> Status:
    """The same value without the stale links, and all that goes with them."""
    dead = {key for key in status.links if key[0] in gone} | set(stale)
    dead |= {peers[key] for key in dead if key in peers}
    return status._replace(
        namespaces=status.namespaces - set(gone),
        links={
            key: link._replace(master=None) if (key[0], link.master) in dead else link
            for key, link in status.links.items()
            if key not in dead
        },
        addresses={key: found for key, found in status.addresses.items() if key not in dead},
        routes={
            netns: frozenset(route for route in routes if (netns, route.dev) not in dead)
            for netns, routes in status.routes.items()
            if netns not in gone
        },
        sysctls={
            (netns, key): value
            for (netns, key), value in status.sysctls.items()
            if not any(netns == dead_netns and f".{ifname}." in key for dead_netns, ifname in dead)
        },
        qdiscs={key: pair for key, pair in status.qdiscs.items() if key not in dead},
        covered=set(),
        routes_by_dst={},
        programs=status.programs - {(p.netns, p.name) for p in stopped(had, new, status)},
    )


def after(removed: list[Step], new: Topology, left: Status) -> Status:
    """The same value without the removed routes and addresses, and what the kernel drops by itself: the routes from a
    removed address (IPv6 ones only lose their `src`), the IPv4 routes of a link without any IPv4 address left, and the
    IPv6 addresses of a link that is set down."""
    routes = {(step.netns, step.route) for step in removed if isinstance(step, DeleteRoute)}
    sources = {(step.netns, step.address.ip) for step in removed if isinstance(step, DeleteAddress)}
    deleted = {(step.netns, step.ifname, step.address) for step in removed if isinstance(step, DeleteAddress)}
    downed = {key_of(i) for i in new.interfaces() if not i.up and key_of(i) in left.links and left.links[key_of(i)].up}

    addresses = {
        key: frozenset(
            address
            for address in found
            if (*key, address) not in deleted and (address.version == 4 or key not in downed)
        )
        for key, found in left.addresses.items()
    }
    bare = {key for key, found in left.addresses.items() if _has_ipv4(found) and not _has_ipv4(addresses[key])}

    def staying(netns: str, found: frozenset[Route]) -> Iterator[Route]:
        for route in found:
            sourceless = (netns, route.src) in sources
            dropped = route.dst.version == 4 and (sourceless or (netns, route.dev) in bare)
            if (netns, route) not in routes and not dropped:
                yield route._replace(src=None) if sourceless else route

    remaining = {netns: frozenset(staying(netns, found)) for netns, found in left.routes.items()}
    return left._replace(addresses=addresses, routes=remaining, routes_by_dst={})


def _has_ipv4(addresses: Iterable[InterfaceAddress]) -> bool:
    return any(address.version == 4 for address in addresses)


def stopped(had: Sequence[Topology], new: Topology, status: Status) -> list[StopProgram]:
    """The programs that run and, by one of the earlier topologies, aren't those that are wanted."""
    wanted = dict(_programs(new))
    found: dict[StopProgram, None] = {}
    for key, program in (pair for old in had for pair in _programs(old)):
        other = wanted.get(key)
        same = other is not None and other._replace(ready=program.ready) == program
        if key in status.programs and not same:
            found[StopProgram(*key)] = None
    return list(found)


def _programs(topology: Topology) -> Iterator[tuple[tuple[str, str], Program]]:
    for netns in topology.namespaces:
        yield from (((netns.name, program.name), program) for program in netns.programs)
