"""A lab's life: built, changed, entered, taken down. The order in which things are written down and made is here.

`state.py` knows what belongs to a lab, `holder.py` and `netns.py` make and enter its namespaces, `apply.py` fills
them. Whatever moment this process is killed at, the next `down` finds in the lab's directory what there may be.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from netlab.errors import LabError, NetlabError, UnsupportedError, UsageError
from netlab.lab import plan, programs
from netlab.lab.apply import Kernel
from netlab.lab.holder import HOST_NAMES, become_rootless, hold, share_host_names, unshare_host_names
from netlab.lab.netns import Namespaces, enter, release_name, strays
from netlab.lab.spec import Wanted
from netlab.lab.state import LabDirectory, LabState, StartedProgram, boot_id, labs, write_text
from netlab.lab.steps import (
    CreateNetns,
    DeleteAddress,
    DeleteLink,
    DeleteNetns,
    ResetSysctl,
    SetLink,
    SetSysctl,
    SetUp,
    StartProgram,
    Step,
    StopProgram,
    WriteHosts,
)
from netlab.linux import interrupts, sysctl
from netlab.linux.syscalls import umount
from netlab.model import Topology
from netlab.topology import load_with_fixes

Done = Callable[[Step], None]
Waiting = Callable[[str], None]
"""Told what is waited for, again and again while it is."""


class Outcome(NamedTuple):
    """What `up` did: built from nothing, or the steps that changed a lab that stood (none: nothing to do)."""

    built: bool
    steps: tuple[Step, ...]
    leftovers: bool = False


def _unseen(_what: object) -> None:
    """A Done or Waiting that tells nobody."""


def up(
    directory: LabDirectory, wanted: Wanted, *, rootless: bool | None, done: Done = _unseen, waiting: Waiting = _unseen
) -> Outcome:
    """Build the lab, or make the one that stands follow the topology.

    rootless None means: as the lab is, or as this user is. done is called with each step, waiting with the program that
    isn't ready yet. On any failure, and on Ctrl-C, what this call made is taken back before the exception goes on.
    """
    _check_tables(wanted)
    with directory.locked(create=True):
        state = directory.read()
        if state is not None and state.standing():
            _check_same_lab(state, wanted, rootless)
            return Outcome(built=False, steps=tuple(_converge(directory, state, wanted, done, waiting)))
        leftovers = state is not None
        _remove(directory, state)
        steps = _build(directory, wanted, os.geteuid() != 0 if rootless is None else rootless, done, waiting)
        return Outcome(built=True, steps=tuple(steps), leftovers=leftovers)


def _check_tables(wanted: Wanted) -> None:
    """TopologyError where nft refuses the text of a table, before anything is made."""
    if any(netns.tables for netns in wanted.topology.namespaces):
        from netlab.lab import tables

        with suppress(UnsupportedError):  # then no lab can be made either, which is told better there
            tables.check(wanted)


def pending(directory: LabDirectory, wanted: Wanted) -> list[Step]:
    """The steps that `up` would carry out now: all of the plan where the lab doesn't stand."""
    state = directory.read()
    if state is None or not state.standing():
        return plan.up(wanted.topology)
    return changes(directory, open_lab(state), as_it_is(directory, state).topology, wanted.topology, state)


def _check_same_lab(state: LabState, wanted: Wanted, rootless: bool | None) -> None:
    if None not in (state.file, wanted.file) and state.file != wanted.file:
        raise UsageError(
            f"the lab {state.lab} is up already, from {state.file}",
            f"take it down (`netlab down {state.lab}`), or give this one another --name",
        )
    if rootless is not None and rootless != state.rootless:
        is_now = "rootless" if state.rootless else "root's"
        raise UsageError(f"the lab {state.lab} is up and {is_now}", f"take it down first: `netlab down {state.lab}`")


# --- what a lab that stands was made from, and variations of it ------------------------------------------------------


def as_it_is(directory: LabDirectory, state: LabState) -> Wanted:
    """What the lab was asked to be last."""
    return _derive(directory.topology_text(), state.file, state.settings, state.fixes, state.lab)


def changed(wanted: Wanted, settings: tuple[tuple[str, str], ...], fixes: tuple[str, ...]) -> Wanted:
    """The same topology with more `--set` pairs and fixes."""
    more = tuple(dict.fromkeys((*wanted.fixes, *fixes)))
    return _derive(wanted.text, wanted.file, (*wanted.settings, *settings), more, wanted.topology.name)


def with_only_fixes(wanted: Wanted, fixes: tuple[str, ...]) -> Wanted:
    """The same topology with these fixes and no others; UsageError for a name that is none."""
    return _derive(wanted.text, wanted.file, wanted.settings, fixes, wanted.topology.name)


def _derive(
    text: str, file: str | None, settings: tuple[tuple[str, str], ...], fixes: tuple[str, ...], name: str
) -> Wanted:
    return Wanted(load_with_fixes(text, file or "-", settings, name, fixes), text, file, settings, fixes)


# --- building --------------------------------------------------------------------------------------------------------


def check_privilege(*, rootless: bool) -> None:
    """UsageError where this user can't build a lab of that kind."""
    if not rootless and os.geteuid() != 0:
        raise UsageError("only root can build a lab with --root", "leave it out: the lab is then rootless")


def _build(directory: LabDirectory, wanted: Wanted, rootless: bool, done: Done, waiting: Waiting) -> list[Step]:
    topology = wanted.topology
    check_privilege(rootless=rootless)
    state = LabState(
        lab=topology.name,
        boot_id=boot_id(),
        rootless=rootless,
        names=str(directory.names if rootless else HOST_NAMES),
        prefix="" if rootless else f"{topology.name}-",
        file=wanted.file,
        settings=wanted.settings,
        fixes=wanted.fixes,
    )
    steps = plan.up(topology)
    try:
        directory.create(state, wanted.text, plan.hosts(topology))
        if rootless:
            become_rootless()
        else:
            share_host_names(directory.root)
        newborn = hold(Path(state.names), directory.hosts, f"lab {topology.name}", own_names=rootless)
        state = state._replace(holder=newborn.holder)
        directory.write(state)
        newborn.release()
        namespaces = Namespaces(newborn.holder, Path(state.names), state.prefix, rootless=rootless)
        work = _Work(directory, state, namespaces, Kernel(namespaces), waiting)
        work.carry_out(steps, done)
        directory.write(work.state._replace(complete=True))
        interrupts.too_late()
    except BaseException:
        with interrupts.undisturbed():
            _remove(directory, directory.read())
        raise
    return steps


class _Work:
    """Carries out a list of steps, writing down what belongs to the lab before it is made."""

    def __init__(
        self, directory: LabDirectory, state: LabState, namespaces: Namespaces, kernel: Kernel, waiting: Waiting
    ) -> None:
        self.directory = directory
        self.state = state
        self.namespaces = namespaces
        self.kernel = kernel
        self.waiting = waiting

    def carry_out(self, steps: Sequence[Step], done: Done) -> None:
        for kind, group in groupby(steps, key=_hand):
            kind(self, list(group), done)

    def create(self, steps: Sequence[CreateNetns], done: Done) -> None:
        def journal(born: Sequence[tuple[str, int]]) -> None:
            self._write(self.state._replace(namespaces=(*self.state.namespaces, *born)))

        self.namespaces.create([step.netns for step in steps], journal)
        for step in steps:
            done(step)

    def delete(self, steps: Sequence[DeleteNetns], done: Done) -> None:
        inodes = dict(self.state.namespaces)
        for step in steps:
            for stray in strays({inodes[step.netns]}):
                stray.kill()
            self.namespaces.release(step.netns, inodes.pop(step.netns))
            self._write(self.state._replace(namespaces=tuple(inodes.items())))
            done(step)

    def write_hosts(self, steps: Sequence[WriteHosts], done: Done) -> None:
        for step in steps:
            # In place: this file is mounted over the lab's /etc/hosts.
            write_text(self.directory.hosts, step.text)
            done(step)

    def start(self, steps: Sequence[StartProgram], done: Done) -> None:
        for step in steps:
            log = self.directory.log(step.netns, step.program.name)
            with interrupts.held_back():
                started = programs.start(self.namespaces, step.netns, step.program, log)
                self._write(self.state._replace(programs=(*self.state.programs, started)))
            programs.wait_ready(self.namespaces, step.program, started, log, self.waiting)
            done(step)

    def stop(self, steps: Sequence[StopProgram], done: Done) -> None:
        for step in steps:
            stays: list[StartedProgram] = []
            for program in self.state.programs:
                if (program.netns, program.name) == (step.netns, step.name):
                    programs.stop(self.namespaces, program)
                else:
                    stays.append(program)
            self._write(self.state._replace(programs=tuple(stays)))
            done(step)

    def apply(self, steps: Sequence[Step], done: Done) -> None:
        self.kernel.apply(steps, done)

    def remember(self, steps: Sequence[Step], old: Topology) -> None:
        """Write down the sysctls that these steps set and that nothing of the lab has set before."""
        known = {(netns, key) for netns, key, _ in self.state.former}
        known |= {(n.name, key) for n in old.namespaces for key, _ in (*n.sysctls, *n.sysctls_if_there)}
        found = []
        for step in steps:
            if isinstance(step, SetSysctl) and (step.netns, step.key) not in known:
                # A namespace, or an interface, that is still to come has nothing to remember.
                with suppress(LabError, OSError), self.namespaces.inside(step.netns):
                    found.append((step.netns, step.key, sysctl.read(step.key)))
        if found:
            self._write(self.state._replace(former=(*self.state.former, *found)))

    def forget(self, steps: Sequence[Step]) -> None:
        """Strike out the sysctls that have their former values again, or are gone."""
        back = {(step.netns, step.key) for step in steps if isinstance(step, ResetSysctl)}
        gone = {step.netns for step in steps if isinstance(step, DeleteNetns | CreateNetns)}
        former = tuple(one for one in self.state.former if one[:2] not in back and one[0] not in gone)
        if former != self.state.former:
            self._write(self.state._replace(former=former))

    def _write(self, state: LabState) -> None:
        self.state = state
        self.directory.write(state)


def _hand(step: Step) -> Callable[[_Work, list, Done], None]:  # type: ignore[type-arg]
    """The method of _Work that carries out steps of this kind."""
    match step:
        case CreateNetns():
            return _Work.create
        case DeleteNetns():
            return _Work.delete
        case WriteHosts():
            return _Work.write_hosts
        case StartProgram():
            return _Work.start
        case StopProgram():
            return _Work.stop
    return _Work.apply


# --- a lab that stands -----------------------------------------------------------------------------------------------


def open_lab(state: LabState) -> Namespaces:
    """Enter a lab that stands; LabError where it doesn't."""
    if not state.standing():
        raise LabError(
            f"the lab {state.lab} isn't whole: it was killed, or its building was",
            f"`netlab down {state.lab}` removes what is left, `netlab up` builds it again",
        )
    assert state.holder is not None
    return enter(state.holder, Path(state.names), state.prefix, rootless=state.rootless)


def changes(
    directory: LabDirectory, namespaces: Namespaces, old: Topology, new: Topology, state: LabState
) -> list[Step]:
    """The steps from what the kernel has to what the topology wants; old names what else in there is the lab's own."""
    from netlab.lab.diff import difference
    from netlab.lab.read import read

    return difference(old, new, read(namespaces, old, new, state, directory.hosts.read_text()))


def _converge(directory: LabDirectory, state: LabState, wanted: Wanted, done: Done, waiting: Waiting) -> list[Step]:
    old = as_it_is(directory, state).topology
    namespaces = open_lab(state)
    work = _Work(directory, state, namespaces, Kernel(namespaces), waiting)
    try:
        steps = _follow(work, old, wanted.topology, done)
        with interrupts.held_back():
            directory.write_topology(wanted.text)
            directory.write(work.state._replace(file=wanted.file, settings=wanted.settings, fixes=wanted.fixes))
            interrupts.too_late()
    except BaseException:
        # Whatever stops the taking back, what stopped the change is told; `status` shows what is left of it.
        with interrupts.undisturbed(), suppress(NetlabError, OSError):
            _follow(work, wanted.topology, old, _unseen)
        raise
    return steps


_TAKES_ALONG = (DeleteNetns, DeleteLink, DeleteAddress, SetLink, SetUp)
"""Steps with which the kernel may remove more: routes go with an interface's last address, or with it down."""


def _follow(work: _Work, old: Topology, new: Topology, done: Done) -> list[Step]:
    """Carry out what differs, then what the kernel took away with it, until nothing differs. Returns all steps."""
    from netlab.lab.read import indexes

    steps: list[Step] = []
    while True:
        known = {(type(step), step) for step in steps}
        differing = changes(work.directory, work.namespaces, old, new, work.state)
        more = [step for step in differing if (type(step), step) not in known]
        if more:
            work.kernel = Kernel(work.namespaces, indexes(work.namespaces, work.state))
            work.remember(more, old)
            work.carry_out(more, done)
            work.forget(more)
            steps += more
        if not any(isinstance(step, _TAKES_ALONG) for step in more):
            return steps


# --- taking down -----------------------------------------------------------------------------------------------------


def down(directory: LabDirectory) -> list[str]:
    """Remove a lab, from its state alone; an absent lab is success. Returns what was left alone, in sentences."""
    with directory.locked() as there:
        return _remove(directory, directory.read()) if there else []


def _remove(directory: LabDirectory, state: LabState | None) -> list[str]:
    """Remove all that the state names. Repeating it, or beginning it after a kill at any point, is safe."""
    left: list[str] = []
    if state is not None and state.boot_id == boot_id():
        names = [(Path(state.names) / (state.prefix + name), inode) for name, inode in state.namespaces]
        held = state.holder is not None and state.holder.alive()
        # Only a namespace that something of ours still keeps is surely the one with that inode: numbers are reused.
        pinned = {inode for path, inode in names if held or _stands(path, inode)}
        doomed = strays(pinned)
        if state.holder is not None:
            state.holder.kill()
        for stray in doomed:
            stray.kill()
        if not state.rootless:
            left = [f"{path} isn't this lab's, and stays" for path, inode in names if not release_name(path, inode)]
        else:
            with suppress(OSError):  # mounted only where this very process has begun to build the lab
                umount(state.names)
    unshare_host_names(directory.root, in_use=lambda: any(lab != directory.lab for lab in labs(directory.root)))
    directory.clear()
    return left


def _stands(path: Path, inode: int) -> bool:
    try:
        return path.stat().st_ino == inode and path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False
