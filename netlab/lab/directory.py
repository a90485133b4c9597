"""A lab's directory: what belongs to the lab is written down there, and one command at a time works on it.

It holds its mark (see `mark.py`), `state.json` (see `state.py`), `topology.yaml` (the text the lab was built from),
`hosts` and `logs/`. It is this user's alone, whatever the umask, and what others could have written in it isn't read.
It is made before anything else of a lab and removed after everything else, and what will be made is written here
before it is: whoever finds the directory can take the lab down without its YAML. While a lab is changed, the text of
what it is to become stands in `next-0.yaml`; where such a change was cut short, it stays, and the next one's is
`next-1.yaml`: what may be in the lab is what all of them ask for. `rest.json` is `rest.py`'s, `spec.kept`
`kept_spec.py`'s. Nothing here makes or removes anything in the kernel.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from netlab.errors import LabError
from netlab.lab import locks, mark
from netlab.lab.rundir import check, made, remove_if_empty
from netlab.lab.state import Asked, LabState, decode, encode
from netlab.linux import interrupts
from netlab.linux.deadlines import scaled
from netlab.linux.files import draft_of, private, read_own, replace_own, write_own

_KEPT = ("rest.json", "spec.kept")
"""What saves work, and can go at any time."""

_DRAFTS = tuple(draft_of(Path(name)).name for name in ("state.json", *_KEPT))
"""What a killed command has left of a file that it was about to replace."""


class DamagedError(LabError):
    """What is written down of a lab can't be understood."""


class LabDirectory:
    """The files of one lab."""

    def __init__(self, root: Path, lab: str) -> None:
        self.lab = lab
        self.root = root
        self.path = root / lab
        self.hosts = self.path / "hosts"
        self.names = self.path / "netns"
        self.rest = self.path / _KEPT[0]
        self.kept_spec = self.path / _KEPT[1]
        self._state = self.path / "state.json"
        self._topology = self.path / "topology.yaml"
        self._logs = self.path / "logs"

    def log(self, netns: str, program: str) -> Path:
        """The file of a program's output."""
        return self._logs / f"{netns}.{program}.log"

    def create(self, state: LabState, topology_text: str, hosts: str) -> None:
        """Write a new lab down, before anything of it is made; the directory is locked and holds but its mark."""
        with private():
            self._logs.mkdir()
        write_own(self._topology, topology_text.encode())
        self.write_hosts(hosts)
        self.write(state)

    def write_hosts(self, text: str) -> None:
        """Write the file that is mounted over the lab's /etc/hosts, in place; any user in the lab may read it there."""
        write_own(self.hosts, text.encode(), 0o644)

    def write(self, state: LabState) -> None:
        """Replace state.json in one step, so that a killed writer leaves the old one or the new one."""
        replace_own(self._state, encode(state))

    def begin(self, state: LabState, asked: Asked, text: str) -> LabState:
        """Write down what a lab that stands is to become, before anything of it is made."""
        write_own(self._next(len(state.following)), text.encode())
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

    def hosts_text(self) -> str:
        """What the lab sees as /etc/hosts. DamagedError where it can't be read."""
        return self._text(self.hosts)

    def topology_text(self) -> str:
        """The text the lab was built from. LabError where it can't be read."""
        return self._text(self._topology)

    def next_text(self, number: int) -> str:
        """The text of a change that is under way or was cut short, by its place in `LabState.following`. LabError."""
        return self._text(self._next(number))

    def _text(self, path: Path) -> str:
        try:
            return read_own(path).decode()
        except (OSError, ValueError) as error:
            raise self._damaged(path, error) from error

    def _damaged(self, path: Path, error: Exception) -> DamagedError:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        return DamagedError(
            f"{path} can't be understood: {why}",
            f"it was changed, or another version of netlab wrote it; `netlab down {self.lab}` removes the lab",
        )

    def read(self) -> LabState | None:
        """The state; None where there is none (yet, or no longer). DamagedError where it can't be understood."""
        if not mark.is_marked(self.path):
            return None
        try:
            if self.path.stat().st_mode & 0o022:
                raise DamagedError(f"others can write to {self.path}", f"chmod go-w {self.path}")
            state = decode(read_own(self._state))
            if state.lab != self.lab:
                raise ValueError(f"it is of the lab {state.lab!a}")
            moved = state.following and not self._next(len(state.following) - 1).exists()
            return _settled(state) if moved else state
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._damaged(self._state, error) from error

    def clear(self) -> None:
        """Remove what this class has written, the state last; the directory itself, and its mark, go with its lock.

        What a user has put there stays. OSError where something of netlab's can't be removed.
        """
        for pattern in ("logs/*.log", *_DRAFTS, "next-*.yaml", "topology.yaml", "hosts", *_KEPT, "state.json"):
            if pattern.startswith("logs/") and self._logs.is_symlink():
                continue
            for path in self.path.glob(pattern):
                with suppress(FileNotFoundError, IsADirectoryError):
                    path.unlink()
        for directory in (self._logs, self.names):
            try:
                directory.rmdir()
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY):
                    raise

    def is_clear(self) -> bool:
        """Whether nothing but the mark is left in it."""
        return os.listdir(self.path) == [mark.NAME]  # noqa: PTH208 (names)

    def unmake(self) -> bool:
        """Remove the directory, locked and clear, itself; whether it is gone."""
        with suppress(OSError):
            return mark.unmake(self.path)
        return False

    def give_up(self) -> None:
        """Take the mark alone: what else is in the directory isn't netlab's, and so the directory no longer is."""
        mark.give_up(self.path)

    @contextmanager
    def locked(self, *, create: bool = False, timeout_s: float = 10.0) -> Iterator[bool]:
        """Hold the lab for one command; yields whether its directory is there (with create: it always is).

        Raises LabError where another command keeps it longer than timeout_s.
        """
        deadline = time.monotonic() + scaled(timeout_s)
        fd = None
        try:
            while create or mark.is_marked(self.path):
                with interrupts.held_back():  # whoever makes the directory locks it, or nobody would remove it
                    fd = self._take(create=create)
                if fd is not None:
                    break
                locks.wait_for_lock(deadline, f"another netlab command is working on the lab {self.lab}")
            yield fd is not None
        finally:
            if fd is not None:
                # A directory that holds nothing (an `up` that failed early, a `down` that is done) goes with its lock.
                with suppress(OSError):
                    if locks.same(fd, self.path):  # else it is another command's by now
                        mark.unmake(self.path)
            remove_if_empty(self.root)
            if fd is not None:
                locks.free(fd)

    def _take(self, *, create: bool) -> int | None:
        """Open the directory, which create makes, and lock it; None where it is gone, or another command has it."""
        check(self.root)
        if create and not os.path.lexists(self.path):
            with suppress(FileNotFoundError, FileExistsError), made(self.root):
                return mark.make(self.path)
        if not mark.is_marked(self.path):
            if create and os.path.lexists(self.path):
                raise LabError(f"{self.path} isn't a lab's", "move it away, or give the lab another --name")
            return None
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if locks.lock(fd) and locks.same(fd, self.path):
                for name in _DRAFTS:
                    with suppress(OSError):
                        (self.path / name).unlink()
                return fd
        except OSError:  # a file system that has no locks
            with suppress(OSError):
                mark.unmake(self.path)
            os.close(fd)
            raise
        os.close(fd)
        return None


def _settled(state: LabState) -> LabState:
    """The state of a lab that has become what it was last to become."""
    file, settings, fixes = state.following[-1]
    return state._replace(file=file, settings=settings, fixes=fixes, following=())
