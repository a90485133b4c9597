"""The holder: the one process that keeps a lab's namespaces together.

It is PID 1 of the lab's PID namespace, and has the lab's mount namespace: its own /proc and /etc/hosts, and an empty
/etc/resolv.conf. The lab's host name, System V IPC and view of cgroups are its own, too. When it dies, the kernel ends
every process of the lab with it.

Without root the lab lives in a user namespace of its own, and the names of its network namespaces stand on a tmpfs in
the holder's mount namespace. With root they stand in the host's /run/netns, where `ip netns` finds them. In both cases
the directory of names is a shared mount, and the holder's copy of it a slave: a name made later shows up there too.
Entering what is held is `netns.py`'s.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from netlab import advice
from netlab.errors import LabError, UnsupportedError, told
from netlab.lab import exits, masks
from netlab.lab.host_names import HOST_NAMES
from netlab.lab.state import Holder
from netlab.linux import children
from netlab.linux.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    close_on_exec,
    mount,
    setns,
    unshare,
)

_HOSTS = Path("/etc/hosts")
_COMM = "netlab-holder"


def _title(hosts: Path) -> str:
    """What `ps` shows of a holder's command: the lab's directory, as another run directory may have one of its name."""
    return f"lab {hosts.parent}"


def alive(holder: Holder) -> bool:
    """Whether the process is there, is not a zombie, is the same one, and is the first of a PID namespace."""
    return start_ticks(holder.pid) == holder.start_ticks and _is_init(holder.pid)


def _is_init(pid: int) -> bool:
    """Whether a process is PID 1 of a PID namespace below this one: NSpid tells its number in each (proc(5))."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return len(line.split()) > 2 and line.split()[-1] == "1"
    return False


def holds(pid: int, hosts: Path) -> bool:
    """Whether a process is the holder of a lab: it has the lab's own file mounted over /etc/hosts, or its title."""
    if not _is_init(pid):
        return False
    with suppress(OSError):
        if os.path.samestat(Path(f"/proc/{pid}/root/etc/hosts").stat(), hosts.lstat()):
            return True
    with suppress(OSError):
        *_, title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1] or [b""]
        return title == os.fsencode(_title(hosts)) and Path(f"/proc/{pid}/comm").read_bytes() == f"{_COMM}\n".encode()
    return False


def find(hosts: Path) -> list[Holder]:
    """The holders of a lab of this user, found among all processes: for a lab whose state doesn't name it."""
    found = []
    for entry in os.scandir("/proc"):
        with suppress(OSError):
            if not entry.name.isdigit() or entry.stat().st_uid != os.geteuid():
                continue
            pid = int(entry.name)
            ticks = start_ticks(pid)
            if ticks is not None and holds(pid, hosts):
                found.append(Holder(pid, ticks))
    return found


def kill(holder: Holder) -> bool:
    """End the holder, and with it every process of the lab's PID namespace; whether they are gone when it returns.

    They are not where the parent of one of them, outside, doesn't wait for it: until it does, the holder can't end.
    """
    try:
        pidfd = os.pidfd_open(holder.pid)
    except ProcessLookupError:
        return True
    try:
        if not alive(holder):
            return True
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        ended = children.readable(pidfd, 10.0)
    finally:
        os.close(pidfd)
    with suppress(ChildProcessError):
        os.waitpid(holder.pid, os.WNOHANG)
    return ended


def start_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None if there is none, or only its zombie."""
    try:
        return parse_start_ticks(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def parse_start_ticks(stat: str) -> int | None:
    """Field 22 of a /proc/PID/stat, None for a zombie (proc_pid_stat(5)).

    A program may call itself anything in its second field.
    """
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


class Newborn(NamedTuple):
    """A holder that waits for its release: until then it ends with the process that made it."""

    holder: Holder
    go: int

    def release(self) -> None:
        """Let the holder live on; call this once it is written down."""
        os.write(self.go, b"\n")
        os.close(self.go)


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
        # AppArmor may let anyone make a user namespace, and nobody do anything in it: that shows here.
        mount("none", "/", flags=MS_REC | MS_SLAVE)
    except OSError as error:
        raise UnsupportedError(
            f"this user can't make a user namespace: {error.strerror}",
            advice.userns() or "run netlab as root",
        ) from error


def hold(names: Path, hosts: Path, *, own_names: bool) -> Newborn:
    """Fork a lab's holder. After this, children of the calling process are born into the lab's PID namespace.

    names is the directory for the network namespaces' names; with own_names a tmpfs is put there first, for the lab
    alone. hosts is the file that the lab sees as /etc/hosts. Raises LabError or OSError, and
    leaves no process behind then.
    """
    if not _HOSTS.exists():
        raise LabError(f"there is no {_HOSTS} here to show the lab's names in", advice.as_root(f"touch {_HOSTS}"))
    if own_names:
        names.mkdir(mode=0o755, exist_ok=True)
        mount("netns", str(names), "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
        mount("none", str(names), flags=MS_SHARED)
    unshare(CLONE_NEWPID)
    ready_r, ready_w = os.pipe()
    go_r, go_w = os.pipe()

    def be_holder() -> None:
        os.close(ready_r)
        os.close(go_w)
        _run_holder(names, hosts, ready_w, go_r)

    pid = children.fork(be_holder, ends_by=None)
    os.close(ready_w)
    os.close(go_r)
    with os.fdopen(ready_r) as ready:
        complaint = ready.read()
    if complaint != "ready":
        os.close(go_w)
        os.waitpid(pid, 0)
        hint = ": ".join(advice.missing() or ()) or advice.namespaces()
        raise LabError(f"the lab's holder could not start: {complaint or 'it ended early'}", hint)
    ticks = start_ticks(pid)
    if ticks is None:
        os.close(go_w)
        raise LabError("the lab's holder ended early")
    return Newborn(Holder(pid, ticks), go_w)


def _run_holder(names: Path, hosts: Path, ready: int, go: int) -> None:
    """The holder's own code, in the forked child: set up its mounts, wait to be released, then reap for ever.

    Where the parent dies before the release, reading `go` ends with nothing, and the holder ends too.
    """
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP)
        if names == HOST_NAMES:  # else it stands in one of the lab's already: no lab leads back to the host's by it
            unshare(CLONE_NEWNET)
        begin_at_the_root()
        masks.mount_proc()
        if names != HOST_NAMES:
            _mount_on_run_netns(names)
        mount(str(hosts), str(_HOSTS), flags=MS_BIND)
        # No name server is reachable from a lab: without this, looking up any other name takes ten seconds.
        with suppress(FileNotFoundError):
            mount("/dev/null", "/etc/resolv.conf", flags=MS_BIND)
        null, ended = os.open("/dev/null", os.O_RDWR), exits.make()
        os.setsid()
        os.write(ready, b"ready")
        os.close(ready)
        if os.read(go, 1):
            _reap_for_ever(_title(hosts), null, ended)
    except OSError as error:
        with suppress(OSError):
            os.write(ready, told(error).encode(errors="replace"))


def begin_at_the_root() -> None:
    """Make this process's root that of its mount namespace, which alone is found by who enters that: see setns(2).

    They differ in a chroot. Nothing that is mounted from now on is seen outside.
    """
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    setns(namespace, CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_SLAVE)
    if not os.path.samestat(os.fstat(here), Path("/").stat()):
        os.fchdir(here)
        mount(".", "/", flags=MS_BIND | MS_REC)
        setns(namespace, CLONE_NEWNS)
    os.close(here)
    os.close(namespace)


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
            Path(target).symlink_to(Path(source).readlink())
            continue
        if entry.is_dir():
            Path(target).mkdir()
        else:
            Path(target).touch()
        with suppress(OSError):
            mount(source, target, flags=MS_BIND | MS_REC)
    os.close(old)


def _reap_for_ever(title: str, null: int, ended: int) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if ended != exits.DESCRIPTOR:
        os.dup2(ended, exits.DESCRIPTOR)
    close_on_exec(exits.DESCRIPTOR + 1)
    os.set_inheritable(exits.DESCRIPTOR, True)
    os.chdir("/")
    program = f"open('/proc/self/comm','w').write('{_COMM}')\n{exits.REAPING}"
    # The lab's programs may read its environment: of the caller's it has what netlab needs.
    own = {name: value for name, value in os.environ.items() if name.startswith(("NETLAB_LAB_", "LD_LIBRARY_PATH"))}
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", program, title], own)
