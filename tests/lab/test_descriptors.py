"""Descriptors of whoever calls netlab: the lab keeps none of them, a program in the foreground gets them."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
from pathlib import Path

import labs
import pytest
from command import Netlab
from places import TOPOLOGIES

pytestmark = pytest.mark.kernel

PROGRAM = """
namespaces:
  one:
    programs: [{name: sleeper, command: sleep 1000, ready: {command: "true"}}]
"""


@pytest.mark.parametrize("at_least", [3, 1500])
def test_a_lab_keeps_no_lock_of_who_built_it(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, at_least: int
) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= at_least:
        pytest.skip("this user may not have that many open files")
    lab = labs.make(netlab, lab_name, tmp_path, privilege, PROGRAM)
    lock = tmp_path / "lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fd = fcntl.fcntl(file, fcntl.F_DUPFD, at_least)
        try:
            command = netlab.argv("up", lab.file, "--name", lab_name, privilege)
            subprocess.run(command, env=netlab.environment(), pass_fds=[fd], check=True, capture_output=True)
        finally:
            os.close(fd)
    with lock.open("w") as file:  # closing the last copy has given it back
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lab.down()


def test_a_program_in_the_foreground_gets_the_callers_descriptors(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    lab.up()
    readable, writable = os.pipe()
    os.write(writable, b"from the caller")
    os.close(writable)
    command = netlab.argv("exec", "--lab", lab_name, "client", "--", "cat", f"/proc/self/fd/{readable}")
    done = subprocess.run(command, env=netlab.environment(), pass_fds=[readable], capture_output=True, text=True)
    os.close(readable)
    assert (done.stdout, done.stderr) == ("from the caller", "")
    lab.down()


def test_a_limit_on_open_files_is_named_wherever_it_is_reached(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, (TOPOLOGIES / "kube-proxy-reset.yaml").read_text())
    command = netlab.argv("up", lab.file, "--name", lab_name, privilege)
    complaints = set()
    for limit in range(20, 80, 3):
        limited = ["sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh", *command]
        done = subprocess.run(limited, env=netlab.environment(), capture_output=True, text=True)
        if done.returncode == 0:
            break
        complaint, _, hint = done.stderr.partition("\n")
        assert (done.returncode, hint) == (1, f"  hint: `ulimit -n` is {limit}: raise it\n"), done.stderr
        complaints.add(complaint)
    lab.down()
    assert len(complaints) > 2


MANY = 60
"""More namespaces than the caller may have files open."""


def test_a_lab_of_more_namespaces_than_the_caller_may_open_files(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    program = '{name: limits, command: [sh, -c, "ulimit -Sn; sleep 1000"], ready: {output: .}}'
    names = "".join(f"  n{number}: {{}}\n" for number in range(MANY))
    lab = labs.make(netlab, lab_name, tmp_path, privilege, f"namespaces:\n{names}  last: {{programs: [{program}]}}\n")
    limited = ["sh", "-c", f'ulimit -Sn {MANY - 20} && exec "$@"', "sh"]
    command = [*limited, *netlab.argv("up", lab.file, "--name", lab_name, privilege)]
    subprocess.run(command, env=netlab.environment(), check=True)
    assert (lab.directory() / "logs/last.limits.log").read_text() == f"{MANY - 20}\n"
    lab.down()
