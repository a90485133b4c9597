"""A look at a lab that stands: what the kernel has beside what a topology wants, as steps, and what the kernel said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from netlab.lab import rest
from netlab.lab.diff import difference, step_netns
from netlab.lab.directory import LabDirectory
from netlab.lab.netns import Namespaces
from netlab.lab.read import Known, scope_of, status_of, there
from netlab.lab.reading import Reading, Scope, take
from netlab.lab.rule_steps import (
    ClearRules,
    DeleteRules,
    DeleteTable,
    LoadRules,
    LoadTable,
    RestoreRules,
)
from netlab.lab.sealed import made_now
from netlab.lab.state import LabState
from netlab.lab.status import LinkKey, Status
from netlab.lab.steps import (
    CreateLink,
    CreateNetns,
    DeleteLink,
    DeleteNetns,
    StartProgram,
    Step,
    StopProgram,
)
from netlab.linux.generation import FIRST
from netlab.model import Topology


class Look(NamedTuple):
    """The steps from what the kernel has to what is wanted, the ifindex of every link, and what the kernel said, as it
    said it and as a Status."""

    steps: list[Step]
    indexes: dict[LinkKey, int]
    scope: Scope
    reading: Reading
    status: Status


def look(
    directory: LabDirectory,
    namespaces: Namespaces,
    had: Sequence[Topology],
    new: Topology,
    state: LabState,
    known: Known,
    before: Look | None = None,
    again: Collection[str] | None = None,
) -> Look:
    """What differs; had name what in the lab is its own.

    before is a look from just before, after which something may have changed in the namespaces of `again` alone; None
    for any.
    """
    scope = scope_of(*had, new)
    names = there(namespaces, state)
    if before is None or before.scope != scope or again is None:
        reading = take(namespaces, names, scope)
    else:
        reading = take(namespaces, names, scope, before.reading, again)
    told = None if before is None else (before.reading, before.status)
    status = status_of(namespaces, reading, had, new, state, directory.hosts_text(), known, told)
    indexes = {key: link.ifindex for key, link in status.links.items()}
    return Look(difference(had, new, status), indexes, scope, reading, status)


def as_kept(directory: LabDirectory, state: LabState, last: Topology) -> Known:
    """Whose rules stood when the lab was last at rest. last is what the lab was asked to be last."""
    kept = rest.kept(directory)
    same = kept is not None and kept.made_of == made_now(directory, state)
    return Known(last, kept.rules if kept is not None and same else {})


def as_built(topology: Topology, steps: Iterable[Step]) -> Known:
    """Whose rules stand in namespaces that this process has just made, where each load was one transaction."""
    loads = Counter(step.netns for step in steps if isinstance(step, LoadRules | LoadTable))
    return Known(topology, {netns: (None, FIRST + count) for netns, count in loads.items()})


def as_changed(topology: Topology, before: Look) -> Known:
    """Whose rules stand once the steps of a look have been carried out: what differed was loaded, a transaction each,
    and nobody has come between."""
    steps = before.steps
    known = as_built(topology, steps).counts
    loads = {netns: count - FIRST for netns, (_, count) in known.items()}
    new = {step.netns for step in steps if isinstance(step, CreateNetns)}
    taken = {step.netns for step in steps if isinstance(step, ClearRules | DeleteRules | DeleteTable | RestoreRules)}
    counts: dict[str, tuple[int | None, int]] = {netns: known[netns] for netns in known.keys() & new}
    for netns, (cookie, count) in rest.counted(before.reading).items():
        if netns not in new:
            counts[netns] = (cookie, count + loads.get(netns, 0))
    return Known(topology, {netns: count for netns, count in counts.items() if netns not in taken})


def touched(steps: Iterable[Step]) -> set[str] | None:
    """The namespaces in which these steps may have changed something; None for any."""
    names: set[str] = set()
    for step in steps:
        if isinstance(step, DeleteLink | DeleteNetns | StartProgram | StopProgram):
            return None  # the other end may be anywhere, and what a program does, too
        names.update(_places(step))
    return names


def _places(step: Step) -> Iterator[str]:
    if isinstance(step, CreateLink):
        yield from (interface.netns for interface in step.link.interfaces())
    elif (netns := step_netns(step)) is not None:
        yield netns
