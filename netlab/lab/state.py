"""What belongs to a lab, written down: LabState, its directory, and the lock that keeps two commands off one lab.

A lab's directory holds `state.json` (this value), `topology.yaml` (the text it was built from), `hosts` and `logs/`.
It is made before anything else of a lab and removed after everything else, and what will be made is written here
before it is: whoever finds the directory can take the lab down without its YAML. While a lab is changed, the text of
what it is to become stands in `next-0.yaml`; where such a change was cut short, it stays, and the next one's is
`next-1.yaml`: what may be in the lab is what all of them ask for. Nothing here makes or removes anything in the kernel.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from netlab.errors import LabError, UsageError
from netlab.lab.holder import Holder
from netlab.linux import interrupts
from netlab.linux.files import naming

RUNDIR_VARIABLE = "NETLAB_LAB_RUNDIR"
"""Environment variable that puts the labs' directory elsewhere; a test suite keeps its labs apart with it."""


class StartedProgram(NamedTuple):
    """A program of the topology that runs in the lab, by its pid in the lab's PID namespace."""

    netns: str
    name: str
    pid: int
    start_ticks: int


class Asked(NamedTuple):
    """What a lab is to become, beside the text: the topology's path (None: standard input), `--set` pairs, fixes."""

    file: str | None
    settings: tuple[tuple[str, str], ...] = ()
    fixes: tuple[str, ...] = ()


class LabState(NamedTuple):
    """What a lab owns, and what it was made from.

    namespaces are (name, inode of the network namespace); names is the directory in which their names stand, each with
    prefix before it. file is the topology's path or None for standard input, settings the `--set` pairs. former are
    sysctls (netns, key, value) as they were before a change of the lab that stands first set them. following are the
    changes of the lab that stands that are under way or were cut short, oldest first. complete is false from before the
    first step of its building until after the last. boot_id tells a state from before a reboot.
    """

    lab: str
    boot_id: str
    rootless: bool
    names: str
    prefix: str
    file: str | None
    settings: tuple[tuple[str, str], ...] = ()
    fixes: tuple[str, ...] = ()
    holder: Holder | None = None
    namespaces: tuple[tuple[str, int], ...] = ()
    programs: tuple[StartedProgram, ...] = ()
    former: tuple[tuple[str, str, str], ...] = ()
    following: tuple[Asked, ...] = ()
    complete: bool = False

    def standing(self) -> bool:
        """Whether the lab is whole: built to its end, in this boot, its holder alive."""
        return self.complete and self.holder is not None and self.boot_id == boot_id() and self.holder.alive()


def boot_id() -> str:
    """The kernel's random name of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def run_directory() -> Path:
    """Where this user's labs are written down: a directory that a reboot empties.

    NETLAB_LAB_RUNDIR, or /run/netns-lab for root, $XDG_RUNTIME_DIR/netns-lab, or one in /tmp.
    """
    if given := os.environ.get(RUNDIR_VARIABLE):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/run/netns-lab")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK | os.X_OK):  # su keeps the variable of another user's session
        return Path(runtime) / "netns-lab"
    return Path("/tmp") / f"netns-lab-{os.geteuid()}"  # noqa: S108 (mode 0700, refused if not ours)


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
        fields = {
            **state._asdict(),
            "holder": state.holder and state.holder._asdict(),
            "programs": [program._asdict() for program in state.programs],
            "following": [asked._asdict() for asked in state.following],
        }
        draft = self._state.with_suffix(".new")
        write_text(draft, json.dumps(fields))
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
        with suppress(
            OSError
        ):  # what was to be said here, `read` finds out: on a full disk, too, nothing is taken back
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
            raw = json.loads(self._state.read_text())
            state = LabState(
                **{
                    **raw,
                    "settings": tuple((path, value) for path, value in raw["settings"]),
                    "fixes": tuple(raw["fixes"]),
                    "holder": raw["holder"] and Holder(**raw["holder"]),
                    "namespaces": tuple((name, inode) for name, inode in raw["namespaces"]),
                    "programs": tuple(StartedProgram(**program) for program in raw["programs"]),
                    "former": tuple((netns, key, value) for netns, key, value in raw.get("former", ())),
                    "following": tuple(
                        Asked(one["file"], tuple((path, value) for path, value in one["settings"]), tuple(one["fixes"]))
                        for one in raw.get("following", ())
                    ),
                }
            )
            moved = state.following and not self._next(len(state.following) - 1).exists()
            return _settled(state) if moved else state
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, KeyError) as error:
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
                wait_for_lock(deadline, f"another netlab command is at work on the lab {self.lab}")
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
            if lock(fd) and same(fd, self.path):
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


def lock(fd: int) -> bool:
    """Take the lock on an open file (flock(2)); False where another has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(deadline: float, complaint: str) -> None:
    """Wait a little before another try; LabError with the complaint after the deadline."""
    if time.monotonic() > deadline:
        raise LabError(complaint, "wait for it, or end it")
    time.sleep(0.02)


def same(fd: int, path: Path) -> bool:
    """Whether the open file still stands there."""
    try:
        return path.stat().st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


def make_root(root: Path) -> None:
    """Make the labs' directory; LabError where another user may have made it."""
    _check_root(root)
    root.mkdir(mode=0o700 if os.geteuid() else 0o755, parents=True, exist_ok=True)
    _check_root(root)


def _check_root(root: Path) -> None:
    """Refuse a directory in which someone else could have written down labs for this user to enter or to end."""
    try:
        found = root.lstat()
    except FileNotFoundError:
        return
    elsewhere = f"set {RUNDIR_VARIABLE} to a directory of yours"
    if stat.S_ISLNK(found.st_mode):
        raise LabError(f"{root} is a symbolic link", f"remove it, or {elsewhere}")
    if not stat.S_ISDIR(found.st_mode):
        raise LabError(f"{root} is no directory", f"remove it, or {elsewhere}")
    if found.st_uid != os.geteuid():
        raise LabError(f"{root} belongs to another user", elsewhere)


def remove_if_empty(root: Path) -> None:
    """Remove the labs' directory with the last lab in it, or after a command that was killed before the first."""
    with suppress(OSError):
        root.rmdir()


def labs(root: Path) -> list[str]:
    """The names of the labs that are written down here, sorted. LabError where the directory isn't this user's."""
    _check_root(root)
    try:
        return sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []


def choose(root: Path, lab: str | None) -> str:
    """The lab that a command means: the one named, or the only one there is. UsageError says what there is."""
    there = labs(root)
    if lab is not None:
        if lab not in there:
            known = f"the labs here are: {', '.join(there)}" if there else "no lab is up: `netlab up` builds one"
            raise UsageError(f"no lab is called {lab}", known)
        return lab
    if not there:
        raise UsageError("no lab is up", "`netlab up topology.yaml` builds one")
    if len(there) > 1:
        raise UsageError(f"several labs are up: {', '.join(there)}", "name the one you mean")
    return there[0]
