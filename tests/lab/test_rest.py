"""A lab at rest is known without a closer look, and whatever somebody changes in it is still seen.

The oracle is the closer look itself: without what was kept, `status` reads everything.
"""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import cast

import labs
import pytest
import skips
from command import Netlab

from netlab.lab import lifecycle, rest, sealed
from netlab.lab.directory import LabDirectory
from netlab.lab.netns import Namespaces
from netlab.lab.reading import Reading
from netlab.linux.generation import FIRST, generation

pytestmark = pytest.mark.kernel

LAB = """
namespaces:
  node:
    role: node
    sysctls: {net.ipv4.tcp_sack: 0, net.ipv4.conf.cni0.rp_filter: 2}
    routes: [{to: 203.0.113.0/24, kind: blackhole}, {to: 198.51.100.0/24, via: 10.244.0.2}]
    tables:
      inet tour: |
        set seen { type ipv4_addr; elements = { 192.0.2.1 } }
        chain seen { type filter hook input priority 0; ip saddr @seen counter; }
  client: {role: pod, programs: [{name: sleeper, command: sleep 1000}]}
  server: {role: pod}
bridges:
  - {name: cni0, netns: node, ports: [{netns: client, mtu: 1400, qdisc: {kind: pfifo, limit: 10}}, server]}
services:
  web: {port: 80, endpoints: [server]}
"""

DRIFT = {
    "address": ("client", "ip addr del $(ip -o -4 addr show eth0 | awk '{print $4}') dev eth0"),
    "second-address": ("client", "ip addr add 10.244.0.77/24 dev eth0"),
    "route": ("node", "ip route del 198.51.100.0/24"),
    "route-elsewhere": ("node", "ip route replace 198.51.100.0/24 via 10.244.0.3"),
    "foreign-route": ("server", "ip route add 192.0.2.0/24 dev eth0"),
    "down": ("server", "ip link set eth0 down"),
    "mtu": ("client", "ip link set eth0 mtu 1300"),
    "foreign-link": ("node", "ip link add br9 type bridge"),
    "bridge-option": ("node", "ip link set cni0 type bridge stp_state 1"),
    "out-of-the-bridge": ("node", "ip link set $(ls /sys/class/net | grep veth | head -1) nomaster"),
    "link": ("client", "ip link del eth0"),
    "qdisc": ("client", "tc qdisc replace dev eth0 root pfifo limit 11"),
    "no-qdisc": ("client", "tc qdisc del dev eth0 root"),
    "sysctl": ("node", "sysctl -qw net.ipv4.tcp_sack=1"),
    "interface-sysctl": ("node", "sysctl -qw net.ipv4.conf.cni0.rp_filter=1"),
    "forwarding": ("node", "sysctl -qw net.ipv4.ip_forward=0"),
    "foreign-sysctl": ("node", "sysctl -qw net.ipv4.tcp_timestamps=0"),
    "flush": ("node", "nft flush ruleset"),
    "chain": ("node", "nft flush chain inet tour seen"),
    "element": ("node", "nft add element inet tour seen { 192.0.2.7 }"),
    "there-and-back": (
        "node",
        "nft add element inet tour seen { 192.0.2.7 }; nft delete element inet tour seen { 192.0.2.7 }",
    ),
    "nat": ("node", "nft flush chain ip nat PREROUTING"),
    "foreign-rule": ("node", "nft insert rule ip nat PREROUTING ip daddr 192.0.2.1 counter drop"),
    "foreign-table": ("node", "nft add table inet mine"),
    "iptables": ("node", "iptables -t nat -I POSTROUTING -s 192.0.2.1 -j ACCEPT"),
    "packets": ("client", "bash -c 'echo >/dev/udp/10.244.0.1/9'"),
    "program": ("client", "pid=$(pgrep -x sleep) && kill $pid && while kill -0 $pid; do :; done"),
    "hosts": ("client", "echo 192.0.2.1 nobody >>/etc/hosts"),
}
"""What somebody may do by hand in LAB: where, and how."""

HARMLESS = {"second-address", "foreign-route", "foreign-link", "foreign-sysctl", "there-and-back"}
HARMLESS |= {"foreign-table", "packets", "bridge-option", "foreign-rule", "iptables"}
"""Those that aren't against what the topology says."""


def kept(lab: labs.Lab) -> bool:
    return (lab.directory() / "rest.json").exists()


def drift_at_a_closer_look(lab: labs.Lab) -> list[str]:
    """The drift that `status` finds where nothing was kept; what was kept is there again afterwards."""
    file = lab.directory() / "rest.json"
    aside = file.with_suffix(".aside")
    if file.exists():
        file.rename(aside)
    try:
        return lab.drift()
    finally:
        if aside.exists():
            aside.rename(file)


def by_hand(lab: labs.Lab, name: str) -> None:
    netns, command = DRIFT[name]
    lab.exec(netns, "sh", "-c", f"{{ {command}; }} 2>&1 || true")


def skip_unless_tools() -> None:
    for program in ("ip", "nft", "tc", "sysctl", "iptables", "bash", "pgrep"):
        skips.skip_unless_program(program)


@pytest.fixture
def lab(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> labs.Lab:
    made = labs.make(netlab, lab_name, tmp_path, privilege, LAB)
    made.up()
    assert made.up() == f"lab {lab_name} is up: nothing to do\n"
    assert kept(made)
    return made


def test_what_is_done_by_hand_is_seen(lab: labs.Lab) -> None:
    skip_unless_tools()
    assert lab.drift() == drift_at_a_closer_look(lab) == []
    for name in DRIFT:
        by_hand(lab, name)
        drift = lab.drift()
        assert drift == drift_at_a_closer_look(lab), name
        assert bool(drift) == (name not in HARMLESS), name
        said = lab.up()
        assert bool(drift) == bool(re.search(r"is up: \d+ change", said)), f"{name}: {said}"
        assert lab.drift() == drift_at_a_closer_look(lab) == [], name
        assert kept(lab), name


@pytest.mark.parametrize("seed", range(2))
def test_many_things_done_by_hand_are_all_seen(lab: labs.Lab, seed: int) -> None:
    skip_unless_tools()
    dice = random.Random(seed)
    for _ in range(3):
        for name in dice.sample([*DRIFT], dice.randint(1, 6)):
            by_hand(lab, name)
            assert lab.drift() == drift_at_a_closer_look(lab), name
        lab.up()
        assert lab.drift() == drift_at_a_closer_look(lab) == []
        assert kept(lab)


def test_a_lab_at_rest_is_known_without_its_topology(lab: labs.Lab) -> None:
    argv = [sys.executable, "-X", "importtime", "-c", "from netlab.__main__ import main; main()"]
    argv += ["up", str(lab.file), "--name", lab.name]
    done = subprocess.run(argv, capture_output=True, text=True, env=lab.netlab.environment(), timeout=60)
    modules = re.findall(r"\| +(netlab\.\S+)$", done.stderr, re.MULTILINE)
    assert done.returncode == 0, done.stderr
    assert "netlab.lab.rest" in modules
    assert not [name for name in modules if name.startswith(("netlab.topology", "netlab.kubeproxy", "netlab.links"))]


def test_a_small_change_of_the_file_is_followed_and_another_files_lab_is_left_alone(lab: labs.Lab) -> None:
    lab.write(LAB.replace("mtu: 1400", "mtu: 1300"))
    told = "2 changes\n  node: attributes of veth-client\n  client: attributes of eth0\n"
    assert lab.up() == f"lab {lab.name} is up: {told}"
    assert lab.drift() == drift_at_a_closer_look(lab) == []
    assert lab.up() == f"lab {lab.name} is up: nothing to do\n"
    lab.write(LAB)
    for settings in (("--set", "kube_proxy.nodes=[]"), (), ("--set", "services.web.port=81"), ()):
        assert "node: kube-proxy's rules" in lab.up(*settings)
        assert lab.drift() == drift_at_a_closer_look(lab) == []


def test_the_name_is_the_one_that_the_text_gives(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, f"name: {lab_name}\n{labs.TWO}")
    other = labs.Lab(netlab, f"{lab_name}o", lab.file, privilege)
    other.up()
    other.up()
    command = ("up", lab.file, privilege)
    said = [netlab(*command).stderr for _ in range(3)]
    assert said[0] == f"lab {lab_name} is up: 2 namespaces, 1 link, 0 services\n"
    assert said[1:] == [f"lab {lab_name} is up: nothing to do\n"] * 2
    assert netlab("up", lab.file).stderr == said[2]
    assert other.up() == f"lab {other.name} is up: nothing to do\n"
    wrong = netlab("up", lab.file, "--root" if privilege == "--rootless" else "--rootless")
    assert wrong.returncode == 2
    other.down()


@pytest.mark.parametrize(
    "table",
    [
        "set s { type ipv4_addr; flags timeout; elements = { 192.0.2.1 timeout 1h } }",
        "chain c { type filter hook ingress device eth0 priority 0; }",
        'include "/dev/null"',
    ],
    ids=["timeout", "device", "include"],
)
def test_nothing_is_kept_of_what_changes_uncounted(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, table: str
) -> None:
    text = json.dumps(
        {
            "namespaces": {"a": {"tables": {"inet t" if "device" not in table else "netdev t": table}}, "b": {}},
            "links": [{"ends": ["a", "b"]}],
        }
    )
    lab = labs.make(netlab, lab_name, tmp_path, privilege, text)
    if lab.try_up().returncode:
        pytest.skip("this kernel, or this netlab, has no such table")
    lab.up()
    assert not kept(lab)


def test_nothing_is_kept_of_what_iptables_restore_loads(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    skips.skip_unless_program("iptables-restore")
    lab = labs.make(netlab, lab_name, tmp_path, privilege, LAB + "kube_proxy: {load_with: iptables-restore}\n")
    if lab.try_up().returncode:
        pytest.skip("iptables-restore can't load here")
    lab.up()
    assert not kept(lab)


def test_nothing_is_kept_where_a_program_ends_while_it_is_looked_at(
    lab: labs.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = LabDirectory(lab.netlab.rundir, lab.name)
    state, was = directory.read(), rest.kept(directory)
    assert state is not None and was is not None
    monkeypatch.setattr(rest, "all_running", lambda *_: frozenset())
    nothing, spec = Reading({}, {}, {}, {}), lifecycle.as_it_is(directory, state)
    outside = cast(Namespaces, None)  # this process would never come out of a rootless lab again
    rest.keep(directory, spec, was.scope, nothing, state, outside)
    assert rest.kept(directory) is None


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\xfe", b"\0" * 64 + b"\n[]"])
def test_what_is_damaged_counts_for_nothing(lab: labs.Lab, damage: bytes) -> None:
    file = lab.directory() / "rest.json"
    sound = file.read_bytes()
    for data in (damage, sound[:-1], sound.replace(b"10.244", b"10.245")):
        file.write_bytes(data)
        assert lab.drift() == []
        assert all("10.245" not in str(netns) for netns in lab.status()["namespaces"])
    assert lab.up() == f"lab {lab.name} is up: nothing to do\n"
    assert file.read_bytes() == sound


def test_another_version_of_netlab_looks_for_itself(lab: labs.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = LabDirectory(lab.netlab.rundir, lab.name)
    assert rest.kept(directory) is not None
    monkeypatch.setattr(sealed, "_code", lambda: b"another")
    assert rest.kept(directory) is None


def test_a_large_lab_is_at_rest_once_it_is_built(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    pods = "".join(f"  p{number}: {{role: pod}}\n" for number in range(60))
    ports = ", ".join(f"p{number}" for number in range(60))
    text = LAB.replace("bridges:", f"{pods}bridges:").replace("server]}", f"server, {ports}]}}")
    lab = labs.make(netlab, lab_name, tmp_path, privilege, text)
    lab.up()
    assert kept(lab)
    assert lab.drift() == drift_at_a_closer_look(lab) == []
    assert lab.up() == f"lab {lab.name} is up: nothing to do\n"
    lab.exec("node", "nft", "flush", "chain", "ip", "nat", "PREROUTING")
    assert lab.drift() == drift_at_a_closer_look(lab) == ["node: kube-proxy's rules"]


def test_each_transaction_counts_and_no_packet_does(own_netns: None) -> None:
    skips.skip_unless_program("nft")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    assert generation() == FIRST
    text = "table inet t { set s { type ipv4_addr; flags dynamic; }\nchain c { type filter hook output priority 0; "
    text += "counter; add @s { ip daddr };\n}\n}\n"
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    assert generation() == FIRST + 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"", ("127.0.0.1", 9))
    listing = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    assert "127.0.0.1" in listing
    assert generation() == FIRST + 1
    subprocess.run(["nft", "add", "element", "inet", "t", "s", "{ 192.0.2.1 }"], check=True)
    assert generation() == FIRST + 2
