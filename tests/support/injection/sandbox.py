"""A small machine for faults: its own processes, mounts, network, /run. What is left of it goes with its PID 1.

The calling process becomes that PID 1. As an ordinary user it makes a user namespace for it, in which it stays that
user, without privileges; root may ask for one.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from contextlib import suppress
from pathlib import Path

from netlab.linux import syscalls
from netlab.linux.syscalls import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, MS_PRIVATE, MS_REC

ORDINARY_UID = 54321
"""Whom root's ordinary user is: nobody that this machine knows."""

_NEWUTS, _NEWIPC = 0x04000000, 0x08000000  # include/uapi/linux/sched.h
_PR_SET_DUMPABLE = 4

HOME = Path("/run/faults")
"""Where the sandbox's files are: topologies, what commands write, temporary files."""

_libc = ctypes.CDLL(None, use_errno=True)


def enter(*, ordinary: bool) -> None:
    """Become PID 1 of a new sandbox; ordinary: and an ordinary user in it. OSError where that can't be had."""
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | _NEWUTS | _NEWIPC
    if uid:
        syscalls.unshare(flags | CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    else:
        syscalls.unshare(flags)
    inside = os.fork()
    if inside:
        _, status = os.waitpid(inside, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    syscalls.end_with_parent(signal.SIGKILL)
    syscalls.mount("none", "/", flags=MS_REC | MS_PRIVATE)
    syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
    syscalls.mount("run", "/run", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0755")
    for place in (HOME, HOME / "tmp", HOME / "work"):
        place.mkdir()
        os.chown(place, ORDINARY_UID if ordinary and not uid else uid, -1)
    if ordinary:
        user = ORDINARY_UID if uid == 0 else uid
        runtime = Path("/run/user") / str(user)
        runtime.mkdir(mode=0o700, parents=True)
        if not uid:
            os.chown(runtime, user, user)
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        _drop_capabilities()
        _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self is root's
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _drop_capabilities() -> None:
    """Have none of them, nor get any by an exec."""
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    if _libc.capset(header, bytes(24)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "capset")


def environment() -> dict[str, str]:
    """What a command's environment is in here."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    runtime = {} if os.geteuid() == 0 else {"XDG_RUNTIME_DIR": f"/run/user/{os.geteuid()}"}
    return {
        **kept,
        **runtime,
        "HOME": str(HOME),
        "TMPDIR": str(HOME / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }
