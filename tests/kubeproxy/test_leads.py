"""Where rules lead, read from nft's listing: all that a datagram may be sent to, or None where that can't be read."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from places import DATA

from netlab.kubeproxy.leads import leads


@pytest.mark.parametrize("mode", ["nft", "iptables.nft"])
@pytest.mark.parametrize(
    ("address", "port", "sockets"),
    [
        ("10.96.0.2", 53, {("10.0.1.3", 8080), ("10.0.2.2", 8080)}),
        ("192.0.2.2", 53, {("10.0.1.3", 8080), ("10.0.2.2", 8080)}),
        ("fd00:96::2", 53, {("fd00:1::3", 8080), ("fd00:2::2", 8080)}),
        ("10.96.0.7", 53, set()),
        ("10.96.0.2", 54, set()),
        ("10.96.0.9", 53, set()),
    ],
)
def test_kube_proxys_own(mode: str, address: str, port: int, sockets: set[tuple[str, int]]) -> None:
    listing = (DATA / "rules" / f"services.node-a.{mode}").read_text()
    assert leads(listing, ip_address(address), port) == frozenset(
        (ip_address(host), number) for host, number in sockets
    )


def listed(*rules: str, kind: str = "nat") -> str:
    return "\n".join(
        (
            "table inet t { # handle 1",
            "\tchain c { # handle 1",
            f"\t\ttype {kind} hook prerouting priority dstnat; policy accept;",
            *(f"\t\t{rule} # handle 7" for rule in rules),
            "\t}",
            "}",
        )
    )


@pytest.mark.parametrize(
    ("rule", "to"),
    [
        ("dnat ip to 10.0.0.1", ("10.0.0.1", 53)),
        ("udp dport 53 dnat ip to 10.0.0.1:54", ("10.0.0.1", 54)),
        ("udp dport 54 dnat ip to 10.0.0.1", None),
        ("tcp dport 53 dnat ip to 10.0.0.1", None),
        ("ip daddr 10.0.0.8 dnat ip to 10.0.0.1", None),
        ("ip daddr 10.0.0.0/24 dnat ip to 10.0.0.1", ("10.0.0.1", 53)),
        ('counter dnat ip to 10.0.0.1:7 comment "goto nowhere"', ("10.0.0.1", 7)),
    ],
)
def test_a_rule(rule: str, to: tuple[str, int] | None) -> None:
    expected = frozenset({(ip_address(to[0]), to[1])} if to else ())
    assert leads(listed(rule), ip_address("10.0.0.9"), 53) == expected
    assert leads(listed(rule, kind="filter"), ip_address("10.0.0.9"), 53) == frozenset()


@pytest.mark.parametrize(
    "rule",
    ["dnat to numgen inc mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }", "redirect to :54", "ip protocol udp counter"],
)
def test_what_cannot_be_read_is_unknown(rule: str) -> None:
    """The last is how nft shows a target of iptables' that it doesn't know."""
    assert leads(listed(rule), ip_address("10.0.0.9"), 53) is None
