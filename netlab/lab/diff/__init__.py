"""The difference between what the kernel has and what a topology wants, as steps.

Pure. Removed is only what an earlier topology of this lab asked for, and what stands in the way of a wanted thing
under its very name; what a user has added by hand (an address, a route, a table) stays.
"""

from __future__ import annotations

from collections.abc import Iterator

from netlab.kubeproxy import loaded_by, notrack
from netlab.kubeproxy.portals import VERSIONS
from netlab.kubeproxy.stale import frontends
from netlab.lab import plan
from netlab.lab.diff.left import after, stopped, without
from netlab.lab.diff.links import other_ends, stale_links, with_set_links
from netlab.lab.diff.moved import moved_addresses
from netlab.lab.diff.there import has_table, in_the_way, installed, satisfied
from netlab.lab.status import Status
from netlab.lab.steps import (
    AddAddress,
    AddQdisc,
    AddRoute,
    ClearRules,
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
    SetSysctl,
    StartProgram,
    Step,
    WriteHosts,
)
from netlab.model import (
    Loader,
    Topology,
)


def difference(old: Topology, new: Topology, status: Status) -> list[Step]:
    """The steps that turn what is there into `new`; old names what of it the lab owns. Empty: nothing to do."""
    peers = other_ends(old, new, status)
    stale = stale_links(old, new, status, peers)
    steps: list[Step] = list(stopped(old, new, status))
    kept = {netns.name for netns in new.namespaces}
    gone = [netns.name for netns in old.namespaces if netns.name not in kept]
    steps += [DeleteLink(netns, ifname) for netns, ifname in stale]
    steps += [DeleteNetns(name) for name in gone if name in status.namespaces]
    left = without(status, stale, gone, peers, old, new)
    removed = list(_removed(old, new, left))
    steps += removed
    left = after(removed, new, left)
    for step in plan.up(new):
        if not satisfied(step, left):
            steps += [*in_the_way(step, left), _over(step, left, old), *_stale_entries(step, new, left)]
    steps = with_set_links(steps, old, new, left)
    moved = moved_addresses(steps, old, new, status, left)
    standing = tuple(netns.name for netns in new.namespaces if netns.name in left.namespaces)
    if moved and standing:
        early = sum(not isinstance(step, WriteHosts | StartProgram) for step in steps)
        steps.insert(early, ForgetNeighbours(moved, standing))
    return steps


def _removed(old: Topology, new: Topology, left: Status) -> Iterator[Step]:
    """What an earlier topology asked for and this one doesn't, of all that isn't a link."""
    wanted = {_identity(step) for step in plan.up(new)}
    for step in reversed(plan.up(old)):
        if _identity(step) in wanted or step_netns(step) not in left.namespaces:
            continue
        match step:
            case AddAddress(netns, ifname, address) if address in left.addresses.get((netns, ifname), ()):
                yield DeleteAddress(netns, ifname, address)
            case AddRoute(netns, route) if (found := installed(route, left.routes.get(netns, frozenset()))) is not None:
                yield DeleteRoute(netns, found)
            case SetSysctl(netns, key) if (netns, key) in left.sysctls:
                yield ResetSysctl(netns, key, left.former.get((netns, key)))
            case AddQdisc(netns, ifname, _) if (netns, ifname) in left.qdiscs:
                yield DeleteQdisc(netns, ifname)
            case LoadRules(netns, rules):
                yield DeleteRules(netns, rules.names)
            case RestoreRules(netns, family) if left.iptables[netns, family].has is not None:
                yield ClearRules(netns, family)
            case LoadTable(netns, table) if has_table(step, left):
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


def _over(step: Step, left: Status, old: Topology) -> Step:
    """The step for a lab that stands: rules take the place of those that are there."""
    if isinstance(step, LoadRules) and step.netns in left.rules and left.rules[step.netns].has:
        had = loaded_by(Loader.LIBNFTABLES, old, step.netns)
        gone = () if had is None else tuple(table for table in had.names if table not in step.ruleset.names)
        return step._replace(replace=True, gone=gone)
    if isinstance(step, LoadTable) and has_table(step, left):
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
