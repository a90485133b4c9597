"""Network namespaces: making and naming them, entering them, and running programs inside.

What is inside them (links, addresses, rules) is `apply.py`'s; what belongs to which lab is `state.py`'s; the process
that holds them is `holder.py`'s.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from netlab.errors import LabError
from netlab.lab.holder import HOST_NAMES, Holder, parse_start_ticks
from netlab.linux import interrupts
from netlab.linux.seccomp import change_users_in_name_only
from netlab.linux.syscalls import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_REC,
    MS_SLAVE,
    mount,
    setns,
    umount,
    unshare,
)

_FD_SETSIZE = 1024  # select(2)


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
        self._rootless = rootless
        self._foreign_mounts = foreign_mounts
        self._fds: dict[str, int] = {}
        self._soft_open_files: int | None = None
        # /proc as it is now: after entering the holder's mount namespace /proc/self would lead nowhere.
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._home = self._open_proc("thread-self/ns/net")
        self._mnt = self._open_proc(f"{holder.pid}/ns/mnt")
        self._pid = self._open_proc(f"{holder.pid}/ns/pid")

    def _open_proc(self, path: str) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)

    def read_proc(self, path: str) -> str:
        """A file of the host's /proc, by its path below it; OSError."""
        with os.fdopen(self._open_proc(path)) as file:
            return file.read()

    def start_ticks(self, pid: int) -> int | None:
        """Start time of a process of the lab's PID namespace, in clock ticks since boot; None if it is gone."""
        try:
            return parse_start_ticks(self.read_proc(f"{self._holder.pid}/root/proc/{pid}/stat"))
        except (FileNotFoundError, ProcessLookupError):
            return None

    def kill_group(self, pgid: int, number: int) -> None:
        """Send a signal to a process group of the lab's PID namespace; it may be gone."""
        setns(self._pid, CLONE_NEWPID)
        with interrupts.held_back():  # from the child too, which has to do this
            child = os.fork()
            if child == 0:
                with suppress(ProcessLookupError):
                    os.killpg(pgid, number)
                os._exit(0)
            os.waitpid(child, 0)

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
                self._fds[name] = self._out_of_the_way(os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC))
            except FileNotFoundError:
                raise LabError(f"the network namespace {name} is gone", "`netlab up` makes it again") from None
        return self._fds[name]

    def exists(self, name: str) -> bool:
        """Whether a network namespace (not just an empty file) stands under the name."""
        with suppress(LabError):
            return os.fstat(self.fd(name)).st_dev == os.fstat(self._home).st_dev
        return False

    def _out_of_the_way(self, fd: int) -> int:
        """The same descriptor, moved up where it would crowd the lower ones: libnftables waits with select(2)."""
        if fd < _FD_SETSIZE // 2:
            return fd
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            self._soft_open_files = soft
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FD_SETSIZE)
        os.close(fd)
        return int(high)

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
        taken = [path for name in names if (path := self.path(name)).exists()]
        if taken:
            raise LabError(
                f"{taken[0]} exists and isn't this lab's", "remove it (`ip netns del`) or give the lab another --name"
            )
        born: list[tuple[str, int]] = []
        try:
            for name in names:
                unshare(CLONE_NEWNET)
                self._fds[name] = fd = self._out_of_the_way(self._open_proc("thread-self/ns/net"))
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
        complaint_r, complaint_w = os.pipe()
        with interrupts.held_back():  # from the child too: nothing is named once this has ended
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    setns(self._mnt, CLONE_NEWNS)
                    work(HOST_NAMES)
                    code = 0
                except OSError as error:
                    os.write(complaint_w, str(error).encode())
                os._exit(code)
            os.close(complaint_w)
            with os.fdopen(complaint_r) as complaint:
                words = complaint.read()
            if os.waitpid(child, 0)[1] != 0:
                raise LabError(f"can't name the lab's namespaces: {words or 'killed'}")

    def run(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> int:
        """Run a program in a namespace with this process's terminal and streams; returns its wait status.

        Signals sent to this process reach the program. 127 or 126 << 8 where it can't be found or executed, after a
        line on stderr, as a shell has it. Equivalent to `ip netns exec NAME ARGV…`.
        """
        in_front = _terminal_group() == os.getpgrp()
        passed_on = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
        with interrupts.held_back(*passed_on, signal.SIGTSTP):
            pid = self._fork(name, argv, env)
            for number in (signal.SIGINT, signal.SIGQUIT):  # the terminal sends these to the program itself
                signal.signal(number, signal.SIG_IGN)
            for number in passed_on:
                signal.signal(number, lambda received, _frame: _kill(pid, received))
            if signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:
                signal.signal(signal.SIGTSTP, lambda _number, _frame: _stop_after(pid))
        status = os.waitpid(pid, 0)[1]
        if in_front:
            _come_to_the_front()
        return status

    def run_quietly(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> int:
        """Run a program to its end, its streams going nowhere; returns its wait status."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        pid = self.spawn(name, argv, env, null)
        os.close(null)
        return os.waitpid(pid, 0)[1]

    def spawn(self, name: str, argv: Sequence[str], env: Mapping[str, str], output: int, *, leads: bool = False) -> int:
        """Begin a program that reads nothing and writes into the descriptor; returns its pid, to be waited for.

        leads: it leads a process group of its own.
        """
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self._fork(name, argv, env, streams=(null, output, output), leads=leads)
        finally:
            os.close(null)

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> int:
        """Start a program that lives on in the lab, its output in a file; returns its pid in the lab's PID namespace.

        Raises LabError where the program can't be found or executed.
        """
        told_r, told_w = os.pipe()
        failed_r, failed_w = os.pipe()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        setns(self._pid, CLONE_NEWPID)
        with interrupts.held_back():  # from the one in the middle too, which has to tell the pid
            middle = os.fork()
            if middle == 0:
                # Its own child is orphaned inside the PID namespace, and so becomes the holder's.
                pid = interrupts.fork()
                if pid == 0:
                    os.setsid()
                    for source, fd in ((null, 0), (output, 1), (output, 2)):
                        os.dup2(source, fd)
                    try:
                        self._become(name, argv, env)
                    except OSError as error:
                        os.write(failed_w, (error.strerror or str(error)).encode())
                    except ValueError as error:  # a word that this locale's encoding, or execve(2), can't hold
                        os.write(failed_w, str(error).encode())
                    os._exit(127)
                os.write(told_w, str(pid).encode())
                os._exit(0)
            os.waitpid(middle, 0)
        for fd in (told_w, failed_w, output, null):
            os.close(fd)
        with os.fdopen(failed_r) as failed, os.fdopen(told_r) as told:
            complaint = failed.read()  # ends when the exec closes the pipe
            if complaint:
                raise LabError(f"{name}: can't start {argv[0]}: {complaint}", "is it installed, and on PATH?")
            return int(told.read())

    def _fork(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        streams: tuple[int, int, int] = (0, 1, 2),
        *,
        leads: bool = False,
    ) -> int:
        self.fd(name)  # a wrong name fails here, not in the child
        sys.stdout.flush()
        setns(self._pid, CLONE_NEWPID)
        pid = interrupts.fork()
        if pid == 0:
            code = 126
            if leads:
                os.setpgid(0, 0)
            for fd, stream in enumerate(streams):
                os.dup2(stream, fd)
            try:
                self._become(name, argv, env)
            except FileNotFoundError:
                code = 127
                os.write(2, f"netlab: {argv[0]}: command not found\n".encode())
            except OSError as error:
                os.write(2, f"netlab: {argv[0]}: {error.strerror}\n".encode())
            except ValueError as error:
                os.write(2, f"netlab: {argv[0]}: {error}\n".encode())
            os._exit(code)
        return pid

    def _become(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
        """In a forked child: go into the lab's mount namespace and the network namespace, and execute the program."""
        namespace, directory = self.fd(name), None
        with suppress(FileNotFoundError):  # the current directory has been removed
            directory = Path.cwd()
        setns(self._mnt, CLONE_NEWNS)
        setns(namespace, CLONE_NEWNET)
        with suppress(OSError):
            # /sys/class/net is that of the network namespace the mount was made in, as with `ip netns exec`.
            unshare(CLONE_NEWNS)
            mount("none", "/", flags=MS_REC | MS_SLAVE)
            mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        if directory is not None:
            with suppress(OSError):
                os.chdir(directory)
        if self._soft_open_files is not None:
            import resource

            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._soft_open_files, hard))
        if self._rootless:
            with suppress(OSError):
                change_users_in_name_only()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and an exec keeps that
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(argv[0], list(argv), {**env, "PATH": search_path(env.get("PATH"))})

    def close(self) -> None:
        """Close every descriptor; the namespaces stay."""
        for fd in (*self._fds.values(), self._home, self._mnt, self._pid, self._proc):
            os.close(fd)
        self._fds.clear()


def search_path(path: str | None) -> str:
    """PATH with the directories of root's programs, which an ordinary user's on Debian lacks; None: there is none.

    Who enters a lab is its root: `nft`, `iptables-save` and `sysctl` are there.
    """
    found = os.defpath if path is None else path
    return ":".join([found, *(place for place in ("/usr/sbin", "/sbin") if place not in found.split(":"))])


def _terminal_group() -> int | None:
    """The process group in the foreground of this process's terminal; None without one."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.tcgetpgrp(terminal)
    finally:
        os.close(terminal)


def _come_to_the_front() -> None:
    """Take the terminal back from a shell that ended: it couldn't give it to a group outside its PID namespace."""
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # what the kernel sends to who isn't in front
    terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    with suppress(OSError):
        os.tcsetpgrp(terminal, os.getpgrp())
    os.close(terminal)
    signal.signal(signal.SIGTTOU, before)


def _stop_after(pid: int) -> None:
    """Stop as ^Z asks, once the program has: until then the terminal is its, and the caller's shell must not read."""
    with suppress(ChildProcessError):  # it has ended
        told = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if told is not None and told.si_code == os.CLD_STOPPED:
            later = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)  # returns when the shell has continued this process
            signal.signal(signal.SIGTSTP, later)


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


class Stray(NamedTuple):
    """A process found in one of a lab's network namespaces, pinned by a pidfd so that no other is hit."""

    pid: int
    pidfd: int

    def kill(self) -> None:
        """End it and wait until it is gone, for at most five seconds."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.poll(5000)
        os.close(self.pidfd)


def strays(inodes: Set[int]) -> list[Stray]:
    """The processes, other than this one, in the network namespaces with these inodes: `ip netns pids`."""
    found: list[Stray] = []
    if not inodes:
        return found
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid() or not _lives_in(entry.name, inodes):
            continue
        with suppress(OSError):
            pidfd = os.pidfd_open(int(entry.name))
            if _lives_in(entry.name, inodes):
                found.append(Stray(int(entry.name), pidfd))
            else:
                os.close(pidfd)
    return found


def _lives_in(pid: str, inodes: Set[int]) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino in inodes  # noqa: PTH116 (hot: one a process of the machine)
    except OSError:
        return False


def release_name(path: Path, inode: int, *, mounted_here: bool = True) -> bool:
    """Unmount and unlink a namespace's name if it is ours; see `Namespaces.release`.

    Where they are mounted in other mount namespaces alone, perhaps in two places, unlinking a name unmounts it in all
    (detach_mounts() in fs/namespace.c, since Linux 3.18).
    """
    try:
        found, directory = path.stat(), path.parent.stat().st_dev
    except FileNotFoundError:
        return True
    if found.st_dev != directory and found.st_ino == inode:
        if not mounted_here:
            path.unlink()
            return True
        umount(str(path))
        found = path.stat()
    # What is left is the mount point: an empty file of the directory's own file system.
    if found.st_dev != directory or found.st_size:
        return False
    path.unlink()
    return True


def enter(holder: Holder, names: Path, prefix: str, *, rootless: bool) -> Namespaces:
    """Enter a lab that is held: this process gets its user namespace (if it has one) and sees its names.

    LabError if the holder is gone.
    """
    if not holder.alive():
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
