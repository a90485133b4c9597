"""libnftables ends its process in the middle of `up`: the lab is taken back, and what was refused is told."""

from __future__ import annotations

from pathlib import Path

import host
import labs
import pytest
from command import Netlab

pytestmark = pytest.mark.kernel

NODE = """
namespaces:
  node: {role: node}
  pod: {role: pod}
links:
  - ends: [node, pod]
"""
SERVED = f"{NODE}services: {{web: {{port: 80, endpoints: [pod]}}}}\n"

ENDING = """\
import ctypes, os

class Nftables:
    def cmd(self, commands):
        os.write(2, b"mnl.c:63: Unable to initialize Netlink socket: Too many open files\\n")
        ctypes.CDLL(None).exit(3)
"""


@pytest.fixture
def ending(tmp_path: Path) -> dict[str, str]:
    """An environment in which netlab's libnftables calls exit(3)."""
    directory = tmp_path / "ending"
    directory.mkdir()
    (directory / "nftables.py").write_text(ENDING)
    return {"PYTHONPATH": str(directory)}


ENDED = "libnftables ended (exit code 3): mnl.c:63: Unable to initialize Netlink socket: Too many open files"


def test_a_fresh_lab_is_taken_back(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, ending: dict[str, str]
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, SERVED)
    before = host.snapshot(netlab.rundir)
    done = netlab("up", lab.file, "--name", lab.name, privilege, env=ending)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"netlab: node: kube-proxy's rules: {ENDED}\n  hint: the same by hand: ")
    assert host.changes(before, netlab.rundir) == ""
    assert not netlab.rundir.exists()


def test_an_edit_is_taken_back(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, ending: dict[str, str]
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, NODE)
    lab.up()
    lab.write(SERVED.replace("pod: {role: pod}", "pod: {role: pod, loopback: 10.9.0.1}"))
    done = netlab("up", lab.file, "--name", lab.name, privilege, env=ending)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"netlab: node: its rules can't be read: nft: {ENDED}\n"
    assert "10.9.0.1" not in lab.exec("pod", "ip", "address")
    lab.write(NODE)
    lab.up()
    assert lab.drift() == []
