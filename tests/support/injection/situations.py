"""What can go wrong before a command begins: limits, a damaged state, foreign objects in its places, a crowd.

Each is a fault of the plan like those of `plan.py`, but for that it strikes no single call: it is named by its
situation and the command, and looked for in every command that it may concern.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

from injection import judge, snapshot
from injection.commands import Command, How
from injection.judge import BROKEN, TOUCHED, UNTRUE, Complaint
from injection.machine import Machine
from injection.scenarios import Scenario
from injection.topologies import LAB
from netlab.linux import syscalls

_Happen: TypeAlias = Callable[[Machine, Scenario], tuple[Command, list[Complaint]]]


class Situation(NamedTuple):
    """A thing that goes wrong: step and kind are its row in the table; happen makes it so, and judges."""

    step: str
    kind: str
    command: str
    happen: _Happen

    def name(self) -> str:
        """By which `scripts/faults --only` finds it again."""
        return f"{self.command}|{self.step}|{self.kind}"


# --- limits ----------------------------------------------------------------------------------------------------------


def _limited(which: int, number: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(which, (number, number))


def _memory(more: int) -> Callable[[], None]:
    """Leave the process so many bytes of address space beside what it has."""

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        number = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (number, number))

    return limit


LIMITS = {
    **{
        f"{number} open files": _limited(resource.RLIMIT_NOFILE, number)
        for number in (4, 8, 12, 16, 24, 30, 36, 42, 50)
    },
    **{f"{number} bytes a file": _limited(resource.RLIMIT_FSIZE, number) for number in (0, 10, 400, 4096)},
    **{f"{number} KiB more memory": _memory(number << 10) for number in (0, 64, 512, 4096, 16384)},
    **{f"{number} processes": _limited(resource.RLIMIT_NPROC, number) for number in (0, 1, 3)},
}
"""What a command may have no more of. Of processes root may have any number."""


def _under_a_limit(limit: Callable[[], None], *, deaf: bool) -> _Happen:
    def happen(machine: Machine, scenario: Scenario) -> tuple[Command, list[Complaint]]:
        command = machine.commands.run(*scenario.begin(), how=How(before=limit))
        # Its stderr is a file here, which a limit on files may keep from it.
        complaints = judge.ended(command, any_code=scenario.any_code, deaf=deaf)
        return command, [*complaints, *scenario.judge(command)]

    return happen


# --- a state that can't be understood --------------------------------------------------------------------------------


def _text(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(change(file.read_bytes()))


def _members(**changed: object) -> Callable[[Path], object]:
    return _text(lambda data: json.dumps({**json.loads(data), **changed}).encode())


def _without(member: str) -> Callable[[Path], object]:
    return _text(lambda data: json.dumps({key: v for key, v in json.loads(data).items() if key != member}).encode())


def _in_its_place(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def damage(file: Path) -> None:
        file.unlink()
        make(file)

    return damage


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": _text(lambda _: b""),
    "cut off": _text(lambda data: data[: len(data) // 2]),
    "garbage": _text(lambda _: bytes(range(256))),
    "nested": _text(lambda _: b"[" * 100_000),
    "a huge number": _text(lambda _: b'{"lab": ' + b"9" * 5000 + b"}"),
    "older: without a member": _without("following"),
    "newer: with another member": _members(colour="red"),
    "another lab's": _members(lab="other"),
    "a wrong type": _members(namespaces="client"),
    "init's pid": _members(holder={"pid": 1, "start_ticks": 0}),
    "a path for a name": _members(namespaces=[["../../etc", 1]]),
    "others can write": lambda file: file.chmod(0o666),
    "a fifo": _in_its_place(os.mkfifo),
    "a link": _in_its_place(lambda file: file.symlink_to("/etc/passwd")),
    "gone": _in_its_place(lambda _: None),
}
"""What may have become of a lab's state.json."""


def _damaged(kind: str, damage: Callable[[Path], object]) -> _Happen:
    def happen(machine: Machine, scenario: Scenario) -> tuple[Command, list[Complaint]]:
        words = scenario.begin()
        kept = machine.state()
        damage(machine.rundir / LAB / "state.json")
        command = machine.commands.run(*words)
        complaints = [*judge.ended(command, any_code=scenario.any_code)]
        built_anew = scenario.name == "up, changes" and kind == "gone" and "is up: " in command.stderr
        if command.code == 0 and scenario.name != "down" and not built_anew:
            complaints.append(Complaint(UNTRUE, f"done, in a lab whose state can't be understood: {command.stderr}"))
        down = machine.commands.run("down", "--all")
        complaints += judge.ended(down)
        if machine.privilege == "--root" and isinstance(names := kept["namespaces"], list):
            # Nothing says any more that these are the lab's: `down` names them, and leaves them to the user.
            said = command.stderr + down.stderr
            for name, _ in names:
                if Path(f"/run/netns/{LAB}-{name}").exists():
                    if f"{LAB}-{name}" not in said:
                        complaints.append(Complaint(UNTRUE, f"nothing was said of {LAB}-{name}: {said}"))
                    subprocess.run(["ip", "netns", "del", f"{LAB}-{name}"], check=True)
            if not machine.foreign:  # with the last name goes what `ip netns` made for the first
                with suppress(OSError):
                    syscalls.umount("/run/netns")
                    Path("/run/netns").rmdir()
        machine.standing = None
        return command, [*complaints, *machine.take_down()]

    return happen


# --- foreign objects where ours may stand ----------------------------------------------------------------------------


def _directory(place: Path) -> None:
    place.mkdir()
    (place / "topology.yaml").write_text("somebody's\n")
    (place / "state.json").write_text("{}\n")


def _link(place: Path) -> None:
    elsewhere = place.with_name("somebodys")
    _directory(elsewhere)
    place.symlink_to(elsewhere)


OBJECTS: dict[str, Callable[[Path], object]] = {
    "a file": lambda place: place.write_text("somebody's\n"),
    "an empty file": Path.touch,
    "a directory": _directory,
    "an empty directory": Path.mkdir,
    "a link": _link,
    "a fifo": os.mkfifo,
}
PLACES = {"up": "{rundir}/{lab}", "run, builds": "{rundir}/{lab}", "matrix": "{rundir}/{lab}.matrix"}
"""Of the command that would make something there."""

NAME = "/run/netns/{lab}-client"


def _tree(place: Path) -> list[str]:
    return [line for line in snapshot.machine() if line.startswith(("file ", "mount ")) and str(place) in line]


def _in_our_place(where: str, make: Callable[[Path], object]) -> _Happen:
    def happen(machine: Machine, scenario: Scenario) -> tuple[Command, list[Complaint]]:
        words = scenario.begin()
        place = Path(where.format(rundir=machine.rundir, lab=LAB))
        made = [parent for parent in (place.parent, place.parent.parent) if not parent.exists()]
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make(place)
        before = _tree(place)
        command = machine.commands.run(*words)
        complaints = [*judge.ended(command)]
        if command.code == 0:
            complaints.append(Complaint(UNTRUE, f"done, where somebody's stands: {command.stderr}"))
        if str(place) not in command.stderr:
            complaints.append(Complaint(UNTRUE, f"{place} isn't named: {command.stderr}"))
        complaints += judge.ended(machine.commands.run("down", LAB))
        complaints += judge.ended(machine.commands.run("down", "--all"))
        complaints += judge.same_lab(before, _tree(place), TOUCHED, "somebody's isn't as it was")
        for thing in (place, place.with_name("somebodys")):
            if thing.is_dir() and not thing.is_symlink():
                shutil.rmtree(thing)
            else:
                thing.unlink(missing_ok=True)
        for parent in made:
            if str(place).startswith("/run/netns/"):  # it stays as long as there is a name
                with suppress(OSError):
                    syscalls.umount(str(parent))
            with suppress(OSError):
                parent.rmdir()
        return command, [*complaints, *machine.take_down()]

    return happen


# --- many at once ----------------------------------------------------------------------------------------------------


def _crowd(machine: Machine, scenario: Scenario) -> tuple[Command, list[Complaint]]:
    """Twenty commands on one lab at the same time, of every kind; the next `up` finds or makes it whole."""
    first = scenario.begin()
    others: list[list[str | Path]] = [
        machine.up("changed"),
        ["down", LAB],
        ["fix", "apply", "be-liberal", "--lab", LAB],
        ["status", LAB],
        ["exec", "--lab", LAB, "client", "--", "true"],
        ["down", "--all"],
        machine.up("cluster"),
        ["status"],
        ["capture", "--lab", LAB, "-w", "packets.pcapng", "--for", "0.02"],
    ]
    begun = [machine.commands.begin(*words) for words in (first, *(others * 3)[:19])]
    for command in begun:
        machine.commands.finish(command)
    complaints = [complaint for command in begun for complaint in judge.ended(command)]
    machine.clear()
    up = machine.commands.run(*machine.up("cluster"))
    complaints += judge.ended(up)
    if up.code:
        complaints.append(Complaint(BROKEN, f"up after the crowd: exit {up.code}: {up.stderr}"))
    return begun[0], [*complaints, *machine.take_down()]


# --- all -------------------------------------------------------------------------------------------------------------

STANDING = ("up, changes", "down", "fix", "exec", "capture")
LIMITED = ("up", *STANDING, "run, builds")


def _all() -> Iterator[Situation]:
    for command in LIMITED:
        for kind, limit in LIMITS.items():
            yield Situation("limits", kind, command, _under_a_limit(limit, deaf="bytes a file" in kind))
    for command in STANDING:
        for kind, damage in DAMAGE.items():
            yield Situation("state", kind, command, _damaged(kind, damage))
    for kind, make in OBJECTS.items():
        for command, place in PLACES.items():
            if not (command == "matrix" and kind == "an empty file"):  # as a matrix that was killed at once leaves
                yield Situation("in its place", kind, command, _in_our_place(place, make))
        yield Situation("as a name", kind, "up", _in_our_place(NAME, make))
    for command in ("up", "down"):
        yield Situation("crowd", "twenty at once", command, _crowd)


SITUATIONS = {one.name(): one for one in _all()}


def concerns(situation: Situation, privilege: str, *, root: bool) -> bool:
    """Whether it may happen to these labs."""
    if situation.step == "as a name":
        return privilege == "--root"
    return not (situation.kind.endswith(" processes") and root)
