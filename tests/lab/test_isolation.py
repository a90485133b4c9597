"""What a program inside a lab does not reach of the host."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import labs
import pytest
from command import Netlab

pytestmark = pytest.mark.kernel


@pytest.fixture
def lab(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> labs.Lab:
    """The smallest lab with a link, up."""
    made = labs.make(netlab, lab_name, tmp_path, privilege)
    made.up()
    return made


def test_a_lab_has_a_host_name_and_ipc_of_its_own(lab: labs.Lab) -> None:
    before = os.uname().nodename
    lab.exec("client", sys.executable, "-c", "import socket; socket.sethostname('renamed')")
    assert lab.exec("server", "uname", "-n") == "renamed\n"
    assert os.uname().nodename == before
    for kind in ("uts", "ipc"):
        inside = lab.exec("client", "readlink", f"/proc/self/ns/{kind}").strip()
        assert inside != str(Path(f"/proc/self/ns/{kind}").readlink())


def test_the_hosts_interfaces_are_not_there(lab: labs.Lab) -> None:
    assert lab.exec("client", sys.executable, "-c", "import socket; print(*dict(socket.if_nameindex()).values())") == (
        "lo eth0\n"
    )


def test_the_holder_stands_in_no_network_namespace_of_the_hosts(lab: labs.Lab) -> None:
    inside = lab.exec("client", "readlink", "/proc/1/ns/net").strip()
    assert inside != str(Path("/proc/self/ns/net").readlink())


def test_a_program_acts_on_files_as_who_made_the_lab(lab: labs.Lab, tmp_path: Path) -> None:
    made = tmp_path / "made"
    lab.exec("client", "touch", str(made))
    assert made.stat().st_uid == os.geteuid()
