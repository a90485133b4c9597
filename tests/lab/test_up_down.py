"""What `up` makes and `down` takes away: after it, the host is exactly as before."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import host
import labs
import pytest
import skips
from command import RUNDIR, Netlab

pytestmark = [pytest.mark.kernel, pytest.mark.identity]

EVERYTHING = """
ipv6: true
namespaces:
  node: {role: node, sysctls: {net.netfilter.nf_conntrack_tcp_be_liberal: 1}}
  client: {role: pod, sysctls: {net.ipv4.tcp_rmem: 4096 8192 8192}}
  server:
    role: pod
    loopback: 172.16.0.1/32
    routes: [{to: 203.0.113.0/24, kind: blackhole}]
    programs: [{name: httpd, command: python3 -m http.server 80, ready: {listening: 80}}]
bridges:
  - name: cni0
    netns: node
    ports:
      - client
      - {netns: server, mtu: 1400, qdisc: {kind: tbf, rate: 100mbit, burst: 32kb, latency: 50ms}}
links:
  - ends: ["node:out", "client:out"]
services:
  web: {port: 80, endpoints: [server]}
"""
"""A lab with one of each kind of thing."""


def test_host_is_as_before(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    skips.skip_unless_capability("tbf")
    lab = labs.make(netlab, lab_name, tmp_path, privilege, EVERYTHING)
    before = host.snapshot(netlab.rundir)
    assert lab.up() == f"lab {lab_name} is up: 3 namespaces, 3 links, 1 service\n"
    assert host.compare(before, host.snapshot(netlab.rundir)) != ""
    lab.file.unlink()
    assert lab.down() == f"lab {lab_name} is down\n"
    assert host.changes(before, netlab.rundir) == ""
    assert not netlab.rundir.exists()
    assert lab.down() == f"no lab is called {lab_name}: nothing to do\n"
    assert host.changes(before, netlab.rundir) == ""


def test_one_small_process(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    before = host.snapshot(netlab.rundir)
    lab.up()
    processes = [line for line in host.compare(before, host.snapshot(netlab.rundir)).splitlines() if "process" in line]
    [holder] = lab.processes()
    assert len(processes) == 1
    assert processes[0].startswith(f"+process {holder} ")
    status = dict(line.split(":", 1) for line in Path(f"/proc/{holder}/status").read_text().splitlines())
    assert status["NSpid"].split()[-1] == "1"
    kibibytes, unit = status["VmRSS"].split()
    assert unit == "kB"
    assert int(kibibytes) <= 20 * 1024


def test_ip_netns_sees_roots_labs(netlab: Netlab, lab_name: str, as_root: None, tmp_path: Path) -> None:
    skips.skip_unless_program("ip")
    lab = labs.make(netlab, lab_name, tmp_path, "--root")
    lab.up()
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    names = sorted(line.split()[0] for line in listed.splitlines() if line.startswith(lab_name))
    assert names == [f"{lab_name}-client", f"{lab_name}-server"]
    seen = subprocess.run(
        ["ip", "netns", "exec", f"{lab_name}-client", "ip", "-br", "addr", "show", "eth0"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout == lab.exec("client", "ip", "-br", "addr", "show", "eth0")
    assert "10.255.0.1/30" in seen.stdout


def test_ip_netns_sees_a_rootless_lab_from_inside(
    netlab: Netlab, lab_name: str, rootless: None, tmp_path: Path
) -> None:
    skips.skip_unless_program("ip")
    lab = labs.make(netlab, lab_name, tmp_path, "--rootless")
    lab.up()
    names = sorted(line.split()[0] for line in lab.exec("client", "ip", "netns").splitlines())
    assert names == ["client", "server"]
    assert "10.255.0.2/30" in lab.exec("client", "ip", "netns", "exec", "server", "ip", "-br", "addr")


IN_A_FRESH_HOST = """
set -e
mount -t tmpfs none /run
{netlab} up {file} --root -q
ip netns list | cut -d' ' -f1 | sort
{before_down}
{netlab} down -q
{after_down}
find /run -mindepth 1 | sort
if mountpoint -q /run/netns; then echo a mount; fi
"""
"""In a mount namespace whose /run is empty: nobody has made /run/netns there."""


@pytest.mark.parametrize(
    ("before_down", "after_down", "left"),
    [
        (":", ":", []),
        # iproute2 itself makes the directory a mount point, and leaves it so.
        ("ip netns add theirs", ":", ["/run/netns", "/run/netns/theirs", "a mount"]),
        ("ip netns add theirs", "ip netns del theirs", ["/run/netns", "a mount"]),
    ],
    ids=["nobody's", "someone's", "someone's, gone since"],
)
def test_run_netns_goes_with_the_last_name(
    netlab: Netlab, lab_name: str, as_root: None, tmp_path: Path, before_down: str, after_down: str, left: list[str]
) -> None:
    skips.skip_unless_program("ip")
    skips.skip_unless_program("unshare")
    lab = labs.make(netlab, lab_name, tmp_path, "--root", f"name: {lab_name}\n{labs.TWO}")
    command = " ".join(netlab.argv())
    script = IN_A_FRESH_HOST.format(netlab=command, file=lab.file, before_down=before_down, after_down=after_down)
    # The default place, /run/netns-lab: it too is made and removed.
    environment = {key: value for key, value in os.environ.items() if key != RUNDIR}
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, env=environment)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"{lab_name}-client", f"{lab_name}-server", *left]


def test_nothing_is_built_where_a_name_is_taken(netlab: Netlab, lab_name: str, as_root: None, tmp_path: Path) -> None:
    skips.skip_unless_program("ip")
    lab = labs.make(netlab, lab_name, tmp_path, "--root")
    foreign = f"{lab_name}-server"
    subprocess.run(["ip", "netns", "add", foreign], check=True)
    try:
        inode = Path("/run/netns", foreign).stat().st_ino
        before = host.snapshot(netlab.rundir)
        done = lab.try_up()
        assert done.stderr == (
            f"netlab: /run/netns/{foreign} exists and isn't this lab's\n"
            "  hint: remove it (`ip netns del`) or give the lab another --name\n"
        )
        assert done.returncode == 1
        assert host.changes(before, netlab.rundir) == ""
        assert Path("/run/netns", foreign).stat().st_ino == inode
    finally:
        subprocess.run(["ip", "netns", "del", foreign], check=True)


def test_nothing_is_built_where_a_link_to_nowhere_has_a_name(
    netlab: Netlab, lab_name: str, as_root: None, tmp_path: Path
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, "--root")
    foreign = Path("/run/netns", f"{lab_name}-server")
    foreign.parent.mkdir(exist_ok=True)
    foreign.symlink_to("nowhere")
    try:
        done = lab.try_up()
        assert (done.returncode, done.stderr) == (
            1,
            f"netlab: {foreign} exists and isn't this lab's\n"
            "  hint: remove it (`ip netns del`) or give the lab another --name\n",
        )
        assert foreign.is_symlink()
    finally:
        foreign.unlink()


def test_a_foreign_namespace_under_our_name_stays(netlab: Netlab, lab_name: str, as_root: None, tmp_path: Path) -> None:
    skips.skip_unless_program("ip")
    lab = labs.make(netlab, lab_name, tmp_path, "--root")
    lab.up()
    name = f"{lab_name}-client"
    subprocess.run(["ip", "netns", "del", name], check=True)
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        inodes = dict(json.loads((lab.directory() / "state.json").read_text())["namespaces"])
        foreign = Path("/run/netns", name).stat().st_ino
        if foreign == inodes["client"]:
            pytest.skip("the kernel gave the new namespace the old one's number")
        assert lab.down() == f"netlab: /run/netns/{name} isn't this lab's; netlab left it\nlab {lab_name} is down\n"
        assert Path("/run/netns", name).stat().st_ino == foreign
        assert not Path("/run/netns", f"{lab_name}-server").exists()
        assert not netlab.rundir.exists()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.parametrize("what", ["an empty file", "a file", "a link", "a directory"])
def test_a_foreign_file_that_took_a_names_place_stays(
    netlab: Netlab, lab_name: str, as_root: None, tmp_path: Path, what: str
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, "--root")
    lab.up()
    place = Path("/run/netns") / f"{lab_name}-client"
    subprocess.run(["umount", place], check=True)
    place.unlink()
    try:
        match what:
            case "a link":
                place.symlink_to("/dev/null")
            case "a directory":
                place.mkdir()
            case _:
                place.write_text("" if what == "an empty file" else "mine")
        before = place.lstat()
        assert lab.down() == f"netlab: {place} isn't this lab's; netlab left it\nlab {lab_name} is down\n"
        assert (place.lstat().st_ino, place.lstat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    finally:
        if place.is_dir() and not place.is_symlink():
            place.rmdir()
        else:
            place.unlink(missing_ok=True)


def test_up_needs_root_for_a_root_lab(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may")
    lab = labs.make(netlab, lab_name, tmp_path, "--root")
    done = lab.try_up()
    assert done.stderr == (
        "netlab: only root can build a lab with --root\n  hint: leave it out: the lab is then rootless\n"
    )
    assert done.returncode == 2
    assert not netlab.rundir.exists()


def test_an_ordinary_users_lab_is_found_again_whatever_has_been_looked_at(
    netlab: Netlab, lab_name: str, rootless: None, tmp_path: Path
) -> None:
    """In the lab's user namespace the command is root, whose labs are elsewhere."""
    if os.geteuid() == 0:
        pytest.skip("root's labs are where root's are")
    env = {"NETLAB_LAB_RUNDIR": "", "XDG_RUNTIME_DIR": str(tmp_path)}
    lab = labs.make(netlab, lab_name, tmp_path, "--rootless")

    def say(*words: str | Path) -> str:
        done = netlab(*words, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    up = ("up", lab.file, "--name", lab_name)
    try:
        say(*up)
        assert say(*up) == f"lab {lab_name} is up: nothing to do\n"
        say("exec", "-l", lab_name, "client", "--", "ip", "link", "set", "eth0", "down")
        assert "client: eth0 up" in say("status", lab_name)
        assert "change" in say(*up)
    finally:
        assert say("down", lab_name) == f"lab {lab_name} is down\n"
    assert not (tmp_path / "netns-lab").exists()


SMALL_MTU = """
namespaces:
  node: {role: node}
  a: {sysctls: {net.ipv4.conf.eth0/7.rp_filter: 2}}
  b: {}
bridges:
  - {name: br0, netns: node, ports: [{netns: a, ifname: eth0.7, mtu: 1000}, {netns: b, mtu: 68}]}
"""
"""No interface here has IPv6, which needs 1280 bytes; the bridge's MTU follows its ports'. One name has a dot."""


def test_an_mtu_too_small_for_ipv6(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, SMALL_MTU)
    assert lab.up() == f"lab {lab_name} is up: 3 namespaces, 2 links, 0 services\n"
    assert lab.up() == f"lab {lab_name} is up: nothing to do\n"
    assert lab.exec("a", "cat", "/sys/class/net/eth0.7/mtu", "/proc/sys/net/ipv4/conf/eth0.7/rp_filter") == "1000\n2\n"


JOINED = """
namespaces:
  n1: {role: node}
  n2: {role: node}
  a: {role: pod}
  b: {role: pod, node: n2}
bridges:
  - {name: br0, netns: n1, ports: [a]}
  - {name: br0, netns: n2, ports: [b]}
links:
  - ends: [{netns: n1, bridge: br0}, {netns: n2, bridge: br0}]
"""


def test_joined_bridges_are_one_segment(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, JOINED)
    lab.up()
    assert lab.drift() == []
    lab.exec("a", "python3", "-c", REACH_B)


REACH_B = """
import socket
try:
    socket.create_connection(("b", 9), timeout=10)
except ConnectionRefusedError:
    pass
"""
"""Ends well where b answers: nothing listens there, and its kernel says so."""


def test_an_empty_name_is_no_lab(netlab: Netlab, lab_name: str, rootless: None, tmp_path: Path) -> None:
    """`netlab down "$LAB"` with the variable unset must not take down the only lab."""
    lab = labs.make(netlab, lab_name, tmp_path, "--rootless")
    lab.up()
    done = netlab("down", "")
    assert (done.returncode, done.stderr) == (0, "no lab is called '': nothing to do\n")
    assert lab.drift() == []


def test_a_refusal_names_the_step_and_its_twin(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, "namespaces: {a: {sysctls: {net.ipv4.ip_forward: true}}}")
    done = lab.try_up()
    name = f"{lab_name}-a" if privilege == "--root" else "a"
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "netlab: a: sysctl net.ipv4.ip_forward = true: Invalid argument\n"
        f"  hint: the same by hand: ip netns exec {name} sysctl -qw net.ipv4.ip_forward=true\n",
    )
    assert not netlab.rundir.exists()
