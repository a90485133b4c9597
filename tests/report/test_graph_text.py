"""`netlab graph`: a topology as text, for Mermaid, for Graphviz and as an SVG file."""

from __future__ import annotations

from textwrap import dedent
from xml.etree import ElementTree

import pytest
from command import Netlab
from hostile import HOSTILE, forbidden

from netlab import shipped
from netlab.model import Topology
from netlab.report.graph import BOX_WIDTH, svg_file
from netlab.report.graph_text import dot, mermaid, text
from netlab.report.markup import text_width
from netlab.topology import load, read

LAB = """
name: small
description: A pod, its node and a host
namespaces:
  node: {role: node}
  pod: {role: pod}
  host: {}
bridges: [{name: cni0, netns: node, addresses: 10.0.0.1/24, ports: [{netns: pod, addresses: 10.0.0.2/24}]}]
dummies: [{name: dummy0, netns: host, addresses: [192.0.2.1/32, 198.51.100.1/32]}]
links:
  - ends: [{netns: node, ifname: up0, addresses: 10.1.0.1/24}, {netns: host, ifname: eth0, addresses: 10.1.0.2/24}]
services: {web: {port: 80, target_port: 8080, endpoints: [pod]}}
"""
SMALL = load(LAB, "small.yaml")
TOPOLOGIES = {name: read(str(path))[1] for name, path in shipped.topologies().items()}


def test_text() -> None:
    vip = SMALL.service("web").cluster_ips[0]
    assert text(SMALL) == dedent(f"""\
        small: A pod, its node and a host

        node (node, kube-proxy's NAT)
          cni0      10.0.0.1/24      bridge
          veth-pod                   -- pod eth0, in cni0
          up0       10.1.0.1/24      -- host eth0

        pod (pod)
          eth0      10.0.0.2/24      -- node veth-pod

        host (host)
          eth0      10.1.0.2/24      -- node up0
          dummy0    192.0.2.1/32     dummy
                    198.51.100.1/32

        Service web: {vip}:80/TCP -> pod 10.0.0.2:8080
        """)


def test_mermaid() -> None:
    assert mermaid(SMALL) == dedent("""\
        flowchart LR
          n0["node<br>node, kube-proxy's NAT<br>cni0 10.0.0.1/24 bridge"]
          n1["pod<br>pod"]
          n2["host<br>host<br>dummy0 192.0.2.1/32 198.51.100.1/32 dummy"]
          n0 ---|"veth-pod<br>eth0 10.0.0.2/24"| n1
          n0 ---|"up0 10.1.0.1/24<br>eth0 10.1.0.2/24"| n2
        """)


def test_dot() -> None:
    assert dot(SMALL) == dedent(r"""
        graph "small" {
          node [shape=box]
          "node" [label="node\nnode, kube-proxy's NAT\ncni0 10.0.0.1/24 bridge"]
          "pod" [label="pod\npod"]
          "host" [label="host\nhost\ndummy0 192.0.2.1/32 198.51.100.1/32 dummy"]
          "node" -- "pod" [taillabel="veth-pod", headlabel="eth0\n10.0.0.2/24"]
          "node" -- "host" [taillabel="up0\n10.1.0.1/24", headlabel="eth0\n10.1.0.2/24"]
        }
        """).lstrip("\n")


def test_an_svg_file_is_well_formed_and_has_every_namespace() -> None:
    root = ElementTree.fromstring(svg_file(SMALL))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    heads = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text") if each.get("class") == "head"]
    assert heads == ["node", "pod", "host"]


LONG = "a-name-" + 7 * "longer-" + "pod"
LONG_NAMES = (
    LAB.replace("pod: {", f"{LONG}: {{loopback: 'fd00:1234:5678:9abc:def0:1234:5678:9abc/128', ")
    .replace("netns: pod", f"netns: {LONG}")
    .replace("[pod]", f"[{LONG}]")
)


@pytest.mark.parametrize("topology", [load(LONG_NAMES, "long.yaml"), *TOPOLOGIES.values()], ids=["long", *TOPOLOGIES])
def test_no_text_of_an_svg_file_is_wider_than_its_box(topology: Topology) -> None:
    for each in ElementTree.fromstring(svg_file(topology)).iter("{http://www.w3.org/2000/svg}text"):
        size = 14 if each.get("class") == "head" else 12
        assert text_width("".join(each.itertext()), size) < BOX_WIDTH - 20, ElementTree.tostring(each)


def test_a_long_name_goes_on_in_the_next_line() -> None:
    root = ElementTree.fromstring(svg_file(load(LONG_NAMES, "long.yaml")))
    heads = ["".join(each.itertext()) for each in root.iter() if each.get("class") == "head"]
    assert "".join(heads[1:-1]).replace(" ", "") == f"{LONG}pod"


@pytest.mark.parametrize("topology", TOPOLOGIES.values(), ids=TOPOLOGIES)
def test_every_shipped_topology(topology: Topology) -> None:
    told = text(topology)
    assert max(map(len, told.splitlines())) <= 80
    for interface in topology.interfaces():
        assert f"  {interface.ifname} " in told
        assert all(str(address) in told for address in interface.addresses)
    assert mermaid(topology).count(" ---|") == dot(topology).count(" -- ") == len(topology.pairs())
    ElementTree.fromstring(svg_file(topology))


@pytest.mark.parametrize("draw", [text, mermaid, dot, svg_file])
def test_what_a_topology_says_is_shown_and_not_obeyed(draw: object) -> None:
    assert callable(draw)
    odd = SMALL._replace(name='q"\\', description=HOSTILE)
    told = draw(odd)
    assert forbidden(told) == []
    if draw is dot:
        assert told.startswith('graph "q\\"\\\\" {\n')


@pytest.mark.parametrize("name", ["a-b", "graph", "end", "node", "subgraph", "edge"])
def test_a_name_that_means_something_to_graphviz_or_mermaid(name: str) -> None:
    odd = load(f"namespaces: {{{name}: {{}}, b: {{}}}}\nlinks: [{{ends: [{name}, b]}}]\n", "a-b.c.yaml")
    assert f'\n  "{name}" [label="{name}\\nhost"]\n' in dot(odd)
    assert f'\n  "{name}" -- "b" [' in dot(odd)
    assert f'\n  n0["{name}<br>host"]\n' in mermaid(odd)


def test_a_lab_without_a_link() -> None:
    alone = load("namespaces: {a: {}}\n", "alone.yaml")
    assert text(alone) == "alone\n\na (host)\n"
    assert mermaid(alone) == 'flowchart LR\n  n0["a<br>host"]\n'


@pytest.mark.parametrize(("name", "draw"), [("text", text), ("mermaid", mermaid), ("dot", dot), ("svg", svg_file)])
def test_the_command(netlab: Netlab, name: str, draw: object) -> None:
    assert callable(draw)
    done = netlab("graph", "kube-proxy-reset", "--format", name)
    assert (done.returncode, done.stdout, done.stderr) == (0, draw(TOPOLOGIES["kube-proxy-reset"]), "")
