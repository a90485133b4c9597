"""The check that the tests leave the host alone can itself fail."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import host
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


def test_what_others_do_is_no_change() -> None:
    before = ["netns theirs-a", "link lo", "process 17 theirs"]
    after = ["link lo", "sysctl net.netfilter.nf_conntrack_max = 262144"]
    assert host.compare(before, after) == ""


def test_process_and_file_left_behind(tmp_path: Path) -> None:
    before = host.snapshot(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        (tmp_path / "lab.json").touch()
        try:
            diff = host.changes(before, tmp_path, timeout_s=0)
        finally:
            sleeper.kill()
    added = [line for line in diff.splitlines() if line.startswith("+") and line != "+++ after"]
    assert added == [f"+process {sleeper.pid} sleep 60", f"+file {tmp_path}/lab.json"]


@pytest.mark.kernel
def test_namespace_left_behind(tmp_path: Path, lab_name: str) -> None:
    skips.skip_unless_root()
    skips.skip_unless_program("ip")
    before = host.snapshot(tmp_path)
    subprocess.run(["ip", "netns", "add", lab_name], check=True)
    try:
        diff = host.changes(before, tmp_path, timeout_s=0)
    finally:
        subprocess.run(["ip", "netns", "del", lab_name], check=True)
    assert f"+netns {lab_name}" in diff.splitlines()


@pytest.mark.kernel
def test_held_by_somebody_else(tmp_path: Path, lab_name: str) -> None:
    skips.skip_unless_root()
    skips.skip_unless_program("ip")
    theirs = {name: value for name, value in os.environ.items() if name != host.MARK}
    before = host.snapshot(tmp_path)
    subprocess.run(["ip", "netns", "add", lab_name], check=True)
    try:
        with subprocess.Popen(["ip", "netns", "exec", lab_name, "cat"], stdin=subprocess.PIPE, env=theirs) as cat:
            # `ip` has entered the namespace once it has become cat.
            while Path(f"/proc/{cat.pid}/comm").read_text() != "cat\n":
                assert cat.poll() is None
            after = host.snapshot(tmp_path)
    finally:
        subprocess.run(["ip", "netns", "del", lab_name], check=True)
    assert f"+netns {lab_name}" not in host.compare(before, after).splitlines()
