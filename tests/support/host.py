"""What a test session could have changed on the host, as lines of text that two moments can be compared by.

A lab must leave the host as it was. Other people work on the same machine, with labs of their own, so only what shows
that it is this session's counts: names of namespaces, mounts and processes that carry the session's directory, its
labs' names or its mark; and files in the run directory. What belongs to nobody (the host's links, nftables rules and
sysctls) counts where this is root; others can't change it.
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

RUNDIR = "NETLAB_LAB_RUNDIR"
"""Environment variable with the directory below which all labs of the session keep their files."""

VOLATILE = {"net.netfilter.nf_conntrack_count"}
"""Files in /proc/sys that count, and set nothing."""


def lab_prefix() -> str:
    """What the names of this session's labs begin with: `t` and 20 bits of the mark."""
    return f"t{os.environ[MARK][:5]}"


def snapshot(run_directory: Path) -> list[str]:
    """The host now, one thing a line, sorted within its kind. run_directory is where the tests' labs keep files."""
    of_nobody: list[str] = []
    if os.geteuid() == 0:
        of_nobody += sorted(f"link {ifname}" for _, ifname in socket.if_nameindex())
        of_nobody += [f"rule {line}" for line in _ruleset()]
        of_nobody += sorted(f"sysctl {sysctl}" for sysctl in _sysctls())
    return [
        *sorted(f"netns {name}" for name in _netns_names()),
        *of_nobody,
        *sorted(f"mount {mount}" for mount in _mounts(run_directory)),
        *sorted(f"process {process}" for process in _processes(run_directory)),
        *sorted(f"file {path}" for path in _below(run_directory)),
    ]


def changes(before: list[str], run_directory: Path, timeout_s: float = 60) -> str:
    """What differs from before, as a diff; empty once nothing does. Waits that long for things to go away."""
    deadline = time.monotonic() + timeout_s
    while (diff := compare(before, snapshot(run_directory))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return diff


def compare(before: list[str], after: list[str]) -> str:
    """A diff of two snapshots, without what may change all the same.

    What was left over before may go, and a kernel module that a lab makes the kernel load brings sysctls of its own.
    """
    present = set(after)
    before = [line for line in before if not line.startswith(("netns ", "mount ", "process ")) or line in present]
    known = {_sysctl_name(line) for line in before}
    after = [line for line in after if not line.startswith("sysctl ") or _sysctl_name(line) in known]
    return "\n".join(difflib.unified_diff(before, after, "before", "after", n=0, lineterm=""))


def _sysctl_name(line: str) -> str:
    return line.partition(" = ")[0]


def _prefixes() -> tuple[str, ...]:
    """What the names of this session's namespaces begin with; those of a lab with another name while it has a state."""
    labs = {path.parent.name for path in _below(Path(os.environ[RUNDIR])) if path.name == "state.json"}
    return (lab_prefix(), *(f"{lab}-" for lab in labs))


def _netns_names() -> Iterator[str]:
    with suppress(FileNotFoundError):
        prefixes = _prefixes()
        yield from (path.name for path in NAMES.iterdir() if path.name.startswith(prefixes))


def _below(directory: Path) -> Iterator[Path]:
    """All files and directories; os.walk, unlike rglob, bears that some are just being removed."""
    for parent, directories, files in os.walk(directory):
        yield from (Path(parent, name) for name in (*directories, *files))


def _ruleset() -> list[str]:
    """`nft --stateless list ruleset` of the host's namespace; nothing where this user may not see it.

    Without what its rules have counted and its sets have learned meanwhile.
    """
    import nftables

    nft = nftables.Nftables()
    nft.set_stateless_output(True)
    code, output, _ = nft.cmd("list ruleset")
    return output.splitlines() if code == 0 else []


def _mounts(run_directory: Path) -> Iterator[str]:
    prefixes = _prefixes()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        target, (fstype, source) = Path(fields[4]), fields[fields.index("-") + 1 :][:2]
        if target.is_relative_to(run_directory) or (target.parent == NAMES and target.name.startswith(prefixes)):
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


def _processes(run_directory: Path) -> Iterator[str]:
    parents = dict(_parents())
    for pid in parents:
        with suppress(OSError):
            argv = " ".join(_argv(pid))
            if argv and pid != os.getpid() and (_points_here(argv, run_directory) or _born_here(pid, parents)):
                yield f"{pid} {argv}"


def _points_here(argv: str, run_directory: Path) -> bool:
    """Whether a command line names the session's directory, or one of its labs as a holder's does."""
    return any(sign in argv for sign in (str(run_directory), os.environ[RUNDIR], lab_prefix()))


def _born_here(pid: int, parents: dict[int, int]) -> bool:
    """Whether the process, or one that it descends from, is this one or inherited its mark."""
    while pid in parents:
        if pid == os.getpid() or _is_marked(pid):
            return True
        pid = parents[pid]
    return False


def _is_marked(pid: int) -> bool:
    mark = f"{MARK}={os.environ[MARK]}".encode()
    with suppress(OSError):  # another user's process
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def _parents() -> Iterator[tuple[int, int]]:
    """Every process and its parent: field 4 of /proc/PID/stat (proc_pid_stat(5))."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                stat = (entry / "stat").read_text(errors="replace")
                yield int(entry.name), int(stat[stat.rindex(")") + 2 :].split()[1])


def _argv(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
