"""A lab, or an interface of it, that goes while `capture`, `watch` and `explain` are at it: they end, and say so."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import labs
import pytest
from captures import tshark
from command import Netlab, new_lab_name
from labs import Lab

pytestmark = pytest.mark.kernel


def down(lab: Lab) -> None:
    lab.down()


def killed(lab: Lab) -> None:
    labs.kill(lab.status()["holder"], signal.SIGKILL)


@pytest.mark.parametrize("go", [down, killed])
@pytest.mark.parametrize("command", ["capture", "watch", "explain"])
def test_whoever_observes_a_lab_ends_with_it(
    netlab: Netlab, tmp_path: Path, privilege: str, command: str, go: Callable[[Lab], None]
) -> None:
    lab = labs.make(netlab, new_lab_name(), tmp_path, privilege)
    lab.up()
    file = tmp_path / "f.pcapng"
    arguments = ("--lab", lab.name, "-w", file) if command == "capture" else (lab.name, "--for", "600")
    with labs.observing(lab, command, *arguments) as (process, _):
        go(lab)
        _, said = process.communicate(timeout=labs.DEADLINE_S)
    assert process.returncode == 1
    last = said.decode().splitlines()[-1]
    assert last == f"netlab: the lab {lab.name} is gone: it was taken down, or its holder has ended"
    if command == "capture":
        tshark(file, "frame.number")


def test_a_capture_ends_with_the_last_of_its_interfaces(netlab: Netlab, tmp_path: Path, privilege: str) -> None:
    lab = labs.make(netlab, new_lab_name(), tmp_path, privilege)
    lab.up()
    with labs.observing(lab, "capture", "--lab", lab.name, "client:eth0", "server:eth0", "-w", tmp_path / "f") as (
        process,
        _,
    ):
        lab.exec("client", "ip", "link", "del", "eth0")
        _, said = process.communicate(timeout=labs.DEADLINE_S)
    assert process.returncode == 1
    *gone, counts, error, hint = said.decode().splitlines()
    assert {line for line in gone if line.endswith("gone")} == {
        "client/eth0: the interface is gone",
        "server/eth0: the interface is gone",
    }
    assert counts.endswith("captured, 0 dropped")
    assert (error, hint) == (
        "netlab: no interface is left to capture on",
        "  hint: `netlab up` makes what is missing",
    )


def test_a_watch_says_at_once_that_an_interface_is_gone(netlab: Netlab, tmp_path: Path, privilege: str) -> None:
    lab = labs.make(netlab, new_lab_name(), tmp_path, privilege)
    lab.up()
    with labs.observing(lab, "watch", lab.name, "--for", "600") as (process, _):
        lab.exec("client", "ip", "link", "del", "eth0")
        assert process.stderr is not None
        ended = "which could not be read to the end: the interface is gone"
        assert {process.stderr.readline().decode() for _ in range(2)} == {
            f"not seen any more: the packets on {netns}/eth0, {ended}\n" for netns in ("client", "server")
        }
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=labs.DEADLINE_S)
    assert process.returncode == 0
