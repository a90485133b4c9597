"""What a file says of addresses and routes wins over what is derived, and over what the kernel has by itself."""

from __future__ import annotations

import pytest

from netlab.errors import TopologyError
from netlab.lab import plan
from netlab.lab.steps import AddAddress, AddRoute
from netlab.topology import load

LINK_LOCAL = """
namespaces: {r: {role: node}, a: {routes: [{to: "fd00:9::/64", via: "fe80::1", dev: eth0}]}, b: {}}
links:
  - ends: [{netns: r, ifname: eth1, addresses: [10.0.1.1/24, "fe80::1/64"]}, {netns: a, addresses: 10.0.1.2/24}]
  - ends: [{netns: r, ifname: eth2, addresses: [10.0.2.1/24, "fe80::1"]}, {netns: b, addresses: 10.0.2.2/24}]
"""


def configured(text: str, netns: str) -> list[str]:
    """The steps that give a namespace its addresses and routes."""
    steps = plan.up(load(text, "lab.yaml"))
    return [s.describe() for s in steps if isinstance(s, AddAddress | AddRoute) and s.netns == netns]


def refused(text: str) -> str:
    with pytest.raises(TopologyError) as caught:
        load(text, "lab.yaml")
    return str(caught.value)


def test_a_link_local_address_may_be_on_each_interface_of_a_namespace() -> None:
    assert configured(LINK_LOCAL, "r") == [
        "r: address 10.0.1.1/24 on eth1",
        "r: address fe80::1/64 on eth1",
        "r: address 10.0.2.1/24 on eth2",
        "r: address fe80::1/64 on eth2",
    ]


def test_a_link_local_address_is_on_one_interface_of_a_link() -> None:
    text = LINK_LOCAL.replace("addresses: 10.0.1.2/24", 'addresses: ["fe80::1/64"]')
    assert "fe80::1 is the address of r:eth1 already" in refused(text)


def test_a_link_local_address_is_no_name_and_no_subnet() -> None:
    ends = 'ends: [{netns: a, addresses: "fe80::1/64"}, b]'
    topology = load(f"ipv6: true\nnamespaces: {{a: {{role: node}}, b: {{role: pod}}}}\nlinks: [{{{ends}}}]", "lab.yaml")
    assert [str(address) for end in topology.interfaces() for address in end.addresses] == [
        "fe80::1/64",
        "fd00:10:255::1/64",
        "10.255.0.1/30",
        "fd00:10:255::2/64",
    ]
    assert "fe80" not in plan.hosts(topology)
    assert all(not route.dst.is_link_local for netns in topology.namespaces for route in netns.routes)


def test_a_link_local_gateway_needs_its_interface() -> None:
    assert refused(LINK_LOCAL.replace(", dev: eth0", "")) == (
        "lab.yaml:2:69: namespaces.a.routes[0].via: the gateway fe80::1 is link-local: which link it is on is not said"
        "\n  hint: dev: eth0"
    )


BRIDGED = """
namespaces:
  client: {role: pod, routes: [{to: 10.0.0.0/24, dev: eth0}]}
  node: {role: node}
  server: {role: pod}
bridges:
  - {name: cni0, netns: node, addresses: 10.0.0.1/24, ports: [{netns: client, addresses: 10.0.0.2/24}, server]}
services: {web: {port: 80, endpoints: [server]}}
"""


def test_a_pods_own_route_to_its_subnet_leads_past_its_node() -> None:
    assert configured(BRIDGED, "client") == [
        "client: address 10.0.0.2/24 on eth0",
        "client: route 10.0.0.1/32 dev eth0",
        "client: route 10.0.0.0/24 dev eth0",
        "client: route default via 10.0.0.1",
    ]
    assert "server: route 10.0.0.0/24 via 10.0.0.1" in configured(BRIDGED, "server")


@pytest.mark.parametrize(
    ("route", "made"),
    [
        ("{to: 10.0.0.0/24, dev: eth0}", ["fd00::/64 dev eth0", "10.0.0.0/24 dev eth0"]),
        (
            "{to: 10.0.0.0/24, via: 10.0.0.1}",
            ["10.0.0.1/32 dev eth0", "fd00::/64 dev eth0", "10.0.0.0/24 via 10.0.0.1"],
        ),
        ("{to: 10.0.0.0/24, kind: blackhole}", ["fd00::/64 dev eth0", "blackhole 10.0.0.0/24"]),
        (
            '{to: "fd00::/64", via: "fd00::1"}',
            ["fd00::1/128 dev eth0", "10.0.0.0/24 dev eth0", "fd00::/64 via fd00::1"],
        ),
    ],
)
def test_a_route_to_an_interfaces_own_subnet_takes_the_place_of_the_kernels(route: str, made: list[str]) -> None:
    ends = (
        'ends: [{netns: a, addresses: [10.0.0.1/24, "fd00::1/64"]}, {netns: b, addresses: [10.0.0.2/24, "fd00::2/64"]}]'
    )
    text = f"namespaces: {{a: {{}}, b: {{routes: [{route}]}}}}\nlinks: [{{{ends}}}]"
    topology = load(text, "lab.yaml")
    assert [end.prefix_route for end in topology.interfaces()] == [True, False]
    assert [step for step in configured(text, "b") if "route" in step] == [f"b: route {words}" for words in made]


def test_a_route_with_a_metric_of_its_own_stands_beside_the_kernels() -> None:
    text = "namespaces: {a: {}, b: {routes: [{to: 10.255.0.0/30, dev: eth0, metric: 5}]}}\nlinks: [{ends: [a, b]}]"
    assert [end.prefix_route for end in load(text, "lab.yaml").interfaces()] == [True, True]
