"""The system calls for namespaces, mounts and privileges that Python 3.11 lacks, each raising OSError with the name of
the thing.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Set
from contextlib import suppress

# include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# include/uapi/linux/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 4096, 16384, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 2

# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38

# include/uapi/linux/capability.h: the header's version, of two data structures each with effective, permitted and
# inheritable capabilities, 32 at a time
_LINUX_CAPABILITY_VERSION_3, _INHERITABLE, _CAPABILITIES_MAX = 0x20080522, (2, 5), 64

# close_range(2) has this number on every architecture; glibc knows it from 2.34 on (include/uapi/linux/close_range.h).
_NR_CLOSE_RANGE, _CLOSE_RANGE_CLOEXEC, _LAST_FD = 436, 4, 0xFFFFFFFF

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


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2), if not told otherwise equivalent to `umount --lazy TARGET`; OSError naming the target."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def end_with_parent(number: int) -> None:
    """Have this signal sent to the calling process when its parent ends (prctl(2), PR_SET_PDEATHSIG); OSError."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def keep_capabilities(kept: Set[int]) -> None:
    """Give up all capabilities but these for every later exec, root's too; OSError, without CAP_SETPCAP for one.

    Equivalent to `setpriv --bounding-set -all,+… --inh-caps -all`.
    """
    for number in range(_CAPABILITIES_MAX):
        if number not in kept and _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            if ctypes.get_errno() == errno.EINVAL:  # this kernel knows none from here on
                break
            _check(-1, f"prctl(PR_CAPBSET_DROP, {number})")
    # An exec gives what is inheritable, whatever the bounding set says.
    header, sets = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    _check(_libc.capget(header, sets), "capget")
    for part in _INHERITABLE:
        sets[part] = 0
    _check(_libc.capset(header, sets), "capset")


def no_new_privileges() -> None:
    """From now on no exec gives this process or a child of it more privileges (PR_SET_NO_NEW_PRIVS); OSError."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def close_on_exec(first: int) -> None:
    """Have every descriptor from this one on closed by the next exec, however high its number is: close_range(2)."""
    last, flags = ctypes.c_ulong(_LAST_FD), ctypes.c_ulong(_CLOSE_RANGE_CLOEXEC)
    if _libc.syscall(ctypes.c_long(_NR_CLOSE_RANGE), ctypes.c_ulong(first), last, flags) == 0:
        return
    for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 (numbers, not paths; a kernel before 5.11)
        if fd >= first:
            with suppress(OSError):  # the directory's own
                os.set_inheritable(fd, False)
