"""A cgroup that limits how much CPU its processes get, next to this process's own or below it.

Only a cgroup made here is ever changed, and it is removed again; where its maker was killed, `sweep` does it. cgroup v2
is used where it has the cpu controller, v1 elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from netlab.linux.deadlines import scaled

PERIOD_US = 100_000
"""The period that a quota counts for: the kernel's default (default_cfs_period in kernel/sched/)."""

_PREFIX = "netlab-cpu-limit-"
_REMOVAL_TIMEOUT_S = 2.0


class Hierarchy(NamedTuple):
    """A mounted cgroup hierarchy that may have the cpu controller: where it is mounted, this process's cgroup in it."""

    mount: Path
    own: Path
    unified: bool

    def parents(self) -> tuple[Path, ...]:
        """Where a cgroup of ours may stand: below this process's own, or next to it."""
        return (self.own, self.own.parent) if self.own != self.mount else (self.own,)


@contextmanager
def limited_cpu(quota_us: int) -> Iterator[Path]:
    """A new cgroup whose processes together get quota_us of every PERIOD_US; a pid written to its cgroup.procs joins.

    Its processes must have ended when this does. OSError, saying what is missing, where this user can't make one.
    Equivalent to `mkdir GROUP; echo "QUOTA 100000" > GROUP/cpu.max`.
    """
    sweep()
    group, locked = _make()
    try:
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
        else:
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        yield group
    finally:
        _remove(group)
        os.close(locked)


def sweep() -> None:
    """Remove the cgroups of ours whose makers were killed; those that anybody still has are left alone."""
    for hierarchy in _hierarchies():
        for parent in hierarchy.parents():
            for group in parent.glob(f"{_PREFIX}*"):
                with suppress(OSError):  # another user's, another command's, or gone
                    locked = _lock(group)
                    try:
                        group.rmdir()
                    finally:
                        os.close(locked)


def _lock(group: Path) -> int:
    """Have it for as long as the descriptor is open, here or in a child; OSError where another has it."""
    fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def _make() -> tuple[Path, int]:
    """A new cgroup, and its lock."""
    refusals = []
    for hierarchy in _hierarchies():
        unified = hierarchy.unified
        for parent in hierarchy.parents():
            if unified and "cpu" not in (parent / "cgroup.subtree_control").read_text().split():
                refusals.append(f"{parent} gives no cpu controller to those below it")
                continue
            try:
                group = parent / f"{_PREFIX}{os.urandom(4).hex()}"
                group.mkdir(mode=0o700)
                return group, _lock(group)
            except OSError as error:
                refusals.append(f"{parent}: {error.strerror}")
    why = "; ".join(refusals) or "no hierarchy that has it is mounted"
    raise OSError(errno.EPERM, f"this user can make no cgroup with a cpu controller: {why}", "cgroup")


def _remove(group: Path) -> None:
    """What ended in it may be counted a moment longer: the kernel says EBUSY until then."""
    deadline = time.monotonic() + scaled(_REMOVAL_TIMEOUT_S)
    while True:
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _hierarchies() -> list[Hierarchy]:
    with suppress(FileNotFoundError):  # a kernel without cgroups
        return hierarchies(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
    return []


def hierarchies(cgroups: str, mountinfo: str) -> list[Hierarchy]:
    """v2's, and v1's that has the cpu controller, where they are mounted; from /proc/PID/cgroup and mountinfo. Pure."""
    own = {}
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            own["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            own["cgroup"] = path
    found = {}
    for line in mountinfo.splitlines():
        before, after = line.split(" - ", 1)
        fstype, _, options = after.split(" ", 2)
        if fstype in own and (fstype == "cgroup2" or "cpu" in options.split(",")):
            _, _, _, root, mount, *_ = before.split()
            below = os.path.relpath(own[fstype], root)
            found[fstype] = Hierarchy(Path(mount), Path(mount) / below, fstype == "cgroup2")
    return [found[fstype] for fstype in ("cgroup2", "cgroup") if fstype in found]
