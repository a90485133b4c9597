"""A lab's life: built, and changed once it stands.

`state.py` knows what belongs to a lab, `holder.py` and `netns.py` make and enter its namespaces, `work.py` carries
steps out, `standing.py` takes a lab down. Whatever moment this process is killed at, the next `down` finds in the
lab's directory what there may be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from netlab.errors import LabError, NetlabError, TopologyError, UnsupportedError, UsageError
from netlab.lab import plan
from netlab.lab.apply import Kernel
from netlab.lab.directory import LabDirectory
from netlab.lab.holder import become_rootless, hold
from netlab.lab.host_names import HOST_NAMES, share_host_names
from netlab.lab.netns import Namespaces
from netlab.lab.spec import Spec, load
from netlab.lab.standing import boot_id, check_standing, is_standing, open_lab, remove
from netlab.lab.state import Asked, LabState
from netlab.lab.steps import StartProgram, Step, StopProgram
from netlab.lab.work import Done, Waiting, Work, unseen
from netlab.linux import interrupts
from netlab.linux.reserve import Reserve
from netlab.model import Topology
from netlab.topology.kept import KEEP, held

if TYPE_CHECKING:
    from netlab.lab.look import Look
    from netlab.lab.read import Known


class Outcome(NamedTuple):
    """What `up` did: built from nothing, or the steps that changed a lab that stood (none: nothing to do); and of what.

    spec is what the lab then is: see `continued`.
    """

    spec: Spec
    built: bool
    steps: tuple[Step, ...]
    leftovers: bool = False


def up(
    directory: LabDirectory, spec: Spec, *, rootless: bool | None, done: Done = unseen, waiting: Waiting = unseen
) -> Outcome:
    """Build the lab, or make the one that stands follow the topology.

    rootless None means: as the lab is, or as this user is. done is called with each step, waiting with the program that
    isn't ready yet. On any failure, and on Ctrl-C, what this call made is taken back before the exception goes on.
    """
    _check_tables(spec)
    with directory.locked(create=True):
        state = directory.read()
        if state is not None and is_standing(state):
            _check_same_lab(state, spec, rootless)
            return _changed(directory, state, as_it_is(directory, state, spec), spec, done, waiting)
        if rootless is None:
            rootless = os.geteuid() != 0 if state is None else state.rootless
        if left := remove(directory, state):
            raise LabError(f"some of the lab's remains could not be removed: {'; '.join(left)}")
        steps = _build(directory, spec, rootless, done, waiting)
        return Outcome(spec, built=True, steps=tuple(steps), leftovers=state is not None)


def change(directory: LabDirectory, become: Callable[[Spec], Spec]) -> Outcome:
    """Make the lab that stands what become makes of it, as `up` does; LabError where none stands: it isn't built.

    become is asked while no other command changes the lab.
    """
    with directory.locked():
        state = directory.read()
        if state is None:
            raise LabError(f"the lab {directory.lab} is gone", "`netlab up` builds it again")
        check_standing(state)
        was = as_it_is(directory, state)
        spec = become(was)
        _check_tables(spec)
        return _changed(directory, state, was, spec, unseen, unseen)


def restart(directory: LabDirectory, netns: str, name: str, *, waiting: Waiting = unseen) -> None:
    """End a program of the lab that stands, where it still runs, and start it again; LabError where it doesn't come up.

    UsageError where the topology has no such program. Where it is cut short, `up` starts what is missing.
    """
    with directory.locked():
        state = directory.read()
        if state is None:
            raise LabError(f"the lab {directory.lab} is gone", "`netlab up` builds it again")
        topology = as_it_is(directory, state).topology
        found = {(each.name, program.name): program for each in topology.namespaces for program in each.programs}
        if (netns, name) not in found:
            raise UsageError(f"{netns} has no program {name}", f"{directory.lab} has: {_programs(found)}")
        namespaces = open_lab(state)
        work = Work(directory, state, namespaces, Kernel(namespaces), waiting)
        work.carry_out([StopProgram(netns, name), StartProgram(netns, found[netns, name])], unseen)


def _programs(found: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} in {netns}" for netns, name in found) or "none"


def _changed(directory: LabDirectory, state: LabState, was: Spec, spec: Spec, done: Done, waiting: Waiting) -> Outcome:
    spec = continued(was, spec)
    return Outcome(spec, built=False, steps=tuple(_converge(directory, state, was, spec, done, waiting)))


def _check_tables(spec: Spec) -> None:
    """TopologyError where nft refuses the text of a table, before anything is made."""
    if any(netns.tables for netns in spec.topology.namespaces):
        from netlab.lab import tables

        with suppress(UnsupportedError):  # then no lab can be made either, which is told better there
            tables.check(spec)


def pending(directory: LabDirectory, spec: Spec) -> list[Step]:
    """The steps that `up` would carry out now: all of the plan where the lab doesn't stand."""
    state = directory.read()
    if state is None or not is_standing(state):
        return plan.up(spec.topology)
    was = as_it_is(directory, state, spec)
    return changes(directory, open_lab(state), owned(directory, state, was), continued(was, spec).topology, state)


def _check_same_lab(state: LabState, spec: Spec, rootless: bool | None) -> None:
    if None not in (state.file, spec.file) and state.file != spec.file:
        raise UsageError(
            f"the lab {state.lab} is up already, from {state.file}",
            f"take it down (`netlab down {state.lab}`), or give this one another --name",
        )
    if rootless is not None and rootless != state.rootless:
        is_now = "rootless" if state.rootless else "root's"
        raise UsageError(f"the lab {state.lab} is up and {is_now}", f"take it down first: `netlab down {state.lab}`")


def as_it_is(directory: LabDirectory, state: LabState, asked: Spec | None = None) -> Spec:
    """What the lab was asked to be last: that which is asked for now, where it is the same.

    LabError where what was written down of it is no topology (any more).
    """
    text = directory.topology_text()
    given = Asked(state.file, state.settings, state.fixes)
    if asked is not None and (asked.text, asked.file, asked.settings, asked.fixes) == (text, *given):
        return asked
    from netlab.lab import kept_spec

    return kept_spec.kept(directory, state, text) or _written(text, given, state)


def _written(text: str, asked: Asked, state: LabState) -> Spec:
    try:
        return load(text, asked.file, asked.settings, asked.fixes, state.lab)
    except (TopologyError, UsageError) as error:
        raise LabError(
            f"this netlab can't read the stored topology of the lab {state.lab}: {error.message}",
            f"it was changed, or another version wrote it; `netlab down {state.lab}` removes the lab",
        ) from error


def continued(was: Spec, spec: Spec) -> Spec:
    """The spec for a lab that stands: addresses that it leaves open stay with the namespaces and Services that have
    them. was is what the lab is."""
    if any(path == KEEP for path, _ in spec.settings):
        return spec
    settings = tuple(pair for pair in was.settings if pair[0] != KEEP)
    if (spec.text, spec.settings, spec.fixes) == (was.text, settings, was.fixes):
        return was._replace(file=spec.file, named=spec.named)
    had, has = held(was.topology), held(spec.topology)
    kept = {name: had[name] for name in has if name in had}
    if all(has[name] == addresses for name, addresses in kept.items()):
        return spec
    with suppress(TopologyError):  # a pool that has room for all of them anew, and not around these
        keeping = (KEEP, json.dumps(kept))
        made = load(spec.text, spec.file, (keeping, *spec.settings), spec.fixes, spec.topology.name)
        return made._replace(named=spec.named)
    return spec


# --- building --------------------------------------------------------------------------------------------------------


def check_privilege(*, rootless: bool) -> None:
    """UsageError where this user can't build a lab of that kind."""
    if not rootless and os.geteuid() != 0:
        raise UsageError("only root can build a lab with --root", "leave it out: the lab is then rootless")


def _build(directory: LabDirectory, spec: Spec, rootless: bool, done: Done, waiting: Waiting) -> list[Step]:
    topology = spec.topology
    check_privilege(rootless=rootless)
    state = LabState(
        lab=topology.name,
        boot_id=boot_id(),
        rootless=rootless,
        file=spec.file,
        settings=spec.settings,
        fixes=spec.fixes,
    )
    steps = plan.up(topology)
    names = directory.names if rootless else HOST_NAMES
    with Reserve() as reserve:
        try:
            directory.create(state, spec.text, plan.hosts(topology))
            if rootless:
                become_rootless()
            else:
                share_host_names(directory.root)
            newborn = hold(names, directory.hosts, own_names=rootless)
            state = state._replace(holder=newborn.holder)
            directory.write(state)
            newborn.release()
            namespaces = Namespaces(newborn.holder, names, state.prefix, rootless=rootless)
            work = Work(directory, state, namespaces, Kernel(namespaces), waiting)
            work.carry_out(steps, done)
            if len(topology.namespaces) + len(topology.services) >= _LARGE:
                _look_once(work, spec, steps)
            directory.write(work.state._replace(complete=True))
            interrupts.too_late()
        except BaseException:
            reserve.release()
            with interrupts.undisturbed():
                remove(directory, directory.read())
            raise
    return steps


_LARGE = 50
"""From how many namespaces and Services on a lab is looked at once more when it has been built: the next commands then
see at once that all is as it was. A small one is looked at as fast by whoever needs it."""


def _look_once(work: Work, spec: Spec, steps: Sequence[Step]) -> None:
    """Write down what the kernel says of a lab just built, if that is what its topology wants."""
    from netlab.lab import kept_spec, rest
    from netlab.lab.look import as_built, look

    had, known = [spec.topology], as_built(spec.topology, steps)
    with suppress(NetlabError, OSError):  # then it is for the next command to say so
        found = look(work.directory, work.namespaces, had, spec.topology, work.state, known)
        if not found.steps:
            rest.keep(work.directory, spec, found.scope, found.reading, work.state, work.namespaces)
            kept_spec.keep(work.directory, spec)


# --- a lab that stands -----------------------------------------------------------------------------------------------


def owned(directory: LabDirectory, state: LabState, was: Spec) -> list[Topology]:
    """All that may be in a lab that stands: what it was asked to be last, and what changes cut short have begun."""
    begun = [
        _written(directory.next_text(number), begun, state).topology for number, begun in enumerate(state.following)
    ]
    return [was.topology, *begun]


def changes(
    directory: LabDirectory, namespaces: Namespaces, had: Sequence[Topology], new: Topology, state: LabState
) -> list[Step]:
    """The steps from what the kernel has to what the topology wants; had name what in there is the lab's own, first
    what the lab was asked to be last."""
    from netlab.lab.look import as_kept, look

    return look(directory, namespaces, had, new, state, as_kept(directory, state, had[0])).steps


def _converge(
    directory: LabDirectory, state: LabState, was: Spec, spec: Spec, done: Done, waiting: Waiting
) -> list[Step]:
    from netlab.lab import kept_spec, rest
    from netlab.lab.look import as_kept

    had = owned(directory, state, was)
    known = as_kept(directory, state, had[0])
    namespaces = open_lab(state)
    work = Work(directory, state, namespaces, Kernel(namespaces), waiting)
    asked = Asked(spec.file, spec.settings, spec.fixes)
    with Reserve() as reserve:
        try:
            work.state = directory.begin(state, asked, spec.text)
            steps, found = _follow(work, had, spec.topology, known, done)
            with interrupts.held_back():
                directory.settle(work.settled(spec.topology))
                interrupts.too_late()
            rest.keep(directory, spec, found.scope, found.reading, work.state, namespaces)
            kept_spec.keep(directory, spec)
        except BaseException:
            reserve.release()
            # Whatever stops the taking back, what stopped the change is told; `status` shows what is left of it.
            with interrupts.undisturbed(), suppress(NetlabError, OSError, MemoryError):
                _follow(work, [*had, spec.topology], had[0], known, unseen)
                directory.abandon(work.settled(had[0]))
            raise
    return steps


_ROUNDS = 5
"""How often a lab is changed and looked at again. The kernel takes more than a step says (routes go with an interface's
last address, or with it down): what went along comes back in the second round."""


def _follow(work: Work, had: Sequence[Topology], new: Topology, known: Known, done: Done) -> tuple[list[Step], Look]:
    """Carry out what differs until nothing does, by what the kernel then says. Returns all steps, and the last look.

    had name what in the lab is its own before. LabError where something differs again and again.
    """
    from netlab.lab.look import as_changed, look, touched

    work.clear_names()
    steps: list[Step] = []
    found = look(work.directory, work.namespaces, had, new, work.state, known)
    for _ in range(_ROUNDS):
        if not found.steps:
            return steps, found
        work.kernel = Kernel(work.namespaces, found.indexes)
        work.remember(found.steps, had)
        work.carry_out(found.steps, done)
        steps += found.steps
        had, again, known = [new], touched(found.steps), as_changed(new, found)
        found = look(work.directory, work.namespaces, had, new, work.state, known, found, again)
    if found.steps:
        raise LabError(
            f"the lab {new.name} doesn't stay as its topology says: "
            + "; ".join(step.describe() for step in found.steps[:5]),
            _why_not_so(found.steps),
        )
    return steps, found


def _why_not_so(steps: Sequence[Step]) -> str:
    """What to look at where these steps are to be done again and again."""
    ended = next((step for step in steps if isinstance(step, StartProgram)), None)
    if ended is None:
        return "a program in the lab, or another value of the topology, may change it back"
    program = f"{ended.netns} {ended.program.name}"
    return f"that program ends by itself, and a lab's are to run: `netlab logs {program}` shows what it printed"
