"""Network namespaces: making and naming them, and entering them.

Running programs in them is `exec.py`'s; what is inside them (links, addresses, rules) is `apply.py`'s; what belongs to
which lab is `state.py`'s; the process that holds them is `holder.py`'s.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import stat
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

from netlab.errors import LabError
from netlab.lab import exits, masks
from netlab.lab.holder import alive, parse_start_ticks
from netlab.lab.host_names import HOST_NAMES
from netlab.lab.state import Holder
from netlab.linux import children, interrupts
from netlab.linux.seccomp import change_users_in_name_only
from netlab.linux.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    MS_BIND,
    MS_REC,
    MS_SLAVE,
    mount,
    setns,
    umount,
    unshare,
)


class Namespaces:
    """The network namespaces of one lab, open to this process, which has entered its user namespace.

    Sockets keep the namespace they were made in, so one process can hold both ends of a connection.
    """

    def __init__(
        self, holder: Holder, names: Path, prefix: str, *, rootless: bool, foreign_mounts: bool = False
    ) -> None:
        self._holder = holder
        self._names = names
        self._prefix = prefix
        self.rootless = rootless
        self._foreign_mounts = foreign_mounts
        self._fds: dict[str, int] = {}
        self._soft_open_files: int | None = None
        # /proc as it is now: after entering the holder's mount namespace /proc/self would lead nowhere.
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._home = self._open_proc("thread-self/ns/net")
        self._mnt = self._open_proc(f"{holder.pid}/ns/mnt")
        self._pid = self._open_proc(f"{holder.pid}/ns/pid")
        self._apart = [self._open_proc(f"{holder.pid}/ns/{kind}") for kind in ("uts", "ipc")]

    def _open_proc(self, path: str) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)

    def read_proc(self, path: str) -> str:
        """A file of the host's /proc, by its path below it; OSError."""
        with os.fdopen(self._open_proc(path), errors="replace") as file:
            return file.read()

    def open_exits(self) -> int:
        """The file in which the holder keeps how processes ended (`exits.py`), open to this process; OSError."""
        path = f"{self._holder.pid}/fd/{exits.DESCRIPTOR}"
        return os.open(path, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._proc)

    def start_ticks(self, pid: int) -> int | None:
        """Start time of a process of the lab's PID namespace, in clock ticks since boot; None if it is gone."""
        with suppress(FileNotFoundError, ProcessLookupError):
            if self._has_own_proc:
                return parse_start_ticks(self.read_proc(f"{self._holder.pid}/root/proc/{pid}/stat"))
            return self._start_ticks_by_search(pid)
        return None

    @cached_property
    def _has_own_proc(self) -> bool:
        """Whether the lab's /proc tells of its PID namespace: in a container, or a lab, it may be that one's."""
        first = self.read_proc(f"{self._holder.pid}/root/proc/1/stat")
        return parse_start_ticks(first) == self._holder.start_ticks

    def _start_ticks_by_search(self, pid: int) -> int | None:
        inode = os.fstat(self._pid).st_ino
        for entry in os.scandir("/proc"):
            with suppress(OSError):
                if entry.name.isdigit() and os.stat(f"{entry.path}/ns/pid").st_ino == inode:  # noqa: PTH116 (hot)
                    status = self.read_proc(f"{entry.name}/status").splitlines()
                    if any(line.startswith("NSpid:") and line.split()[-1] == str(pid) for line in status):
                        return parse_start_ticks(self.read_proc(f"{entry.name}/stat"))
        return None

    @cached_property
    def lifeline(self) -> int:
        """A descriptor that is readable once the lab is gone: its holder has ended. LabError where it is gone now."""
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(self._holder.pid)
            if alive(self._holder):
                return pidfd
            os.close(pidfd)
        raise LabError("the lab is gone: its holder has ended", "`netlab up` builds it again")

    @property
    def prefix(self) -> str:
        """What stands before a name where the names are kept: `<lab>-` in root's labs, nothing in others."""
        return self._prefix

    def path(self, name: str) -> Path:
        """Where the name of a network namespace stands."""
        return self._names / (self._prefix + name)

    def fd(self, name: str) -> int:
        """A file descriptor of the network namespace; LabError if the lab has none of that name."""
        if name not in self._fds:
            try:
                self._fds[name] = self._with_room_for_more(os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC))
            except FileNotFoundError:
                raise LabError(f"the network namespace {name} is gone", "`netlab up` makes it again") from None
        return self._fds[name]

    def exists(self, name: str, inode: int) -> bool:
        """Whether the namespace with that inode stands under the name, and no other one or just an empty file."""
        with suppress(LabError):
            found = os.fstat(self.fd(name))
            return (found.st_dev, found.st_ino) == (os.fstat(self._home).st_dev, inode)
        return False

    def _with_room_for_more(self, fd: int) -> int:
        """The same descriptor; once half of those that this process may have are taken, it may have more."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard and fd >= soft // 2:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            self._soft_open_files = soft
        return fd

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """The calling thread is in the namespace meanwhile, and back where this process began afterwards."""
        setns(self.fd(name), CLONE_NEWNET)
        try:
            yield
        finally:
            setns(self._home, CLONE_NEWNET)

    def socket(self, name: str, family: int, kind: int, proto: int = 0) -> socket.socket:
        """A socket that belongs to the namespace, wherever it is used."""
        with self.inside(name):
            return socket.socket(family, kind, proto)

    @contextmanager
    def scratch(self) -> Iterator[None]:
        """The calling thread is in a new, empty network namespace meanwhile: to ask the kernel for its defaults."""
        unshare(CLONE_NEWNET)
        try:
            yield
        finally:
            setns(self._home, CLONE_NEWNET)

    def create(self, names: Sequence[str], journal: Callable[[Sequence[tuple[str, int]]], None]) -> None:
        """Make network namespaces and name them. Equivalent to `ip netns add NAME` for each.

        journal is called with (name, inode of the namespace) before anything appears under that name. Raises LabError
        where a name is taken already.
        """
        taken = [path for name in names if os.path.lexists(path := self.path(name))]
        if taken:
            raise LabError(
                f"{taken[0]} exists and isn't this lab's"
                + (f", nor are {', '.join(path.name for path in taken[1:10])}" if taken[1:] else ""),
                "remove it (`ip netns del`) or give the lab another --name",
            )
        born: list[tuple[str, int]] = []
        try:
            for name in names:
                unshare(CLONE_NEWNET)
                self._fds[name] = fd = self._with_room_for_more(self._open_proc("thread-self/ns/net"))
                born.append((name, os.fstat(fd).st_ino))
        finally:
            setns(self._home, CLONE_NEWNET)
        journal(born)
        self._where_the_names_are(lambda directory: self._name(names, directory))

    def _name(self, names: Sequence[str], directory: Path) -> None:
        here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fchdir(self._proc)  # a mount's source is a path, and /proc may be another one here
        try:
            for name in names:
                target = str(directory / (self._prefix + name))
                with interrupts.held_back():  # a descriptor that stays open keeps the directory's mount busy
                    os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
                mount(f"self/fd/{self._fds[name]}", target, flags=MS_BIND)
        finally:
            os.fchdir(here)
            os.close(here)

    def release(self, name: str, inode: int) -> bool:
        """Take a namespace's name away, if it is still the one with that inode: `ip netns del NAME`.

        True if nothing of ours is left under the name; False if something foreign stands there, which is left alone.
        """
        if name in self._fds:
            os.close(self._fds.pop(name))
        return release_name(self.path(name), inode, mounted_here=not self._foreign_mounts)

    def _where_the_names_are(self, work: Callable[[Path], None]) -> None:
        """Call work with the directory of names, from the mount namespace it is mounted in: mount(2) changes no other.

        Where that isn't this process's, a child does it.
        """
        if not self._foreign_mounts:
            work(self._names)
            return

        def there(complaint: BinaryIO) -> int:
            try:
                setns(self._mnt, CLONE_NEWNS)
                work(HOST_NAMES)
            except OSError as error:
                complaint.write(str(error).encode())
                return 1
            return 0

        with interrupts.held_back():  # from the child too: nothing is named once this has ended
            words, status = children.ask(there, held_back=True)
        if status:
            raise LabError(f"can't name the lab's namespaces: {words.decode() or children.ending(status)}")

    def enter_pid_namespace(self) -> None:
        """From now on this process's children are in the lab's PID namespace; it itself stays where it is."""
        setns(self._pid, CLONE_NEWPID)

    def move_in(self, name: str) -> None:
        """For a forked child: into the lab's mount namespace and the network namespace, never to come back."""
        namespace, directory = self.fd(name), None
        with suppress(FileNotFoundError):  # the current directory has been removed
            directory = Path.cwd()
        for fd in self._apart:
            setns(fd)
        unshare(CLONE_NEWCGROUP)  # not the holder's: this process may be in another cgroup than whoever built the lab
        setns(self._mnt, CLONE_NEWNS)
        setns(namespace, CLONE_NEWNET)
        with suppress(OSError):
            unshare(CLONE_NEWNS)
            mount("none", "/", flags=MS_REC | MS_SLAVE)
            masks.mount_sys()
        if directory is not None:
            with suppress(OSError):
                os.chdir(directory)
        if self._soft_open_files is not None:
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._soft_open_files, hard))
        if self.rootless:
            with suppress(OSError):
                change_users_in_name_only()

    def close(self) -> None:
        """Close every descriptor; the namespaces stay."""
        for fd in (*self._fds.values(), *self._apart, self._home, self._mnt, self._pid, self._proc):
            os.close(fd)
        self._fds.clear()


class Stray(NamedTuple):
    """A process that lives in some of a lab's network namespaces, pinned by a pidfd so that no other is hit."""

    pid: int
    pidfd: int
    inodes: Set[int]

    def end(self) -> None:
        """Kill it and wait until it is gone, for at most five seconds; it is spared where it has left."""
        try:
            if _lives_in(str(self.pid), self.inodes):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
                children.readable(self.pidfd, 5.0)
        finally:
            os.close(self.pidfd)


def end_strays(found: Sequence[Stray]) -> None:
    """End these processes."""
    for stray in found:
        stray.end()


def strays(inodes: Set[int]) -> list[Stray]:
    """The processes that live in network namespaces with these inodes: `ip netns pids`, without those that visit."""
    found: list[Stray] = []
    if not inodes:
        return found
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid() or not _lives_in(entry.name, inodes):
            continue
        with suppress(OSError):
            pidfd = os.pidfd_open(int(entry.name))
            if _lives_in(entry.name, inodes):
                found.append(Stray(int(entry.name), pidfd, inodes))
            else:
                os.close(pidfd)
    return found


def _lives_in(pid: str, inodes: Set[int]) -> bool:
    try:
        inode = os.stat(f"/proc/{pid}/ns/net").st_ino  # noqa: PTH116 (hot: one a process of the machine)
    except OSError:
        return False
    return inode in inodes and not _has_way_out(pid, inodes)


def _has_way_out(pid: str, inodes: Set[int]) -> bool:
    """Whether it holds another network namespace open: a `netlab watch` goes in for as long as it reads something."""
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                kind, _, inode = str(entry.readlink()).partition(":[")
                if kind == "net" and int(inode.rstrip("]")) not in inodes:
                    return True
    return False


def release_name(path: Path, inode: int, *, mounted_here: bool = True) -> bool:
    """Unmount and unlink a namespace's name if it is ours; see `Namespaces.release`.

    Where they are mounted in other mount namespaces alone, perhaps in two places, unlinking a name unmounts it in all
    (detach_mounts() in fs/namespace.c, since Linux 3.18).
    """
    try:
        found, directory = path.lstat(), path.parent.stat().st_dev
    except FileNotFoundError:
        return True
    if found.st_dev != directory and found.st_ino == inode:
        if not mounted_here:
            path.unlink()
            return True
        umount(str(path))
        found = path.lstat()
    # What is left is the mount point: an empty file of the directory's own file system, which nobody may read or write.
    if found.st_dev != directory or found.st_size or found.st_mode != stat.S_IFREG:
        return False
    path.unlink()
    return True


def enter(holder: Holder, names: Path, prefix: str, *, rootless: bool) -> Namespaces:
    """Enter a lab that is held: this process gets its user namespace (if it has one) and sees its names.

    LabError if the holder is gone.
    """
    if not alive(holder):
        raise LabError("the lab's holder is gone", "`netlab down` removes what is left, `netlab up` builds it again")
    if rootless:
        root = Path(f"/proc/{holder.pid}/root") / HOST_NAMES.relative_to("/")
        directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        user = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        if os.fstat(user).st_ino != Path("/proc/self/ns/user").stat().st_ino:  # it may have made the lab itself
            setns(user, CLONE_NEWUSER)
            with os.fdopen(os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as home:
                # The holder's own namespace: from a lab's there is no way back to the host's without being root there.
                setns(home.fileno(), CLONE_NEWNET)
        os.close(user)
        names = Path(f"/proc/self/fd/{directory}")
    return Namespaces(holder, names, prefix, rootless=rootless, foreign_mounts=rootless)
