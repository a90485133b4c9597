"""What of the machine a lab's processes can change: the sysctls and interfaces of a network namespace, nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import labs
import pytest
import skips
from command import Netlab

pytestmark = [pytest.mark.kernel, pytest.mark.identity]

OPENED = """
import os, sys

def opened(top, spared):
    for directory, below, files in os.walk(top):
        below[:] = [name for name in below if os.path.join(directory, name) not in spared]
        for name in files:
            path = os.path.join(directory, name)
            if path in spared or os.path.islink(path):
                continue
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                continue
            print(path)

opened(sys.argv[1], sys.argv[2:])
"""
"""Names the files below a directory that can be opened for writing; nothing is written."""

OF_THE_LAB = [
    *(f"/proc/sys/{name}" for name in ("net", "user", "fs/mqueue")),
    *(f"/proc/sys/kernel/{name}" for name in ("hostname", "domainname", "shm_rmid_forced", "shmall", "shmmax")),
    *(f"/proc/sys/kernel/{name}" for name in ("shmmni", "msgmax", "msgmnb", "msgmni", "msg_next_id", "sem")),
    *(f"/proc/sys/kernel/{name}" for name in ("sem_next_id", "shm_next_id", "auto_msgmni", "pid_max", "ns_last_pid")),
]
"""Sysctls of the namespaces that a lab has of its own."""
INTERFACES = ["/sys/devices/virtual/net", "/sys/class/net"]
PLACES = {"/proc/sys": OF_THE_LAB, "/sys": INTERFACES}

OTHERS = ("/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/kcore", "/proc/kmsg")
REACHED = """
import os, sys

for path in sys.argv[1:]:
    mode = os.O_RDONLY if path.startswith("/proc/k") else os.O_WRONLY
    try:
        fd = os.open(path, mode | os.O_NONBLOCK)
    except OSError:
        continue
    if os.fstat(fd).st_rdev != os.stat("/dev/null").st_rdev:
        print(path)
"""
"""Names the files that can be opened: those of the kernel's memory and log for reading, others for writing."""


@pytest.mark.parametrize("top", PLACES)
def test_a_command_can_write_nothing_of_the_machines(lab: labs.Lab, top: str) -> None:
    assert lab.exec("client", "python3", "-c", OPENED, top, *PLACES[top]) == ""


def test_a_command_reaches_neither_the_kernels_memory_nor_its_triggers(lab: labs.Lab) -> None:
    there = [path for path in OTHERS if Path(path).exists()]
    assert there
    assert lab.exec("client", "python3", "-c", REACHED, *there) == ""


@pytest.mark.parametrize("top", PLACES)
def test_a_program_can_write_nothing_of_the_machines(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, top: str
) -> None:
    command = json.dumps(
        [
            "python3",
            "-c",
            f"{OPENED}\nprint('that is all', flush=True); import time; time.sleep(1000)",
            top,
            *PLACES[top],
        ]
    )
    program = f"{{name: it, command: {command}, ready: {{output: that is all}}}}"
    one = labs.make(netlab, lab_name, tmp_path, privilege, f"namespaces: {{server: {{programs: [{program}]}}}}\n")
    one.up()
    assert (one.directory() / "logs/server.it.log").read_text() == "that is all\n"


def test_a_command_sets_sysctls_of_its_own_namespace(lab: labs.Lab) -> None:
    skips.skip_unless_program("sysctl")
    key, file = "net.ipv4.tcp_keepalive_time", Path("/proc/sys/net/ipv4/tcp_keepalive_time")
    before = file.read_text()
    lab.exec("client", "sysctl", "-q", "-w", f"{key}=77")
    assert lab.exec("client", "sysctl", "-n", key) == "77\n"
    assert lab.exec("server", "sysctl", "-n", key) == before
    assert file.read_text() == before


def test_a_command_sets_attributes_of_its_own_interfaces(lab: labs.Lab) -> None:
    if lab.privilege == "--rootless":
        pytest.skip("the kernel lets root of the first user namespace set them only")
    lab.exec("client", "sh", "-c", "echo 77 >/sys/class/net/eth0/gro_flush_timeout")
    assert lab.exec("client", "cat", "/sys/class/net/eth0/gro_flush_timeout") == "77\n"
    assert lab.exec("client", "ls", "/sys/class/net").split() == ["eth0", "lo"]


def test_a_labs_processes_see_their_own_cgroup_only(lab: labs.Lab) -> None:
    inside = lab.exec("client", "sh", "-c", "cat /proc/self/cgroup; readlink /proc/self/ns/cgroup /proc/1/ns/cgroup")
    lines = inside.splitlines()
    assert {line.split(":", 2)[2] for line in lines[:-2]} == {"/"}
    assert str(Path("/proc/self/ns/cgroup").readlink()) not in lines[-2:]
