"""What of the machine a lab's processes see and may not change: /proc and /sys, but for what belongs to a network.

The kernel lets root write there by its user ID, whatever its capabilities: it has to be kept off by read-only mounts.
Where a lab's root is no root outside, the kernel's own permissions keep it off.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from netlab.linux.syscalls import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
)

_QUIET = MS_NOSUID | MS_NODEV | MS_NOEXEC
_READ_ONLY = ("sys", "sysrq-trigger", "irq", "fs", "bus", "acpi", "scsi")
_HIDDEN = ("kcore", "kmsg")
_NETWORKS = ("devices/virtual/net", "class/net")
"""What of /sys is the network namespace's: its interfaces' attributes, and where bonds are made (bonding_masters)."""


def is_roots() -> bool:
    """Whether root of this process's user namespace is root outside it, too."""
    return Path("/proc/self/uid_map").read_text().split()[:2] == ["0", "0"]


def mount_proc() -> None:
    """Put a /proc of this process's PID namespace on /proc; OSError.

    In a lab of root's nothing of the machine's can be written there, but for the sysctls of a network namespace.
    Equivalent, for one of the files, to `mount --bind FILE FILE; mount -o remount,bind,ro FILE`.
    """
    roots = is_roots()
    with suppress(PermissionError):  # a container with a masked /proc forbids it: the host's stays
        mount("proc", "/proc", "proc", _QUIET)
    if not roots:
        return
    for name in _READ_ONLY:
        path = f"/proc/{name}"
        with suppress(FileNotFoundError):
            mount(path, path, flags=MS_BIND | MS_REC)
            if name == "sys":  # not in a network namespace itself, it shows each process its own (net_sysctl_init())
                mount(f"{path}/net", f"{path}/net", flags=MS_BIND)
            mount("none", path, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | _QUIET)
    for name in _HIDDEN:
        with suppress(FileNotFoundError):
            mount("/dev/null", f"/proc/{name}", flags=MS_BIND)


def mount_sys() -> None:
    """Put a /sys of the calling thread's network namespace on /sys, read-only in a lab of root's but for interfaces.

    /sys/class/net is that of the network namespace in which sysfs was mounted, as with `ip netns exec`. OSError.
    """
    with suppress(PermissionError):  # as of /proc
        mount("sysfs", "/sys", "sysfs", _QUIET)
    if is_roots():
        for name in _NETWORKS:
            mount(f"/sys/{name}", f"/sys/{name}", flags=MS_BIND)
        mount("none", "/sys", flags=MS_REMOUNT | MS_BIND | MS_RDONLY | _QUIET)
