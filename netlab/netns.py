"""Namespaces: the only place that calls unshare, setns, mount and umount, and that forks into a lab.

It makes a lab's network namespaces, names them, holds them with one small process, enters them again later, and runs
programs inside. What is inside the namespaces (links, addresses, rules) is `kernel.py`'s; what belongs to which lab is
`state.py`'s.

A lab is held by one process, the *holder*: PID 1 of the lab's PID namespace, with the lab's mount namespace (its own
/proc and /etc/hosts). When the holder dies, the kernel ends every process of the lab with it.

Without root the lab lives in a user namespace of its own, and the names of its network namespaces stand on a tmpfs in
the holder's mount namespace. With root they stand in the host's /run/netns, where `ip netns` finds them. In both cases
the directory of names is a shared mount, and the holder's copy of it a slave: a name made later shows up there too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from netlab.errors import LabError, UnsupportedError

# include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# include/uapi/linux/mount.h
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 4096, 16384, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 2

HOST_NAMES = Path("/run/netns")
"""Where iproute2 keeps the names of network namespaces (NETNS_RUN_DIR in its include/namespace.h)."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def unshare(flags: int) -> None:
    """unshare(2) for the calling thread; OSError. `os.unshare` exists only from Python 3.12 on."""
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(fd: int, flags: int = 0) -> None:
    """setns(2) for the calling thread; OSError."""
    _check(_libc.setns(fd, flags), f"setns({flags:#x})")


def mount(source: str, target: str, fstype: str = "none", flags: int = 0, data: str = "") -> None:
    """mount(2): equivalent to `mount -t FSTYPE SOURCE TARGET`; OSError naming the target."""
    arguments = [os.fsencode(source), os.fsencode(target), os.fsencode(fstype)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), os.fsencode(data)), target)


def umount(target: str) -> None:
    """umount2(2) with MNT_DETACH: equivalent to `umount --lazy TARGET`; OSError naming the target."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), target)


@dataclass(frozen=True, slots=True)
class Holder:
    """A lab's holder, named so that no other process can be taken for it.

    pid is the host's number; start_ticks is field 22 of /proc/PID/stat, in clock ticks since boot.
    """

    pid: int
    start_ticks: int

    def alive(self) -> bool:
        """Whether the process is there, is not a zombie, and is the same one."""
        return start_ticks(self.pid) == self.start_ticks

    def kill(self) -> None:
        """End the holder, and with it every process of the lab's PID namespace; returns when they are gone."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if not self.alive():
                return
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _wait_readable(pidfd, timeout_s=10)
        finally:
            os.close(pidfd)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)


def start_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None if there is none, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _wait_readable(fd: int, timeout_s: float) -> bool:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


# --- a new lab ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Newborn:
    """A holder that waits for its release: until then it ends with the process that made it."""

    holder: Holder
    _go: int

    def release(self) -> None:
        """Let the holder live on; call this once it is written down."""
        os.write(self._go, b"\n")
        os.close(self._go)


def become_rootless() -> None:
    """Move this (single-threaded) process into a user namespace in which it is root over what it makes.

    Equivalent to `unshare --user --map-root-user --mount --net`. Raises UnsupportedError where it is forbidden.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise UnsupportedError(
            f"this user can't make a user namespace: {error.strerror}", userns_hint() or "run netlab as root"
        ) from error
    mount("none", "/", flags=MS_REC | MS_SLAVE)


def userns_hint() -> str | None:
    """What to do where user namespaces are restricted; None where nothing is known to restrict them."""
    knobs = {
        "kernel.apparmor_restrict_unprivileged_userns": "1",  # Ubuntu 23.10 and newer
        "kernel.unprivileged_userns_clone": "0",  # Debian's kernels before 5.10
        "user.max_user_namespaces": "0",
    }
    for knob, forbidding in knobs.items():
        with suppress(OSError):
            if Path("/proc/sys", *knob.split(".")).read_text().strip() == forbidding:
                allowing = "15000" if forbidding == "0" and knob.startswith("user.") else str(1 - int(forbidding))
                return f"{knob} is {forbidding}: run netlab as root, or `sudo sysctl {knob}={allowing}`"
    return None


def hold(names: Path, hosts: Path, title: str, *, rootless: bool) -> Newborn:
    """Fork a lab's holder. After this, children of the calling process are born into the lab's PID namespace.

    names is the directory for the network namespaces' names (it becomes a shared mount), hosts the file that the lab
    sees as /etc/hosts, title what `ps` shows. Raises UnsupportedError or OSError; leaves no process behind then.
    """
    _share_names(names, tmpfs=rootless)
    unshare(CLONE_NEWPID)
    ready_r, ready_w = os.pipe()
    go_r, go_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ready_r)
        os.close(go_w)
        _run_holder(names, hosts, title, ready_w, go_r)
    os.close(ready_w)
    os.close(go_r)
    with os.fdopen(ready_r) as ready:
        complaint = ready.read()
    if complaint != "ready":
        os.close(go_w)
        os.waitpid(pid, 0)
        raise LabError(f"the lab's holder could not start: {complaint or 'it ended early'}")
    ticks = start_ticks(pid)
    if ticks is None:
        os.close(go_w)
        raise LabError("the lab's holder ended early")
    return Newborn(Holder(pid, ticks), go_w)


def _share_names(names: Path, *, tmpfs: bool) -> None:
    names.mkdir(mode=0o755, parents=True, exist_ok=True)
    if tmpfs:
        mount("netns", str(names), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    else:
        try:
            mount("none", str(names), flags=MS_SHARED | MS_REC)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Not a mount point yet: made one as `ip netns add` makes it, so that both tools agree about it.
            mount(str(names), str(names), flags=MS_BIND | MS_REC)
    mount("none", str(names), flags=MS_SHARED | MS_REC)


def _run_holder(names: Path, hosts: Path, title: str, ready: int, go: int) -> NoReturn:
    """The holder's own code, in the forked child: set up its mounts, wait to be released, then sleep for ever.

    Where the parent dies before the release, reading `go` ends with nothing, and the holder ends too.
    """
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        unshare(CLONE_NEWNS)
        mount("none", "/", flags=MS_REC | MS_SLAVE)
        with suppress(PermissionError):  # a container with a masked /proc forbids it: the host's stays
            mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        if names != HOST_NAMES:
            _mount_on_run_netns(names)
        mount(str(hosts), "/etc/hosts", flags=MS_BIND)
        os.setsid()
        os.write(ready, b"ready")
        os.close(ready)
        if os.read(go, 1):
            _sleep_for_ever(title)
    except OSError as error:
        with suppress(OSError):
            os.write(ready, str(error).encode())
    os._exit(1)


def _mount_on_run_netns(names: Path) -> None:
    """Let `ip netns` inside the lab find the names: bind them to /run/netns, making that directory if need be."""
    if not HOST_NAMES.is_dir():
        _rebuild_run()
        HOST_NAMES.mkdir()
        if not names.exists():  # the names' own tmpfs stood below /run and is behind the new one now
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(names))
    mount(str(names), str(HOST_NAMES), flags=MS_BIND | MS_REC)


def _rebuild_run() -> None:
    """Put a tmpfs on /run that shows all that was there: an ordinary user can't make a directory in the real one."""
    old = os.open("/run", os.O_PATH | os.O_DIRECTORY)
    entries = list(os.scandir("/run"))
    mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    for entry in entries:
        source, target = f"/proc/self/fd/{old}/{entry.name}", f"/run/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(source), target)
            continue
        if entry.is_dir():
            Path(target).mkdir()
        else:
            Path(target).touch()
        with suppress(OSError):
            mount(source, target, flags=MS_BIND | MS_REC)
    os.close(old)


def _sleep_for_ever(title: str) -> NoReturn:
    # SIGCHLD ignored survives the exec, and makes the kernel reap what is orphaned in the lab.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, 1024)
    os.chdir("/")
    sleep = "import signal\nopen('/proc/self/comm','w').write('netlab-holder')\nwhile 1: signal.pause()"
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", sleep, title])


# --- an entered lab -------------------------------------------------------------------------------------------------


class Namespaces:
    """The network namespaces of one lab, open to this process, which has entered its user namespace.

    Sockets keep the namespace they were made in, so one process can hold both ends of a connection.
    """

    def __init__(self, holder: Holder, names: Path, prefix: str, *, foreign_mounts: bool = False) -> None:
        self._names = names
        self._prefix = prefix
        self._foreign_mounts = foreign_mounts
        self._fds: dict[str, int] = {}
        # /proc as it is now: after entering the holder's mount namespace /proc/self would lead nowhere.
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._home = self._open_proc("thread-self/ns/net")
        self._mnt = self._open_proc(f"{holder.pid}/ns/mnt")
        self._pid = self._open_proc(f"{holder.pid}/ns/pid")

    def _open_proc(self, path: str) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)

    def path(self, name: str) -> Path:
        """Where the name of a network namespace stands."""
        return self._names / (self._prefix + name)

    def fd(self, name: str) -> int:
        """A file descriptor of the network namespace; LabError if the lab has none of that name."""
        if name not in self._fds:
            try:
                self._fds[name] = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise LabError(f"the network namespace {name} is gone", "`netlab up` makes it again") from None
        return self._fds[name]

    def exists(self, name: str) -> bool:
        """Whether a network namespace (not just an empty file) stands under the name."""
        with suppress(LabError):
            return os.fstat(self.fd(name)).st_dev == os.fstat(self._home).st_dev
        return False

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
        self._enter_mounts()
        taken = [path for name in names if (path := self.path(name)).exists()]
        if taken:
            raise LabError(
                f"{taken[0]} exists and isn't this lab's", "remove it (`ip netns del`) or give the lab another --name"
            )
        _allow_open_files(3 * len(names) + 64)
        born: list[tuple[str, int]] = []
        failures: list[OSError] = []

        # In a thread of its own, so that the calling thread never leaves its namespace.
        def make() -> None:
            try:
                for name in names:
                    unshare(CLONE_NEWNET)
                    self._fds[name] = fd = self._open_proc("thread-self/ns/net")
                    born.append((name, os.fstat(fd).st_ino))
            except OSError as error:
                failures.append(error)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        journal(born)
        directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fchdir(self._proc)
        for name in names:
            path = str(self.path(name))
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
            mount(f"self/fd/{self._fds[name]}", path, flags=MS_BIND)
        os.fchdir(directory)
        os.close(directory)

    def release(self, name: str, inode: int) -> bool:
        """Take a namespace's name away, if it is still the one with that inode: `ip netns del NAME`.

        True if nothing of ours is left under the name; False if something foreign stands there, which is left alone.
        """
        self._enter_mounts()
        if name in self._fds:
            os.close(self._fds.pop(name))
        return release_name(self.path(name), inode)

    def _enter_mounts(self) -> None:
        """Be in the mount namespace where the names stand: mount(2) changes no other."""
        if self._foreign_mounts:
            directory = Path.cwd()
            setns(self._mnt, CLONE_NEWNS)
            with suppress(OSError):
                os.chdir(directory)
            self._names = HOST_NAMES
            self._foreign_mounts = False

    def run(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> int:
        """Run a program in a namespace with this process's terminal and streams; returns its wait status.

        Signals sent to this process reach the program. 127 or 126 << 8 where it can't be found or executed, after a
        line on stderr, as a shell has it. Equivalent to `ip netns exec NAME ARGV…`.
        """
        pid = self._fork(name, argv, env)
        handlers: dict[int, object] = {}
        for number in (signal.SIGINT, signal.SIGQUIT):  # the terminal sends these to the program itself
            handlers[number] = signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT):
            handlers[number] = signal.signal(number, lambda received, _frame: _kill(pid, received))
        try:
            return os.waitpid(pid, 0)[1]
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)  # type: ignore[arg-type]

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> int:
        """Start a program that lives on in the lab, its output in a file; returns its pid in the lab's PID namespace.

        Raises LabError where the program can't be found or executed.
        """
        told_r, told_w = os.pipe()
        failed_r, failed_w = os.pipe()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        setns(self._pid, CLONE_NEWPID)
        middle = os.fork()
        if middle == 0:
            # Its own child is orphaned inside the PID namespace, and so becomes the holder's.
            pid = os.fork()
            if pid == 0:
                os.setsid()
                for source, fd in ((null, 0), (output, 1), (output, 2)):
                    os.dup2(source, fd)
                try:
                    self._become(name, argv, env)
                except OSError as error:
                    os.write(failed_w, (error.strerror or str(error)).encode())
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

    def _fork(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> int:
        self.fd(name)  # a wrong name fails here, not in the child
        sys.stdout.flush()
        setns(self._pid, CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            code = 126
            try:
                self._become(name, argv, env)
            except FileNotFoundError:
                code = 127
                os.write(2, f"netlab: {argv[0]}: command not found\n".encode())
            except OSError as error:
                os.write(2, f"netlab: {argv[0]}: {error.strerror}\n".encode())
            os._exit(code)
        return pid

    def _become(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
        """In a forked child: go into the lab's mount namespace and the network namespace, and execute the program."""
        namespace, directory = self.fd(name), Path.cwd()
        setns(self._mnt, CLONE_NEWNS)
        setns(namespace, CLONE_NEWNET)
        with suppress(OSError):
            # /sys/class/net is that of the network namespace the mount was made in, as with `ip netns exec`.
            unshare(CLONE_NEWNS)
            mount("none", "/", flags=MS_REC | MS_SLAVE)
            mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        with suppress(OSError):
            os.chdir(directory)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(argv[0], list(argv), dict(env))

    def close(self) -> None:
        """Close every descriptor; the namespaces stay."""
        for fd in (*self._fds.values(), self._home, self._mnt, self._pid, self._proc):
            os.close(fd)
        self._fds.clear()


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _allow_open_files(count: int) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard) if hard > 0 else count, hard))


def release_name(path: Path, inode: int) -> bool:
    """Unmount and unlink a namespace's name if it is ours; see `Namespaces.release`."""
    try:
        found, directory = path.stat(), path.parent.stat().st_dev
    except FileNotFoundError:
        return True
    if found.st_dev != directory and found.st_ino == inode:
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
        setns(user, CLONE_NEWUSER)
        os.close(user)
        names = Path(f"/proc/self/fd/{directory}")
    return Namespaces(holder, names, prefix, foreign_mounts=rootless)
