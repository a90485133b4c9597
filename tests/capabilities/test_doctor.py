"""`netlab doctor`: the table and JSON as whole texts, the probes by what this machine must have or must be without."""

from __future__ import annotations

import ctypes
import errno
import importlib.metadata
import importlib.util
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NoReturn

import labs
import pytest
import skips
from command import Netlab
from places import ROOT
from states import lab_directory

from netlab import advice
from netlab.capabilities import doctor
from netlab.capabilities.capability import CAPABILITIES, Capability
from netlab.capabilities.doctor import Check
from netlab.lab import holder
from netlab.linux.files import write_own
from netlab.style import plain

FINE = [
    Check("kernel", True, "Linux 6.12.0"),
    Check("libnftables binding", True, "/usr/lib/python3/dist-packages/nftables"),
    Check(
        "qdisc netem",
        None,
        "can't be added: No such file or directory",
        "topologies that ask for it can't be built",
    ),
    Check("program ip", None, "not installed; netlab doesn't need it"),
]
FORBIDDEN = Check(
    "user namespaces",
    False,
    "this user can't make a user namespace: Operation not permitted",
    "kernel.apparmor_restrict_unprivileged_userns is 1: run netlab as root",
)


def test_table() -> None:
    assert plain(doctor.pieces(FINE)) == (
        "ok    kernel               Linux 6.12.0\n"
        "ok    libnftables binding  /usr/lib/python3/dist-packages/nftables\n"
        "note  qdisc netem          can't be added: No such file or directory\n"
        "                           topologies that ask for it can't be built\n"
        "note  program ip           not installed; netlab doesn't need it\n"
        "netlab can build labs here.\n"
    )
    assert doctor.exit_code(FINE) == 0


def test_table_of_a_failure() -> None:
    found = [FINE[0], FORBIDDEN]
    assert plain(doctor.pieces(found)) == (
        "ok    kernel           Linux 6.12.0\n"
        "FAIL  user namespaces  this user can't make a user namespace: Operation not permitted\n"
        "                       kernel.apparmor_restrict_unprivileged_userns is 1: run netlab as root\n"
        "netlab can't build labs here: see FAIL above.\n"
    )
    assert doctor.exit_code(found) == 77


def test_json() -> None:
    assert json.loads(doctor.render_json([FINE[3], FORBIDDEN])) == {
        "usable": False,
        "checks": [
            {"name": "program ip", "ok": None, "detail": "not installed; netlab doesn't need it", "advice": ""},
            {
                "name": "user namespaces",
                "ok": False,
                "detail": "this user can't make a user namespace: Operation not permitted",
                "advice": "kernel.apparmor_restrict_unprivileged_userns is 1: run netlab as root",
            },
        ],
    }


def install(directory: Path, script: str = "#!/bin/sh\n") -> Path:
    """An executable file `netlab` in a directory."""
    directory.mkdir()
    path = directory / "netlab"
    path.write_text(script)
    path.chmod(0o755)
    return path


def test_another_netlab_first_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = install(tmp_path / "ours"), install(tmp_path / "theirs")
    monkeypatch.setattr(sys, "executable", str(ours.with_name("python")))
    monkeypatch.setenv("PATH", f"{theirs.parent}:{ours.parent}")
    assert doctor.command() == Check(
        "command",
        None,
        f"{theirs} comes first on PATH and is another netlab",
        f"call {ours}, or put its directory first on PATH",
    )


def test_our_netlab_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = install(tmp_path / "ours")
    link = tmp_path / "bin" / "netlab"
    link.parent.mkdir()
    link.symlink_to(ours)
    monkeypatch.setattr(sys, "executable", str(ours.with_name("python")))
    monkeypatch.setenv("PATH", str(link.parent))
    assert doctor.command() == Check("command", True, str(link))


def test_no_netlab_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    advice = f"call {tmp_path}/netlab, or put its directory on PATH"
    assert doctor.command() == Check("command", None, "no netlab on PATH", advice)


def test_program_that_is_not_there() -> None:
    assert doctor.program("no-such-program", "it") == Check(
        "program no-such-program", None, "not installed; netlab doesn't need it", advice.install("it")
    )


def test_the_binding_that_libnftables_is_called_through(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "libnftables binding"
    assert doctor.nftables_binding() == Check(name, True, str(sys.modules["nftables.nftables"].__file__))
    monkeypatch.setitem(sys.modules, "nftables", None)
    assert doctor.nftables_binding() == Check(name, True, "netlab's own; there is no module nftables")

    def missing(name: str) -> NoReturn:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setattr(shutil, "which", {"sudo": "/usr/bin/sudo", "apt-get": "/usr/bin/apt-get"}.get)
    advice = "sudo apt-get install libnftables1"
    assert doctor.nftables_binding() == Check(name, False, "libnftables.so.1: cannot open shared object file", advice)


@pytest.mark.parametrize(
    ("programs", "uid", "command"),
    [
        ({"apt-get", "sudo"}, 0, "sudo apt-get install it"),
        ({"apt-get"}, 0, "apt-get install it"),
        ({"apt-get"}, 1000, "su -c 'apt-get install it'"),
        (set(), 0, "install what Debian's package it holds"),
    ],
)
def test_a_package_is_installed_by_what_this_machine_has(
    monkeypatch: pytest.MonkeyPatch, programs: set[str], uid: int, command: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in programs else None)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert advice.install("it") == command


def proc(root: Path, mounted_on: str, **sysctls: str) -> Path:
    """A /proc with one mount and some sysctls, named with _ for /."""
    (root / "self").mkdir(parents=True)
    (root / "self/mountinfo").write_text(f"21 1 0:20 / {mounted_on} rw,relatime - ext4 /dev/vda rw\n")
    for name, value in sysctls.items():
        path = root / "sys" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


@pytest.mark.parametrize(
    ("mounted_on", "sysctls", "hint"),
    [
        ("/", {}, None),
        ("/", {"user__max_user_namespaces": "96364", "kernel__unprivileged_userns_clone": "1"}, None),
        ("/home", {}, "the kernel allows no user namespace in a chroot: leave the chroot, or run netlab as root"),
        (
            "/",
            {"kernel__apparmor_restrict_unprivileged_userns": "1"},
            "kernel.apparmor_restrict_unprivileged_userns is 1: run netlab as root, or "
            "`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
        ),
        (
            "/",
            {"kernel__unprivileged_userns_clone": "0"},
            "kernel.unprivileged_userns_clone is 0: run netlab as root, or "
            "`sudo sysctl kernel.unprivileged_userns_clone=1`",
        ),
        (
            "/",
            {"user__max_net_namespaces": "0"},
            "user.max_net_namespaces is 0: `sudo sysctl user.max_net_namespaces=15000`",
        ),
    ],
)
def test_what_restricts_user_namespaces_and_what_lifts_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mounted_on: str, sysctls: dict[str, str], hint: str | None
) -> None:
    monkeypatch.setattr(shutil, "which", {"sudo": "/usr/bin/sudo"}.get)
    assert advice.userns(proc(tmp_path / "proc", mounted_on, **sysctls)) == hint


@pytest.mark.kernel
def test_apparmor_that_lets_a_user_namespace_be_made_and_nothing_be_done_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ubuntu's way: unshare(2) works, and whatever needs a capability inside is refused."""
    skips.skip_unless_userns()

    def refused(*_arguments: object, **_named: object) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/")

    monkeypatch.setattr(holder, "mount", refused)
    monkeypatch.setattr(advice, "userns", lambda: "the sysctl")
    found = doctor.user_namespaces()
    assert found.detail == "this user can't make a user namespace: Permission denied"
    assert (found.ok, found.advice) in (
        (False, "the sysctl"),
        (None, "root's labs need none, unless made with --rootless"),
    )


def test_the_packages_that_doctor_wants_are_those_that_are_installed() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [one.partition(",")[0] for one in wanted if not one.startswith("typer")] == [
        f"{package}>={least}" for package, least in doctor.PACKAGES.items()
    ]


def test_a_python_package_that_is_too_old_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _package: "0.7.11")
    setup = str(ROOT / "scripts/setup")
    assert doctor.python_package("pyroute2", "0.9.4") == Check("pyroute2", False, "0.7.11; netlab needs 0.9.4", setup)

    def missing(package: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert doctor.python_package("pyroute2", "0.9.4") == Check("pyroute2", False, "not installed", setup)


def test_a_package_is_given_to_this_python_by_what_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(advice, "__file__", str(tmp_path / "netlab/advice.py"))
    python = shlex.quote(sys.executable)
    assert advice.install_python("pyyaml") == f"{python} -m pip install 'pyyaml>=6.0'"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert advice.install_python("pyyaml") == f"uv pip install -p {python} 'pyyaml>=6.0'"


def test_a_package_of_an_extra_is_given_by_what_gives_that_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wanted = ["pyyaml>=6.0", "virtme-ng>=1.42; extra == 'kernels'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _name: wanted)
    assert advice.install_python("virtme-ng") == f"{ROOT / 'scripts/setup'} dev"
    monkeypatch.setattr(advice, "__file__", str(tmp_path / "netlab/advice.py"))
    assert advice.install_python("virtme-ng").endswith(" -m pip install 'virtme-ng>=1.42'")


@pytest.mark.parametrize(
    ("effective", "names"), [("000001ffffffffff", None), ("00000000a80425fb", "CAP_NET_ADMIN, CAP_SYS_ADMIN")]
)
def test_a_root_without_roots_capabilities(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, effective: str, names: str | None
) -> None:
    """As a container's root has them by default: the second value."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text(f"Name:\tnetlab\nCapEff:\t{effective}\n")
    advised = "leave the container, or start it with --privileged"
    assert advice.lacking(tmp_path) == (names and (f"root has no {names} here", advised))


@pytest.mark.kernel
def test_doctor_and_up_of_a_root_without_roots_capabilities(netlab: Netlab, as_root: None, tmp_path: Path) -> None:
    skips.skip_unless_program("setpriv")
    (tmp_path / "topology.yaml").write_text(labs.TWO)

    def said(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["setpriv", "--bounding-set", "-sys_admin", *netlab.argv(*arguments)]
        return subprocess.run(command, cwd=tmp_path, env=netlab.environment(), capture_output=True, text=True)

    advised = "leave the container, or start it with --privileged"
    found = said("doctor")
    assert found.returncode == 77
    assert [line.split("  ", 2) for line in found.stdout.splitlines() if line.startswith("FAIL")] == [
        ["FAIL", "user", found.stdout.split("FAIL  user  ")[1].partition("\n")[0]]
    ]
    assert advised in found.stdout
    built = said("up", "--root")
    assert (built.returncode, built.stdout) == (1, "")
    assert built.stderr.endswith(f"  hint: root has no CAP_SYS_ADMIN here: {advised}\n")


def test_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETLAB_LAB_RUNDIR", str(tmp_path))
    assert doctor.leftovers() == Check("leftovers", True, "none; labs that are up: 0")
    lab_directory(tmp_path, "killed-early")
    write_own(lab_directory(tmp_path, "garbled").path / "state.json", b"{")
    assert doctor.leftovers() == Check(
        "leftovers",
        None,
        "these labs are not whole: garbled, killed-early",
        "netlab down garbled; netlab down killed-early",
    )


def test_a_missing_capability_is_a_note_unless_the_flagship_needs_it() -> None:
    assert doctor._capability(Capability("netem", False, "no such qdisc")) == Check("netem", None, "no such qdisc")
    assert doctor._capability(Capability("netem", True, "it is there")) == Check("netem", True, "it is there")
    missing = Check("tcp-repair", False, "not permitted")
    assert doctor._capability(Capability("tcp-repair", False, "not permitted")) == missing


@pytest.mark.kernel
def test_probes_on_this_kernel() -> None:
    """Where namespaces can be made, all that the flagship needs is there, and the probes leave nothing behind."""
    if os.geteuid() != 0:
        skips.skip_unless_userns()
    links = socket.if_nameindex()
    found = doctor.checks()
    assert [check.name for check in found] == [
        "kernel",
        "user",
        "files",
        "user namespaces",
        "namespaces",
        *doctor.PACKAGES,
        "libnftables binding",
        "links",
        "kube-proxy rules",
        "conntrack",
        "NFLOG",
        "a lab",
        *CAPABILITIES,
        "program ip",
        "program nft",
        "command",
        "leftovers",
    ]
    assert [check for check in found if check.ok is False] == []
    assert socket.if_nameindex() == links


def test_a_narrow_terminal_gets_more_lines_and_whole_words() -> None:
    path = doctor.Check("binding", False, f"it is not in /{'x' * 40} nor elsewhere", "sudo apt-get install it")
    assert plain(doctor.pieces([path], 44)) == (
        "FAIL  binding  it is not in\n"
        f"               /{'x' * 40}\n"
        "               nor elsewhere\n"
        "               sudo apt-get install it\n"
        "netlab can't build labs here: see FAIL above.\n"
    )
