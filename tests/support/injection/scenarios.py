"""The commands that faults are injected into: from which state of the lab, and what must hold afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from injection import judge, snapshot
from injection.commands import Command
from injection.judge import BROKEN, UNTRUE, Complaint
from injection.machine import Machine
from injection.topologies import LAB


class Scenario:
    """One command in one situation. words are its arguments; begin prepares it, judge looks at what it has done."""

    name = ""
    any_code = False

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.count = itertools.count()

    def begin(self) -> list[str | Path]:
        """Bring the lab into the state that the command starts from; the command."""
        raise NotImplementedError

    def judge(self, command: Command) -> Iterator[Complaint]:
        """Complaints about what the command has left, and about the commands after it."""
        raise NotImplementedError


class FromNothing(Scenario):
    """A command that builds a lab where there is none."""

    built_anew = True

    def end(self, command: Command) -> Iterator[Complaint]:
        """What has failed, and was not killed, has left nothing; what was killed, `up` builds or `down` removes."""
        machine = self.machine
        if command.code > 0 and not command.deaf:
            yield from machine.nothing_left()
        elif next(self.count) % 4 == 0:
            up = machine.commands.run(*machine.up("cluster"))
            yield from judge.ended(up)
            if up.code:
                yield Complaint(BROKEN, f"up: exit {up.code}: {up.stderr}")
            elif self.built_anew:
                yield from machine.is_whole(self.golden, BROKEN, "after the next up")
        yield from machine.take_down()

    def begin_from_nothing(self) -> None:
        """No lab stands, and it is known what one looks like."""
        machine = self.machine
        if not hasattr(self, "golden"):
            machine.clear()
            machine.must(*machine.up("cluster"))
            self.golden = machine.lab()
        if machine.standing is not None or machine.rundir.joinpath(LAB).exists():
            machine.clear()


class Up(FromNothing):
    """`up` of a lab that isn't there."""

    name = "up"

    def begin(self) -> list[str | Path]:
        self.begin_from_nothing()
        return self.machine.up("cluster")

    def judge(self, command: Command) -> Iterator[Complaint]:
        if command.code == 0 and not command.holder_gone:
            yield from self.machine.is_whole(
                self.golden, UNTRUE, "up said that it is up", but_programs=command.other_struck
            )
        yield from self.end(command)


class RunAlone(FromNothing):
    """`run` that builds its lab, and takes it down."""

    name = "run, builds"
    built_anew = False  # the next `up` may find the lab that it was killed in, with its observers' tables

    def begin(self) -> list[str | Path]:
        self.begin_from_nothing()
        machine = self.machine
        return ["run", machine.file("cluster"), "--name", LAB, machine.privilege, "--trials", "1"]

    def judge(self, command: Command) -> Iterator[Complaint]:
        if command.code == 0:
            yield from self.machine.nothing_left()
        elif f"`netlab down {LAB}` removes what is left" in command.stderr:  # the taking down itself was refused
            yield from self.machine.take_down()
            return
        yield from self.end(command)


class Matrix(Scenario):
    """`matrix`: each cell in a child, in a lab of its own."""

    name = "matrix"

    def begin(self) -> list[str | Path]:
        machine = self.machine
        if machine.standing is not None or machine.rundir.joinpath(LAB).exists():
            machine.clear()
        fix = ["--fix", "be-liberal"]
        return ["matrix", machine.file("cluster"), "--name", LAB, machine.privilege, *fix, "--jobs", "2"]

    def judge(self, command: Command) -> Iterator[Complaint]:
        for journal in self.machine.rundir.glob("*.matrix"):
            journal.unlink()  # kept for --resume
        if not self.machine.foreign and self.machine.rundir.exists() and not [*self.machine.rundir.iterdir()]:
            self.machine.rundir.rmdir()
        if command.code >= 0:
            yield from self.machine.nothing_left()
        yield from self.machine.take_down()


class Down(Scenario):
    """`down` of a lab that stands."""

    name = "down"

    def begin(self) -> list[str | Path]:
        machine = self.machine
        if machine.standing is not None or machine.rundir.joinpath(LAB).exists():
            machine.clear()
        machine.must(*machine.up("cluster"))
        return ["down", LAB]

    def judge(self, command: Command) -> Iterator[Complaint]:
        machine = self.machine
        if command.code == 0:
            left = machine.nothing_left()
            empty = len(left) == 1 and left[0].words.startswith(f"file {machine.rundir} ") and "\n" not in left[0].words
            if left and not empty and "netlab: " not in command.stderr:
                yield Complaint(UNTRUE, f"down said nothing of {left}")
        elif next(self.count) % 4 == 0:
            up = machine.commands.run(*machine.up("cluster"))
            yield from judge.ended(up)
            if up.code:
                yield Complaint(BROKEN, f"up: exit {up.code}: {up.stderr}")
        yield from machine.take_down()


class Standing(Scenario):
    """A command that changes a lab that stands, from one state to another, and back the next time."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.now = 0

    def change(self, to: int) -> list[str | Path]:
        """The command that brings the lab into the state of that number."""
        raise NotImplementedError

    def begin(self) -> list[str | Path]:
        machine = self.machine
        if machine.standing != (self.name, ()):
            machine.clear()
            self.prepare()
            machine.plant_inside()
            machine.standing = self.name, ()
            self.golden, self.now = self._goldens(), 0
        return self.change(1 - self.now)

    def prepare(self) -> None:
        """Build the lab in its first state."""
        self.machine.must(*self.machine.up("cluster"))

    def _goldens(self) -> list[tuple[list[str], list[str]]]:
        machine, found = self.machine, []
        for to in (1, 0):
            machine.must(*self.change(to))
            found.append((machine.lab(), snapshot.machine(exact=False)))
        return found[::-1]

    def judge(self, command: Command) -> Iterator[Complaint]:
        machine, to = self.machine, 1 - self.now
        holder_killed = command.fault is not None and command.fault.kind == "holder"
        if command.code == 0:
            if not holder_killed:
                what, programs = "it was said to be done", command.other_struck
                yield from machine.is_whole(self.golden[to][0], UNTRUE, what, but_programs=programs)
        elif command.code > 0 and not holder_killed:
            found = machine.lab()
            if not (command.deaf and found == self.golden[to][0]):  # it is done, and could not say so
                yield from judge.same_lab(self.golden[self.now][0], found, BROKEN, "the change wasn't taken back")
        again = machine.commands.run(*self.change(to))
        yield from judge.ended(again)
        self.now = to
        if again.code and holder_killed:
            machine.standing = None
            yield from machine.take_down()
        elif again.code:
            yield Complaint(BROKEN, f"the same again: exit {again.code}: {again.stderr}")
        elif again.stderr.startswith("removed what") or holder_killed:
            machine.standing = None  # built anew: what was foreign inside has gone with the namespaces
            yield from machine.take_down()
        else:
            yield from machine.is_whole(self.golden[to][0], BROKEN, f"after the same again: {again.stderr}")
            yield from judge.compare(self.golden[to][1], snapshot.machine(exact=False))


class Converge(Standing):
    """`up` of a lab that stands, with another text."""

    name = "up, changes"

    def prepare(self) -> None:
        self.machine.must(*self.change(0))

    def change(self, to: int) -> list[str | Path]:
        name = ("cluster", "changed")[to]
        topology = self.machine.work / "both.yaml"
        topology.write_text(self.machine.file(name).read_text())
        return ["up", topology, "--name", LAB, self.machine.privilege]


class Fix(Standing):
    """`fix apply` and `fix revert`."""

    name = "fix"

    def change(self, to: int) -> list[str | Path]:
        return ["fix", "apply" if to else "revert", "drop-invalid", "be-liberal", "--lab", LAB]


class Looking(Scenario):
    """A command that leaves a lab that stands as it is."""

    words: tuple[str, ...] = ()
    leaves = False

    def begin(self) -> list[str | Path]:
        self.golden = self.machine.stand("cluster")
        return [*self.words]

    def judge(self, command: Command) -> Iterator[Complaint]:
        machine = self.machine
        if command.fault is not None and command.fault.kind == "holder":
            machine.standing = None
            yield from machine.take_down()
            return
        machine.commands.reap()
        if command.code < 0 and self.leaves:
            again = machine.commands.run(*self.words)  # takes away what the killed one had put there
            yield from judge.ended(again)
            if again.code:
                yield Complaint(BROKEN, f"the same again: exit {again.code}: {again.stderr}")
        yield from machine.is_whole(self.golden[0], BROKEN, "the lab isn't as before")
        yield from judge.compare(self.golden[1], snapshot.machine(exact=False))


class Exec(Looking):
    """`exec` of a program."""

    name = "exec"
    any_code = True
    words = ("exec", "--lab", LAB, "client", "--", "true")


class Capture(Looking):
    """`capture` for a moment."""

    name = "capture"
    words = ("capture", "--lab", LAB, "-w", "packets.pcapng", "--for", "0.02")


class Run(Looking):
    """`run` in a lab that stands."""

    name = "run"
    words = ("run", LAB, "--trials", "1")
    leaves = True


SCENARIOS: dict[str, Callable[[Machine], Scenario]] = {
    scenario.name: scenario for scenario in (Up, Converge, Down, Fix, Exec, Capture, Run, RunAlone, Matrix)
}
