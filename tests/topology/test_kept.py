"""Addresses that are left open stay with who had them, whatever is edited around them."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from netlab.errors import TopologyError
from netlab.model import Topology
from netlab.topology import load
from netlab.topology.kept import KEEP, held

BEFORE = """
ipv6: true
namespaces: {node: {role: node}, client: {role: pod}, a: {role: pod}, b: {role: pod}, far: {}, farther: {}}
bridges: [{name: cni0, netns: node, ports: [client, a, b]}]
links: [{ends: [node, far]}, {ends: [node, farther]}]
services: {db: {port: 5432, endpoints: [a]}, web: {port: 80, endpoints: [b]}}
"""
HELD = {
    "node": (
        *("10.244.0.1/24", "fd00:10:244::1/64"),
        *("10.255.0.1/30", "fd00:10:255::1/64"),
        *("10.255.0.5/30", "fd00:10:255:1::1/64"),
    ),
    "client": ("10.244.0.2/24", "fd00:10:244::2/64"),
    "a": ("10.244.0.3/24", "fd00:10:244::3/64"),
    "b": ("10.244.0.4/24", "fd00:10:244::4/64"),
    "far": ("10.255.0.2/30", "fd00:10:255::2/64"),
    "farther": ("10.255.0.6/30", "fd00:10:255:1::2/64"),
    "db": ("10.96.0.1", "fd00:10:96::1"),
    "web": ("10.96.0.2", "fd00:10:96::2"),
}


def edited(was: Topology, text: str) -> Topology:
    """What a text becomes on a lab that stands."""
    return load(text, "lab.yaml", [(KEEP, json.dumps(held(was)))])


def test_what_a_lab_has() -> None:
    assert held(load(BEFORE, "lab.yaml")) == HELD


OTHER_BRIDGE = {
    "node": "10.9.0.1/24 10.255.0.1/30 10.255.0.5/30",
    "client": "10.9.0.2/24",
    "a": "10.9.0.3/24",
    "b": "10.9.0.4/24",
}
NEAR = {"far": "10.255.0.9/30 10.255.0.2/30", "farther": "10.255.0.10/30 10.255.0.6/30"}


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        ("ports: [client, a, b]", "ports: [client, b]", {"a": None, "db": None}),
        ("[client, a, b]", "[b, a, client]", {}),
        ("[client,", "[{netns: client, addresses: 10.244.0.3/24},", {"client": "10.244.0.3/24", "a": "10.244.0.2/24"}),
        ("[{ends: [node, far]}, {", "[{", {"far": None, "node": "10.244.0.1/24 10.255.0.5/30"}),
        ("links: [", "links: [{ends: [far, farther]}, ", NEAR),
        ("{db: {port: 5432, endpoints: [a]}, ", "{", {"db": None}),
        ("services: {", "services: {aa: {port: 1}, ", {"aa": "10.96.0.3"}),
        ("services: {", "services: {aa: {port: 1, cluster_ip: 10.96.0.2}, ", {"aa": "10.96.0.2", "web": "10.96.0.3"}),
        ("cni0, netns", "cni0, subnet: 10.9.0.0/24, netns", OTHER_BRIDGE),
        ("ipv6: true", "addressing: {bridges: 10.9.0.0/16}", OTHER_BRIDGE),
    ],
)
def test_an_edit_leaves_everyone_the_addresses_that_it_does_not_take(
    old: str, new: str, differs: dict[str, str | None]
) -> None:
    assert old in BEFORE
    text = BEFORE.replace(old, new)
    if "db" in differs:
        text = text.replace("db: {port: 5432, endpoints: [a]}, ", "")
    after = held(edited(load(BEFORE, "lab.yaml"), text))
    four = {name: " ".join(one for one in addresses if ":" not in one) for name, addresses in after.items()}
    was = {name: " ".join(one for one in addresses if ":" not in one) for name, addresses in HELD.items()}
    assert four == {name: address for name, address in {**was, **differs}.items() if address is not None}


def test_who_comes_between_others_shifts_none_of_them() -> None:
    text = BEFORE.replace("a: {role", "extra: {role: pod}, a: {role").replace("[client, a", "[client, extra, a")
    after = held(edited(load(BEFORE, "lab.yaml"), text))
    assert after == {**HELD, "extra": ("10.244.0.5/24", "fd00:10:244::5/64")}


def test_a_bridge_that_outgrows_its_subnet_gets_a_larger_one() -> None:
    def lab(pods: int) -> str:
        names = [f"p{number}" for number in range(pods)]
        spaces = {"node": {"role": "node"}, **{name: {"role": "pod"} for name in names}}
        return json.dumps({"namespaces": spaces, "bridges": [{"name": "cni0", "netns": "node", "ports": names}]})

    small = load(lab(253), "lab.yaml")
    large = held(edited(small, lab(254)))
    assert large["node"] == ("10.244.0.1/23",)
    assert large["p7"] == ("10.244.0.9/23",)
    again = held(edited(edited(small, lab(254)), lab(2)))
    assert again == {"node": ("10.244.0.1/23",), "p0": ("10.244.0.2/23",), "p1": ("10.244.0.3/23",)}


def _any(chance: random.Random) -> str:
    nodes, pods = ["n1", "n2"], ["p1", "p2", "p3", "p4", "p5"]
    spaces = {name: {"role": "node"} for name in nodes} | {name: {"role": "pod"} for name in pods}
    here: list[Any] = chance.sample(pods, chance.randrange(6))
    there = [name for name in pods if name not in here]
    if chance.random() < 0.3 and here:
        here[0] = {"netns": here[0], "addresses": f"10.244.0.{chance.randrange(2, 9)}/24"}
    bridges = [{"name": "br0", "netns": "n1", "ports": here}, {"name": "br0", "netns": "n2", "ports": there}]
    wires = [chance.sample(nodes + pods, 2) for _ in range(chance.randrange(6))]
    services = chance.sample(["s1", "s2", "s3", "s4"], chance.randrange(5))
    return json.dumps(
        {
            "ipv6": chance.random() < 0.5,
            "namespaces": spaces,
            "bridges": bridges if chance.random() < 0.5 else bridges[::-1],
            "links": [{"ends": ends} for ends in wires],
            "services": {name: {"port": 80, "endpoints": ["p1"]} for name in services},
        }
    )


@pytest.mark.parametrize("seed", range(300))
def test_any_edit_keeps_what_it_does_not_take_and_is_sound(seed: int) -> None:
    chance = random.Random(seed)
    lab = None
    for _ in range(4):
        text = _any(chance)
        try:
            fresh = load(text, "lab.yaml")
        except TopologyError:
            continue
        after = fresh if lab is None else edited(lab, text)
        addresses = [(i.netns, a) for i in after.interfaces() for a in i.addresses]
        assert len({a.ip for _, a in addresses}) == len(addresses), "each address is given once"
        assert edited(after, text) == after, "nothing moves without an edit"
        ips = [ip for service in after.services for ip in service.cluster_ips]
        assert len(set(ips)) == len(ips)
        if lab is not None:
            was, now = held(lab), held(after)
            names = {service.name for service in lab.services} & {service.name for service in after.services}
            assert all(now[name][0] == was[name][0] for name in names)
        lab = after
