"""What a program that a file names gets and may do; a command on the caller's own line is the caller's."""

from __future__ import annotations

import json
from pathlib import Path

import labs
import pytest
from command import Netlab

pytestmark = pytest.mark.kernel

SECRET = {"AWS_SECRET_ACCESS_KEY": "of-the-caller", "LANG": "C.UTF-8", "LC_TIME": "C"}
"""Variables of the caller's: one that a program of a file must not see, and two that it gets."""

GIVEN = {"PATH", "LD_LIBRARY_PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"}
OF_A_SHELL = {"PWD", "OLDPWD", "SHLVL", "_"}


def with_program(netlab: Netlab, name: str, directory: Path, privilege: str, script: str, more: str = "") -> labs.Lab:
    """A lab, not up yet, whose one program is a shell script that stays."""
    command = json.dumps(["sh", "-c", f"{script}; echo all done; exec sleep 1000"])
    program = f"{{name: it, command: {command}, ready: {{output: all done}}{more}}}"
    return labs.make(
        netlab,
        name,
        directory,
        privilege,
        f"namespaces:\n  server:\n    programs:\n      - {program}\n  client: {{}}\n",
    )


def printed(lab: labs.Lab, env: dict[str, str] | None = None) -> list[str]:
    """What the program of a lab that is built now has printed, but for its last line."""
    done = lab.netlab("up", lab.file, "--name", lab.name, lab.privilege, env=env)
    assert done.returncode == 0, done.stderr
    *lines, last = (lab.directory() / "logs/server.it.log").read_text().splitlines()
    assert last == "all done"
    return lines


def test_a_program_gets_no_secret_of_the_callers_environment(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    lab = with_program(netlab, lab_name, tmp_path, privilege, "env", ", env: {MINE: given, TZ: UTC}")
    seen = dict(line.split("=", 1) for line in printed(lab, SECRET))
    its_own = {"MINE": "given", "TZ": "UTC", "NETLAB_LAB_NETNS": "server", "LANG": "C.UTF-8", "LC_TIME": "C"}
    assert {name: seen.get(name) for name in its_own} == its_own
    others = {name for name in seen if not name.startswith(("LC_", "NETLAB_LAB_"))}
    assert others - GIVEN - OF_A_SHELL == {"MINE"}


def test_a_readiness_check_gets_no_secret_of_the_callers_environment(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    program = f'{{name: it, command: sleep 1000, ready: {{command: [sh, -c, "env >{seen}"]}}}}'
    lab = labs.make(
        netlab, lab_name, tmp_path, privilege, f"namespaces:\n  server:\n    programs:\n      - {program}\n"
    )
    done = netlab("up", lab.file, "--name", lab_name, privilege, env=SECRET)
    assert done.returncode == 0, done.stderr
    assert "NETLAB_LAB_NETNS=server" in seen.read_text()
    assert "of-the-caller" not in seen.read_text()


def test_an_experiments_program_gets_no_secret_of_the_callers_environment(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    topology, document, seen = tmp_path / "topology.yaml", tmp_path / "document.yaml", tmp_path / "seen"
    topology.write_text(
        "namespaces: {node: {role: node}, client: {role: pod}, server: {role: pod}}\n"
        "bridges: [{name: cni0, netns: node, ports: [client, server]}]\n"
        "services: {web: {port: 80, endpoints: [server]}}\n"
    )
    document.write_text(
        f"claim: It shows.\ntopology: {topology}\nclient: client\nservice: web\n"
        f'steps: [connect, program: {{in: client, command: [sh, -c, "env >{seen}"]}}, finish]\n'
        "expect: {plain: completed}\n"
    )
    done = netlab("run", document, "--name", lab_name, privilege, "--trials", "1", env=SECRET)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NETLAB_LAB_NETNS=client" in seen.read_text()
    assert "of-the-caller" not in seen.read_text()


def test_the_holder_has_no_secret_of_the_callers_environment(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    done = netlab("up", lab.file, "--name", lab_name, privilege, env=SECRET)
    assert done.returncode == 0, done.stderr
    assert "of-the-caller" not in lab.exec("client", "cat", "/proc/1/environ")


def test_a_command_of_the_callers_own_gets_the_callers_environment(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    lab.up()
    command = ("exec", "-l", lab_name, "client", "--", "printenv", "AWS_SECRET_ACCESS_KEY", "NETLAB_LAB_NETNS")
    assert netlab(*command, env=SECRET).stdout == "of-the-caller\nclient\n"
