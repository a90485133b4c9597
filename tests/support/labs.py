"""A lab of a test's own: its topology's file, and the commands on it, each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command import Netlab

from netlab.topology.kept import KEEP

TWO = """
namespaces:
  client: {}
  server: {}
links:
  - ends: [client, server]
"""
"""The smallest lab with a link: client is 10.255.0.1, server 10.255.0.2."""

WARNING = re.compile(r"^\S+:[0-9]+:[0-9]+: warning: .*\n(  hint: .*\n)?", re.MULTILINE)

DEADLINE_S = 60.0


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition; the test fails where it doesn't come."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Lab:
    """A topology file and the name of the lab that it describes; privilege is --root or --rootless."""

    netlab: Netlab
    name: str
    file: Path
    privilege: str

    def write(self, topology: str) -> None:
        """Replace the topology."""
        self.file.write_text(topology)

    def try_up(self, *options: str) -> subprocess.CompletedProcess[str]:
        """`netlab up`, however it ends."""
        return self.netlab("up", self.file, "--name", self.name, self.privilege, *options)

    def up(self, *options: str) -> str:
        """`netlab up`, which must succeed; what it said of the lab, beside warnings of the file."""
        done = self.try_up(*options)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        return WARNING.sub("", done.stderr)

    def down(self) -> str:
        """`netlab down`, which must succeed; what it said."""
        done = self.netlab("down", self.name)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def exec(self, netns: str, *argv: str, stdin: str | None = None) -> str:
        """A program in the lab, which must succeed; its output."""
        done = self.netlab("exec", "--lab", self.name, netns, "--", *argv, stdin=stdin)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def drift(self) -> list[str]:
        """What `netlab status` says that `up` would mend."""
        drift: list[str] = self.status()["drift"]
        return drift

    def status(self) -> dict[str, Any]:
        """`netlab status LAB --format json`."""
        done = self.netlab("status", self.name, "--format", "json")
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def kept(self) -> list[str]:
        """The options with which a fresh lab gets the addresses that this one has kept over its edits."""
        settings = json.loads((self.directory() / "state.json").read_text())["settings"]
        return [word for path, value in settings if path == KEEP for word in ("--set", f"{path}={value}")]

    def directory(self) -> Path:
        """Where the lab's files are while it is up."""
        return self.netlab.rundir / self.name

    def processes(self) -> list[int]:
        """The host's numbers of the processes in the lab's PID namespace, the holder's first."""
        holder: int = self.status()["holder"]
        inside = Path(f"/proc/{holder}/ns/pid").stat().st_ino
        found = [holder]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != holder:
                try:
                    if (entry / "ns/pid").stat().st_ino == inside:
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found


def make(netlab: Netlab, name: str, directory: Path, privilege: str, topology: str = TWO) -> Lab:
    """A lab, not up yet, its topology in directory."""
    lab = Lab(netlab, name, directory / f"{name}.yaml", privilege)
    lab.write(topology)
    return lab


@contextmanager
def observing(
    lab: Lab, *arguments: str | Path, stdout: int | None = subprocess.PIPE
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A command that observes the lab, once it says so on stderr; and that line. It is killed with the block."""
    with subprocess.Popen(
        lab.netlab.argv(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=lab.netlab.environment(),
    ) as process:
        try:
            assert process.stderr is not None
            first = process.stderr.readline().decode()
            assert first.startswith(("capturing on ", "watching ")), first + process.stderr.read().decode()
            yield process, first
        finally:
            process.kill()


def running(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill(pid: int, number: int) -> None:
    """Send a signal, and wait until the process is gone."""
    os.kill(pid, number)
    until(lambda: not running(pid), f"the end of process {pid}")
