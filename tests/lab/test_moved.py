"""When `up` returns on a lab that stands, whoever has moved answers at once, and what others have built stays."""

from __future__ import annotations

from pathlib import Path

import labs
import pytest
import skips
from command import Netlab

pytestmark = pytest.mark.kernel

ASK = """
import socket, sys
for address in sys.argv[1:]:
    family, kind, protocol, _, place = socket.getaddrinfo(address, 9, type=socket.SOCK_STREAM)[0]
    asked = socket.socket(family, kind, protocol)
    asked.settimeout(5)
    print(address, asked.connect_ex(place) == 111)
"""


def make(netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str, text: str) -> labs.Lab:
    skips.skip_unless_program("ip")
    lab = labs.make(netlab, lab_name, tmp_path, privilege, text)
    lab.up()
    return lab


def answers(lab: labs.Lab, netns: str, *addresses: str) -> bool:
    """Whether each address refuses a connection, which is an answer."""
    told = lab.exec(netns, "python3", "-c", ASK, *addresses)
    return told == "".join(f"{address} True\n" for address in addresses)


PODS = """
ipv6: true
namespaces: {{node: {{role: node}}, client: {{role: pod}}, a: {{role: pod}}, b: {{role: pod}}{more}}}
bridges: [{{name: cni0, netns: node, ports: [{ports}]}}]
"""
FOUR, SIX = [f"10.244.0.{last}" for last in (3, 4)], [f"fd00:10:244::{last}" for last in (3, 4)]


def test_pods_that_swap_their_addresses_answer_at_once(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    def given(*last: int) -> str:
        ends = (
            f'{{netns: {n}, addresses: [10.244.0.{i}/24, "fd00:10:244::{i}/64"]}}'
            for n, i in zip("ab", last, strict=True)
        )
        return PODS.format(more="", ports=f"client, {', '.join(ends)}")

    lab = make(netlab, lab_name, tmp_path, privilege, given(3, 4))
    assert answers(lab, "client", *FOUR, *SIX)
    lab.write(given(4, 3))
    assert "neighbour entries of 10.244.0.4, fd00:10:244::4, 10.244.0.3 and 1 more removed" in lab.up()
    assert answers(lab, "client", *FOUR, *SIX)
    assert lab.drift() == []


def test_addresses_left_open_stay_over_edits_and_up_again_has_nothing_to_do(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    services = "services: {{{}web: {{port: 80, endpoints: [b]}}}}\n".format
    lab = make(netlab, lab_name, tmp_path, privilege, PODS.format(more="", ports="client, a, b") + services(""))
    before = lab.exec("b", "cat", "/etc/hosts").splitlines()
    more = PODS.format(more=", extra: {role: pod}", ports="client, extra, a, b") + services("aa: {port: 1}, ")
    lab.write(more)
    assert "removed" not in lab.up()
    assert set(before) < set(lab.exec("b", "cat", "/etc/hosts").splitlines())
    assert answers(lab, "client", *FOUR, "10.244.0.5", *SIX, "fd00:10:244::5")
    for command in (("fix", "apply", "drop-invalid"), ("fix", "revert")):
        assert "neighbour" not in netlab(*command, "-l", lab.name).stderr
    assert (lab.drift(), lab.up()) == ([], f"lab {lab.name} is up: nothing to do\n")
    lab.write(PODS.format(more=", extra: {role: pod}", ports="extra, b") + services(""))
    lab.up()
    assert answers(lab, "extra", "10.244.0.4", "fd00:10:244::4")
    lab.down()
    lab.up()
    assert answers(lab, "extra", "10.244.0.3", "fd00:10:244::3")


def test_a_pod_whose_mac_address_changes_answers_at_once(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    lab = make(netlab, lab_name, tmp_path, privilege, PODS.format(more="", ports="client, a, b"))
    assert answers(lab, "client", *FOUR, *SIX)
    by_hand = "10.244.0.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent"
    lab.exec("client", "ip", "neigh", "replace", *by_hand.split())
    lab.write(PODS.format(more="", ports='client, {netns: a, mac: "02:00:00:00:00:07"}, b'))
    lab.up()
    assert answers(lab, "client", *FOUR, *SIX)
    assert "10.244.0.77" in lab.exec("client", "ip", "neigh")


def test_a_bridge_keeps_its_mac_address_when_ports_come_and_go(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    lab = make(netlab, lab_name, tmp_path, privilege, PODS.format(more="", ports="client, a, b"))
    before = lab.exec("node", "cat", "/sys/class/net/cni0/address")
    lab.write(PODS.format(more="", ports="client, b"))
    lab.up()
    assert lab.exec("node", "cat", "/sys/class/net/cni0/address") == before
    assert answers(lab, "client", "10.244.0.1")


def test_a_bridges_mtu_is_the_one_asked_for(netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str) -> None:
    text = PODS.format(more="", ports="client, a, b").replace("netns: node,", "netns: node, mtu: 1400,")
    lab = make(netlab, lab_name, tmp_path, privilege, text)
    assert lab.exec("node", "cat", "/sys/class/net/cni0/mtu") == "1400\n"
    assert lab.drift() == []


SWITCH = """
namespaces: {src: {}, switch: {}, dst: {}}
links:
  - ends: [{netns: src, addresses: 2.2.2.100/24}, {netns: switch, ifname: eth1, addresses: []}]
  - ends: [{netns: switch, ifname: eth2, addresses: []}, {netns: dst, addresses: 2.2.2.200/24}]
"""


def test_a_bridge_that_somebody_else_has_built_keeps_its_ports(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    lab = make(netlab, lab_name, tmp_path, privilege, SWITCH)
    for words in (
        "link add vsw type bridge",
        "link set eth1 master vsw",
        "link set eth2 master vsw",
        "link set vsw up",
    ):
        lab.exec("switch", "ip", *words.split())
    assert lab.drift() == []
    lab.write(SWITCH.replace("ifname: eth1,", "ifname: eth1, mtu: 1400,").replace("src,", "src, mtu: 1400,"))
    assert "switch: attributes of eth1" in lab.up()
    assert answers(lab, "src", "2.2.2.200")
    assert lab.drift() == []


def test_a_hand_added_route_of_another_metric_survives(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    text = """
    namespaces: {a: {routes: [{to: 198.51.100.0/24, via: 10.255.0.2}, {to: "fd09::/64", via: "fd00:10:255::2"}]}, b: {}}
    links: [{ends: [a, b]}]
    ipv6: true
    """
    lab = make(netlab, lab_name, tmp_path, privilege, text)
    by_hand = "198.51.100.0/24 via 10.255.0.2 dev eth0 metric 7"
    lab.exec("a", "ip", "route", "add", *by_hand.split())
    lab.exec("a", "ip", "-6", "route", "add", "fd09::/64", "via", "fd00:10:255::2", "metric", "7")
    lab.exec("a", "ip", "route", "del", "198.51.100.0/24", "metric", "0")
    lab.exec("a", "ip", "-6", "route", "del", "fd09::/64", "metric", "1024")
    assert lab.drift() == ["a: route 198.51.100.0/24 via 10.255.0.2", "a: route fd09::/64 via fd00:10:255::2"]
    lab.up()
    lab.write(text.replace("{to: 198.51.100.0/24, via: 10.255.0.2}, ", ""))
    assert "a: route 198.51.100.0/24 via 10.255.0.2 dev eth0 removed" in lab.up()
    assert lab.exec("a", "ip", "route", "show", "198.51.100.0/24").split() == by_hand.split()
    assert lab.drift() == []


def test_link_local_addresses_and_sysctls_of_interfaces_are_as_the_file_says(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    text = """
    namespaces:
      r:
        sysctls:
          net.ipv6.conf.eth3.addr_gen_mode: 0
          net.ipv4.conf.eth1.accept_redirects: 1
          net.ipv4.ip_forward: 1
      a: {}
    links:
      - ends: [{netns: r, ifname: eth1, addresses: "fe80::1"}, {netns: a, addresses: "fe80::2"}]
      - ends: [{netns: r, ifname: eth2, addresses: "fe80::1"}, {netns: a, addresses: "fe80::2"}]
      - ends: [{netns: r, ifname: eth3}, a]
    """
    lab = make(netlab, lab_name, tmp_path, privilege, text)
    assert lab.drift() == []
    keys = ("net.ipv6.conf.eth3.addr_gen_mode", "net.ipv4.conf.eth1.accept_redirects", "net.ipv4.ip_forward")
    assert lab.exec("r", "sysctl", "-n", *keys) == "0\n1\n1\n"
    assert answers(lab, "a", "fe80::1%eth0", "fe80::1%eth1")


def test_a_files_own_route_to_a_subnet_that_an_interface_is_in_is_the_one_there_is(
    netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str
) -> None:
    text = """
    namespaces:
      node: {role: node}
      client: {role: pod, routes: [{to: 10.0.0.0/24, dev: eth0}]}
      server: {role: pod, routes: [{to: 10.0.0.0/24, dev: eth0}]}
      a: {}
      b: {routes: [{to: 10.9.0.0/24, via: 10.9.0.1}, {to: "fd09::/64", via: "fd09::1"}]}
    bridges:
      - name: cni0
        netns: node
        addresses: 10.0.0.1/24
        ports: [{netns: client, addresses: 10.0.0.2/24}, {netns: server, addresses: 10.0.0.3/24}]
    links:
      - ends:
          - {netns: a, addresses: [10.9.0.1/24, "fd09::1/64"]}
          - {netns: b, addresses: [10.9.0.2/24, "fd09::2/64"]}
    services: {web: {port: 80, endpoints: [server]}}
    """
    lab = make(netlab, lab_name, tmp_path, privilege, text)
    assert lab.drift() == []
    assert answers(lab, "client", "10.0.0.1", "10.0.0.3")
    assert answers(lab, "b", "10.9.0.1", "fd09::1")
    assert "10.9.0.0/24 via 10.9.0.1 dev eth0" in lab.exec("b", "ip", "route")
