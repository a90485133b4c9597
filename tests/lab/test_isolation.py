"""What a program inside a lab does not reach of the host."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path

import labs
import pytest
from command import Netlab
from terminals import terminal

pytestmark = [pytest.mark.kernel, pytest.mark.identity]


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


def test_no_process_of_the_hosts_is_there(lab: labs.Lab) -> None:
    inside = lab.exec("client", "sh", "-c", "echo $$; exec ls /proc").split()
    assert {int(name) for name in inside[1:] if name.isdigit()} == {1, int(inside[0])}
    reached = lab.netlab("exec", "-l", lab.name, "client", "--", "sh", "-c", f"kill -0 {os.getpid()}")
    assert reached.returncode == 1


CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1].replace('@', chr(0)))"


def test_no_abstract_socket_of_the_hosts_is_there(lab: labs.Lab) -> None:
    name = f"{lab.name}-abstract"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        command = ("exec", "-l", lab.name, "client", "--", sys.executable, "-c", CONNECT, f"@{name}")
        assert "ConnectionRefusedError" in lab.netlab(*command).stderr


def test_a_socket_in_the_file_system_leads_to_the_host(lab: labs.Lab) -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{directory}/socket")
        server.listen()
        lab.exec("client", sys.executable, "-c", CONNECT, f"{directory}/socket")


def test_a_lab_is_in_the_cgroup_of_who_built_it(lab: labs.Lab) -> None:
    own = Path("/proc/self/cgroup").read_text()
    assert Path(f"/proc/{lab.status()['holder']}/cgroup").read_text() == own


def test_a_program_acts_on_files_as_who_made_the_lab(lab: labs.Lab, tmp_path: Path) -> None:
    made = tmp_path / "made"
    lab.exec("client", "touch", str(made))
    assert made.stat().st_uid == os.geteuid()


def test_a_terminals_file_leads_to_the_terminal(lab: labs.Lab) -> None:
    with terminal(lab, "cat") as screen:
        lab.exec("client", "sh", "-c", f"echo written >{screen.name()}")
        screen.expect("written")
        screen.type("\x04")


BIND_VSOCK = "import socket, sys; socket.socket(socket.AF_VSOCK).bind((socket.VMADDR_CID_ANY, int(sys.argv[1])))"


def test_vsock_is_the_hosts(lab: labs.Lab) -> None:
    try:
        server = socket.socket(socket.AF_VSOCK)
    except OSError as error:
        pytest.skip(f"AF_VSOCK: {error.strerror}")
    with server:
        server.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        port = server.getsockname()[1]
        command = ("exec", "-l", lab.name, "client", "--", sys.executable, "-c", BIND_VSOCK, str(port))
        assert "Address already in use" in lab.netlab(*command).stderr
