"""The rules of kube-proxy's nftables mode as text: names against kube-proxy's own, whole tables, and what nft reads.

What the rules do to packets is `test_kubeproxy_kernel.py`'s. `tests/data/rules/` has what `netlab rules NODE
tests/data/services.yaml` prints.
"""

from __future__ import annotations

import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import skips
from places import DATA

from netlab.errors import UsageError
from netlab.kubeproxy import Ruleset, ruleset
from netlab.kubeproxy.nftables_names import NAME_MAX, endpoint_base, service_port_base
from netlab.model import (
    BE_LIBERAL,
    DropInvalid,
    Endpoint,
    KubeProxy,
    Mode,
    Netns,
    Role,
    Service,
    ServicePort,
    Topology,
    TrafficPolicy,
)
from netlab.topology import load, read

WEB = Service(
    "web", (ip_address("192.168.0.2"),), (ServicePort(80, 8080),), (Endpoint("a", (ip_address("10.0.1.2"),), "node"),)
)


def rules(*services: Service, drop_invalid: DropInvalid = DropInvalid.NEVER, liberal: str = "0") -> Ruleset:
    kube_proxy = KubeProxy(("node",), (ip_network("10.0.0.0/16"),), drop_invalid, Mode.NFTABLES)
    node = Netns("node", Role.NODE, sysctls=((BE_LIBERAL, liberal),))
    made = ruleset(Topology("lab", (node,), services=services, kube_proxy=kube_proxy), "node")
    assert made is not None
    return made


def chain_of(made: Ruleset, name: str) -> list[str]:
    """The lines of the first chain of that name."""
    _, _, rest = made.nft().partition(f"\tchain {name} {{\n")
    return [line.strip() for line in rest[: rest.index("\n\t}\n")].splitlines()]


def test_names_are_kube_proxys_own() -> None:
    """The names that kube-proxy's own unit tests expect for these services (pkg/proxy/nftables/proxier_test.go)."""
    port = ServicePort(80, 80, name="p80")
    svc1, svc4 = (Service(f"svc{n}", (), (), (), namespace=f"ns{n}") for n in (1, 4))
    assert service_port_base(svc1, port) == "ULMVA6XW-ns1/svc1/tcp/p80"
    assert service_port_base(svc4, port) == "LAUZTJTB-ns4/svc4/tcp/p80"
    assert endpoint_base(svc1, port, ip_address("10.180.0.1")) == "5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80"
    assert endpoint_base(svc4, port, ip_address("10.180.0.4")) == "UNZV3OEC-ns4/svc4/tcp/p80__10.180.0.4/80"
    assert endpoint_base(svc4, port, ip_address("10.180.0.5")) == "5RFCDDV7-ns4/svc4/tcp/p80__10.180.0.5/80"


def test_an_ipv6_endpoint_has_dots_for_colons() -> None:
    base = endpoint_base(WEB, ServicePort(80, 8080, name="http"), ip_address("fd00:1::2"))
    assert base.partition("-")[2] == "default/web/tcp/http__fd00.1..2/8080"


def test_a_name_that_is_too_long_is_cut_but_its_hash_is_not() -> None:
    service = Service("s" * 63, (), (), (), namespace="n" * 63)
    port = ServicePort(80, 80, name="p" * 63)
    bases = [endpoint_base(service, port, ip_address(f"2001:db8:{'1234:' * 5}{n}")) for n in "12"]
    assert {len(base) for base in bases} == {NAME_MAX}
    assert all(base.endswith("...") for base in bases)
    assert bases[0][:8] != bases[1][:8]


@pytest.mark.parametrize("node", ["node-a", "node-b"])
def test_one_of_each_kind(node: str) -> None:
    made = ruleset(read(str(DATA / "services.yaml"))[1], node)
    assert made is not None
    assert made.nft() == (DATA / "rules" / f"services.{node}.nft").read_text()


UNUSED = """
namespaces:
  node: {role: node}
  pod: {}
  away: {LOOPBACK}
bridges:
  - {name: cni0, netns: node, subnet: [10.0.0.0/24, "fd00::/64"], ports: [pod]}
links:
  - {ends: [node, away], subnet: LINK}
services:
  web: {cluster_ip: [CLUSTER_IP], port: 80, endpoints: [pod]}
kube_proxy: {mode: nftables}
addressing: {services: 10.3.0.0/16, services6: "fd00:3::/112"}
"""


@pytest.mark.parametrize(
    ("changed", "dropped"),
    [
        ({}, ["ip daddr { 10.3.0.0/16 }"]),
        ({"CLUSTER_IP": '10.3.0.1, "fd00:3::1"'}, ["ip daddr { 10.3.0.0/16 }", "ip6 daddr { fd00:3::/112 }"]),
        ({"CLUSTER_IP": "10.4.0.1"}, []),
        ({"LINK": "10.3.9.0/30"}, []),
        ({"LOOPBACK": "loopback: 10.3.9.1"}, []),
    ],
)
def test_cluster_ips_of_no_service_are_dropped_where_nobody_else_is(
    changed: dict[str, str], dropped: list[str]
) -> None:
    text = UNUSED
    for name, value in {"CLUSTER_IP": "10.3.0.1", "LINK": "10.255.0.0/30", "LOOPBACK": "", **changed}.items():
        text = text.replace(name, value)
    made = ruleset(load(text, "lab.yaml"), "node")
    assert made is not None
    comment = 'comment "Drop traffic to unallocated ClusterIPs"'
    found = [line.strip() for line in made.nft().splitlines() if line.endswith(comment)]
    assert found == [f"{match} drop {comment}" for match in dropped]


@pytest.mark.parametrize(
    ("asked", "liberal", "drops"),
    [
        (DropInvalid.NEVER, "0", False),
        (DropInvalid.ALWAYS, "0", True),
        (DropInvalid.ALWAYS, "1", True),
        (DropInvalid.UNLESS_LIBERAL, "0", True),
        (DropInvalid.UNLESS_LIBERAL, "1", False),
    ],
)
def test_invalid_packets_are_dropped_first_where_asked(asked: DropInvalid, liberal: str, drops: bool) -> None:
    hook = "type filter hook forward priority 0; policy accept;"
    rest = ["ct state new jump service-endpoints-check", "ct state new jump cluster-ips-check"]
    made = rules(WEB, drop_invalid=asked, liberal=liberal)
    assert chain_of(made, "filter-forward") == [hook, *(["ct state invalid drop"] if drops else []), *rest]
    assert made.nft().count("ct state invalid") == drops


def test_both_policies_local_and_an_endpoint_here() -> None:
    """Pods and the node may use any endpoint from outside's addresses; the cluster IP is the chain local-…'s."""
    service = WEB._replace(
        ports=(ServicePort(80, 8080, node_port=30080),),
        internal_traffic_policy=TrafficPolicy.LOCAL,
        external_traffic_policy=TrafficPolicy.LOCAL,
        endpoints=(*WEB.endpoints, Endpoint("b", (ip_address("10.0.2.2"),), "elsewhere")),
    )
    made = rules(service)
    name = "PFISGYVC-default/web/tcp/"
    a, b = "ATBW2W33-default/web/tcp/__10.0.1.2/8080", "UA232XDN-default/web/tcp/__10.0.2.2/8080"
    assert f"192.168.0.2 . tcp . 80 : goto local-{name}\n" in made.nft()
    assert chain_of(made, f"local-{name}") == [
        "ip daddr 192.168.0.2 tcp dport 80 ip saddr != 10.0.0.0/16 jump mark-for-masquerade",
        f"numgen random mod 1 vmap {{ 0 : goto endpoint-{a} }}",
    ]
    assert chain_of(made, f"service-{name}") == [
        f"numgen random mod 2 vmap {{ 0 : goto endpoint-{a}, 1 : goto endpoint-{b} }}"
    ]
    assert chain_of(made, f"external-{name}") == [
        f'ip saddr 10.0.0.0/16 goto service-{name} comment "short-circuit pod traffic"',
        'fib saddr type local jump mark-for-masquerade comment "masquerade local traffic"',
        f'fib saddr type local goto service-{name} comment "short-circuit local traffic"',
        f"goto local-{name}",
    ]


def test_iptables_has_no_words_for_it() -> None:
    with pytest.raises(UsageError) as caught:
        rules(WEB).iptables_save()
    assert caught.value.message == "the rules of kube-proxy's nftables mode can't be said in iptables' words"
    assert caught.value.hint == "--format nft"


RELOAD = """
set -e
nft -f "$0"
nft -f "$0"
nft list ruleset >"$1"
nft flush ruleset
nft -f "$1"
nft list ruleset
"""
"""Loads the file $0 twice over itself, lists it to the file $1, and loads and lists that."""


@pytest.mark.kernel
@pytest.mark.inside
@pytest.mark.parametrize("node", ["node-a", "node-b"])
def test_nft_reads_the_text_and_loses_nothing(node: str, tmp_path: Path) -> None:
    skips.skip_unless_userns()
    skips.skip_unless_program("nft")
    given = DATA / "rules" / f"services.{node}.nft"
    shell = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", RELOAD, str(given), str(tmp_path / "listed")]
    done = subprocess.run(shell, capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)
    listed = (tmp_path / "listed").read_text()
    assert done.stdout == listed
    for word in ("\tchain ", "map ", "set ", "\t\ttype ", "comment ", "goto ", "jump ", "dnat to ", "timeout "):
        assert listed.count(word) == given.read_text().count(word), word
