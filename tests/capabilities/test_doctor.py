"""`netlab doctor`: the table and JSON as whole texts, the probes by what this machine must have or must be without."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import skips
from states import lab_directory

from netlab.capabilities import doctor
from netlab.capabilities.capability import CAPABILITIES, Capability
from netlab.capabilities.doctor import Check
from netlab.linux.advice import install as install_command
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
    assert doctor.program("no-such-program") == Check(
        "program no-such-program", None, "not installed; netlab doesn't need it"
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
    assert install_command("it") == command


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
        "user namespaces",
        "namespaces",
        "pyroute2",
        "libnftables binding",
        "links",
        "kube-proxy rules",
        "conntrack",
        "NFLOG",
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
