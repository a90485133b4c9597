"""Rules that are too much for one transaction of an ordinary user's: loaded in parts."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import labs
import pytest
import skips
from command import Netlab
from places import TOPOLOGIES
from private_lab import PrivateLab

from netlab.kubeproxy import ruleset
from netlab.lab import apply
from netlab.lab.rule_steps import LoadRules
from netlab.linux import nft
from netlab.topology import load

EVERYTHING = """
ipv6: true
namespaces:
  node: {role: node}
  a: {role: pod}
  b: {role: pod}
bridges:
  - name: cni0
    netns: node
    addresses: 10.0.0.1/24
    ports: [{netns: a, addresses: 10.0.0.2/24}, {netns: b, addresses: 10.0.0.3/24}]
services:
  web: {ports: [{port: 80, node_port: 30080}], endpoints: [a, b], session_affinity: {timeout_s: 10}}
  dns: {ports: [{port: 53, protocol: UDP}], endpoints: [a], external_ips: [203.0.113.1]}
  none: {port: 81, endpoints: []}
kube_proxy: {nodes: [node], mode: MODE}
"""


@pytest.mark.kernel
@pytest.mark.inside
@pytest.mark.parametrize("mode", ["iptables", "nftables"])
@pytest.mark.parametrize("most", [1, 7, 1000])
def test_in_parts_the_same_rules_are_made(mode: str, most: int) -> None:
    topology = load(EVERYTHING.replace("MODE", mode), "-")
    rules = ruleset(topology, "node")
    assert rules is not None
    with PrivateLab(topology._replace(services=())) as namespaces, namespaces.inside("node"):
        nft.run(rules.nft())
        at_once = nft.list_tables(rules.names)
        nft.run("flush ruleset")
        nft.run_in_parts(rules.nft_commands(), most)
        assert nft.list_tables(rules.names) == at_once
        assert at_once.count("hook") > 3


def test_nothing_is_reached_before_the_last_rules() -> None:
    rules = ruleset(load(EVERYTHING.replace("MODE", "iptables"), "-"), "node")
    assert rules is not None
    lines = [*rules.nft_commands()]
    hooked = {line.split()[4] for line in lines if line.startswith("add chain") and " hook " in line}
    of_hooks = [line.split()[4] in hooked for line in lines if line.startswith("add rule")]
    assert of_hooks == sorted(of_hooks)
    assert True in of_hooks and False in of_hooks


@pytest.mark.kernel
@pytest.mark.inside
def test_what_is_too_much_at_once_is_loaded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    topology = load((TOPOLOGIES / "kube-proxy-reset.yaml").read_text(), "-")
    rules = ruleset(topology, "client-node")
    assert rules is not None

    def too_much(_text: str) -> str:
        raise OSError(errno.EMSGSIZE, "Message too long", "nft")

    with PrivateLab(topology._replace(services=())) as namespaces, namespaces.inside("client-node"):
        with monkeypatch.context() as patch:
            patch.setattr(nft, "run", too_much)
            apply._load_first(rules)
        assert "KUBE-SVC-" in nft.list_tables(rules.names)


@pytest.mark.kernel
def test_a_thousand_services_for_an_ordinary_user_too(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    services = "\n".join(f"  web{i}: {{port: 80, endpoints: [a, b]}}" for i in range(1000))
    text = EVERYTHING.replace("MODE", "iptables").replace("services:", f"services:\n{services}")
    lab = labs.make(netlab, lab_name, tmp_path, privilege, text.replace("ipv6: true", ""))
    lab.up()
    assert lab.exec("node", "nft", "-s", "list", "chain", "ip", "nat", "KUBE-SERVICES").count("KUBE-SVC-") >= 1000


@pytest.mark.kernel
def test_iptables_restore_can_not_and_it_is_said(netlab: Netlab, lab_name: str, tmp_path: Path, rootless: None) -> None:
    skips.skip_unless_program("iptables-restore")
    services = "\n".join(f"  web{i}: {{port: 80, endpoints: [a, b]}}" for i in range(2000))
    text = EVERYTHING.replace("mode: MODE", "load_with: iptables-restore").replace(
        "services:", f"services:\n{services}"
    )
    lab = labs.make(netlab, lab_name, tmp_path, "--rootless", text.replace("ipv6: true", ""))
    done = netlab("up", lab.file, "--name", lab_name, "--rootless")
    assert (done.returncode, done.stdout) == (77, "")
    assert done.stderr.endswith(
        "netlab: iptables-restore has more rules than an ordinary user may send at once\n"
        "  hint: load_with: libnftables under kube_proxy loads them in parts; or `sudo netlab up --root`\n"
    )


@pytest.mark.parametrize(
    ("code", "hint"), [(errno.EINVAL, "`netlab plan` prints it"), (errno.EMSGSIZE, "`netlab down`")]
)
def test_what_is_refused_is_told_on_a_screen(code: int, hint: str) -> None:
    services = "\n".join(f"  web{i}: {{port: 80, endpoints: [a, b]}}" for i in range(100))
    text = EVERYTHING.replace("MODE", "iptables").replace("services:", f"services:\n{services}")
    rules = ruleset(load(text, "-"), "node")
    assert rules is not None
    kernel = object.__new__(apply.Kernel)
    kernel._namespaces = SimpleNamespace(prefix="")  # type: ignore[assignment]
    told = str(kernel._refused(LoadRules("node", rules, False), code, "no"))
    assert hint in told
    assert told.count("\n") < 5
