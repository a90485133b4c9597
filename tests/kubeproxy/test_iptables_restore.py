"""kube_proxy.load_with: iptables-restore: what `iptables-save` then shows in a node, drift, fixes, other loaders and
modes, and a machine without the programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import labs
import pytest
import skips
import yaml
from command import Netlab

from netlab.errors import UnsupportedError
from netlab.kubeproxy.iptables_save import without_counters
from netlab.lab import iptables

TOPOLOGY = """
ipv6: true
namespaces:
  node: {role: node}
  client: {role: pod}
  server:
    role: pod
    programs: [{name: web, command: "python3 -m http.server --bind :: 80", ready: {listening: 80}}]
bridges:
  - {name: cni0, netns: node, subnet: [10.0.0.0/24, "fd00::/64"], ports: [client, server]}
services:
  web: {cluster_ip: [10.96.0.1, "fd00:96::1"], port: 80, endpoints: [server]}
kube_proxy: {load_with: iptables-restore}
"""
BOTH = ["node: kube-proxy's rules, by iptables-restore", "node: kube-proxy's rules, by ip6tables-restore"]
BOTH_REMOVED = [
    "node: kube-proxy's rules removed, by ip6tables-restore",
    "node: kube-proxy's rules removed, by iptables-restore",
]
COPY = "node: a copy of kube-proxy's rules, until the new ones stand"
NO_COPY = "node: the copy of kube-proxy's rules removed"


@pytest.fixture
def lab(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> labs.Lab:
    """A service on a node whose rules iptables-restore loads."""
    for program in ("python3", "curl", "iptables-restore", "ip6tables-restore"):
        skips.skip_unless_program(program)
    return labs.make(netlab, lab_name, tmp_path, privilege, TOPOLOGY)


def saved(lab: labs.Lab, program: str = "iptables") -> str:
    """What the program's -save shows in the node, as someone there sees it, without the counters."""
    tables = "for table in filter nat; do $0-save -t $table || exit; done"
    return without_counters(lab.exec("node", "sh", "-c", f"PATH=$PATH:/usr/sbin:/sbin; {tables}", program))


def fetch(lab: labs.Lab, address: str) -> str:
    return lab.exec("client", "curl", "-gsS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}/")


def changes(lab: labs.Lab, *options: str) -> list[str]:
    """What `up` says it did."""
    return [line.strip() for line in lab.up(*options).splitlines()[1:]]


@pytest.mark.kernel
def test_iptables_save_shows_the_rules_and_drift_is_mended(lab: labs.Lab) -> None:
    lab.up()
    for program, address, prefix in (("iptables", "10.96.0.1", 32), ("ip6tables", "fd00:96::1", 128)):
        shown = saved(lab, program)
        assert (
            f'-A KUBE-SERVICES -d {address}/{prefix} -p tcp -m comment --comment "default/web cluster IP" '
            "-m tcp --dport 80 -j KUBE-SVC-LOLE4ISW44XBNF3G\n"
        ) in shown
    assert (fetch(lab, "10.96.0.1"), fetch(lab, "[fd00:96::1]")) == ("200", "200")
    assert lab.drift() == []
    assert changes(lab) == []

    lab.exec("node", "sh", "-c", "PATH=$PATH:/usr/sbin; iptables -t nat -F KUBE-SERVICES; ip6tables -P FORWARD DROP")
    assert lab.drift() == BOTH
    assert changes(lab) == BOTH
    assert (fetch(lab, "10.96.0.1"), fetch(lab, "[fd00:96::1]")) == ("200", "200")
    assert lab.drift() == []


@pytest.mark.kernel
def test_fixes_and_other_services(lab: labs.Lab) -> None:
    lab.up()
    plain = saved(lab)
    drop = "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n"
    assert drop not in plain
    fixed = lab.netlab("fix", "apply", "drop-invalid", "--lab", lab.name)
    assert fixed.returncode == 0, fixed.stderr
    assert saved(lab).replace(drop, "") == plain
    assert drop in saved(lab)
    assert lab.drift() == []
    reverted = lab.netlab("fix", "revert", "drop-invalid", "--lab", lab.name)
    assert reverted.returncode == 0, reverted.stderr
    assert saved(lab) == plain

    lab.write(TOPOLOGY.replace('[10.96.0.1, "fd00:96::1"]', "10.96.0.1").replace("[server]}", "[]}"))
    said = changes(lab)
    assert {BOTH[0], BOTH_REMOVED[0]} <= set(said)
    assert "default/web has no endpoints" in saved(lab)
    assert "KUBE-" not in saved(lab, "ip6tables")
    assert lab.drift() == []


@pytest.mark.kernel
def test_from_one_loader_or_mode_to_another(lab: labs.Lab) -> None:
    lab.up()
    for options, said in (
        (("kube_proxy.load_with=libnftables",), [COPY, *BOTH_REMOVED, "node: kube-proxy's rules", NO_COPY]),
        ((), [COPY, "node: kube-proxy's rules removed", *BOTH, NO_COPY]),
        (
            ("kube_proxy.load_with=libnftables", "kube_proxy.mode=nftables"),
            [COPY, *BOTH_REMOVED, "node: kube-proxy's rules", NO_COPY],
        ),
        ((), [COPY, "node: kube-proxy's rules removed", *BOTH, NO_COPY]),
    ):
        settings = [word for setting in options for word in ("--set", setting)]
        assert changes(lab, *settings) == said
        assert (fetch(lab, "10.96.0.1"), fetch(lab, "[fd00:96::1]")) == ("200", "200")
        assert lab.drift() == []


MINE = (
    "-N MINE",
    "-A MINE -s 192.0.2.1 -j RETURN",
    "-I PREROUTING -s 192.0.2.2 -j MINE",
    "-A PREROUTING -s 192.0.2.3 -j MINE",
)


@pytest.mark.kernel
def test_a_users_own_chains_and_rules_stay(lab: labs.Lab) -> None:
    lab.up()
    path = "PATH=$PATH:/usr/sbin:/sbin"
    lab.exec("node", "sh", "-ec", f"{path}; " + "; ".join(f"iptables -t nat {words}" for words in MINE))

    def mine() -> list[str]:
        return [line for line in saved(lab).splitlines() if "MINE" in line]

    before = mine()
    assert len(before) == 4, before
    assert lab.drift() == []
    for command in (("fix", "apply", "drop-invalid"), ("fix", "revert")):
        assert lab.netlab(*command, "--lab", lab.name).returncode == 0
        assert (mine(), lab.drift()) == (before, [])
    lab.write(TOPOLOGY.replace("services:", "services:\n  aa: {port: 81, endpoints: [client]}"))
    lab.up()
    assert (mine(), lab.drift(), fetch(lab, "10.96.0.1")) == (before, [], "200")
    lab.exec("node", "sh", "-c", f"{path}; iptables -t nat -F KUBE-SERVICES")
    lab.up()
    assert (mine(), lab.drift(), fetch(lab, "10.96.0.1")) == (before, [], "200")
    lab.write(TOPOLOGY.partition("services:")[0])
    lab.up()
    assert (mine(), lab.drift(), "KUBE-" in saved(lab)) == (before, [], False)


ECHO = """
import socket
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo.bind(("", 7))
print("ready", flush=True)
while True:
    echo.sendto(*echo.recvfrom(100))
"""
ASK = """
import select, socket, sys
print("asking", flush=True)
asked = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(10)
        asking.connect(("10.96.0.1", 7))
        asking.send(b"?")
        assert asking.recv(10) == b"?"
    asked += 1
print(asked > 10)
"""
"""Datagrams, each of a flow of its own and sent once: one that goes untranslated is never answered."""


@pytest.mark.kernel
def test_no_packet_goes_untranslated_while_the_loader_changes(lab: labs.Lab) -> None:
    program = {"name": "echo", "command": ["python3", "-c", ECHO], "ready": {"output": "ready"}}
    text = json.loads(json.dumps(yaml.safe_load(TOPOLOGY)))
    text["namespaces"]["server"]["programs"] = [program]
    text["services"]["web"] |= {"port": 7, "protocol": "UDP"}
    lab.write(json.dumps(text))
    lab.up()
    command = lab.netlab.argv("exec", "--lab", lab.name, "client", "--", "python3", "-c", ASK)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=lab.netlab.environment(), stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as asking:
        try:
            assert asking.stdout is not None
            assert asking.stdout.readline() == "asking\n"
            for mode in ("iptables", "nftables"):
                lab.up("--set", "kube_proxy.load_with=libnftables", "--set", f"kube_proxy.mode={mode}")
                lab.up()
            assert asking.communicate("stop\n", timeout=60) == ("True\n", "")
        finally:
            asking.kill()
    assert lab.drift() == []
    assert "netlab_" not in lab.exec("node", "nft", "list", "tables")


@pytest.mark.kernel
def test_iptables_of_before_nf_tables(lab: labs.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It locks a file that only the host's root may open, and who is none may not list its tables."""
    legacy = shutil.which("iptables-legacy", path="/usr/sbin:/sbin")
    if legacy is None:
        pytest.skip("needs the program iptables-legacy")
    probe = [*("unshare", "--user", "--map-root-user", "--net"), "env", "XTABLES_LOCKFILE=/dev/null", legacy]
    done = subprocess.run([*probe, "-t", "nat", "-L"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"iptables-legacy: {done.stderr.strip()}")
    for program in ("iptables", "ip6tables"):
        for name in (f"{program}-restore", f"{program}-save"):
            (tmp_path / name).symlink_to(Path(legacy).resolve())
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}:/usr/sbin:/sbin")
    lab.up()
    assert "-j KUBE-SVC-LOLE4ISW44XBNF3G\n" in saved(lab)
    assert "KUBE-" not in lab.exec("node", "nft", "list", "ruleset")
    assert (fetch(lab, "10.96.0.1"), fetch(lab, "[fd00:96::1]")) == ("200", "200")
    assert lab.drift() == []
    assert changes(lab, "--set", "kube_proxy.load_with=libnftables") == [
        COPY,
        *BOTH_REMOVED,
        "node: kube-proxy's rules",
        NO_COPY,
    ]
    assert "KUBE-" not in saved(lab)
    assert (fetch(lab, "10.96.0.1"), fetch(lab, "[fd00:96::1]")) == ("200", "200")
    assert lab.drift() == []


@pytest.mark.kernel
def test_without_the_program_up_leaves_nothing(netlab: Netlab, lab_name: str, as_root: None, tmp_path: Path) -> None:
    """The program is out of reach in the command's own mount namespace."""
    skips.skip_unless_program("unshare")
    program = shutil.which("iptables-restore", path="/usr/sbin:/sbin")
    if program is None:
        pytest.skip("needs the program iptables-restore")
    lab = labs.make(netlab, lab_name, tmp_path, "--rootless", TOPOLOGY)
    hidden = f'mount --bind /dev/null {Path(program).resolve()} && exec "$@"'
    argv = netlab.argv("up", lab.file, "--name", lab.name, lab.privilege)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hidden, "sh", *argv],
        capture_output=True,
        text=True,
        env=netlab.environment(),
    )
    assert (done.returncode, done.stdout) == (77, "")
    assert "there is no program iptables-restore" in done.stderr
    assert "apt-get install iptables, or load_with: libnftables under kube_proxy" in done.stderr
    assert netlab("status").stdout == "no lab is up\n"


def test_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(UnsupportedError) as caught:
        iptables.saved("ip6", ["nat"])
    assert (caught.value.message, caught.value.exit_code) == ("there is no program ip6tables-save", 77)


def test_what_iptables_save_prints_that_tells_nothing_of_the_rules() -> None:
    assert (
        without_counters(
            "# Generated by iptables-nft-save v1.8.9 (nf_tables) on Sun Nov 22 05:53:11 2026\n"
            "*nat\n:INPUT ACCEPT [3:180]\n:KUBE-X - [0:0]\n-A KUBE-X -j RETURN\nCOMMIT\n# Completed on Sun Nov 22\n"
        )
        == "*nat\n:INPUT ACCEPT\n:KUBE-X -\n-A KUBE-X -j RETURN\nCOMMIT\n"
    )
