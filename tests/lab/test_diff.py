"""What a drift or an edit takes: exactly these steps and no others, and after them nothing is left to do."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from ipaddress import IPv4Network, ip_address, ip_interface, ip_network
from typing import Any

import pytest
from simulated import Simulated

from netlab.errors import TopologyError
from netlab.kubeproxy import fixes, iptables_layout
from netlab.lab import plan
from netlab.lab.diff import difference
from netlab.lab.rule_steps import DeleteEntries, LoadTable, UncoverRules
from netlab.lab.status import LinkStatus
from netlab.lab.steps import CreateLink, ForgetNeighbours
from netlab.links.veth import Veth
from netlab.model import Interface, Route, Topology
from netlab.topology import load

Spec = dict[str, Any]

LAB: Spec = {
    "namespaces": {
        "node": {
            "role": "node",
            "loopback": ["10.9.9.9/32"],
            "sysctls": {"net.ipv4.tcp_sack": 0, "net.ipv4.conf.eth0.rp_filter": 2},
            "routes": [{"to": "203.0.113.0/24", "kind": "blackhole"}],
            "tables": {"inet tour": "chain seen { type filter hook input priority 0; counter; }"},
        },
        "far": {"role": "node"},
        "client": {"role": "pod", "programs": [{"name": "web", "command": "serve --all", "env": {"PORT": 80}}]},
        "server": {"role": "pod"},
    },
    "bridges": [
        {"name": "cni0", "netns": "node", "ports": [{"netns": "client", "mtu": 1400}]},
        {"name": "cni0", "netns": "far", "ports": ["server"]},
    ],
    "links": [{"ends": [{"netns": "node", "ifname": "eth0", "qdisc": {"kind": "pfifo", "limit": 10}}, "far:eth0"]}],
    "services": {"web": {"port": 80, "endpoints": ["server"]}},
    "kube_proxy": {"nodes": ["node"]},
}

CLIENT_ANEW = [
    "node: veth veth-client to client eth0",
    "node: veth-client up",
    "client: eth0 up",
    "client: address 10.244.0.2/24 on eth0",
    "client: route default via 10.244.0.1",
    "neighbour entries of 10.244.0.2 removed",
]


def topology(spec: Spec = LAB) -> Topology:
    return load(json.dumps(spec), "lab.yaml")


def edited(**paths: Any) -> Spec:
    """LAB with other values; a path is keys and indexes with double underscores between, None removes."""
    spec = copy.deepcopy(LAB)
    for path, value in paths.items():
        *way, last = (int(part) if part.isdigit() else part for part in path.split("__"))
        inner: Any = spec
        for part in way:
            inner = inner.setdefault(part, {}) if isinstance(inner, dict) else inner[part]
        if value is None:
            del inner[last]
        else:
            inner[last] = value
    return spec


def built(spec: Spec = LAB) -> Simulated:
    """The lab as a plan builds it."""
    kernel = Simulated()
    kernel.apply(plan.up(topology(spec)))
    return kernel


def described(kernel: Simulated, old: Spec = LAB, new: Spec = LAB) -> list[str]:
    """What the difference's steps say; they are carried out, and must leave nothing to do."""
    before, after = topology(old), topology(new)
    steps = difference([before], after, kernel.look(before, after))
    kernel.apply(steps)
    again = difference([after], after, kernel.look(after, after))
    assert [step.describe() for step in again] == []
    return [step.describe() for step in steps]


def test_a_lab_as_it_was_built_needs_nothing() -> None:
    assert described(built()) == []


def test_nothing_there_needs_the_whole_plan() -> None:
    assert described(Simulated()) == [step.describe() for step in plan.up(topology())]


# --- drift: the topology is as it was, and the kernel's things are not ------------------------------------------------


def test_a_missing_address_is_added() -> None:
    kernel = built()
    kernel.addresses["client", "eth0"].clear()
    assert described(kernel) == ["client: address 10.244.0.2/24 on eth0"]


def test_a_changed_address_is_added_and_the_users_own_stays() -> None:
    kernel = built()
    kernel.addresses["client", "eth0"] = {ip_interface("10.244.0.77/24")}
    assert described(kernel) == ["client: address 10.244.0.2/24 on eth0"]
    assert kernel.addresses["client", "eth0"] == {ip_interface("10.244.0.77/24"), ip_interface("10.244.0.2/24")}


def test_a_missing_route_is_added() -> None:
    kernel = built()
    kernel.routes["node"].clear()
    assert described(kernel) == [
        "node: route blackhole 203.0.113.0/24",
        "node: route 10.244.1.0/24 via 10.255.0.2",
        "node: route 10.96.0.1/32 dev cni0",
    ]


def test_another_route_in_the_place_of_a_wanted_one_makes_way() -> None:
    kernel = built()
    [default] = kernel.routes["client"]
    kernel.routes["client"] = {default._replace(via=ip_address("10.244.0.9"))}
    assert described(kernel) == [
        "client: route default via 10.244.0.9 dev eth0 removed",
        "client: route default via 10.244.0.1",
    ]


def test_a_changed_sysctl_is_set() -> None:
    kernel = built()
    kernel.sysctls["node", "net.ipv4.ip_forward"] = "0"
    assert described(kernel) == ["node: sysctl net.ipv4.ip_forward = 1"]


def test_a_sysctls_blanks_do_not_count() -> None:
    spec = edited(namespaces__client__sysctls={"net.ipv4.tcp_rmem": "4096\t4096   8192"})
    kernel = built(spec)
    assert kernel.sysctls["client", "net.ipv4.tcp_rmem"] == "4096 4096 8192"
    assert described(kernel, spec, spec) == []


def test_a_sysctls_number_may_be_written_as_in_c() -> None:
    spec = edited(namespaces__client__sysctls={"net.ipv4.tcp_rmem": "0x1000 020000 8192", "net.ipv4.tcp_sack": "0x1"})
    kernel = built(spec)
    kernel.sysctls["client", "net.ipv4.tcp_rmem"] = "4096 8192 8192"
    kernel.sysctls["client", "net.ipv4.tcp_sack"] = "1"
    assert described(kernel, spec, spec) == []
    kernel.sysctls["client", "net.ipv4.tcp_sack"] = "0"
    assert described(kernel, spec, spec) == ["client: sysctl net.ipv4.tcp_sack = 0x1"]


def test_changed_attributes_are_set() -> None:
    kernel = built()
    link = kernel.links["client", "eth0"]
    kernel.links["client", "eth0"] = link._replace(attributes=link.attributes._replace(mtu=9000))
    assert described(kernel) == ["client: attributes of eth0"]


def test_an_attribute_that_the_topology_leaves_open_may_be_anything() -> None:
    kernel = built()
    link = kernel.links["client", "eth0"]
    kernel.links["client", "eth0"] = link._replace(
        attributes=link.attributes._replace(txqlen=5, mac="02:00:00:00:00:09")
    )
    assert described(kernel) == []


def test_a_port_that_was_taken_off_its_bridge_is_put_back() -> None:
    kernel = built()
    kernel.links["node", "veth-client"] = kernel.links["node", "veth-client"]._replace(master=None)
    assert described(kernel) == ["node: attributes of veth-client"]


def test_a_link_that_was_set_down_comes_up_with_its_routes() -> None:
    kernel = built()
    kernel.links["client", "eth0"] = kernel.links["client", "eth0"]._replace(up=False)
    kernel.routes["client"].clear()
    assert described(kernel) == ["client: eth0 up", "client: route default via 10.244.0.1"]


def test_a_missing_veth_is_made_anew() -> None:
    kernel = built()
    kernel.delete_link(("client", "eth0"))
    assert described(kernel) == CLIENT_ANEW


def test_a_link_of_another_kind_under_a_name_of_the_labs_is_not_removed() -> None:
    kernel = built()
    kernel.delete_link(("client", "eth0"))
    kernel.links["client", "eth0"] = kernel.links["node", "cni0"]._replace(ifindex=55)
    steps = difference([topology()], topology(), kernel.look(topology(), topology()))
    assert [step.describe() for step in steps] == CLIENT_ANEW
    with pytest.raises(AssertionError, match="File exists"):
        kernel.apply(steps)
    gone = difference(
        [topology()], topology(edited(namespaces__client=None, bridges__0__ports=[])), kernel.look(topology())
    )
    assert "client: eth0 removed" not in [step.describe() for step in gone]


def test_a_bridge_that_was_remade_gets_its_ports_back() -> None:
    kernel = built()
    kernel.delete_link(("node", "cni0"))
    assert described(kernel) == [
        "node: bridge cni0",
        "node: attributes of veth-client",
        "node: sysctl net.ipv4.conf.cni0.send_redirects = 0",
        "node: cni0 up",
        "node: address 10.244.0.1/24 on cni0",
        "node: route 10.96.0.1/32 dev cni0",
    ]


def test_rules_that_were_changed_are_replaced() -> None:
    kernel = built()
    kernel.rules["node"]["ip", "nat"] = "other rules"
    assert described(kernel) == ["node: kube-proxy's rules"]
    del kernel.rules["node"]["ip", "filter"]
    assert described(kernel) == ["node: kube-proxy's rules"]
    kernel.rules.clear()
    assert described(kernel) == ["node: kube-proxy's rules"]


def test_a_qdisc_that_was_taken_away_or_changed_is_put_back() -> None:
    kernel = built()
    kernel.qdiscs.clear()
    assert described(kernel) == ["node: qdisc pfifo on eth0"]
    kernel.qdiscs["node", "eth0"] = "netem delay 5ms"
    assert described(kernel) == ["node: qdisc on eth0 removed", "node: qdisc pfifo on eth0"]


def test_a_program_that_ended_is_started_again() -> None:
    kernel = built()
    kernel.programs.clear()
    assert described(kernel) == ["client: program web: serve --all"]


def test_a_changed_hosts_file_is_written_again() -> None:
    kernel = built()
    kernel.hosts += "1.2.3.4 mine\n"
    assert described(kernel) == ["/etc/hosts of the lab"]


def test_what_a_user_has_added_stays() -> None:
    kernel = built()
    kernel.addresses["client", "eth0"].add(ip_interface("192.0.2.7/24"))
    kernel.addresses["node", "lo"].add(ip_interface("192.0.2.8/32"))
    kernel.routes["client"].add(Route(ip_network("192.0.2.0/24"), ip_address("10.244.0.1"), "eth0"))
    kernel.links["client", "mine"] = kernel.links["node", "cni0"]._replace(ifindex=99)
    kernel.qdiscs["client", "eth0"] = "netem delay 5ms"
    kernel.rules["client"] = {("inet", "mine"): "rules"}
    kernel.rules["node"]["ip", "mine"] = "rules"
    kernel.sysctls["client", "net.ipv4.tcp_sack"] = "0"
    kernel.programs.add(("client", "mine"))
    assert described(kernel) == []


# --- edits: the kernel's things are as they were, and the topologyis not ----------------------------------------------


def edit(**paths: Any) -> list[str]:
    return described(built(), LAB, edited(**paths))


def test_an_address_changed_in_the_topology() -> None:
    assert edit(bridges__1__ports__0={"netns": "server", "addresses": "10.244.1.77/24"}) == [
        "server: address 10.244.1.2/24 on eth0 removed",
        "server: address 10.244.1.77/24 on eth0",
        "server: route default via 10.244.1.1",
        "node: kube-proxy's rules",
        "neighbour entries of 10.244.1.2 removed",
        "/etc/hosts of the lab",
    ]


def test_an_attribute_changed_in_the_topology() -> None:
    assert edit(bridges__0__ports__0__mtu=1300) == [
        "node: attributes of veth-client",
        "client: attributes of eth0",
    ]


def test_an_attribute_forgotten_in_the_topology_takes_a_new_link() -> None:
    assert edit(bridges__0__ports__0__mtu=None) == ["node: veth-client removed", *CLIENT_ANEW]


def test_another_number_of_queues_takes_a_new_link_and_touches_no_other() -> None:
    assert edit(bridges__0__ports__0__num_tx_queues=4) == ["node: veth-client removed", *CLIENT_ANEW]


def test_two_links_that_swap_their_ends_are_both_made_anew() -> None:
    def swapped(first: str, second: str) -> Spec:
        links = [{"ends": ["a:eth0", f"{first}:x"]}, {"ends": ["b:eth0", f"{second}:x"]}]
        return {"namespaces": {"a": {}, "b": {}, "c": {}, "d": {}}, "links": links, "routing": "none"}

    before, after = swapped("c", "d"), swapped("d", "c")
    steps = described(built(before), before, after)
    assert [step for step in steps if "veth" in step or "removed" in step] == [
        "a: eth0 removed",
        "d: x removed",
        "a: veth eth0 to d x",
        "b: veth eth0 to c x",
        "neighbour entries of 10.255.0.1, 10.255.0.5, 10.255.0.6 and 1 more removed",
    ]


def test_a_bridge_with_another_option_is_remade_and_its_ports_are_put_back() -> None:
    assert edit(bridges__0__stp=True) == [
        "node: cni0 removed",
        "node: bridge cni0",
        "node: attributes of veth-client",
        "node: sysctl net.ipv4.conf.cni0.send_redirects = 0",
        "node: cni0 up",
        "node: address 10.244.0.1/24 on cni0",
        "node: route 10.96.0.1/32 dev cni0",
    ]


def test_a_link_set_down_in_the_topology_and_up_again() -> None:
    down = edited(links__0__ends__1={"netns": "far", "ifname": "eth0", "up": False})
    kernel = built()
    assert described(kernel, LAB, down) == [
        "far: route 10.9.9.9/32 via 10.255.0.1 dev eth0 removed",
        "far: route 10.244.0.0/24 via 10.255.0.1 dev eth0 removed",
        "far: eth0 down",
    ]
    assert described(kernel, down, LAB) == [
        "far: eth0 up",
        "far: route 10.244.0.0/24 via 10.255.0.1",
        "far: route 10.9.9.9/32 via 10.255.0.1",
    ]


def test_sysctls_removed_changed_and_added() -> None:
    assert edit(namespaces__node__sysctls={"net.ipv4.tcp_sack": 1, "net.ipv4.tcp_ecn": 1}) == [
        "node: sysctl net.ipv4.conf.eth0.rp_filter back to its default",
        "node: sysctl net.ipv4.tcp_sack = 1",
        "node: sysctl net.ipv4.tcp_ecn = 1",
    ]


def test_routes_removed_and_added() -> None:
    assert edit(namespaces__node__routes=[{"to": "203.0.113.0/24", "kind": "prohibit"}]) == [
        "node: route blackhole 203.0.113.0/24 removed",
        "node: route prohibit 203.0.113.0/24",
    ]


def test_a_loopback_address_removed() -> None:
    assert edit(namespaces__node__loopback=[]) == [
        "far: route 10.9.9.9/32 via 10.255.0.1 dev eth0 removed",
        "node: address 10.9.9.9/32 on lo removed",
        "/etc/hosts of the lab",
    ]


def test_an_address_that_moves_takes_the_routes_from_it_along() -> None:
    routes = [
        {"to": "198.51.100.0/24", "via": "10.255.0.2", "src": "10.9.9.9"},
        {"to": "2001:db8::/32", "dev": "eth0", "src": "fd00:9::9"},
    ]
    moving = ["10.9.9.9/32", "fd00:9::9/128"]
    before = edited(namespaces__node__routes=routes, namespaces__node__loopback=moving)
    after = edited(
        namespaces__node__routes=routes,
        namespaces__node__loopback=[],
        bridges__0__addresses=["10.244.0.1/24", *moving],
    )
    assert described(built(before), before, after) == [
        "far: route 10.9.9.9/32 via 10.255.0.1 dev eth0 removed",
        "node: address fd00:9::9/128 on lo removed",
        "node: address 10.9.9.9/32 on lo removed",
        "node: address 10.9.9.9/32 on cni0",
        "node: address fd00:9::9/128 on cni0",
        "node: route 198.51.100.0/24 via 10.255.0.2 src 10.9.9.9",
        "node: route 2001:db8::/32 dev eth0 removed",
        "node: route 2001:db8::/32 dev eth0 src fd00:9::9",
        "neighbour entries of 10.9.9.9, fd00:9::9 removed",
        "/etc/hosts of the lab",
    ]


def test_a_pod_removed() -> None:
    assert edit(namespaces__client=None, bridges__0__ports=[]) == [
        "client: program web ended",
        "node: veth-client removed",
        "client: network namespace removed",
        "node: kube-proxy's rules",
        "neighbour entries of 10.244.0.2 removed",
        "/etc/hosts of the lab",
    ]


def test_a_pod_added() -> None:
    assert edit(namespaces__more={"role": "pod"}, bridges__1__ports=["server", "more"]) == [
        "more: network namespace",
        "far: veth veth-more to more eth0",
        "far: veth-more up",
        "more: lo up",
        "more: eth0 up",
        "more: address 10.244.1.3/24 on eth0",
        "more: route default via 10.244.1.1",
        "/etc/hosts of the lab",
    ]


def test_a_pod_moved_to_another_node() -> None:
    assert edit(bridges__0__ports=[], bridges__1__ports=["server", "client"]) == [
        "client: eth0 removed",
        "far: veth veth-client to client eth0",
        "far: veth-client up",
        "client: eth0 up",
        "client: address 10.244.1.3/24 on eth0",
        "client: route default via 10.244.1.1",
        "node: kube-proxy's rules",
        "neighbour entries of 10.244.0.2 removed",
        "/etc/hosts of the lab",
    ]


def test_a_service_added_and_all_services_removed() -> None:
    more = {"port": 53, "protocol": "UDP", "endpoints": ["server"]}
    assert edit(services__dns=more) == [
        "node: route 10.96.0.2/32 dev cni0",
        "node: kube-proxy's rules",
        "node: conntrack's UDP entries that lead to no endpoint any more removed",
        "/etc/hosts of the lab",
    ]
    assert edit(services={}) == [
        "node: kube-proxy's rules removed",
        "node: route 10.96.0.1/32 dev cni0 removed",
        "node: sysctl net.ipv4.conf.cni0.send_redirects back to its default",
        "node: sysctl net.ipv4.conf.all.send_redirects back to its default",
        "/etc/hosts of the lab",
    ]


def test_a_fix_changes_the_rules_alone() -> None:
    assert edit(kube_proxy__drop_invalid=True) == ["node: kube-proxy's rules"]


def test_a_table_changed_added_and_removed() -> None:
    assert edit(namespaces__node__tables={"inet tour": "set seen { type ipv4_addr; }"}) == ["node: table inet tour"]
    assert edit(namespaces__far__tables={"inet tour": "", "arp tour": ""}) == [
        "far: table inet tour",
        "far: table arp tour",
    ]
    assert edit(namespaces__node__tables=None) == ["node: table inet tour removed"]
    assert edit(namespaces__node__tables={"ip tour": ""}) == [
        "node: table inet tour removed",
        "node: table ip tour",
    ]


def test_conntrack_forgets_what_it_tracks_no_longer() -> None:
    kernel, plain = built(), topology()
    fixed = fixes.apply(plain, ["notrack"])
    steps = difference([plain], fixed, kernel.look(plain, fixed))
    kernel.apply(steps)
    assert [step.describe() for step in steps] == [
        "node: table ip netlab_notrack",
        "node: conntrack's entries of untracked connections removed",
    ]
    assert steps[1] == DeleteEntries("node", ((ip_address("10.96.0.1"), 80), (ip_address("10.244.1.2"), 80)))
    back = difference([fixed], plain, kernel.look(fixed, plain))
    assert [step.describe() for step in back] == ["node: table ip netlab_notrack removed"]


def test_a_table_that_drifted_is_loaded_in_one_transaction_and_a_users_own_stays() -> None:
    kernel = built()
    kernel.tables["node", "inet", "tour"] = "chain seen { }"
    kernel.tables["node", "inet", "mine"] = "chain mine { }"
    [step] = difference([topology()], topology(), kernel.look(topology(), topology()))
    table = topology().netns("node").tables[0]
    assert step == LoadTable("node", table, replace=True, former=(table,))
    assert described(kernel) == ["node: table inet tour"]
    del kernel.tables["node", "inet", "tour"]
    assert described(kernel) == ["node: table inet tour"]
    del kernel.tables["node", "inet", "tour"]
    assert described(kernel, LAB, edited(namespaces__node__tables=None)) == []
    assert kernel.tables == {("node", "inet", "mine"): "chain mine { }"}


def test_rules_of_another_mode_or_family_go_with_the_change_that_brings_the_new_ones() -> None:
    kernel = built()
    kernel.rules["node"]["inet", "mine"] = "rules"
    nftables = edited(kube_proxy__mode="nftables")
    assert described(kernel, new=nftables) == ["node: kube-proxy's rules"]
    assert set(kernel.rules["node"]) == {("ip", "kube-proxy"), ("inet", "mine")}
    assert described(kernel, nftables) == ["node: kube-proxy's rules"]
    assert set(kernel.rules["node"]) == {("ip", "nat"), ("ip", "filter"), ("inet", "mine")}

    six = edited(kube_proxy__mode="nftables", services__web__cluster_ip=["10.96.0.1", "fd00::1"], ipv6=True)
    described(kernel, new=six)
    assert set(kernel.rules["node"]) == {("ip", "kube-proxy"), ("ip6", "kube-proxy"), ("inet", "mine")}
    described(kernel, six, nftables)
    assert set(kernel.rules["node"]) == {("ip", "kube-proxy"), ("inet", "mine")}


def test_a_copy_of_rules_that_a_killed_change_has_left_goes() -> None:
    status = built().look(topology(), topology())
    status.covered.add("node")
    assert difference([topology()], topology(), status) == [UncoverRules("node")]


def test_a_qdisc_changed_added_and_removed() -> None:
    assert edit(links__0__ends__0__qdisc={"kind": "bfifo", "limit": 10}) == [
        "node: qdisc on eth0 removed",
        "node: qdisc bfifo on eth0",
    ]
    assert edit(links__0__ends__1={"netns": "far", "ifname": "eth0", "qdisc": {"kind": "bfifo", "limit": 10}}) == [
        "far: qdisc bfifo on eth0"
    ]
    assert edit(links__0__ends__0__qdisc=None) == ["node: qdisc on eth0 removed"]


def test_programs_changed_added_and_removed() -> None:
    assert edit(namespaces__client__programs__0__command="serve --some") == [
        "client: program web ended",
        "client: program web: serve --some",
    ]
    assert edit(namespaces__client__programs__0__env={"PORT": 81}) == [
        "client: program web ended",
        "client: program web: serve --all",
    ]
    assert edit(namespaces__client__programs__0__ready={"listening": 80}) == []
    assert edit(namespaces__server__programs=[{"name": "new", "command": "x"}]) == ["server: program new: x"]
    assert edit(namespaces__client__programs=None) == ["client: program web ended"]


# --- any edit, with any drift -----------------------------------------------------------------------------------------


def any_spec(chance: random.Random) -> Spec:
    """A topology drawn from a space small enough for two draws to have much in common."""

    def sometimes(value: Any, likely: float = 0.5) -> dict[str, Any]:
        return value if chance.random() < likely else {}

    pods = [pod for pod in ("p1", "p2", "p3") if chance.random() < 0.8]
    namespaces: dict[str, Any] = {
        "n1": {
            "role": "node",
            **sometimes({"loopback": chance.choice([["10.9.9.9/32"], ["10.9.9.9/32", "fd00:9::9/128"]])}),
            **sometimes({"sysctls": {"net.ipv4.tcp_sack": chance.choice([0, 1]), "net.ipv4.conf.br0.rp_filter": 2}}),
            **sometimes(
                {"routes": [{"to": "203.0.113.0/24", "kind": chance.choice(["blackhole", "prohibit", "unreachable"])}]}
            ),
        },
        "n2": {"role": "node", **sometimes({"sysctls": {"net.netfilter.nf_conntrack_tcp_be_liberal": 1}})},
        **{pod: {"role": "pod", **sometimes({"tables": {"ip t": chance.choice(["", "chain c { }"])}})} for pod in pods},
        "h": {},
    }
    ports: dict[str, list[Any]] = {"n1": [], "n2": []}
    for pod in pods:
        if chance.random() < 0.5:
            command = chance.choice(["serve", "serve --all"])
            namespaces[pod]["programs"] = [{"name": "web", "command": command, "env": {"A": chance.choice([1, 2])}}]
        port = {
            "netns": pod,
            **sometimes({"mtu": chance.choice([1300, 1400])}),
            **sometimes({"mac": "02:00:00:00:00:07"}, 0.2),
            **sometimes({"num_tx_queues": 2}, 0.2),
            **sometimes({"up": False}, 0.1),
            **sometimes({"qdisc": {"kind": "pfifo", "limit": chance.choice([5, 6])}}, 0.3),
        }
        ports[chance.choice(["n1", "n2"])].append(port)
    bridges = [
        {
            "name": "br0",
            "netns": node,
            "ports": ports[node],
            **sometimes({"stp": True}, 0.3),
            **sometimes({"mtu": 1450}, 0.3),
        }
        for node in ports
    ]
    far = chance.choice(["n2", "h"])
    links = [
        {"ends": ["n1:eth0", f"{far}:eth0"]},
        *([{"ends": ["n1:eth1", "h:eth1"]}] if chance.random() < 0.5 else []),
    ]
    return {
        "ipv6": chance.random() < 0.5,
        "namespaces": namespaces,
        "bridges": bridges,
        "links": links,
        **sometimes({"services": {"web": {"port": 80, "endpoints": pods[:1]}}}, 0.7),
        "kube_proxy": {
            "nodes": ["n1"],
            "drop_invalid": chance.random() < 0.5,
            **chance.choice([{"mode": "nftables"}, {"load_with": "iptables-restore"}, {}]),
        },
    }


def drift(kernel: Simulated, chance: random.Random) -> None:
    """Break something that the lab has, or add something of a user's."""
    key = chance.choice([key for key in kernel.links if key[1] != "lo"])
    netns = chance.choice(list(kernel.routes))
    match chance.randrange(13):
        case 0:
            kernel.delete_link(key)
        case 1:
            kernel.addresses.pop(key, None)
        case 2:
            kernel.routes[netns].clear()
        case 3:
            kernel.links[key] = kernel.links[key]._replace(up=False)
            kernel.down(key)
        case 4:
            kernel.links[key] = kernel.links[key]._replace(master=None)
        case 5:
            kernel.programs.clear()
        case 6:
            kernel.rules.clear()
        case 7:
            kernel.addresses.setdefault(key, set()).add(ip_interface("192.0.2.7/24"))
        case 8:
            kernel.sysctls = dict.fromkeys(kernel.sysctls, "7")
        case 9:
            kernel.routes[netns] = {
                route._replace(via=None if route.via is None else route.via + 1) for route in kernel.routes[netns]
            }
        case 10:
            kernel.qdiscs[key] = "netem delay 5ms"
        case 11:
            kernel.tables = dict.fromkeys(kernel.tables, "chain other { }")
        case 12:
            kernel.iptables = dict.fromkeys(kernel.iptables, "*filter")


def any_topology(chance: random.Random) -> Topology:
    while True:
        try:
            return topology(any_spec(chance))
        except TopologyError:
            continue


@pytest.mark.parametrize("seed", range(300))
def test_any_edit_of_any_lab_that_drifted_is_done_in_one_go(seed: int) -> None:
    chance = random.Random(seed)
    old, new = any_topology(chance), any_topology(chance)
    kernel = Simulated()
    kernel.apply(plan.up(old))
    for _ in range(chance.randrange(3)):
        drift(kernel, chance)
    steps = difference([old], new, kernel.look(old, new))
    kernel.apply(steps)
    left = [step.describe() for step in difference([new], new, kernel.look(new, new))]
    assert left == [], [step.describe() for step in steps]


def built_anew(wanted: Topology) -> Simulated:
    kernel = Simulated()
    kernel.apply(plan.up(wanted))
    return kernel


def all_there_is(kernel: Simulated) -> dict[str, object]:
    """What two equal labs have in common: all but the numbers of links, and MAC addresses that no topology gives."""

    def link(has: LinkStatus) -> object:
        return has.kind, has.up, has.master, has.attributes._replace(mac=None), dict(has.data)

    return {
        "links": {key: link(has) for key, has in kernel.links.items()},
        "addresses": {key: found for key, found in kernel.addresses.items() if found},
        "tables": {
            **kernel.tables,
            **{(n, *t): text for n, rules in kernel.rules.items() for t, text in rules.items()},
        },
        "peers": kernel.peers,
        "unrouted": kernel.unrouted,
        "routes": kernel.routes,
        "sysctls": kernel.sysctls,
        "iptables": kernel.iptables,
        "qdiscs": kernel.qdiscs,
        "hosts": kernel.hosts,
        "programs": kernel.programs,
    }


@pytest.mark.parametrize("seed", range(300))
def test_changes_that_were_cut_short_leave_nothing_to_the_one_that_is_not(seed: int) -> None:
    chance = random.Random(seed)
    had = [any_topology(chance)]
    kernel = built_anew(had[0])
    for _ in range(chance.randrange(1, 4)):
        new = chance.choice([*had, any_topology(chance)])
        steps = difference(had, new, kernel.look(*had, new))
        kernel.apply(steps[: chance.randrange(len(steps) + 1)])
        had.append(new)
    new = chance.choice([*had, any_topology(chance)])
    for _ in range(3):
        kernel.apply(difference(had, new, kernel.look(*had, new)))
        had = [new]
    assert difference(had, new, kernel.look(*had, new)) == []
    assert all_there_is(kernel) == all_there_is(built_anew(new))


# --- what somebody else has made, and who has moved ------------------------------------------------------------------


def enslaved(kernel: Simulated, key: tuple[str, str], master: str) -> None:
    """A bridge that somebody has made, and a link that is its port."""
    kernel.links[key[0], master] = kernel.links["node", "cni0"]._replace(ifindex=77)
    kernel.links[key] = kernel.links[key]._replace(master=master)


def test_a_port_of_somebody_elses_bridge_stays_one() -> None:
    kernel = built()
    enslaved(kernel, ("client", "eth0"), "theirs")
    assert described(kernel) == []
    wider = edited(bridges__0__ports__0__mtu=1300)
    assert described(kernel, LAB, wider) == ["node: attributes of veth-client", "client: attributes of eth0"]
    assert kernel.links["client", "eth0"].master == "theirs"
    assert kernel.links["client", "eth0"].attributes.mtu == 1300


def test_a_port_of_the_topologys_is_taken_back_and_one_that_it_lets_go_of_is_released() -> None:
    kernel = built()
    enslaved(kernel, ("node", "veth-client"), "theirs")
    assert described(kernel) == ["node: attributes of veth-client"]
    assert kernel.links["node", "veth-client"].master == "cni0"
    joined = edited(
        links__0__ends__1={"netns": "far", "ifname": "eth0", "bridge": "cni0"}, links__0__subnet="10.9.0.0/24"
    )
    alone = edited(
        links__0__ends__1={"netns": "far", "ifname": "eth0", "addresses": []}, links__0__subnet="10.9.0.0/24"
    )
    kernel = built(joined)
    assert "far: attributes of eth0" in described(kernel, joined, alone)
    assert kernel.links["far", "eth0"].master is None


def test_an_option_of_a_bridge_that_no_topology_said_is_left_alone() -> None:
    said, unsaid = edited(bridges__0__vlan_filtering=True), LAB
    kernel = built()
    kernel.links["node", "cni0"].data["IFLA_BR_VLAN_FILTERING"] = 1  # type: ignore[index]
    assert described(kernel, unsaid, unsaid) == []
    assert described(kernel, unsaid, said) == []
    assert "node: cni0 removed" in described(kernel, said, unsaid)
    assert "node: cni0 removed" in described(kernel, unsaid, said)


def test_a_route_of_another_metric_is_another_route() -> None:
    kernel = built()
    (default,) = kernel.routes["client"]
    other = default._replace(metric=7)
    kernel.routes["client"] = {other}
    assert described(kernel) == ["client: route default via 10.244.0.1"]
    assert kernel.routes["client"] == {default, other}
    without = edited(routing="none")
    described(kernel, LAB, without)
    assert kernel.routes["client"] == {other}


def test_the_metric_of_an_ipv6_route_may_be_the_one_that_it_has_anyway() -> None:
    routes = [{"to": "2001:db8::/32", "dev": "eth0", "metric": 1024}]
    spec = edited(namespaces__node__routes=routes)
    kernel = built(spec)
    kernel.routes["node"] = {r._replace(metric=None) if r.dst.version == 6 else r for r in kernel.routes["node"]}
    assert described(kernel, spec, spec) == []


def test_a_mac_address_that_changes_is_forgotten_by_neighbours() -> None:
    own = edited(bridges__0__ports__0__mac="02:00:00:00:00:07")
    other = edited(bridges__0__ports__0__mac="02:00:00:00:00:08")
    kernel = built(own)
    assert described(kernel, own, other) == [
        "client: attributes of eth0",
        "neighbour entries of 10.244.0.2 removed",
    ]
    assert described(kernel, other, other) == []


def test_the_mac_address_of_an_interface_that_is_given_none_is_its_own() -> None:
    kernel = built()
    link = kernel.links["client", "eth0"]
    attributes = link.attributes._replace(mtu=9000, mac="02:00:00:00:00:09")
    kernel.links["client", "eth0"] = link._replace(attributes=attributes)
    assert described(kernel) == ["client: attributes of eth0"]


def test_a_link_that_is_as_wanted_is_taken_for_the_labs_whoever_made_it() -> None:
    without = edited(bridges__0__ports=[], namespaces__client__programs=[])
    assert not any("veth" in step or "removed" in step for step in described(built(), without, LAB))


def test_a_pair_between_two_wanted_names_is_removed_once() -> None:
    kernel = built()
    kernel.delete_link(("client", "eth0"))
    kernel.delete_link(("server", "eth0"))
    kernel.apply([CreateLink(Veth(Interface("client", "eth0"), Interface("server", "eth0")))])
    assert [step for step in described(kernel) if "removed" in step] == [
        "client: eth0 removed",
        "neighbour entries of 10.244.0.2, 10.244.1.2 removed",
    ]


def test_an_address_that_goes_is_forgotten_and_a_new_one_is_not_known() -> None:
    more = [{"netns": "client", "mtu": 1400, "addresses": ["10.244.0.2/24", "10.244.0.9/24"]}]
    assert not any("neighbour" in step for step in edit(bridges__0__ports=more))
    less = described(built(edited(bridges__0__ports=more)), edited(bridges__0__ports=more), LAB)
    assert "neighbour entries of 10.244.0.9 removed" in less


def test_only_who_is_on_the_link_of_an_address_forgets_it() -> None:
    old, new = topology(LAB), topology(edited(bridges__1__ports__0={"netns": "server", "addresses": "10.244.1.77/24"}))
    steps = difference([old], new, built().look(old, new))
    assert [step.namespaces for step in steps if isinstance(step, ForgetNeighbours)] == [("far", "server")]


def test_an_address_that_goes_to_another_interface_is_forgotten() -> None:
    moved = edited(
        bridges__0__ports=[{"netns": "client", "mtu": 1400, "addresses": "10.244.0.1/24"}],
        bridges__0__addresses="10.244.0.2/24",
    )
    steps = described(built(), LAB, moved)
    assert "neighbour entries of 10.244.0.1, 10.244.0.2 removed" in steps or (
        "neighbour entries of 10.244.0.2, 10.244.0.1 removed" in steps
    )


def test_to_compare_a_lab_with_itself_makes_its_rules_once_and_looks_at_each_route_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: Counter[str] = Counter()

    def counted(what: Any, name: str) -> None:
        called = getattr(what, name)

        def count(*arguments: Any) -> Any:
            calls[name] += 1
            return called(*arguments)

        monkeypatch.setattr(what, name, count)

    many = [{"to": f"198.51.{number}.0/24", "via": "10.244.1.7"} for number in range(200)]
    lab = topology(edited(namespaces__far__routes=many))
    kernel = Simulated()
    counted(iptables_layout, "tables")
    kernel.apply(plan.up(lab))
    looks = [kernel.look(lab, lab), copy.deepcopy(kernel.look(lab, lab))]
    counted(IPv4Network, "__eq__")
    for status in looks:
        assert difference([lab], lab, status) == []
    routes = sum(len(netns.routes) for netns in lab.namespaces)
    assert routes > 200
    assert calls["tables"] <= 1  # by this test or by an earlier one
    assert calls["__eq__"] < 20 * routes
