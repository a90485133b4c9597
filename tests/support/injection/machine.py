"""The sandbox's machine with its foreign objects, and the lab that faults are injected into."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from injection import judge, sandbox, snapshot
from injection.commands import Command, Commands
from injection.judge import Complaint
from injection.topologies import CHANGED, CLUSTER, EXPERIMENT, LAB, SMALL

FOREIGN_RULES = "table inet foreign {\nchain input {\ntype filter hook input priority 5; policy accept;\n}\n}\n"


class Machine:
    """One sandbox; privilege is `--root` or `--rootless`. foreign: things of somebody else's stand beside the labs."""

    def __init__(self, privilege: str, *, foreign: bool) -> None:
        self.privilege = privilege
        self.environment = sandbox.environment()
        self.rundir = Path("/run/netns-lab" if os.geteuid() == 0 else f"/run/user/{os.geteuid()}/netns-lab")
        self.work = sandbox.HOME / "work"
        self.commands = Commands(self.environment, self.work, self.holder)
        for name, text in (("small", SMALL), ("cluster", CLUSTER), ("changed", CHANGED)):
            self.file(name).write_text(f"{text}experiments: [{name}-connect.yaml]\n" if name != "small" else text)
            (self.work / f"{name}-connect.yaml").write_text(EXPERIMENT.replace("cluster.yaml", f"{name}.yaml"))
        self.foreign = foreign
        if foreign:
            self._plant()
        self.before = snapshot.machine(sysctls=True)
        self._golden: dict[tuple[str, tuple[str, ...]], tuple[list[str], list[str]]] = {}
        self.standing: tuple[str, tuple[str, ...]] | None = None

    def file(self, name: str) -> Path:
        """The file of a topology."""
        return self.work / f"{name}.yaml"

    def _plant(self) -> None:
        """Objects of somebody else's in the places where netlab keeps its own."""
        subprocess.Popen(["sleep", "100000"], stdin=subprocess.DEVNULL, start_new_session=True)
        self.rundir.mkdir(mode=0o700)
        (self.rundir / "notes.txt").write_text("somebody's\n")
        (self.rundir / "elsewhere").symlink_to(self.work / "nowhere")
        if os.geteuid() == 0:
            subprocess.run(["ip", "netns", "add", f"{LAB}x-client"], check=True)
            subprocess.run(["ip", "link", "add", "foreign0", "type", "bridge"], check=True)
            subprocess.run(["nft", FOREIGN_RULES], check=True)

    # --- commands ---

    def up(self, name: str, *options: str) -> list[str | Path]:
        """The words that bring the lab up as a topology has it."""
        return ["up", self.file(name), "--name", LAB, self.privilege, *options]

    def must(self, *argv: str | Path) -> Command:
        """Run a command into which nothing is injected and which must succeed."""
        command = self.commands.run(*argv)
        if command.code or command.timed_out:
            raise AssertionError(f"{argv}: exit {command.code}: {command.stderr}")
        return command

    def state(self) -> dict[str, object]:
        """What the lab's state.json says; nothing where it can't be read."""
        with suppress(OSError, ValueError):
            found: dict[str, object] = json.loads((self.rundir / LAB / "state.json").read_text())
            return found
        return {}

    def holder(self) -> int | None:
        """The pid of the lab's holder, None where there is none."""
        found = self.state().get("holder")
        return found["pid"] if isinstance(found, dict) else None

    def lab(self) -> list[str]:
        """What is in the lab's namespaces."""
        holder, names = self.holder(), self.state().get("namespaces")
        if holder is None or not isinstance(names, list):
            return ["there is no lab"]
        prefix = f"{LAB}-" if self.privilege == "--root" else ""
        return snapshot.lab(holder, {name: f"/run/netns/{prefix}{name}" for name, _ in names})

    # --- the lab as it should be ---

    def stand(self, name: str, *fixes: str) -> tuple[list[str], list[str]]:
        """Have the lab stand as a topology and fixes have it; what is then in it, and on the machine."""
        if self.standing != (name, fixes):
            self.clear()
            self.must(*self.up(name, *(word for fix in fixes for word in ("--fix", fix))))
            self.plant_inside()
            self.standing = (name, fixes)
        if self.standing not in self._golden:
            self._golden[self.standing] = self.lab(), snapshot.machine(exact=False)
        return self._golden[self.standing]

    def plant_inside(self) -> None:
        """Things of somebody else's in the lab's node."""
        holder = self.holder()
        assert holder is not None
        prefix = f"{LAB}-" if self.privilege == "--root" else ""
        child = os.fork()
        if child == 0:
            try:
                snapshot.move_in(holder, f"/run/netns/{prefix}node")
                for line in (
                    "link add foreign0 type bridge",
                    "addr add 192.0.2.1/24 dev foreign0",
                    "link set foreign0 up",
                ):
                    subprocess.run(["ip", *line.split()], check=True)
                subprocess.run(["nft", FOREIGN_RULES], check=True)
                os._exit(0)
            finally:
                os._exit(1)
        if os.waitpid(child, 0)[1]:
            raise AssertionError("nothing foreign can be put into the lab")

    def clear(self) -> None:
        """Take everything down, which must succeed."""
        self.must("down", "--all")
        self.standing = None

    def is_whole(self, golden: list[str], rule: str, what: str, *, but_programs: bool = False) -> Iterator[Complaint]:
        """Complaints where the lab isn't so, or `status` doesn't say that it is.

        but_programs: a program of the lab may have been killed.
        """
        yield from judge.same_lab(golden, self.lab(), rule, what)
        status = self.commands.run("status", LAB, "--format", "json")
        if status.code:
            yield Complaint(rule, f"{what}; status: exit {status.code}: {status.stderr}{status.stdout}")
            return
        drift = [step for step in json.loads(status.stdout)["drift"] if not (but_programs and ": program " in step)]
        if drift:
            yield Complaint(rule, f"{what}; status: {drift}")

    def nothing_left(self, timeout_s: float = 5.0) -> list[Complaint]:
        """Complaints where the machine isn't as it was before."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.commands.reap()
            before = [line for line in self.before if not line.startswith("sysctl ")]
            found = [*judge.compare(before, snapshot.machine())]
            if not found or time.monotonic() > deadline:
                return found
            self.commands.serve(time.monotonic() + 0.05)

    def take_down(self) -> Iterator[Complaint]:
        """`down --all`, after which nothing of ours is there."""
        self.standing = None
        down = self.commands.run("down", "--all")
        yield from judge.ended(down)
        if down.code:
            yield Complaint(judge.BROKEN, f"down --all: exit {down.code}: {down.stderr}")
        yield from self.nothing_left()
        self.commands.forget()
