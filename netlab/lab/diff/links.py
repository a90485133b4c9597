"""Links: which have to go, which are changed where they are, and who is whose other end. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netlab.lab.status import LinkKey, LinkStatus, Status
from netlab.lab.steps import (
    CreateLink,
    CreateNetns,
    DeleteLink,
    DeleteNetns,
    SetLink,
    Step,
    StopProgram,
)
from netlab.links import PAIRED
from netlab.model import (
    Interface,
    Link,
    LinkAttributes,
    Topology,
    pairs,
)


def other_ends(had: Sequence[Topology], new: Topology, status: Status) -> dict[LinkKey, LinkKey]:
    """The other end of each link of a kind that has two. The two point at each other by ifindex, which is a namespace's
    own number: where several do, the lab's own links tell which."""
    ends: dict[tuple[int | None, int | None], list[LinkKey]] = {}
    for key, link in status.links.items():
        if link.kind in PAIRED:
            ends.setdefault((link.ifindex, link.peer_index), []).append(key)
    asked: dict[LinkKey, list[LinkKey]] = {}
    for one, other in (pair for topology in (*had, new) for pair in topology.pairs()):
        a, b = key_of(one), key_of(other)
        asked.setdefault(a, []).append(b)
        asked.setdefault(b, []).append(a)
    peers = {}
    for (index, peer_index), keys in ends.items():
        for key in keys:
            candidates = [other for other in ends.get((peer_index, index), ()) if other != key]
            known = [other for other in asked.get(key, ()) if other in candidates]
            if known or len(candidates) == 1:
                peers[key] = (known or candidates)[0]
    return peers


def key_of(interface: Interface) -> LinkKey:
    return interface.netns, interface.ifname


def stale_links(had: Sequence[Topology], new: Topology, status: Status, peers: dict[LinkKey, LinkKey]) -> list[LinkKey]:
    """The links to remove: owned and no longer wanted, or wanted and of another making. One end of two is enough."""
    before: dict[LinkKey, list[Interface]] = {}
    were: dict[LinkKey, list[Link]] = {}
    for link in (link for old in had for link in old.links):
        were.setdefault(key_of(link.interfaces()[0]), []).append(link)
        for interface in link.interfaces():
            before.setdefault(key_of(interface), []).append(interface)
    wanted = {key_of(interface) for interface in new.interfaces()}
    stale: dict[LinkKey, None] = {}
    for link in new.links:
        ends = link.interfaces()
        found = [key_of(end) for end in ends if key_of(end) in status.links]
        if found and (
            not _is_made_so(link, were.get(key_of(ends[0]), []), status, peers)
            or any(_forgets(was, end) for end in ends for was in before.get(key_of(end), []))
        ):
            stale.update(dict.fromkeys(found))
    stale.update(dict.fromkeys(key for key in before if key not in wanted and key in status.links))
    theirs = foreign_links(had, new, status)
    return _one_end_each({key: None for key in stale if key not in theirs}, peers)


def foreign_links(had: Sequence[Topology], new: Topology, status: Status) -> list[LinkKey]:
    """The links that somebody else has made under a name of the lab's: no topology has one of that kind there.

    They stay, and nothing can be made in their place.
    """
    kinds: dict[LinkKey, set[str]] = {}
    for link in (link for topology in (*had, new) for link in topology.links):
        for interface in link.interfaces():
            kinds.setdefault(key_of(interface), set()).add(link.kind)
    return [key for key, known in kinds.items() if key in status.links and status.links[key].kind not in known]


def _one_end_each(stale: dict[LinkKey, None], peers: dict[LinkKey, LinkKey]) -> list[LinkKey]:
    doomed: list[LinkKey] = []
    gone: set[LinkKey] = set()
    for key in stale:
        if key not in gone:
            doomed.append(key)
            gone |= {key, peers.get(key, key)}
    return doomed


def _is_made_so(link: Link, were: Sequence[Link], status: Status, peers: dict[LinkKey, LinkKey]) -> bool:
    """Whether all interfaces of a link are there, joined to each other, and have what only a new link can be given."""
    ends = link.interfaces()
    there = [status.links[key_of(end)] for end in ends if key_of(end) in status.links]
    if len(there) < len(ends) or any(peers.get(key_of(a)) != key_of(b) for a, b in pairs([link])):
        return False
    return all(
        has.kind == link.kind
        and all(link.fits(has.data, was) for was in (were or (None,)))
        and _queues(has.attributes) == _queues(end.attributes)
        for has, end in zip(there, ends, strict=True)
    )


def _queues(attributes: LinkAttributes) -> tuple[int, int]:
    return attributes.num_tx_queues, attributes.num_rx_queues


def _forgets(was: Interface, interface: Interface) -> bool:
    """Whether an attribute was set that is now left to the kernel: only a new link has the kernel's default."""
    if was.attributes == interface.attributes:
        return False
    both = zip(was.attributes, interface.attributes, strict=True)
    return any(had is not None and wants is None for had, wants in both)


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


def with_set_links(steps: list[Step], had: Sequence[Topology], new: Topology, left: Status) -> list[Step]:
    """Put the changes of links that stay right after the last link that is made."""
    made = {key for step in steps for key in makes(step)}
    masters = {(key_of(interface), interface.master) for old in had for interface in old.interfaces()}
    changed: list[Step] = []
    for interface in new.interfaces():
        key = key_of(interface)
        if key not in made:
            link = left.links[key]
            foreign = interface.master is None and link.master is not None and (key, link.master) not in masters
            if _differs(interface, link) or (interface.master != link.master and not foreign):
                changed.append(SetLink(interface, keeps_master=foreign))
    makers = [i for i, step in enumerate(steps) if isinstance(step, CreateNetns | CreateLink)]
    removers = [i for i, step in enumerate(steps) if isinstance(step, DeleteLink | DeleteNetns | StopProgram)]
    at = max((i + 1 for i in (*makers, *removers)), default=0)
    return [*steps[:at], *changed, *steps[at:]]


def makes(step: Step) -> Iterator[LinkKey]:
    if isinstance(step, CreateLink):
        yield from map(key_of, step.link.interfaces())
