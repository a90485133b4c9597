"""The difference between what the kernel has and what a topology wants, as steps.

Pure. Removed is only what an earlier topology of this lab asked for, and what stands in the way of a wanted thing
under its very name; what a user has added by hand (an address, a route, a table) stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from netlab.kubeproxy import loaded_by, notrack
from netlab.kubeproxy.portals import VERSIONS
from netlab.kubeproxy.stale import frontends
from netlab.lab import plan
from netlab.lab.status import LinkKey, LinkStatus, Status
from netlab.lab.steps import (
    AddAddress,
    AddQdisc,
    AddRoute,
    ClearRules,
    CreateLink,
    CreateNetns,
    DeleteAddress,
    DeleteEntries,
    DeleteLink,
    DeleteNetns,
    DeleteQdisc,
    DeleteRoute,
    DeleteRules,
    DeleteStaleEntries,
    DeleteTable,
    ForgetNeighbours,
    LoadRules,
    LoadTable,
    ResetSysctl,
    RestoreRules,
    SetLink,
    SetSysctl,
    SetUp,
    StartProgram,
    Step,
    StopProgram,
    WriteHosts,
)
from netlab.links import PAIRED
from netlab.model import (
    Address,
    Interface,
    InterfaceAddress,
    Link,
    LinkAttributes,
    Loader,
    Program,
    Route,
    Topology,
    is_per_link,
    pairs,
)


def difference(old: Topology, new: Topology, status: Status) -> list[Step]:
    """The steps that turn what is there into `new`; old names what of it the lab owns. Empty: nothing to do."""
    peers = _peers(old, new, status)
    stale = _stale_links(old, new, status, peers)
    steps: list[Step] = list(_stopped(old, new, status))
    kept = {netns.name for netns in new.namespaces}
    gone = [netns.name for netns in old.namespaces if netns.name not in kept]
    steps += [DeleteLink(netns, ifname) for netns, ifname in stale]
    steps += [DeleteNetns(name) for name in gone if name in status.namespaces]
    left = _without(status, stale, gone, peers, old, new)
    removed = list(_removed(old, new, left))
    steps += removed
    left = _after(removed, new, left)
    for step in plan.up(new):
        if not _satisfied(step, left):
            steps += [*_in_the_way(step, left), _over(step, left, old), *_stale_entries(step, new, left)]
    steps = _with_set_links(steps, old, new, left)
    moved = _moved(steps, old, new, status, left)
    standing = tuple(netns.name for netns in new.namespaces if netns.name in left.namespaces)
    if moved and standing:
        early = sum(not isinstance(step, WriteHosts | StartProgram) for step in steps)
        steps.insert(early, ForgetNeighbours(moved, standing))
    return steps


IP6_RT_PRIO_USER = 1024
"""The metric of an IPv6 route that was given none (include/net/ip6_fib.h)."""

# --- links -----------------------------------------------------------------------------------------------------------


def _peers(old: Topology, new: Topology, status: Status) -> dict[LinkKey, LinkKey]:
    """The other end of each link of a kind that has two. The two point at each other by ifindex, which is a namespace's
    own number: where several do, the lab's own links tell which."""
    ends: dict[tuple[int, int | None], list[LinkKey]] = {}
    for key, link in status.links.items():
        if link.kind in PAIRED:
            ends.setdefault((link.index, link.peer_index), []).append(key)
    asked: dict[LinkKey, list[LinkKey]] = {}
    for one, other in (*old.pairs(), *new.pairs()):
        a, b = _key(one), _key(other)
        asked.setdefault(a, []).append(b)
        asked.setdefault(b, []).append(a)
    peers = {}
    for (index, peer_index), keys in ends.items():
        for key in keys:
            candidates = [other for other in ends.get((peer_index or 0, index), ()) if other != key]
            known = [other for other in asked.get(key, ()) if other in candidates]
            if known or len(candidates) == 1:
                peers[key] = (known or candidates)[0]
    return peers


def _key(interface: Interface) -> LinkKey:
    return interface.netns, interface.ifname


def _stale_links(old: Topology, new: Topology, status: Status, peers: dict[LinkKey, LinkKey]) -> list[LinkKey]:
    """The links to remove: owned and no longer wanted, or wanted and of another making. One end of two is enough."""
    before = {_key(interface): interface for interface in old.interfaces()}
    were = {_key(link.interfaces()[0]): link for link in old.links}
    wanted = {_key(interface) for interface in new.interfaces()}
    stale: dict[LinkKey, None] = {}
    for link in sorted(new.links, key=lambda link: link.kind not in PAIRED):
        ends = link.interfaces()
        found = [_key(end) for end in ends if _key(end) in status.links]
        if found and (
            not _is_made_so(link, were.get(_key(ends[0])), status, peers) or any(_forgets(before, end) for end in ends)
        ):
            stale.update(dict.fromkeys(found))
    stale.update(dict.fromkeys(key for key in before if key not in wanted and key in status.links))
    return _one_end_each(stale, peers)


def _one_end_each(stale: dict[LinkKey, None], peers: dict[LinkKey, LinkKey]) -> list[LinkKey]:
    doomed: list[LinkKey] = []
    gone: set[LinkKey] = set()
    for key in stale:
        if key not in gone:
            doomed.append(key)
            gone |= {key, peers.get(key, key)}
    return doomed


def _is_made_so(link: Link, was: Link | None, status: Status, peers: dict[LinkKey, LinkKey]) -> bool:
    """Whether all interfaces of a link are there, joined to each other, and have what only a new link can be given."""
    ends = link.interfaces()
    there = [status.links[_key(end)] for end in ends if _key(end) in status.links]
    if len(there) < len(ends) or any(peers.get(_key(a)) != _key(b) for a, b in pairs([link])):
        return False
    return all(
        has.kind == link.kind and link.fits(has.data, was) and _queues(has.attributes) == _queues(end.attributes)
        for has, end in zip(there, ends, strict=True)
    )


def _queues(attributes: LinkAttributes) -> tuple[int, int]:
    return attributes.num_tx_queues, attributes.num_rx_queues


def _forgets(before: dict[LinkKey, Interface], interface: Interface) -> bool:
    """Whether an attribute was set that is now left to the kernel: only a new link has the kernel's default."""
    had = before.get(_key(interface))
    if had is None:
        return False
    return any(
        was is not None and wants is None for was, wants in zip(had.attributes, interface.attributes, strict=True)
    )


def _differs(interface: Interface, link: LinkStatus) -> bool:
    wanted, has = interface.attributes, link.attributes
    pairs = (
        (wanted.mtu, has.mtu),
        (wanted.mac, has.mac),
        (wanted.txqlen, has.txqlen),
        (wanted.alias, has.alias),
        (wanted.group, has.group),
        (wanted.gso_max_segs, has.gso_max_segs),
        (wanted.gso_max_size, has.gso_max_size),
        (wanted.gro_max_size, has.gro_max_size),
    )
    return any(want is not None and want != is_now for want, is_now in pairs)


def _with_set_links(steps: list[Step], old: Topology, new: Topology, left: Status) -> list[Step]:
    """Put the changes of links that stay right after the last link that is made."""
    made = {key for step in steps for key in _makes(step)}
    masters = {_key(interface): interface.master for interface in old.interfaces()}
    changed: list[Step] = []
    for interface in new.interfaces():
        key = _key(interface)
        if key not in made:
            link = left.links[key]
            foreign = interface.master is None and link.master is not None and link.master != masters.get(key)
            if _differs(interface, link) or (interface.master != link.master and not foreign):
                changed.append(SetLink(interface, keeps_master=foreign))
    makers = [i for i, step in enumerate(steps) if isinstance(step, CreateNetns | CreateLink)]
    removers = [i for i, step in enumerate(steps) if isinstance(step, DeleteLink | DeleteNetns | StopProgram)]
    at = max([*makers, *removers], default=-1) + 1
    return [*steps[:at], *changed, *steps[at:]]


def _moved(steps: list[Step], old: Topology, new: Topology, status: Status, left: Status) -> tuple[Address, ...]:
    """The addresses that were at another interface, or at another MAC address, before these steps."""
    owners: dict[Address, set[LinkKey]] = {}
    before = list(status.addresses.items())
    before += [(_key(interface), frozenset(interface.addresses)) for interface in old.interfaces()]
    for key, found in before:
        for address in found:
            owners.setdefault(address.ip, set()).add(key)
    wants, had_mac = ({_key(i): i.attributes.mac for i in topology.interfaces()} for topology in (new, old))
    had_mac |= {key: link.attributes.mac for key, link in status.links.items()}
    made = {key for step in steps for key in _makes(step)}
    made = {key for key in made if wants[key] is None or wants[key] != had_mac.get(key)}
    moved: dict[Address, None] = {}
    for step in steps:
        match step:
            case AddAddress(netns, ifname, address):
                had, key = owners.get(address.ip, set()), (netns, ifname)
                if had and (key in made or (had != {key} and not is_per_link(address.ip))):
                    moved[address.ip] = None
            case SetLink(interface):
                mac = interface.attributes.mac
                if mac is not None and _key(interface) in left.links and mac != had_mac[_key(interface)]:
                    addresses = {*interface.addresses, *left.addresses.get(_key(interface), ())}
                    moved.update(dict.fromkeys(sorted({a.ip for a in addresses}, key=lambda ip: (ip.version, int(ip)))))
    return tuple(moved)


def _makes(step: Step) -> Iterator[LinkKey]:
    if isinstance(step, CreateLink):
        yield from map(_key, step.link.interfaces())


# --- what is left after the removals, and what of it isn't wanted ----------------------------------------------------


def _without(
    status: Status,
    stale: list[LinkKey],
    gone: list[str],
    peers: dict[LinkKey, LinkKey],
    old: Topology,
    new: Topology,
) -> Status:
    """The same value without the stale links, and all that goes with them."""
    dead = {key for key in status.links if key[0] in gone} | set(stale)
    dead |= {peers[key] for key in dead if key in peers}
    return Status(
        namespaces=status.namespaces - set(gone),
        links={
            key: replace(link, master=None) if (key[0], link.master) in dead else link
            for key, link in status.links.items()
            if key not in dead
        },
        addresses={key: found for key, found in status.addresses.items() if key not in dead},
        unrouted=status.unrouted,
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
        former=status.former,
        rules=status.rules,
        iptables=status.iptables,
        tables=status.tables,
        qdiscs={key: pair for key, pair in status.qdiscs.items() if key not in dead},
        hosts=status.hosts,
        programs=status.programs - {(p.netns, p.name) for p in _stopped(old, new, status)},
    )


def _after(removed: list[Step], new: Topology, left: Status) -> Status:
    """The same value without the removed routes and addresses, and what the kernel drops by itself: the routes from a
    removed address (IPv6 ones only lose their `src`), the IPv4 routes of a link without any IPv4 address left, and the
    IPv6 addresses of a link that is set down."""
    routes = {(step.netns, step.route) for step in removed if isinstance(step, DeleteRoute)}
    sources = {(step.netns, step.address.ip) for step in removed if isinstance(step, DeleteAddress)}
    deleted = {(step.netns, step.ifname, step.address) for step in removed if isinstance(step, DeleteAddress)}
    downed = {_key(i) for i in new.interfaces() if not i.up and _key(i) in left.links and left.links[_key(i)].up}

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

    return replace(
        left,
        addresses=addresses,
        routes={netns: frozenset(staying(netns, found)) for netns, found in left.routes.items()},
    )


def _has_ipv4(addresses: Iterable[InterfaceAddress]) -> bool:
    return any(address.version == 4 for address in addresses)


def _programs(topology: Topology) -> dict[tuple[str, str], Program]:
    return {(netns.name, program.name): program for netns in topology.namespaces for program in netns.programs}


def _stopped(old: Topology, new: Topology, status: Status) -> Iterator[StopProgram]:
    wanted = _programs(new)
    for key, program in _programs(old).items():
        other = wanted.get(key)
        same = other is not None and (other.argv, other.env) == (program.argv, program.env)
        if key in status.programs and not same:
            yield StopProgram(*key)


def _removed(old: Topology, new: Topology, left: Status) -> Iterator[Step]:
    """What an earlier topology asked for and this one doesn't, of all that isn't a link."""
    wanted = {_identity(step) for step in plan.up(new)}
    for step in reversed(plan.up(old)):
        if _identity(step) in wanted or step_netns(step) not in left.namespaces:
            continue
        match step:
            case AddAddress(netns, ifname, address) if address in left.addresses.get((netns, ifname), ()):
                yield DeleteAddress(netns, ifname, address)
            case AddRoute(netns, route) if (
                found := _installed(route, left.routes.get(netns, frozenset()))
            ) is not None:
                yield DeleteRoute(netns, found)
            case SetSysctl(netns, key) if (netns, key) in left.sysctls:
                yield ResetSysctl(netns, key, left.former.get((netns, key)))
            case AddQdisc(netns, ifname, _) if (netns, ifname) in left.qdiscs:
                yield DeleteQdisc(netns, ifname)
            case LoadRules(netns, rules):
                yield DeleteRules(netns, rules.names)
            case RestoreRules(netns, family) if left.iptables[netns, family].has is not None:
                yield ClearRules(netns, family)
            case LoadTable(netns, table) if _there(step, left):
                yield DeleteTable(netns, table.family, table.name)


def step_netns(step: Step) -> str | None:
    """The namespace that a step acts in; None for those that concern several."""
    return None if isinstance(step, WriteHosts | ForgetNeighbours) else step.netns


def _identity(step: Step) -> object:
    """What makes two steps speak of the same thing, whatever value they give it."""
    match step:
        case SetSysctl(netns, key):
            return SetSysctl, netns, key
        case AddQdisc(netns, ifname, _):
            return AddQdisc, netns, ifname
        case LoadRules(netns):
            return LoadRules, netns
        case RestoreRules(netns, family):
            return RestoreRules, netns, family
        case LoadTable(netns, table):
            return LoadTable, netns, table.family, table.name
    return type(step), step


# --- what is there already -------------------------------------------------------------------------------------------


def _satisfied(step: Step, left: Status) -> bool:
    match step:
        case CreateNetns(netns):
            return netns in left.namespaces
        case CreateLink():
            return all(key in left.links for key in _makes(step))
        case SetLink(interface):  # of a link that stays: `_with_set_links` compares that
            return (interface.netns, interface.ifname) in left.links
        case SetUp(netns, ifname, up, _):
            return (netns, ifname) in left.links and left.links[netns, ifname].up == up
        case AddAddress(netns, ifname, address, prefix_route):
            there = address in left.addresses.get((netns, ifname), ())
            return there and ((netns, ifname, address) in left.unrouted) != prefix_route
        case AddRoute(netns, route):
            return _installed(route, left.routes.get(netns, frozenset())) is not None
        case SetSysctl(netns, key, value, if_there):
            has = left.sysctls.get((netns, key), value if if_there else None)
            return has is not None and _words(has) == _words(value)
        case AddQdisc(netns, ifname, _):
            return (netns, ifname) in left.qdiscs and left.qdiscs[netns, ifname].same()
        case LoadRules(netns):
            return netns in left.rules and left.rules[netns].same()
        case RestoreRules(netns, family):
            return (netns, family) in left.iptables and left.iptables[netns, family].same()
        case LoadTable(netns, table):
            return _there(step, left) and left.tables[netns, table.family, table.name].same()
        case WriteHosts(text, _):
            return left.hosts == text
        case StartProgram(netns, program):
            return (netns, program.name) in left.programs
    return False


_BASES = {16: re.compile(r"-?0[xX][0-9a-fA-F]+"), 8: re.compile(r"-?0[0-7]+")}


def _words(value: str) -> list[str]:
    """A sysctl's words as the kernel tells them: it reads 0x10 and 020 as C does, and says 16."""
    return [_in_decimal(word) for word in value.split()]


def _in_decimal(word: str) -> str:
    for base, notation in _BASES.items():
        if notation.fullmatch(word):
            return str(int(word, base))
    return word


def _over(step: Step, left: Status, old: Topology) -> Step:
    """The step for a lab that stands: rules take the place of those that are there."""
    if isinstance(step, LoadRules) and step.netns in left.rules and left.rules[step.netns].has:
        had = loaded_by(Loader.LIBNFTABLES, old, step.netns)
        gone = () if had is None else tuple(table for table in had.names if table not in step.ruleset.names)
        return step._replace(replace=True, gone=gone)
    if isinstance(step, LoadTable) and _there(step, left):
        return step._replace(replace=True)
    return step


def _stale_entries(step: Step, new: Topology, left: Status) -> Iterator[Step]:
    """What must go once these rules stand in a namespace that had some, or may have forwarded without."""
    match step:
        case LoadRules(netns, rules):
            families = rules.families
        case RestoreRules(netns, family):
            families = (family,)
        case LoadTable(netns, table) if table.name == notrack.TABLE:
            if netns in left.namespaces:
                yield DeleteEntries(netns, notrack.untracked(new, 6 if table.family == "ip6" else 4))
            return
        case _:
            return
    versions = [VERSIONS[family] for family in families]
    found = tuple(frontend for frontend in frontends(new, netns) if frontend.version in versions)
    if found and netns in left.namespaces:
        yield DeleteStaleEntries(netns, found)


def _there(step: LoadTable, left: Status) -> bool:
    """Whether a table of that name is there, whatever is in it."""
    found = left.tables.get((step.netns, step.table.family, step.table.name))
    return found is not None and found.has is not None


def _in_the_way(step: Step, left: Status) -> Iterator[Step]:
    """What must go before the step can be carried out: the kernel takes no second route to a place by the same metric,
    and changes no qdisc into another kind, nor any htb."""
    match step:
        case AddAddress(netns, ifname, address, _) if address in left.addresses.get((netns, ifname), ()):
            yield DeleteAddress(netns, ifname, address)  # it has a prefix route and should have none, or the reverse
        case AddRoute(netns, route):
            for there in left.routes.get(netns, ()):
                if (there.dst, _metric(there)) == (route.dst, _metric(route)):
                    yield DeleteRoute(netns, there)
        case AddQdisc(netns, ifname, _):
            if (netns, ifname) in left.qdiscs and left.qdiscs[netns, ifname].has is not None:
                yield DeleteQdisc(netns, ifname)


def _installed(route: Route, routes: frozenset[Route]) -> Route | None:
    """The route as the kernel has it: it fills in what was left open (the interface, for one)."""
    for found in routes:
        same = (found.dst, found.via, found.kind) == (route.dst, route.via, route.kind)
        asked = ((route.dev, found.dev), (route.src, found.src))
        if same and _metric(route) == _metric(found) and all(want is None or want == has for want, has in asked):
            return found
    return None


def _metric(route: Route) -> int:
    """A route's metric as the kernel counts it: in IPv6, none or 0 is one of its own."""
    return route.metric or (IP6_RT_PRIO_USER if route.dst.version == 6 else 0)
