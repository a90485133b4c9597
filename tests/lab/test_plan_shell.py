"""`netlab plan --format shell` builds, without netlab, the lab that `netlab up` builds: both are asked the same things.

The script runs as it is in namespaces that end with it: a PID namespace for what it starts, a mount namespace for what
it writes to /run, /etc and /tmp. Nothing of it is left, and nothing on the host is touched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import skips
from command import Netlab
from places import DATA, TOPOLOGIES

from netlab.model import Topology
from netlab.topology import read

SHIPPED = sorted(TOPOLOGIES.glob("*.yaml"))
EVERYTHING = DATA / "everything.yaml"
SERVICES = DATA / "services.yaml"
ALL = pytest.mark.parametrize("file", [*SHIPPED, EVERYTHING], ids=lambda file: file.stem)

PRIVATE = "mount -t tmpfs none /run; cp -r /etc /run 2>/dev/null; mount --bind /run/etc /etc; exec sh"
"""For root: the script writes to /run/netns and /etc/netns, which must not be the host's."""
CONTAINED = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]

LOOKS = {
    "links and addresses": "ip -j -d addr",
    "IPv4 routes": "ip -j route",
    "IPv6 routes": "ip -j -6 route",
    "rules": "nft -s list ruleset",
    "qdiscs": "tc qdisc",
    "classes": 'for ifname in $(ls /sys/class/net); do tc class show dev "$ifname"; done',
    "hosts": "cat /etc/hosts",
    "resolver": "cat /etc/resolv.conf",
    "listeners": "ss -Hltun | awk '{ print $1, $5 }' | sort",
}
"""What is asked in each namespace."""

TRANSIENT = {
    *("ifindex", "link_index", "link_netnsid", "link", "operstate", "state", "tentative", "root_path_cost"),
    *("root_id", "root_port", "bridge_id", "designated_bridge", "designated_root", "topology_change"),
    *("topology_change_detected", "topology_change_ack", "config_pending", "parentbus", "promiscuity"),
}
"""What `ip -d` tells that is a number of the kernel's choosing, or not settled yet."""

LINK_LOCAL = re.compile(r"fe80::[0-9a-f]+:[0-9a-f:]+|fe80::/64")
"""What an interface gets by itself some time after it has come up, and its route."""
COUNTED = re.compile(r" direct_packets_stat \d+")
"""What `tc qdisc` tells of an htb that isn't a setting: the packets that no class took."""


def settled(told: Any, macs: set[str]) -> Any:
    """What `ip -j` told, without what two labs may differ in: indexes, timers, and addresses made of random MACs."""
    if isinstance(told, list):
        return [settled(item, macs) for item in told if not of_itself(item)]
    if not isinstance(told, dict):
        return told
    kept = {}
    for key, value in told.items():
        random = key == "address" and isinstance(value, str) and value not in macs
        if key in TRANSIENT or key.endswith(("_timer", "life_time")) or random:
            continue
        if key == "flags" and isinstance(value, list):
            kept[key] = sorted(set(value) - {"LOWER_UP", "NO-CARRIER", "M-DOWN", "linkdown"})
        else:
            kept[key] = settled(value, macs)
    return kept


def of_itself(item: Any) -> bool:
    """Whether `ip -j` tells of an address or a route that an interface gets by itself."""
    named = item.get("local") or item.get("dst") if isinstance(item, dict) else None
    return isinstance(named, str) and LINK_LOCAL.fullmatch(named) is not None


def looks(topology: Topology, netns: str) -> str:
    """The shell commands that ask a namespace."""
    keys = [key for key, _ in topology.netns(netns).sysctls]
    more = {"sysctls": f"sysctl {' '.join(keys)}"} if keys else {}
    return "\n".join(f"echo '=== {title}'; {command}" for title, command in {**LOOKS, **more}.items())


def picture(topology: Topology, netns: str, told: str) -> str:
    """The answers as text to compare."""
    macs = {interface.attributes.mac for interface in topology.interfaces() if interface.attributes.mac}
    parts = [f"##### {netns}"]
    for section in told.split("=== ")[1:]:
        title, _, text = section.partition("\n")
        if text.lstrip().startswith("["):
            items = settled(json.loads(text), macs)
            text = "\n".join(sorted(json.dumps(item, indent=1, sort_keys=True) for item in items))
        elif title == "qdiscs":
            text = COUNTED.sub("", text)
        parts.append(f"=== {title}\n{text.strip()}")
    return "\n".join(parts)


def picture_of_script(script: str, topology: Topology, shell: list[str]) -> str:
    """Run the script in a shell of its own, and look at what it has built."""
    parts = ["mount -t tmpfs none /tmp", f"cat >/tmp/lab.sh <<'THE END'\n{script}\nTHE END", "sh /tmp/lab.sh || exit 1"]
    for netns in topology.namespaces:
        name = f"{topology.name}-{netns.name}"
        parts.append(
            f"ip netns exec {name} sh <<'THE END'\necho '##### {netns.name}'\n{looks(topology, netns.name)}\nTHE END"
        )
    # Not from a clone below /tmp, nor with its programs: what is mounted there hides it.
    elsewhere = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(
        shell, input="\n".join(parts), capture_output=True, text=True, timeout=120, cwd="/", env=elsewhere
    )
    assert (done.returncode, done.stderr) == (0, "")
    answers = dict(re.findall(r"^##### (\S+)\n(.*?)(?=^##### |\Z)", done.stdout, re.MULTILINE | re.DOTALL))
    return "\n".join(picture(topology, netns.name, answers[netns.name]) for netns in topology.namespaces)


def picture_of_lab(netlab: Netlab, topology: Topology) -> str:
    """Look at the same in the lab that netlab has built."""
    parts = []
    for netns in topology.namespaces:
        done = netlab("exec", "--lab", topology.name, netns.name, "--", "sh", "-c", looks(topology, netns.name))
        assert (done.returncode, done.stderr) == (0, "")
        parts.append(picture(topology, netns.name, done.stdout))
    return "\n".join(parts)


def recipe(script: str) -> list[str]:
    """The command that the script's own head gives to those who aren't root; in a PID namespace, so that it ends."""
    found = re.search(r"^#   (unshare .*)$", script, re.MULTILINE)
    assert found
    who = NOBODY if os.geteuid() == 0 else []
    return [*who, *CONTAINED, "--user", "--map-root-user", "sh", "-c", found[1]]


def plan_of(netlab: Netlab, file: Path, name: str) -> str:
    done = netlab("plan", file, "--name", name, "--format", "shell")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def read_topology(file: Path, name: str) -> Topology:
    _, topology = read(str(file), name=name)
    for interface in topology.interfaces():
        if interface.qdisc is not None and not interface.qdisc.kind.endswith("fifo"):  # these are in every kernel
            skips.skip_unless_capability(interface.qdisc.kind)
    return topology


def test_a_picture_has_what_was_set_and_not_what_was_counted() -> None:
    told = "=== qdiscs\nqdisc htb 1: dev eth0 root refcnt 2 r2q 10 default 0x1 direct_packets_stat {} direct_qlen {}\n"
    topology = read_topology(EVERYTHING, "lab")
    quiet, busy, other = (picture(topology, "host", told.format(*numbers)) for numbers in ((0, 77), (3, 77), (0, 78)))
    assert quiet == busy != other


@pytest.mark.kernel
@ALL
def test_as_root_the_script_builds_the_lab_that_up_builds(
    netlab: Netlab, lab_name: str, file: Path, as_root: None
) -> None:
    topology = read_topology(file, lab_name)
    script = plan_of(netlab, file, lab_name)
    built = netlab("up", file, "--name", lab_name, "--root", "-q")
    assert (built.returncode, built.stderr) == (0, "")
    by_netlab = picture_of_lab(netlab, topology)
    by_hand = picture_of_script(script, topology, [*CONTAINED, "--net", "--mount", "sh", "-c", PRIVATE])
    assert by_hand == by_netlab


@pytest.mark.kernel
@pytest.mark.inside
@ALL
def test_as_anyone_the_script_builds_the_lab_that_up_builds(
    netlab: Netlab, lab_name: str, file: Path, rootless: None
) -> None:
    topology = read_topology(file, lab_name)
    script = plan_of(netlab, file, lab_name)
    built = netlab("up", file, "--name", lab_name, "--rootless", "-q")
    assert (built.returncode, built.stderr) == (0, "")
    by_netlab = picture_of_lab(netlab, topology)
    assert picture_of_script(script, topology, recipe(script)) == by_netlab


@pytest.mark.kernel
@pytest.mark.inside
@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_every_kind_of_service_is_in_the_script(
    netlab: Netlab, lab_name: str, mode: str, tmp_path: Path, rootless: None
) -> None:
    file = tmp_path / "services.yaml"
    text = re.sub(r", programs: .*(?=}$)", "", SERVICES.read_text(), flags=re.MULTILINE)
    file.write_text(text.replace("mode: nftables", f"mode: {mode}"))
    topology = read_topology(file, lab_name)
    script = plan_of(netlab, file, lab_name)
    built = netlab("up", file, "--name", lab_name, "--rootless", "-q")
    assert (built.returncode, built.stderr) == (0, "")
    by_netlab = picture_of_lab(netlab, topology)
    assert by_netlab.count("table ip kube-proxy {") == (2 if mode == "nftables" else 0)
    assert picture_of_script(script, topology, recipe(script)) == by_netlab


@ALL
def test_shellcheck_finds_nothing_in_the_script(netlab: Netlab, file: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("needs the program shellcheck")
    script = plan_of(netlab, file, "lab")
    done = subprocess.run(["shellcheck", "--shell=sh", "-"], input=script, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
