"""A lab's directory: what belongs to the lab is written down there, and one command at a time works on it.

It holds `state.json` (see `state.py`), `topology.yaml` (the text the lab was built from), `hosts` and `logs/`. It is
made before anything else of a lab and removed after everything else, and what will be made is written here before it
is: whoever finds the directory can take the lab down without its YAML. While a lab is changed, the text of what it is
to become stands in `next-0.yaml`; where such a change was cut short, it stays, and the next one's is `next-1.yaml`:
what may be in the lab is what all of them ask for. Nothing here makes or removes anything in the kernel.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from netlab.errors import LabError
from netlab.lab import locks
from netlab.lab.rundir import make_root, remove_if_empty
from netlab.lab.state import Asked, LabState, decode, encode
from netlab.linux import interrupts
from netlab.linux.files import naming


class LabDirectory:
    """The files of one lab."""

    def __init__(self, root: Path, lab: str) -> None:
        self.lab = lab
        self.root = root
        self.path = root / lab
        self.hosts = self.path / "hosts"
        self.names = self.path / "netns"
        self._state = self.path / "state.json"
        self._topology = self.path / "topology.yaml"
        self._logs = self.path / "logs"

    def log(self, netns: str, program: str) -> Path:
        """The file of a program's output."""
        return self._logs / f"{netns}.{program}.log"

    def create(self, state: LabState, topology_text: str, hosts: str) -> None:
        """Write a new lab down, before anything of it is made; the directory is locked and empty."""
        self._logs.mkdir()
        write_text(self._topology, topology_text)
        write_text(self.hosts, hosts)
        self.write(state)

    def write(self, state: LabState) -> None:
        """Replace state.json in one step, so that a killed writer leaves the old one or the new one."""
        draft = self._state.with_suffix(".new")
        write_text(draft, encode(state).decode())
        draft.replace(self._state)

    def begin(self, state: LabState, asked: Asked, text: str) -> LabState:
        """Write down what a lab that stands is to become, before anything of it is made."""
        write_text(self._next(len(state.following)), text)
        state = state._replace(following=(*state.following, asked))
        self.write(state)
        return state

    def settle(self, state: LabState) -> LabState:
        """Write down that the lab has become what it was last to become. The move of its text decides that: whoever is
        killed after it is taken at that by `read`."""
        self._next(len(state.following) - 1).replace(self._topology)
        state = _settled(state)
        with suppress(OSError):  # on a full disk, too, nothing is taken back: `read` finds out what was to be said here
            self.write(state)
            self._forget_next()
        return state

    def abandon(self, state: LabState) -> LabState:
        """Write down that the lab is what it was, and that nothing is left of what it was to become."""
        state = state._replace(following=())
        self.write(state)
        self._forget_next()
        return state

    def _next(self, number: int) -> Path:
        return self.path / f"next-{number}.yaml"

    def _forget_next(self) -> None:
        for path in self.path.glob("next-*.yaml"):
            path.unlink(missing_ok=True)

    def topology_text(self) -> str:
        """The text the lab was built from."""
        return self._topology.read_text(encoding="utf-8")

    def next_text(self, number: int) -> str:
        """The text of a change that is under way or was cut short, by its place in `LabState.following`."""
        return self._next(number).read_text(encoding="utf-8")

    def read(self) -> LabState | None:
        """The state; None where there is none (yet, or no longer). LabError where it can't be understood."""
        try:
            state = decode(self._state.read_bytes())
            moved = state.following and not self._next(len(state.following) - 1).exists()
            return _settled(state) if moved else state
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise LabError(
                f"{self._state} can't be understood: {error}", "was it written by another version of netlab?"
            ) from error

    def clear(self) -> None:
        """Remove what this class has written, the state last; the directory itself goes with its lock."""
        for pattern in ("logs/*.log", "*.new", "next-*.yaml", "topology.yaml", "hosts"):
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)
        for directory in (self._logs, self.names):
            with suppress(FileNotFoundError, OSError):
                directory.rmdir()
        self._state.unlink(missing_ok=True)

    @contextmanager
    def locked(self, *, create: bool = False, timeout_s: float = 10.0) -> Iterator[bool]:
        """Hold the lab for one command; yields whether its directory is there (with create: it always is).

        Raises LabError where another command keeps it longer than timeout_s.
        """
        deadline = time.monotonic() + timeout_s
        fd = None
        try:
            while create or self.path.exists():
                with interrupts.held_back():  # whoever makes the directory locks it, or nobody would remove it
                    fd = self._take(create=create)
                if fd is not None:
                    break
                locks.wait_for_lock(deadline, f"another netlab command is at work on the lab {self.lab}")
            yield fd is not None
        finally:
            if fd is not None:
                # A directory that holds nothing (an `up` that failed early, a `down` that is done) goes with its lock.
                with suppress(OSError):
                    self.path.rmdir()
                remove_if_empty(self.root)
                os.close(fd)

    def _take(self, *, create: bool) -> int | None:
        """Open the directory, which create makes, and lock it; None where it is gone, or another command has it."""
        if create:
            make_root(self.root)
            with suppress(FileNotFoundError, FileExistsError):
                self.path.mkdir(mode=0o755)
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if locks.lock(fd) and locks.same(fd, self.path):
                return fd
        except OSError:  # a file system that has no locks
            with suppress(OSError):
                self.path.rmdir()
            remove_if_empty(self.root)
            os.close(fd)
            raise
        os.close(fd)
        return None


def _settled(state: LabState) -> LabState:
    """The state of a lab that has become what it was last to become."""
    file, settings, fixes = state.following[-1]
    return state._replace(file=file, settings=settings, fixes=fixes, following=())


def write_text(path: Path, text: str) -> None:
    """Write a file of a lab's directory; OSError naming it, where the disk is full too."""
    with naming(path):
        path.write_text(text, encoding="utf-8")
