"""What the host looks like, as lines of text that two moments can be compared by.

A lab must leave the host as it was: names of namespaces, links, nftables rules, mounts, sysctls, processes, and files
in the run directory. Other people work on the same machine: a process counts only when its environment says that this
test session started it, and a namespace does not count while somebody else holds it.
"""

from __future__ import annotations

import difflib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "NETLAB_LAB_TEST_SESSION"
"""Environment variable, its value unique to the session, that every process started by a test inherits."""

NAMES = Path("/run/netns")
"""Where root's namespaces have their names (NETNS_RUN_DIR in iproute2's include/namespace.h)."""

VOLATILE = {"net.netfilter.nf_conntrack_count"}
"""Files in /proc/sys that count, and set nothing."""


def snapshot(run_directory: Path) -> list[str]:
    """The host now, one thing a line, sorted within its kind. run_directory is where the tests' labs keep files."""
    return [
        *sorted(f"netns {name}" for name in _netns_names()),
        *sorted(f"link {ifname}" for _, ifname in socket.if_nameindex()),
        *(f"rule {line}" for line in _ruleset()),
        *sorted(f"mount {mount}" for mount in _mounts()),
        *sorted(f"sysctl {sysctl}" for sysctl in _sysctls()),
        *sorted(f"process {process}" for process in _processes()),
        *sorted(f"file {path}" for path in run_directory.rglob("*")),
    ]


def changes(before: list[str], run_directory: Path, timeout_s: float = 10) -> str:
    """What differs from before, as a diff; empty once nothing does. Waits that long for things to go away."""
    deadline = time.monotonic() + timeout_s
    while (diff := compare(before, snapshot(run_directory))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return diff


def compare(before: list[str], after: list[str]) -> str:
    """A diff of two snapshots, without what others may do meanwhile.

    Somebody else's namespaces may go, and a kernel module that a lab makes the kernel load brings sysctls of its own.
    """
    present = set(after)
    before = [line for line in before if not line.startswith(("netns ", "process ")) or line in present]
    known = {_sysctl_name(line) for line in before}
    after = [line for line in after if not line.startswith("sysctl ") or _sysctl_name(line) in known]
    return "\n".join(difflib.unified_diff(before, after, "before", "after", n=0, lineterm=""))


def _sysctl_name(line: str) -> str:
    return line.partition(" = ")[0]


def _netns_names() -> Iterator[str]:
    with suppress(FileNotFoundError):
        names = {path.name: path.stat().st_ino for path in NAMES.iterdir()}
        foreign_inodes, foreign_labs = _held_by_others()
        for name, inode in names.items():
            if inode not in foreign_inodes and not any(name.startswith(f"{lab}-") for lab in foreign_labs):
                yield name


def _held_by_others() -> tuple[set[int], set[str]]:
    """Inodes of the namespaces in which others' processes live, and the names of others' labs."""
    inodes, labs = set(), set()
    for pid in _pids():
        with suppress(OSError):
            if _started_here(pid):
                continue
            inodes.add(Path(f"/proc/{pid}/ns/net").stat().st_ino)
            if Path(f"/proc/{pid}/comm").read_text() == "netlab-holder\n":
                labs.add(_argv(pid)[-1].split()[-1])
    return inodes, labs


def _ruleset() -> list[str]:
    """`nft list ruleset` of the host's namespace; nothing where this user may not see it."""
    import nftables

    code, output, _ = nftables.Nftables().cmd("list ruleset")
    return output.splitlines() if code == 0 else []


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        target, (fstype, source) = fields[4], fields[fields.index("-") + 1 :][:2]
        # Names are listed apart. The directory becomes a mount with anybody's first `ip netns add`, and stays one.
        if target != str(NAMES) and not target.startswith(f"{NAMES}/"):
            yield f"{target} {fstype} {source}"


def _sysctls() -> Iterator[str]:
    """Every setting below net.core, net.ipv4, net.ipv6 and net.netfilter; those of single interfaces are left out."""
    for directory in ("core", "ipv4", "ipv6", "netfilter"):
        for path in Path("/proc/sys/net", directory).glob("*"):
            name = f"net.{directory}.{path.name}"
            if name in VOLATILE or path.is_dir():
                continue
            with suppress(OSError):
                yield f"{name} = {path.read_text().strip()}"


def _processes() -> Iterator[str]:
    for pid in _pids():
        with suppress(OSError):
            if pid != os.getpid() and _started_here(pid):
                yield f"{pid} {' '.join(_argv(pid))}"


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _argv(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")


def _started_here(pid: int) -> bool:
    """Whether the process inherited this session's mark; OSError where that can't be seen."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
