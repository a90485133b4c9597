"""The fixes change a Topology, that and nothing more."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import combinations, permutations

import pytest

from netlab import topology
from netlab.errors import UsageError
from netlab.kubeproxy import fixes, ruleset
from netlab.model import DropInvalid, Endpoint, KubeProxy, Mode, Netns, Role, Service, ServicePort, Topology, UserFix

LIBERAL = ("net.netfilter.nf_conntrack_tcp_be_liberal", "1")

LAB = Topology(
    "lab",
    (
        Netns("client", Role.POD, node="node"),
        Netns("node", Role.NODE, sysctls=(("net.ipv4.ip_forward", "1"),)),
        Netns("far", Role.NODE),
    ),
    services=(
        Service(
            "web",
            (ip_address("192.168.0.2"),),
            (ServicePort(80, 8080),),
            (Endpoint("client", (ip_address("10.0.0.2"),)),),
        ),
    ),
    kube_proxy=KubeProxy(("node",)),
)


def test_they_are_known_by_name_and_have_a_line_to_list() -> None:
    assert list(fixes.FIXES) == [
        "drop-invalid",
        "be-liberal",
        "drop-invalid-where-not-liberal",
        "nftables-mode",
        "notrack",
    ]
    for name, fix in fixes.FIXES.items():
        assert fix.name == name
        assert fix.summary
        assert "\n" not in fix.summary


def test_no_fix_is_no_change() -> None:
    assert fixes.apply(LAB, ()) == LAB


def test_drop_invalid_changes_the_rules_only() -> None:
    fixed = fixes.apply(LAB, ["drop-invalid"])
    assert fixed == LAB._replace(kube_proxy=KubeProxy(("node",), drop_invalid=DropInvalid.ALWAYS))
    made = ruleset(fixed, "node")
    assert made is not None
    assert "ct state invalid counter drop" in made.nft()


def test_be_liberal_sets_the_sysctl_on_kube_proxy_nodes_only() -> None:
    client, node, far = LAB.namespaces
    assert fixes.apply(LAB, ["be-liberal"]) == LAB._replace(
        namespaces=(client, node._replace(sysctls=(("net.ipv4.ip_forward", "1"), LIBERAL)), far)
    )


def test_be_liberal_takes_the_place_of_the_topologys_own_value() -> None:
    client, node, far = LAB.namespaces
    strict = LAB._replace(namespaces=(client, node._replace(sysctls=((LIBERAL[0], "0"),)), far))
    assert fixes.apply(strict, ["be-liberal"]).netns("node").sysctls == (LIBERAL,)


def test_drop_invalid_where_not_liberal_gives_way_to_be_liberal() -> None:
    fixed = fixes.apply(LAB, ["drop-invalid-where-not-liberal"])
    assert fixed == LAB._replace(kube_proxy=KubeProxy(("node",), drop_invalid=DropInvalid.UNLESS_LIBERAL))
    assert fixed.drops_invalid("node")
    assert not fixes.apply(LAB, ["drop-invalid-where-not-liberal", "be-liberal"]).drops_invalid("node")
    assert fixes.apply(LAB, ["drop-invalid-where-not-liberal", "be-liberal", "drop-invalid"]).drops_invalid("node")


def test_nftables_mode_has_no_workaround_unless_another_fix_adds_it() -> None:
    dropping = LAB._replace(kube_proxy=KubeProxy(("node",), drop_invalid=DropInvalid.ALWAYS))
    plain = LAB._replace(kube_proxy=KubeProxy(("node",), mode=Mode.NFTABLES))
    assert fixes.apply(dropping, ["nftables-mode"]) == plain
    assert fixes.apply(LAB, ["nftables-mode", "drop-invalid"]) == fixes.apply(plain, ["drop-invalid"])
    with pytest.raises(UsageError) as raised:
        fixes.apply(plain, ["nftables-mode"])
    assert str(raised.value) == (
        "the fix 'nftables-mode' has nothing to work on: lab 'lab' is in that mode\n  hint: leave the fix out"
    )
    assert fixes.names(plain) == tuple(name for name in fixes.FIXES if name != "nftables-mode")


def test_the_order_of_the_names_does_not_matter() -> None:
    for some in combinations(fixes.FIXES, 3):
        made = {fixes.apply(LAB, order) for order in permutations(some)}
        assert len(made) == 1


def test_they_add_up_and_may_be_repeated() -> None:
    both = fixes.apply(LAB, ["be-liberal", "drop-invalid"])
    assert both.kube_proxy.drop_invalid is DropInvalid.ALWAYS
    assert LIBERAL in both.netns("node").sysctls
    assert fixes.apply(both, ["drop-invalid", "be-liberal", "drop-invalid"]) == both


def test_an_unknown_name_is_an_error_that_names_them_all() -> None:
    with pytest.raises(UsageError) as raised:
        fixes.apply(LAB, ["drop-invalid", "drop-invlid"])
    assert str(raised.value) == (
        f"there is no fix 'drop-invlid'\n  hint: did you mean 'drop-invalid'? the fixes are: {', '.join(fixes.FIXES)}"
    )
    with pytest.raises(UsageError) as raised:
        fixes.check_name(LAB._replace(fixes=(UserFix("mine", "a summary"),)), "xyz")
    assert str(raised.value) == "there is no fix 'xyz'\n  hint: the fixes are: " + ", ".join([*fixes.FIXES, "mine"])


def test_a_lab_without_kube_proxy_has_nothing_to_fix() -> None:
    with pytest.raises(UsageError) as raised:
        fixes.apply(LAB._replace(kube_proxy=KubeProxy()), ["be-liberal"])
    assert str(raised.value) == (
        "the fix 'be-liberal' has nothing to work on: no node of lab 'lab' runs kube-proxy\n"
        "  hint: name the nodes that get the rules in the topology's kube_proxy"
    )


OWN = """
namespaces:
  client: {role: pod}
  node: {role: node, sysctls: {net.netfilter.nf_conntrack_tcp_be_liberal: 0}}
bridges:
  - {name: br0, netns: node, ports: [client]}
services:
  web: {port: 80, endpoints: [client]}
fixes:
  small: {summary: another port, set: {services.web.port: 81}}
  strict:
    summary: sets what be-liberal sets
    set: {namespaces.node.sysctls.net.netfilter.nf_conntrack_tcp_be_liberal: 5}
"""


def test_a_topologys_own_fixes_come_first_whatever_the_order() -> None:
    plain = topology.load(OWN, "lab.yaml")
    assert fixes.names(plain) == (*fixes.FIXES, "small", "strict")
    for order in (["be-liberal", "small", "strict"], ["strict", "be-liberal", "small"]):
        fixed = topology.load_with_fixes(OWN, "lab.yaml", [("services.web.port", "79")], "other", order)
        assert fixed.name == "other"
        assert fixed.services[0].ports[0].port == 81
        assert dict(fixed.netns("node").sysctls)[LIBERAL[0]] == "1"
    with pytest.raises(UsageError, match="there is no fix 'nope'"):
        topology.load_with_fixes(OWN, "lab.yaml", [], None, ["small", "nope"])


def test_a_lab_without_kube_proxy_has_its_own_fixes_alone() -> None:
    text = OWN.replace("services:\n  web: {port: 80, endpoints: [client]}\n", "")
    text = text.replace("  small: {summary: another port, set: {services.web.port: 81}}\n", "")
    assert fixes.names(topology.load(text, "lab.yaml")) == ("strict",)
    fixed = topology.load_with_fixes(text, "lab.yaml", [], None, ["strict"])
    assert dict(fixed.netns("node").sysctls)[LIBERAL[0]] == "5"
