"""Rules that are changed piece by piece are those that would have been loaded as a whole, as the kernel tells them."""

from __future__ import annotations

import random
import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import labs
import pytest
import skips
from command import Netlab

from netlab.kubeproxy import Ruleset, ruleset, shared
from netlab.kubeproxy.changed import transaction
from netlab.linux import nft
from netlab.model import (
    Endpoint,
    KubeProxy,
    Mode,
    Netns,
    Protocol,
    Role,
    Service,
    ServicePort,
    Topology,
    TrafficPolicy,
)

MODES = list(Mode)


def rules(mode: Mode, services: list[Service], **more: Any) -> Ruleset:
    kube_proxy = KubeProxy(("node",), (ip_network("10.0.0.0/16"), ip_network("fd00::/64")), mode=mode, **more)
    namespaces = (Netns("node", Role.NODE, loopback=()),)
    made = ruleset(Topology("lab", namespaces, services=tuple(services), kube_proxy=kube_proxy), "node")
    assert made is not None
    return made


def service(number: int, **more: Any) -> Service:
    addresses = (ip_address(f"10.96.0.{number + 1}"), ip_address(f"fd00:96::{number + 1}"))
    return Service(f"web{number}", addresses, (ServicePort(80, 8080),), endpoints(1, 2), **more)


def endpoints(*numbers: int) -> tuple[Endpoint, ...]:
    places = ((f"pod{n}", (ip_address(f"10.0.0.{n}"), ip_address(f"fd00::{n}"))) for n in numbers)
    return tuple(Endpoint(name, addresses, "node" if name < "pod3" else None) for name, addresses in places)


def edited(dice: random.Random, one: Service) -> Service:
    """The same Service with something else; each has addresses and node ports of its own."""
    number = int(one.name.removeprefix("web"))
    match dice.randrange(8):
        case 0:
            return one._replace(ports=(ServicePort(dice.choice((80, 81)), dice.choice((8080, 9090))),))
        case 1:
            return one._replace(ports=(*one.ports, ServicePort(53, 5353, Protocol.UDP, "dns")))
        case 2:
            return one._replace(endpoints=endpoints(*dice.sample(range(1, 6), dice.randrange(4))))
        case 3:
            return one._replace(session_affinity_s=dice.choice((None, 60, 120)))
        case 4:
            return one._replace(external_ips=(ip_address(f"192.0.{dice.randrange(2)}.{number}"),))
        case 5:
            policy = dice.choice(list(TrafficPolicy))
            return one._replace(internal_traffic_policy=policy, external_traffic_policy=policy)
        case 6:
            ranges = (ip_network("198.51.100.0/24"),)
            ips = (ip_address(f"203.0.{dice.randrange(2)}.{number}"),)
            return one._replace(load_balancer_ips=ips, load_balancer_source_ranges=ranges)
        case _:
            return one._replace(ports=(ServicePort(80, 8080, node_port=30000 + 2 * number + dice.randrange(2)),))


def told(made: Ruleset) -> str:
    owned = shared.owned_by(made.tables)
    return shared.ours(nft.list_tables(owned), owned)


@pytest.mark.kernel
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.usefixtures("own_netns")
def test_what_is_changed_is_what_would_have_been_loaded(mode: Mode, seed: int) -> None:
    skips.skip_unless_program("nft")
    dice = random.Random(seed)
    has = [service(number) for number in range(12)]
    nft.run(rules(mode, has).nft(replace=False))
    alone = 0
    for _ in range(8):
        wants = [edited(dice, one) if dice.random() < 0.15 else one for one in has]
        if dice.random() < 0.3:
            wants.pop(dice.randrange(len(wants)))
        if dice.random() < 0.3:
            wants.insert(dice.randrange(len(wants)), service(dice.randrange(20, 200)))
        old, new = rules(mode, has), rules(mode, wants)
        text = transaction(old.tables, new.tables)
        alone += text is not None
        nft.run(new.nft() if text is None else text)
        changed = told(new)
        nft.run(new.nft())
        assert changed == told(new)
        has = wants
    assert alone >= 4


@pytest.mark.kernel
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("own_netns")
def test_where_somebody_leads_to_what_goes_nothing_happens(mode: Mode) -> None:
    skips.skip_unless_program("nft")
    services = [service(number) for number in range(12)]
    old, new = rules(mode, services), rules(mode, services[1:])
    nft.run(old.nft(replace=False))
    table = old.tables[-1]
    gone = next(chain.name for chain in table.chains if chain.name not in {c.name for c in new.tables[-1].chains})
    nft.run(f"table {table.family} {table.name} {{ chain mine {{ jump {gone}; }}; }}")
    before = nft.run("list ruleset")
    text = transaction(old.tables, new.tables)
    assert text is not None
    with pytest.raises(OSError, match="busy"):
        nft.run(text)
    assert nft.run("list ruleset") == before


def test_one_service_is_changed_without_the_others() -> None:
    services = [service(number) for number in range(12)]
    for mode in MODES:
        wants = [services[0]._replace(endpoints=endpoints(1)), *services[1:]]
        text = transaction(rules(mode, services).tables, rules(mode, wants).tables)
        assert text is not None
        assert "web0" in text
        assert "web1" not in text
        assert text.count("delete chain") == 2


@pytest.mark.parametrize("mode", MODES)
def test_what_is_no_rule_or_element_is_replaced_as_a_whole(mode: Mode) -> None:
    services = [service(number) for number in range(12)]
    old = rules(mode, services).tables
    assert (
        transaction(old, rules(mode, [one._replace(cluster_ips=one.cluster_ips[:1]) for one in services]).tables)
        is None
    )
    assert transaction(old, rules(mode, services[:3]).tables) is None
    other = Mode.IPTABLES if mode is Mode.NFTABLES else Mode.NFTABLES
    assert transaction(old, rules(other, services).tables) is None
    longer = [one._replace(session_affinity_s=60) for one in services[:1]] + services[1:]
    again = [one._replace(session_affinity_s=90) for one in services[:1]] + services[1:]
    assert transaction(rules(mode, longer).tables, rules(mode, again).tables) is None


@pytest.mark.kernel
@pytest.mark.parametrize("mode", MODES)
def test_a_lab_at_rest_is_changed_so_and_beside_others_as_before(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, mode: Mode
) -> None:
    skips.skip_unless_program("nft")
    names = ", ".join(f"web{number}: {{port: 80, endpoints: [a]}}" for number in range(8))
    text = "namespaces: {node: {role: node}, a: {role: pod}}\nlinks: [{ends: [node, a]}]\n"
    text += f"services: {{{names}}}\n"
    text += f"kube_proxy: {{mode: {mode.value}}}\n"
    lab = labs.make(netlab, lab_name, tmp_path, privilege, text)
    lab.up()
    lab.up()
    table = "ip kube-proxy" if mode is Mode.NFTABLES else "ip nat"
    handle = _handle(lab, table)
    edited = text.replace("web3: {port: 80,", "web3: {port: 81,")
    lab.write(edited)
    assert lab.up() == f"lab {lab.name} is up: 1 change\n  node: kube-proxy's rules\n"
    assert _handle(lab, table) == handle
    (lab.directory() / "rest.json").unlink()
    assert lab.drift() == []
    assert lab.up() == f"lab {lab.name} is up: nothing to do\n"
    chains = re.findall(
        r"(?s)chain ((?:KUBE-SEP|endpoint)-\S+) \{(.*?)\n\t\}", lab.exec("node", "nft", f"list table {table}")
    )
    gone = next(name for name, rules in chains if "web5" in name + rules)
    lab.exec("node", "nft", f"table {table} {{ chain mine {{ jump {gone}; }}; }}")
    lab.up()
    lab.write(edited.replace("web5: {port: 80, endpoints: [a]}, ", ""))
    assert "node: kube-proxy's rules\n" in lab.up()
    assert f"jump {gone}" in lab.exec("node", "nft", f"list table {table}")
    (lab.directory() / "rest.json").unlink()
    assert lab.drift() == []


def _handle(lab: labs.Lab, table: str) -> str:
    return lab.exec("node", "nft", "-a", f"list table {table}").splitlines()[0]
