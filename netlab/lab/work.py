"""Carrying steps out in a lab: what belongs to it is written down before it is made, and struck out after it is gone.

What a step does in the kernel is `apply.py`'s, programs are `programs.py`'s.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import assert_never

from netlab.errors import LabError
from netlab.lab import programs
from netlab.lab.apply import Kernel
from netlab.lab.directory import LabDirectory
from netlab.lab.netns import Namespaces, end_strays, strays
from netlab.lab.plan import follows_the_link
from netlab.lab.state import LabState, StartedProgram
from netlab.lab.steps import (
    CreateNetns,
    DeleteNetns,
    KernelStep,
    SetSysctl,
    StartProgram,
    Step,
    StopProgram,
    WriteHosts,
)
from netlab.linux import interrupts, sysctl
from netlab.model import Topology

Done = Callable[[Step], None]
Waiting = Callable[[str], None]
"""Told what is waited for, again and again while it is."""


def unseen(_what: object) -> None:
    """A Done or Waiting that tells nobody."""


class Work:
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
        """Carry the steps out in order; done is called with each before the next begins."""
        for kind, group in groupby(steps, key=_hand):
            kind(self, list(group), done)

    def _create(self, steps: Sequence[CreateNetns], done: Done) -> None:
        def journal(born: Sequence[tuple[str, int]]) -> None:
            # Who comes anew under a name that was there has nothing of what was there.
            names = {name for name, _ in born}
            others = tuple(one for one in self.state.namespaces if one[0] not in names)
            former = tuple(one for one in self.state.former if one[0] not in names)
            self._write(self.state._replace(namespaces=(*others, *born), former=former))

        self.namespaces.create([step.netns for step in steps], journal)
        for step in steps:
            done(step)

    def _delete(self, steps: Sequence[DeleteNetns], done: Done) -> None:
        inodes = dict(self.state.namespaces)
        for step in steps:
            if self.namespaces.exists(step.netns, inodes[step.netns]):  # else the inode may be another's by now
                end_strays(strays({inodes[step.netns]}))
            with interrupts.held_back():  # between them, an empty file would stand where the name was
                self.namespaces.release(step.netns, inodes.pop(step.netns))
                self._write(self.state._replace(namespaces=tuple(inodes.items())))
            done(step)

    def clear_names(self) -> None:
        """Take away, and strike out, names that a killed command had begun to take away: without their namespace."""
        stand = [(name, inode) for name, inode in self.state.namespaces if self.namespaces.exists(name, inode)]
        if len(stand) < len(self.state.namespaces):
            for name, inode in {*self.state.namespaces} - {*stand}:
                self.namespaces.release(name, inode)
            self._write(self.state._replace(namespaces=tuple(stand)))

    def _write_hosts(self, steps: Sequence[WriteHosts], done: Done) -> None:
        for step in steps:
            self.directory.write_hosts(step.text)
            done(step)

    def _start(self, steps: Sequence[StartProgram], done: Done) -> None:
        with _beside(self.state.file):
            self._start_here(steps, done)

    def _start_here(self, steps: Sequence[StartProgram], done: Done) -> None:
        def journal(started: StartedProgram) -> None:
            others = [one for one in self.state.programs if one[:2] != started[:2]]
            self._write(self.state._replace(programs=(*others, started)))

        for step in steps:
            log = self.directory.log(step.netns, step.program.name)
            with interrupts.held_back():
                programs.start(self.namespaces, step.netns, step.program, log, journal)
            programs.wait_ready(self.namespaces, step.program, self.state.programs[-1], log, self.waiting)
            done(step)

    def _stop(self, steps: Sequence[StopProgram], done: Done) -> None:
        for step in steps:
            stays: list[StartedProgram] = []
            for program in self.state.programs:
                if (program.netns, program.name) == (step.netns, step.name):
                    programs.stop(self.namespaces, program)
                else:
                    stays.append(program)
            self._write(self.state._replace(programs=tuple(stays)))
            done(step)

    def _apply(self, steps: Sequence[KernelStep], done: Done) -> None:
        self.kernel.apply(steps, done)

    def remember(self, steps: Sequence[Step], had: Sequence[Topology]) -> None:
        """Write down the sysctls that these steps set and that nothing of the lab has set before."""
        known = {(netns, key) for netns, key, _ in self.state.former}
        known |= {
            (n.name, key)
            for topology in had
            for n in topology.namespaces
            for key, _ in (*n.sysctls, *n.sysctls_if_there)
        }
        found = []
        for step in steps:
            if isinstance(step, SetSysctl) and (step.netns, step.key) not in known and not follows_the_link(step.key):
                # A namespace, or an interface, that is still to come has nothing to remember.
                with suppress(LabError, OSError), self.namespaces.inside(step.netns):
                    found.append((step.netns, step.key, sysctl.read(step.key)))
        if found:
            self._write(self.state._replace(former=(*self.state.former, *found)))

    def settled(self, topology: Topology) -> LabState:
        """The state of a lab that has become this topology: without what belongs to nothing in it."""
        names = {netns.name for netns in topology.namespaces}
        programs = {(netns.name, program.name) for netns in topology.namespaces for program in netns.programs}
        sysctls = {(n.name, key) for n in topology.namespaces for key, _ in (*n.sysctls, *n.sysctls_if_there)}
        return self.state._replace(
            namespaces=tuple(one for one in self.state.namespaces if one[0] in names),
            programs=tuple(one for one in self.state.programs if (one.netns, one.name) in programs),
            former=tuple(one for one in self.state.former if one[:2] in sysctls),
        )

    def _write(self, state: LabState) -> None:
        self.state = state
        self.directory.write(state)


@contextmanager
def _beside(file: str | None) -> Iterator[None]:
    """In the directory of the topology's file meanwhile, so that relative paths in its commands mean the same from
    anywhere; where it came from standard input, or the directory is gone, in the caller's."""
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            if file is not None:
                os.chdir(Path(file).parent)
        yield
    finally:
        os.fchdir(here)
        os.close(here)


def _hand(step: Step) -> Callable[[Work, list, Done], None]:  # type: ignore[type-arg]
    """The method of Work that carries out steps of this kind."""
    if isinstance(step, KernelStep):
        return Work._apply
    match step:
        case CreateNetns():
            return Work._create
        case DeleteNetns():
            return Work._delete
        case WriteHosts():
            return Work._write_hosts
        case StartProgram():
            return Work._start
        case StopProgram():
            return Work._stop
        case _:
            assert_never(step)
