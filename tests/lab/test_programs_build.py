"""What a program, or a hand, builds in a lab is its own: `up` leaves it alone, and a topology may name it."""

from __future__ import annotations

from pathlib import Path

import labs
import pytest
import skips
from command import Netlab

pytestmark = [pytest.mark.kernel, pytest.mark.inside]

SET_UP = (
    "ip link add mv0 link eth0 type macvlan mode bridge; ip addr add 10.5.0.9/24 dev mv0; ip link set mv0 up; "
    "echo done; exec sleep infinity"
)
TOPOLOGY = """
namespaces:
  a:
    sysctls: {net.ipv4.conf.mv0.rp_filter: 2, net.ipv4.conf.eth0.rp_filter: 2}
    routes: [{to: 203.0.113.0/24, dev: mv0}, {to: 198.51.100.0/24, via: 10.5.0.1, dev: mv0}]
    programs: [{name: setup, capabilities: [NET_ADMIN], command: [sh, -ec, "%s"], ready: {output: done}}]
  b: {}
links: [{ends: [a, {netns: b, mtu: 1400}]}]
"""
BY_HAND = (
    "link add br9 type bridge",
    "link set br9 up",
    "link add d9 type veth peer name d8",
    "link set d9 master br9",
    "addr add 192.0.2.9/32 dev eth0",
    "addr add 192.0.2.10/24 dev br9",
    "route add 192.0.2.128/25 via 192.0.2.20",
    "route add 192.0.2.64/26 dev br9 table 99",
    "rule add from 192.0.2.9 lookup 99",
    "neigh add 192.0.2.30 lladdr 02:00:00:00:00:30 dev br9",
)
LOOK = (
    "ip -br link | cut -d' ' -f1; ip addr | grep 192.0; ip route; ip route show table 99; ip rule; ip neigh; tc qdisc"
)


def make(netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str) -> labs.Lab:
    for program in ("ip", "tc", "sysctl"):
        skips.skip_unless_program(program)
    return labs.make(netlab, lab_name, tmp_path, privilege, TOPOLOGY % SET_UP)


def test_a_topology_may_name_what_its_program_makes(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    lab = make(netlab, lab_name, tmp_path, privilege)
    if lab.try_up().stderr.find("Operation not supported") >= 0:
        pytest.skip("this kernel makes no macvlan")
    assert lab.drift() == []
    assert "198.51.100.0/24 via 10.5.0.1 dev mv0" in lab.exec("a", "ip", "route")
    assert lab.exec("a", "sysctl", "-n", "net.ipv4.conf.mv0.rp_filter") == "2\n"
    lab.exec("a", "ip", "route", "del", "203.0.113.0/24")
    assert lab.drift() == ["a: route 203.0.113.0/24 dev mv0"]
    lab.up()
    lab.write((TOPOLOGY % SET_UP).replace("mtu: 1400", "mtu: 1300").replace("{to: 203.0.113.0/24, dev: mv0}, ", ""))
    assert "a: route 203.0.113.0/24 dev mv0 removed" in lab.up()
    assert lab.drift() == []
    assert "mv0" in lab.exec("a", "ip", "link")


def test_an_interface_that_nobody_makes_is_told(netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str) -> None:
    lab = make(netlab, lab_name, tmp_path, privilege)
    lab.write(TOPOLOGY % "echo done; exec sleep infinity")
    refused = lab.try_up()
    assert refused.returncode == 1
    assert refused.stderr.endswith(
        "\nnetlab: a has no interface mv0\n"
        "  hint: no link makes it; if a program does, its `ready` must wait until it exists\n"
    )


def test_what_somebody_has_built_is_no_drift_and_stays(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    lab = make(netlab, lab_name, tmp_path, privilege)
    text = "namespaces: {a: {}, b: {}}\nlinks: [{ends: [a, {netns: b, mtu: 1400}]}]\n"
    lab.write(text)
    lab.up()
    made = "; ".join(f"ip {words}" for words in BY_HAND)
    told = lab.netlab("exec", "-l", lab.name, "a", "--", "sh", "-ec", made)
    if "not supported" in told.stderr:
        pytest.skip(f"this kernel lacks something: {told.stderr}")
    assert told.returncode == 0, told.stderr
    lab.exec("a", "tc", "qdisc", "add", "dev", "eth0", "root", "pfifo", "limit", "7")
    before = lab.exec("a", "sh", "-c", LOOK)
    assert lab.drift() == []
    lab.write(text.replace("mtu: 1400", "mtu: 1300").replace("a: {},", "a: {routes: [{to: default, dev: eth0}]},"))
    lab.up()
    assert lab.drift() == []
    after = lab.exec("a", "sh", "-c", LOOK)
    assert set(before.splitlines()) <= set(after.splitlines())
    lab.write(text)
    lab.up()
    assert sorted(lab.exec("a", "sh", "-c", LOOK).splitlines()) == sorted(before.splitlines())
