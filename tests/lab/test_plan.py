"""A topology's plan: its steps in an order that the kernel can take, and its three renderings."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from textwrap import dedent

import jsonschema
import pytest
from places import DATA, TOPOLOGIES

from netlab.kubeproxy import fixes, ruleset
from netlab.kubeproxy.stale import Frontend
from netlab.lab import plan
from netlab.lab.rule_steps import (
    ClearRules,
    DeleteEntries,
    DeleteRules,
    DeleteStaleEntries,
    DeleteTable,
    LoadRules,
    LoadTable,
    RestoreRules,
)
from netlab.lab.steps import (
    AddAddress,
    AddQdisc,
    AddRoute,
    CreateLink,
    CreateNetns,
    DeleteAddress,
    DeleteLink,
    DeleteNetns,
    DeleteQdisc,
    DeleteRoute,
    ResetSysctl,
    SetLink,
    SetSysctl,
    SetUp,
    StartProgram,
    Step,
    StopProgram,
    WriteHosts,
)
from netlab.links import KINDS
from netlab.model import Topology
from netlab.topology import load, read

FILES = [*sorted(TOPOLOGIES.glob("*.yaml")), DATA / "everything.yaml"]
STEPS = [*(kind.__name__ for kind in Step.__args__), *(f"Create{kind.name.capitalize()}" for kind in KINDS)]
EACH = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def topology_of(file: Path) -> Topology:
    return read(str(file))[1]


# --- renderings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kube-proxy-reset", "dual-stack"])
def test_a_plan_as_text(name: str) -> None:
    topology = topology_of(TOPOLOGIES / f"{name}.yaml")
    assert plan.as_text(plan.up(topology), f"{name}-") == (DATA / "plans" / f"{name}.txt").read_text()


def test_a_plan_as_a_script() -> None:
    topology = topology_of(TOPOLOGIES / "dual-stack.yaml")
    assert plan.as_shell(plan.up(topology), topology) == (DATA / "plans" / "dual-stack.sh").read_text()


PLAN_SHAPE = {
    "type": "object",
    "required": ["lab", "steps"],
    "additionalProperties": False,
    "properties": {
        "lab": {"type": "string"},
        "steps": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["step", "describes", "twin"],
                "additionalProperties": False,
                "properties": {
                    "step": {"enum": STEPS},
                    "describes": {"type": "string", "pattern": "^[^\\n]+$"},
                    "twin": {"type": "string", "minLength": 1},
                },
            },
        },
    },
}


@EACH
def test_a_plan_as_json_says_the_same_as_the_text(file: Path) -> None:
    topology = topology_of(file)
    steps = plan.up(topology)
    told = json.loads(plan.as_json(steps, topology))
    jsonschema.validate(told, PLAN_SHAPE)
    assert told["lab"] == topology.name
    lines = []
    for step in told["steps"]:
        lines += [step["describes"], *(f"    {line}" for line in step["twin"].splitlines())]
    assert "\n".join(lines) + "\n" == plan.as_text(steps, f"{topology.name}-")


# --- order -----------------------------------------------------------------------------------------------------------


@EACH
def test_each_thing_comes_after_what_it_stands_on(file: Path) -> None:
    """Checked by walking the plan, with what is there so far."""
    namespaces: set[str] = set()
    links: set[tuple[str, str]] = set()
    up: set[tuple[str, str]] = set()
    rules: set[str] = set()
    loaded: set[str] = set()
    topology = topology_of(file)
    steps = plan.up(topology)
    gets_rules = {step.netns for step in steps if isinstance(step, LoadRules)}
    for step in steps:
        match step:
            case CreateNetns(netns):
                namespaces.add(netns)
                links.add((netns, "lo"))
            case CreateLink(link):
                first, *others = link.interfaces()
                assert {first.netns, *(other.netns for other in others)} <= namespaces
                assert first.master is None or (first.netns, first.master) in links
                links |= {(end.netns, end.ifname) for end in (first, *others)}
            case SetUp(netns, ifname):
                assert (netns, ifname) in links
                up.add((netns, ifname))
            case AddAddress(netns, ifname, _):
                assert (netns, ifname) in up
            case AddRoute(netns, route):
                assert all(key in up for key in links if key[0] == netns), route
            case SetSysctl(netns, key, _):
                assert not key.startswith("net.ipv4.conf.") or (netns, key.split(".")[3]) in links | {
                    (netns, "all"),
                    (netns, "default"),
                }
                if key.startswith("net.netfilter."):
                    assert netns in rules or netns not in gets_rules
                    assert netns in loaded or not topology.netns(netns).tables
                else:
                    assert (netns, "lo") not in up
            case LoadRules(netns):
                rules.add(netns)
            case LoadTable(netns):
                assert (netns, "lo") in up
                loaded.add(netns)
            case AddQdisc(netns, ifname, _):
                assert (netns, ifname) in links
    kinds = [type(step) for step in steps]
    programs = kinds.count(StartProgram)
    assert kinds.count(WriteHosts) == 1
    assert kinds[len(kinds) - programs - 1 :] == [WriteHosts, *[StartProgram] * programs]
    assert namespaces == {netns.name for netns in topology.namespaces}
    assert links - {(name, "lo") for name in namespaces} == {(i.netns, i.ifname) for i in topology.interfaces()}


def test_a_fix_is_in_the_plan() -> None:
    topology = topology_of(TOPOLOGIES / "kube-proxy-reset.yaml")
    before, after = plan.up(topology), plan.up(fixes.apply(topology, ["be-liberal"]))
    new = [step.describe() for step in after if step not in before]
    assert new == ["client-node: sysctl net.netfilter.nf_conntrack_tcp_be_liberal = 1"]


def test_ipv6_link_local_addresses_only_where_there_is_an_ipv6_address() -> None:
    topology = load(
        dedent("""
            namespaces: {a: {}, b: {}}
            links: [{ends: [{netns: a, addresses: [10.0.0.1/24, "fd00::1/64"]}, {netns: b, addresses: 10.0.0.2/24}]}]
            """),
        "lab.yaml",
    )
    found = {(step.netns, step.ifname): step.link_local for step in plan.up(topology) if isinstance(step, SetUp)}
    assert found == {("a", "lo"): True, ("b", "lo"): True, ("a", "eth0"): True, ("b", "eth0"): False}


def test_no_route_through_an_interface_that_is_left_down() -> None:
    text = dedent("""
        routing: none
        namespaces:
          a:
            routes:
              - {to: default, via: 10.0.0.2}
              - {to: 192.0.2.0/24, dev: eth0}
              - {to: 198.51.100.0/24, kind: blackhole}
          b: {}
        links: [{ends: [{netns: a, addresses: 10.0.0.1/24, up: UP}, {netns: b, addresses: 10.0.0.2/24}]}]
        """)
    routes = {
        up: [
            step.describe() for step in plan.up(load(text.replace("UP", up), "lab.yaml")) if isinstance(step, AddRoute)
        ]
        for up in ("true", "false")
    }
    assert routes == {
        "true": [
            "a: route default via 10.0.0.2",
            "a: route 192.0.2.0/24 dev eth0",
            "a: route blackhole 198.51.100.0/24",
        ],
        "false": ["a: route blackhole 198.51.100.0/24"],
    }


# --- hosts -----------------------------------------------------------------------------------------------------------


def test_the_hosts_file_names_namespaces_by_their_primary_addresses_and_services() -> None:
    topology = load(
        dedent("""
            ipv6: true
            namespaces:
              node: {role: node, loopback: [10.9.9.9/32]}
              pod: {role: pod}
              lonely: {}
            bridges: [{name: br0, netns: node, subnet: [10.0.0.0/24, "fd00::/64"], ports: [pod]}]
            services:
              web: {cluster_ip: [10.96.0.10, "fd00:96::10"], port: 80, endpoints: [pod]}
              dns: {cluster_ip: 10.96.0.11, port: 53, namespace: kube-system, endpoints: []}
            """),
        "lab.yaml",
    )
    assert plan.hosts(topology) == dedent("""\
        127.0.0.1 localhost
        ::1 localhost ip6-localhost ip6-loopback
        10.9.9.9 node
        fd00::1 node
        10.0.0.2 pod
        fd00::2 pod
        10.96.0.10 web web.default web.default.svc.cluster.local
        fd00:96::10 web web.default web.default.svc.cluster.local
        10.96.0.11 dns dns.kube-system dns.kube-system.svc.cluster.local
        """)


def test_a_node_goes_by_an_address_outside_its_pods_if_it_has_one() -> None:
    """Whichever way its pods hang on it, and whatever stands first in the file."""
    topology = load(
        dedent("""
            namespaces:
              a: {role: node}
              b: {role: node}
              in-a: {role: pod}
              in-b: {role: pod}
            bridges: [{name: cni0, netns: a, subnet: 10.0.1.0/24, ports: [in-a]}]
            links:
              - {ends: [in-b, b], subnet: 10.0.2.0/24}
              - {ends: [a, b], subnet: 10.255.0.0/24}
            """),
        "lab.yaml",
    )
    assert plan.hosts(topology).splitlines()[2:] == ["10.255.0.1 a", "10.255.0.2 b", "10.0.1.2 in-a", "10.0.2.1 in-b"]


# --- the steps that no plan from nothing has -------------------------------------------------------------------------


def test_changes_as_text() -> None:
    topology = topology_of(DATA / "everything.yaml")
    end = topology.pairs()[1][0]
    address = end.addresses[0]
    route = topology.netns("node").routes[0]
    rules = ruleset(topology, "node")
    assert rules is not None
    steps: list[Step] = [
        StopProgram("pod", "greeter"),
        DeleteLink("node", "br0"),
        DeleteNetns("lonely"),
        DeleteAddress("node", "lo", address),
        DeleteRoute("node", route),
        DeleteRoute("node", next(route for route in topology.netns("node").routes if route.dst.version == 6)),
        ResetSysctl("node", "net.ipv4.tcp_rmem"),
        DeleteQdisc("node", "eth0"),
        DeleteRules("node", (rules,)),
        DeleteTable("node", "inet", "tour"),
        RestoreRules("node", "ip", "*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n"),
        ClearRules("node", "ip6"),
        DeleteEntries("node", ((ip_address("10.96.0.10"), 80), (ip_address("fd00:96::10"), 80))),
        DeleteStaleEntries(
            "node",
            (
                Frontend(4, ip_address("10.96.0.10"), 53, ((ip_address("10.0.0.2"), 5353),)),
                Frontend(6, None, 30053, ((ip_address("fd00::2"), 5353), (ip_address("fd00::3"), 5353))),
            ),
        ),
        LoadTable("node", topology.netns("node").tables[0], replace=True),
        SetLink(topology.pairs()[0][0]),
        SetLink(end),
        SetUp("node", "eth0", False, False),
    ]
    assert plan.as_text(steps, "lab-") == (DATA / "plans" / "changes.txt").read_text()


def test_a_bridge_is_made_with_the_queues_that_it_asks_for() -> None:
    text = "namespaces: {a: {}}\nbridges: [{name: br0, netns: a, addresses: [], num_tx_queues: 2}]"
    (made,) = (step for step in plan.up(load(text, "lab.yaml")) if isinstance(step, CreateLink))
    assert (
        made.twin("lab-")
        == "ip -n lab-a link add br0 address 02:62:8d:65:85:b3 numtxqueues 2 type bridge mcast_snooping 0"
    )


def test_a_sysctl_of_the_files_is_not_overwritten_by_one_that_comes_later() -> None:
    text = """
    namespaces:
      a:
        sysctls:
          net.ipv6.conf.eth0.addr_gen_mode: 0
          net.ipv4.conf.eth0.rp_filter: 0
          net.ipv4.tcp_sack: 0
          net.ipv4.conf.all.rp_filter: 2
          net.ipv4.ip_forward: 1
      b: {}
    links: [{ends: [a, b]}]
    """
    steps = plan.up(load(text, "lab.yaml"))
    assert [step.key for step in steps if isinstance(step, SetSysctl)] == [
        "net.ipv4.ip_forward",
        "net.ipv4.tcp_sack",
        "net.ipv4.conf.all.rp_filter",
        "net.ipv6.conf.eth0.addr_gen_mode",
        "net.ipv4.conf.eth0.rp_filter",
    ]
    assert {(step.netns, step.link_local) for step in steps if isinstance(step, SetUp) and step.ifname == "eth0"} == {
        ("a", True),
        ("b", False),
    }
