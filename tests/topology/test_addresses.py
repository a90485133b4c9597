"""What is filled in: addresses, interface names, derived routes and sysctls."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network
from itertools import islice
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.links import bridge
from netlab.model import IFNAMSIZ, Topology
from netlab.topology import addresses as addressing
from netlab.topology import load
from netlab.topology.kept import KEEP, held


def lab(text: str) -> Topology:
    return load(dedent(text), "lab.yaml")


def interfaces(topology: Topology) -> list[str]:
    """`netns:ifname address address …` of each interface, in order."""
    return [
        " ".join([f"{interface.netns}:{interface.ifname}", *map(str, interface.addresses)])
        for interface in topology.interfaces()
    ]


def routes(topology: Topology) -> list[str]:
    """`netns: destination via gateway` of each route, in order."""
    return [
        f"{netns.name}: {route.dst} via {route.via}" + (f" {route.kind}" if route.kind != "unicast" else "")
        for netns in topology.namespaces
        for route in netns.routes
    ]


def test_a_pool_is_cut_in_order_around_what_is_taken() -> None:
    taken = [ip_network(text) for text in ("10.0.1.128/25", "10.0.1.200/32", "10.0.3.0/24", "192.168.0.0/24", "::/0")]
    pool = addressing.Pool(ip_network("10.0.0.0/21"), taken)
    assert [str(pool.take(24)) for _ in range(7)] == [
        "10.0.0.0/24",
        "10.0.2.0/24",
        "10.0.4.0/24",
        "10.0.5.0/24",
        "10.0.6.0/24",
        "10.0.7.0/24",
        "None",
    ]


def test_a_pool_inside_what_is_taken_has_nothing() -> None:
    assert addressing.Pool(ip_network("10.0.0.0/24"), [ip_network("10.0.0.0/8")]).take(30) is None


def test_a_pool_aligns_larger_subnets() -> None:
    pool = addressing.Pool(ip_network("10.0.0.0/16"), [])
    assert [str(pool.take(length)) for length in (24, 22, 30)] == ["10.0.0.0/24", "10.0.4.0/22", "10.0.8.0/30"]


@pytest.mark.parametrize(
    ("network", "taken", "expected"),
    [
        ("10.0.0.0/29", {2, 3}, [1, 4, 5, 6]),
        ("10.0.0.0/30", set(), [1, 2]),
        ("10.0.0.0/31", set(), [0, 1]),
        ("10.0.0.0/32", set(), [0]),
        ("fd00::/126", set(), [1, 2, 3]),
        ("fd00::/127", set(), [0, 1]),
    ],
)
def test_hosts_of_a_network(network: str, taken: set[int], expected: list[int]) -> None:
    subnet = ip_network(network)
    first = int(subnet.network_address)
    found = addressing.hosts(subnet, {first + offset for offset in taken})
    assert [number - first for number in islice(found, 10)] == expected


@pytest.mark.parametrize(("members", "expected"), [(1, 24), (253, 24), (254, 24), (255, 23), (510, 23), (511, 22)])
def test_a_bridge_gets_a_subnet_that_its_members_fit_in(members: int, expected: int) -> None:
    assert bridge.prefixlen(4, members) == expected


def test_names_of_nodes_ends_fit_the_kernel_and_stay_unique() -> None:
    names = addressing.Names({"veth-client-3"})
    peers = ("client", "client", "a-very-long-name-1", "a-very-long-name-2", "a-very-long-name-1", "client")
    taken = {names.peer("veth", peer) for peer in peers}
    assert sorted(taken) == [
        *("veth-a-ver-5a71", "veth-a-ver-c9c6", "veth-a-ver-cc31", "veth-client", "veth-client-2", "veth-client-4")
    ]
    assert max(map(len, taken)) <= IFNAMSIZ


def test_names_of_others_ends_are_the_first_that_are_free() -> None:
    names = addressing.Names({"eth1", "lo"})
    assert [names.eth() for _ in range(3)] == ["eth0", "eth2", "eth3"]


@given(
    st.lists(st.ip_addresses(v=4, network="10.0.0.0/24"), max_size=20),
    st.lists(st.tuples(st.ip_addresses(v=4, network="10.0.0.0/24"), st.integers(20, 32)), max_size=20),
)
def test_an_address_is_in_the_first_network_that_has_it(
    addresses: list[IPv4Address], given: list[tuple[IPv4Address, int]]
) -> None:
    networks = [ip_network((int(address), length), strict=False) for address, length in given]
    known = addressing.Networks(networks)
    firsts = [network.network_address for network in networks]
    for address in (*addresses, *firsts, IPv6Address(int(addresses[0]) if addresses else 1)):
        expected = next((number for number, network in enumerate(networks) if address in network), None)
        assert known.first(address) == expected
        assert (address in known) == (expected is not None)


def test_everything_left_open() -> None:
    text = """
        namespaces: {node: {role: node}, a: {role: pod}, b: {role: pod}, h: {}, i: {}}
        bridges:
          - {name: br0, netns: node, ports: [a, b, "a:net1"]}
          - {name: br1, netns: node, ports: [a]}
        links:
          - ends: [node, h]
          - ends: [h, i]
          - ends: [h, i]
        """
    assert interfaces(lab(text)) == [
        "node:br0 10.244.0.1/24",
        "node:br1 10.244.1.1/24",
        "node:veth-a",
        "a:eth0 10.244.0.2/24",
        "node:veth-b",
        "b:eth0 10.244.0.3/24",
        "node:veth-a-2",
        "a:net1 10.244.0.4/24",
        "node:veth-a-3",
        "a:eth1 10.244.1.2/24",
        "node:veth-h 10.255.0.1/30",
        "h:eth0 10.255.0.2/30",
        "h:eth1 10.255.0.5/30",
        "i:eth0 10.255.0.6/30",
        "h:eth2 10.255.0.9/30",
        "i:eth1 10.255.0.10/30",
    ]
    assert lab(text) == lab(text)


def test_given_addresses_stay_and_open_ones_go_around_them() -> None:
    topology = lab("""
        namespaces: {node: {role: node}, a: {role: pod}, b: {role: pod}, c: {role: pod}, d: {role: pod}, e: {role: pod}}
        bridges:
          - name: br0
            netns: node
            subnet: 10.0.0.0/29
            ports: [a, {netns: b, addresses: 10.0.0.1}, {netns: c, addresses: [10.0.0.3/29, 10.9.9.9/32]}, d]
          - {name: br1, netns: node, addresses: 10.244.0.1/24, ports: [a, {netns: e, addresses: []}]}
          - {name: br2, netns: node}
        links:
          - ends: [{netns: a, addresses: 10.255.0.2/24}, node]
          - ends: [a, node]
        """)
    assert interfaces(topology) == [
        "node:br0 10.0.0.2/29",
        "node:br1 10.244.0.1/24",
        "node:br2 10.244.1.1/24",
        "node:veth-a",
        "a:eth0 10.0.0.4/29",
        "node:veth-b",
        "b:eth0 10.0.0.1/29",
        "node:veth-c",
        "c:eth0 10.0.0.3/29 10.9.9.9/32",
        "node:veth-d",
        "d:eth0 10.0.0.5/29",
        "node:veth-a-2",
        "a:eth1 10.244.0.2/24",
        "node:veth-e",
        "e:eth0",
        "a:eth2 10.255.0.2/24",
        "node:veth-a-3 10.255.0.1/24",
        "a:eth3 10.255.1.1/30",
        "node:veth-a-4 10.255.1.2/30",
    ]


def test_joined_bridges_share_a_subnet() -> None:
    topology = lab("""
        namespaces: {switch: , other: , a: , b: }
        bridges:
          - {name: br0, netns: switch, addresses: [], ports: [a, {netns: other, bridge: br0}]}
          - {name: br0, netns: other, addresses: [], ports: [b]}
        links:
          - ends: [a, {netns: other, bridge: br0, ifname: uplink}]
        """)
    assert interfaces(topology) == [
        "switch:br0",
        "other:br0",
        "switch:veth-a",
        "a:eth0 10.244.0.1/24",
        "switch:veth-other",
        "other:veth-switch",
        "other:veth-b",
        "b:eth0 10.244.0.2/24",
        "other:uplink",
        "a:eth1 10.244.0.3/24",
    ]
    near, far = topology.pairs()[-1]
    assert (near.netns, near.master, far.netns, far.master) == ("other", "br0", "a", None)


def test_ipv6_true_gives_each_ipv4_interface_an_ipv6_address_too() -> None:
    topology = lab("""
        ipv6: true
        namespaces: {node: {role: node}, a: {role: pod}, b: {role: pod}, c: {role: pod}}
        bridges:
          - name: br0
            netns: node
            addresses: 10.0.0.1/24
            ports: [{netns: a, addresses: [10.0.0.9/24, "fd00:1::9/64"]}, b, {netns: c, addresses: []}]
        links: [{ends: [node, c]}]
        services: {web: {port: 80, endpoints: [a]}}
        """)
    assert interfaces(topology) == [
        "node:br0 10.0.0.1/24 fd00:1::1/64",
        "node:veth-a",
        "a:eth0 10.0.0.9/24 fd00:1::9/64",
        "node:veth-b",
        "b:eth0 10.0.0.2/24 fd00:1::2/64",
        "node:veth-c",
        "c:eth0",
        "node:veth-c-2 10.255.0.1/30 fd00:10:255::1/64",
        "c:eth1 10.255.0.2/30 fd00:10:255::2/64",
    ]
    assert [str(ip) for ip in topology.service("web").cluster_ips] == ["10.96.0.1", "fd00:10:96::1"]
    assert topology.netns("node").sysctls == (
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv4.conf.all.send_redirects", "0"),
        ("net.ipv4.conf.br0.send_redirects", "0"),
    )


def test_a_lab_may_have_ipv6_alone() -> None:
    topology = lab("""
        namespaces: {node: {role: node}, a: {role: pod, loopback: ["fd00:9::9"]}, b: {role: pod}}
        bridges: [{name: br0, netns: node, subnet: "fd00:1::/64", ports: [a]}]
        links: [{ends: [node, b], subnet: "fd00:2::/127"}]
        services: {web: {port: 80, endpoints: [a]}}
        """)
    assert interfaces(topology) == [
        "node:br0 fd00:1::1/64",
        "node:veth-a",
        "a:eth0 fd00:1::2/64",
        "node:veth-b fd00:2::/127",
        "b:eth0 fd00:2::1/127",
    ]
    assert routes(topology) == [
        "node: fd00:9::9/128 via fd00:1::2",
        "node: fd00:10:96::1/128 via None",
        "a: ::/0 via fd00:1::1",
        "b: ::/0 via fd00:2::",
    ]
    assert [str(ip) for ip in topology.service("web").cluster_ips] == ["fd00:10:96::1"]


CHAIN = """
    routing: ROUTING
    namespaces:
      n1: {role: node}
      n2: {role: node, routes: [{to: 10.244.1.0/24, kind: blackhole}]}
      n3: {role: node, loopback: 10.3.3.3, sysctls: {net.ipv4.ip_forward: 0}}
      n4: {role: node}
      p1: {role: pod, loopback: 10.1.1.1}
      p3: {role: pod, routes: [{to: default, via: 10.244.1.1, metric: 5}, {to: 10.9.0.0/16, dev: eth0}]}
      lonely: {role: pod}
      h: {}
      between: {}
      client: {}
    bridges:
      - {name: cni0, netns: n1, ports: [p1]}
      - {name: cni0, netns: n3, ports: [p3]}
    links:
      - {ends: [n1, n2], subnet: 10.0.12.0/24}
      - {ends: [n2, n3], subnet: 10.0.23.0/24}
      - {ends: [h, n1], subnet: 10.0.1.0/24}
      - {ends: [n1, between], subnet: 10.0.2.0/24}
      - {ends: [between, n3], subnet: 10.0.3.0/24}
      - {ends: [client, h], subnet: 10.0.4.0/24}
    """


def test_routes_are_derived_over_the_fewest_nodes() -> None:
    topology = lab(CHAIN.replace("ROUTING", "auto"))
    assert routes(topology) == [
        "n1: 10.1.1.1/32 via 10.244.0.2",
        "n1: 10.0.23.0/24 via 10.0.12.2",
        "n1: 10.244.1.0/24 via 10.0.12.2",
        "n1: 10.0.3.0/24 via 10.0.12.2",
        "n1: 10.3.3.3/32 via 10.0.12.2",
        "n2: 10.244.1.0/24 via None blackhole",
        "n2: 10.244.0.0/24 via 10.0.12.1",
        "n2: 10.0.1.0/24 via 10.0.12.1",
        "n2: 10.0.2.0/24 via 10.0.12.1",
        "n2: 10.1.1.1/32 via 10.0.12.1",
        "n2: 10.0.3.0/24 via 10.0.23.2",
        "n2: 10.3.3.3/32 via 10.0.23.2",
        "n3: 10.0.12.0/24 via 10.0.23.1",
        "n3: 10.244.0.0/24 via 10.0.23.1",
        "n3: 10.0.1.0/24 via 10.0.23.1",
        "n3: 10.0.2.0/24 via 10.0.23.1",
        "n3: 10.1.1.1/32 via 10.0.23.1",
        "p1: 0.0.0.0/0 via 10.244.0.1",
        "p3: 0.0.0.0/0 via 10.244.1.1",
        "p3: 10.9.0.0/16 via None",
        "h: 0.0.0.0/0 via 10.0.1.2",
    ]
    assert [netns.node for netns in topology.namespaces] == [None] * 4 + ["n1", "n3"] + [None] * 4
    assert topology.netns("n3").sysctls == (("net.ipv4.ip_forward", "0"),)


def test_routing_none_derives_nothing() -> None:
    topology = lab(CHAIN.replace("ROUTING", "none"))
    assert routes(topology) == [
        "n2: 10.244.1.0/24 via None blackhole",
        "p3: 0.0.0.0/0 via 10.244.1.1",
        "p3: 10.9.0.0/16 via None",
    ]


def test_a_pod_on_two_nodes_takes_the_one_it_names() -> None:
    text = """
        namespaces: {n1: {role: node}, n2: {role: node}, pod: {role: pod, NODE}}
        links: [{ends: [pod, n1], subnet: 10.0.1.0/24}, {ends: [pod, n2], subnet: 10.0.2.0/24}]
        """
    assert routes(lab(text.replace("NODE", "")))[-1] == "pod: 0.0.0.0/0 via 10.0.1.2"
    assert routes(lab(text.replace("NODE", "node: n2")))[-1] == "pod: 0.0.0.0/0 via 10.0.2.2"


def test_a_gateway_may_be_link_local_or_on_a_host_route_of_its_own() -> None:
    topology = lab("""
        namespaces:
          pod:
            routes:
              - {to: 169.254.1.1, dev: eth0}
              - {to: default, via: 169.254.1.1, dev: eth0}
              - {to: "::/0", via: "fe80::1", dev: eth0}
          node: {role: node}
        links: [{ends: [{netns: pod, addresses: 10.0.0.2/32}, {netns: node, addresses: []}]}]
        """)
    assert routes(topology) == [
        "pod: 169.254.1.1/32 via None",
        "pod: 0.0.0.0/0 via 169.254.1.1",
        "pod: ::/0 via fe80::1",
    ]


def test_a_ports_mtu_holds_for_both_ends_of_its_pair() -> None:
    topology = lab("""
        namespaces: {node: {role: node}, pod: {role: pod}}
        bridges: [{name: br0, netns: node, ports: [{netns: pod, mtu: 9000, gso_max_segs: 1, port: vpod}]}]
        """)
    ((near, far),) = topology.pairs()
    assert (near.ifname, near.attributes.mtu, far.attributes.mtu) == ("vpod", 9000, 9000)
    assert (near.attributes.gso_max_segs, far.attributes.gso_max_segs) == (None, 1)


def test_a_thousand_pods_on_one_bridge() -> None:
    names = [f"pod-{number}" for number in range(1000)]
    pods = "".join(f"  {name}: {{role: pod}}\n" for name in names)
    bridge = f"- {{name: br0, netns: node, ports: [{', '.join(names)}]}}"
    topology = load(f"namespaces:\n  node: {{role: node}}\n{pods}bridges:\n{bridge}\n", "lab.yaml")
    assert interfaces(topology)[:3] == ["node:br0 10.244.0.1/22", "node:veth-pod-0", "pod-0:eth0 10.244.0.2/22"]
    assert interfaces(topology)[-1] == "pod-999:eth0 10.244.3.233/22"
    assert len({name for name in interfaces(topology) if name.startswith("node:veth-")}) == 1000


def test_a_namespace_keeps_the_addresses_of_thousands_of_interfaces() -> None:
    links = "".join("  - ends: [a, b]\n" for _ in range(1100))
    text = f"namespaces: {{a: {{}}, b: {{}}}}\nlinks:\n{links}"
    first = load(text, "lab.yaml")
    kept = ", ".join(f"{name}: [{', '.join(addresses)}]" for name, addresses in held(first).items())
    assert load(text, "lab.yaml", [(KEEP, f"{{{kept}}}")]) == first
