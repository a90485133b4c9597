"""The check that the tests leave the host alone can itself fail."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import host
import labs
import pytest
import skips


def test_same_is_no_change() -> None:
    lines = ["link lo", "rule table ip mine {", "sysctl net.ipv4.ip_forward = 0"]
    assert host.compare(lines, lines) == ""


def test_diff_names_every_change() -> None:
    before = ["link lo", "link eth0", "rule table ip mine {", "sysctl net.ipv4.ip_forward = 0"]
    after = ["netns lab-pod", "link lo", "link eth0", "link v0", "sysctl net.ipv4.ip_forward = 1"]
    assert host.compare(before, after).splitlines() == [
        "--- before",
        "+++ after",
        "@@ -0,0 +1 @@",
        "+netns lab-pod",
        "@@ -3,2 +4,2 @@",
        "-rule table ip mine {",
        "-sysctl net.ipv4.ip_forward = 0",
        "+link v0",
        "+sysctl net.ipv4.ip_forward = 1",
    ]


def test_what_was_left_over_may_go_and_modules_bring_sysctls() -> None:
    before = ["netns left-a", "link lo", "mount /run/netns/left-a nsfs nsfs", "process 17 left"]
    after = ["link lo", "sysctl net.netfilter.nf_conntrack_max = 262144"]
    assert host.compare(before, after) == ""


def added(diff: str) -> list[str]:
    """The lines that a diff adds."""
    return [line for line in diff.splitlines() if line.startswith("+") and line != "+++ after"]


def test_process_and_file_left_behind(tmp_path: Path) -> None:
    before = host.snapshot(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        (tmp_path / "lab.json").touch()
        try:
            diff = host.changes(before, tmp_path, timeout_s=0)
        finally:
            sleeper.kill()
    assert added(diff) == [f"+process {sleeper.pid} sleep 60", f"+file {tmp_path}/lab.json"]


def unmarked() -> dict[str, str]:
    """The environment of somebody else's process."""
    return {name: value for name, value in os.environ.items() if name not in (host.MARK, host.RUNDIR)}


@contextmanager
def orphan(*argv: str) -> Iterator[int]:
    """A process whose parent has ended, and whose environment tells nothing; its pid."""
    started = subprocess.run(
        ["sh", "-c", '"$@" >/dev/null & echo $!', "sh", *argv], env=unmarked(), stdout=subprocess.PIPE, check=True
    )
    pid = int(started.stdout)
    try:
        labs.until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(argv[0].encode()), argv[0])
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)


def test_process_that_forgot_its_mark(tmp_path: Path) -> None:
    before = host.snapshot(tmp_path)
    with subprocess.Popen(["sleep", "61"], env=unmarked()) as sleeper:
        try:
            diff = host.changes(before, tmp_path, timeout_s=0)
        finally:
            sleeper.kill()
    assert added(diff) == [f"+process {sleeper.pid} sleep 61"]


def test_orphan_whose_arguments_tell_whose_it_is(tmp_path: Path, lab_name: str) -> None:
    before = host.snapshot(tmp_path)
    for sign in (f"lab {lab_name}", str(tmp_path / "file"), os.environ[host.RUNDIR]):
        script = "import time; time.sleep(60)"
        with orphan(sys.executable, "-c", script, sign) as pid:
            diff = host.changes(before, tmp_path, timeout_s=0)
        assert added(diff) == [f"+process {pid} {sys.executable} -c {script} {sign}"]


def test_somebody_elses_process(tmp_path: Path) -> None:
    before = host.snapshot(tmp_path)
    with orphan("sleep", "62"):
        assert host.changes(before, tmp_path, timeout_s=0) == ""


@contextmanager
def namespace(name: str) -> Iterator[None]:
    """A namespace that `ip` named."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def ip_as_root() -> None:
    """Skips the test unless this is root, who has iproute2."""
    skips.skip_unless_root()
    skips.skip_unless_program("ip")


@pytest.mark.kernel
def test_namespace_left_behind(tmp_path: Path, lab_name: str, ip_as_root: None) -> None:
    before = host.snapshot(tmp_path)
    with namespace(lab_name):
        diff = host.changes(before, tmp_path, timeout_s=0)
    # Where /run/netns is a shared mount under a shared one, a name is mounted more than once.
    assert sorted(set(added(diff))) == [f"+mount /run/netns/{lab_name} nsfs nsfs", f"+netns {lab_name}"]


@pytest.mark.kernel
def test_namespace_of_a_lab_with_another_name(tmp_path: Path, ip_as_root: None) -> None:
    name = f"demo-{os.getpid()}"
    directory = Path(os.environ[host.RUNDIR], name)
    before = host.snapshot(tmp_path)
    directory.mkdir()
    try:
        (directory / "state.json").touch()
        with namespace(f"{name}-client"):
            diff = host.changes(before, tmp_path, timeout_s=0)
    finally:
        shutil.rmtree(directory)
    assert f"+netns {name}-client" in added(diff)


@pytest.mark.kernel
def test_somebody_elses_namespace(tmp_path: Path, ip_as_root: None) -> None:
    other = f"t{uuid.uuid4().hex[:8]}"  # as another session's labs are called
    assert not other.startswith(host.lab_prefix())
    before = host.snapshot(tmp_path)
    with namespace(f"{other}-client"):
        assert host.changes(before, tmp_path, timeout_s=0) == ""


@pytest.mark.kernel
def test_link_and_rule_left_behind(tmp_path: Path, lab_name: str) -> None:
    """In a network namespace of its own, which stands for the host's."""
    skips.skip_unless_root()
    for program in ("ip", "nft", "unshare"):
        skips.skip_unless_program(program)
    script = f"""
import subprocess, sys
from pathlib import Path
sys.path.insert(0, {str(Path(host.__file__).parent)!r})
import host
before = host.snapshot(Path({str(tmp_path)!r}))
subprocess.run(["ip", "link", "add", {lab_name!r}, "type", "bridge"], check=True)
subprocess.run(["nft", "add table ip {lab_name}"], check=True)
Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
print(host.changes(before, Path({str(tmp_path)!r}), timeout_s=0))
"""
    done = subprocess.run(["unshare", "--net", sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr == ""
    assert added(done.stdout) == [
        f"+link {lab_name}",
        f"+rule table ip {lab_name} {{",
        "+rule }",
        "+sysctl net.ipv4.ip_forward = 1",
    ]


@pytest.mark.kernel
def test_what_rules_count_is_no_change(tmp_path: Path) -> None:
    """In a network namespace of its own, which stands for the host's."""
    skips.skip_unless_root()
    for program in ("ip", "nft", "unshare"):
        skips.skip_unless_program(program)
    script = f"""
import socket, subprocess, sys
from pathlib import Path
sys.path.insert(0, {str(Path(host.__file__).parent)!r})
import host
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["nft", "table ip t {{ chain c {{ type filter hook output priority 0; counter; }}; }}"], check=True)
before = host.snapshot(Path({str(tmp_path)!r}))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("127.0.0.1", 9))
print(host.changes(before, Path({str(tmp_path)!r}), timeout_s=0))
"""
    done = subprocess.run(["unshare", "--net", sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")


@pytest.mark.kernel
def test_mount_left_behind(tmp_path: Path) -> None:
    """In a mount namespace of its own, which stands for the host's."""
    skips.skip_unless_root()
    skips.skip_unless_program("unshare")
    script = f"""
import subprocess, sys
from pathlib import Path
sys.path.insert(0, {str(Path(host.__file__).parent)!r})
import host
before = host.snapshot(Path({str(tmp_path)!r}))
subprocess.run(["mount", "-t", "tmpfs", "left", {str(tmp_path)!r}], check=True)
print(host.changes(before, Path({str(tmp_path)!r}), timeout_s=0))
"""
    done = subprocess.run(["unshare", "--mount", sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr == ""
    assert added(done.stdout) == [f"+mount {tmp_path} tmpfs left"]
