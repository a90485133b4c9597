"""The difference between what the kernel has and what a topology wants, as steps.

Pure. Removed is only what an earlier topology of this lab asked for, and what stands in the way of a wanted thing
under its very name; what a user has added by hand (an address, a route, a table) stays. There may be several earlier
ones, of which any part may be there: a change that was cut short leaves something of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netlab.kubeproxy import Ruleset, loaded_by, notrack, ruleset
from netlab.kubeproxy.portals import VERSIONS
from netlab.kubeproxy.stale import frontends
from netlab.lab import plan
from netlab.lab.diff.left import after, stopped, without
from netlab.lab.diff.links import foreign_links, other_ends, stale_links, with_set_links
from netlab.lab.diff.moved import forget_moved
from netlab.lab.diff.there import has_table, in_the_way, installed, satisfied
from netlab.lab.rule_steps import (
    ClearRules,
    CoverRules,
    DeleteEntries,
    DeleteRules,
    DeleteStaleEntries,
    DeleteTable,
    LoadRules,
    LoadTable,
    RestoreRules,
    UncoverRules,
)
from netlab.lab.status import Status
from netlab.lab.steps import (
    AddAddress,
    AddQdisc,
    AddRoute,
    DeleteAddress,
    DeleteLink,
    DeleteNetns,
    DeleteQdisc,
    DeleteRoute,
    ForgetNeighbours,
    ResetSysctl,
    SetSysctl,
    StartProgram,
    Step,
    WriteHosts,
)
from netlab.model import (
    Loader,
    NftTable,
    Topology,
)


def difference(had: Sequence[Topology], new: Topology, status: Status) -> list[Step]:
    """The steps that turn what is there into `new`; had names what of it the lab owns. Empty: nothing to do."""
    peers = other_ends(had, new, status)
    stale = stale_links(had, new, status, peers)
    steps: list[Step] = list(stopped(had, new, status))
    kept = {netns.name for netns in new.namespaces}
    gone = list(dict.fromkeys(n.name for old in had for n in old.namespaces if n.name not in kept))
    steps += [DeleteLink(netns, ifname) for netns, ifname in stale]
    steps += [DeleteNetns(name) for name in gone if name in status.namespaces]
    left = without(status, [*stale, *foreign_links(had, new, status)], gone, peers, had, new)
    wanted = plan.up(new)
    removed = list(_removed([old for old in had if old is not new], wanted, left))
    steps += removed
    left = after(removed, new, left)
    for step in wanted:
        if not satisfied(step, left):
            steps += [*in_the_way(step, left), _over(step, left, had, new), *_stale_entries(step, new, left)]
    steps = with_set_links(steps, had, new, left)
    steps = _without_a_gap(steps, new, status)
    forget = forget_moved(steps, had, new, status, left) if steps else None
    if forget is not None:
        late = (i for i, step in enumerate(steps) if isinstance(step, WriteHosts | StartProgram))
        steps.insert(next(late, len(steps)), forget)
    return steps


def _without_a_gap(steps: list[Step], new: Topology, status: Status) -> list[Step]:
    """The same steps with kube-proxy's rules standing elsewhere meanwhile, where they go before the new ones come."""
    for netns in dict.fromkeys((*new.kube_proxy.nodes, *status.covered)):
        mine = [(i, step) for i, step in enumerate(steps) if step_netns(step) == netns]
        gone = [i for i, step in mine if isinstance(step, DeleteRules | ClearRules)]
        come = [i for i, step in mine if isinstance(step, LoadRules | RestoreRules)]
        last = max((*gone, *come), default=len(steps) - 1) + 1
        rules = ruleset(new, netns)
        if gone and come and rules is not None:
            meanwhile = [CoverRules(netns, rules), *steps[gone[0] : last], UncoverRules(netns)]
            steps = [*steps[: gone[0]], *meanwhile, *steps[last:]]
        elif netns in status.covered and not any(isinstance(step, DeleteNetns) for _, step in mine):
            steps = [*steps[:last], UncoverRules(netns), *steps[last:]]
    return steps


def _removed(had: Sequence[Topology], wanted: Sequence[Step], left: Status) -> Iterator[Step]:
    """What an earlier topology asked for and these steps don't, of all that isn't a link."""
    if not had:
        return
    seen = {_identity(step) for step in wanted}
    for step in (step for old in had for step in reversed(plan.up(old))):
        if _identity(step) in seen or step_netns(step) not in left.namespaces:
            continue
        seen.add(_identity(step))
        match step:
            case AddAddress(netns, ifname, address) if address in left.addresses.get((netns, ifname), ()):
                yield DeleteAddress(netns, ifname, address)
            case AddRoute(netns, route) if (found := installed(netns, route, left)) is not None:
                yield DeleteRoute(netns, found)
            case SetSysctl(netns, key) if (netns, key) in left.sysctls:
                yield ResetSysctl(netns, key, left.former.get((netns, key)))
            case AddQdisc(netns, ifname, _) if (netns, ifname) in left.qdiscs:
                yield DeleteQdisc(netns, ifname)
            case LoadRules(netns):
                yield DeleteRules(netns, _rulesets(had, netns, Loader.LIBNFTABLES))
            case RestoreRules(netns, family) if left.iptables[netns, family].has is not None:
                yield ClearRules(netns, family, _rulesets(had, netns, Loader.IPTABLES_RESTORE))
            case LoadTable(netns, table) if has_table(step, left):
                yield DeleteTable(netns, table.family, table.name, _former_tables(had, step))


def _rulesets(had: Sequence[Topology], netns: str, loader: Loader) -> tuple[Ruleset, ...]:
    """The rules of kube-proxy's that a loader may have brought into a namespace."""
    rules = (loaded_by(loader, old, netns) for old in had)
    return tuple(dict.fromkeys(found for found in rules if found is not None))


def _former_tables(had: Sequence[Topology], step: LoadTable) -> tuple[NftTable, ...]:
    """The tables of the topologies that a namespace may have under a name."""
    name = step.table.family, step.table.name
    found = (table for old in had for n in old.namespaces if n.name == step.netns for table in n.tables)
    return tuple(dict.fromkeys(table for table in found if (table.family, table.name) == name))


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


def _over(step: Step, left: Status, had: Sequence[Topology], new: Topology) -> Step:
    """The step for a lab that stands: rules take the place of those that are there."""
    if isinstance(step, LoadRules) and step.netns in left.rules and left.rules[step.netns].has:
        standing = left.standing.get(step.netns)
        rules = _rulesets(had, step.netns, Loader.LIBNFTABLES)
        return step._replace(replace=True, former=rules, standing=standing)
    if isinstance(step, RestoreRules) and step.netns in left.namespaces:
        now = (wanted,) if (wanted := ruleset(new, step.netns)) is not None else ()
        return step._replace(rulesets=(*now, *_rulesets(had, step.netns, Loader.IPTABLES_RESTORE)))
    if isinstance(step, LoadTable) and has_table(step, left):
        former = _former_tables(had, step)
        return step._replace(replace=bool(former), former=former, foreign=not former)
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
