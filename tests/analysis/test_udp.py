"""Conversations of UDP, as whole texts: answered, refused, unanswered, by an entry that is stale. And on the kernel."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
import stories
from command import Netlab
from hops import Hops
from story import START_NS

from netlab.analysis.findings import analyse
from netlab.analysis.telling import tell
from netlab.analysis.udp import UdpEnding, conversations
from netlab.errors import UsageError
from netlab.record.events import (
    ConntrackEvent,
    Datagram,
    DatagramPacket,
    Direction,
    EntryChange,
    Event,
    TraceStep,
    Tuple,
)
from netlab.record.network import InterfaceState, NetworkState
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.recording import Recording, Tap, to_json
from netlab.record.words import endpoint
from netlab.report import explanation

TOPOLOGY = """\
name: dns
namespaces:
  node: {role: node, routes: [{to: default, via: 10.9.0.2}]}
  client: {role: pod}
  dns-1: {role: pod}
  dns-2: {role: pod}
  outside: {}
bridges:
  - {name: cni0, netns: node, subnet: 10.1.1.0/24, ports: [client, dns-1, dns-2]}
links:
  - {ends: ["node:eth0", "outside:eth0"], subnet: 10.9.0.0/24}
services:
  dns: {cluster_ip: 10.96.0.10, ports: [{port: 53, target_port: 5353, protocol: UDP}], endpoints: [dns-2]}
  empty: {cluster_ip: 10.96.0.11, ports: [{port: 53, protocol: UDP}], endpoints: []}
"""
CLIENT, DNS_1, DNS_2, NODE = (ip_address(f"10.1.1.{number}") for number in (2, 3, 4, 1))
VIP, EMPTY = ip_address("10.96.0.10"), ip_address("10.96.0.11")
ASKED = Tuple(CLIENT, 4000, VIP, 53, 17)
TAPS = tuple(
    Tap(netns, ifname, "node" if netns == "node" else "pod")
    for netns, ifname in (
        *(("client", "eth0"), ("dns-1", "eth0"), ("dns-2", "eth0"), ("outside", "eth0")),
        *(("node", ifname) for ifname in ("cni0", "veth-client", "veth-dns-1", "veth-dns-2", "eth0")),
    )
)
OUT, IN = Direction.OUT, Direction.IN
IN_NODE = (("client", "eth0", OUT), ("node", "veth-client", IN), ("node", "cni0", IN))
DNAT = 'meta l4proto udp counter dnat to 10.1.1.4:5353 comment "default/dns"'


def to(pod: str) -> tuple[tuple[str, str, Direction], ...]:
    """The way from the client to a pod."""
    return (*IN_NODE, ("node", "cni0", OUT), ("node", f"veth-{pod}", OUT), (pod, "eth0", IN))


def back(way: tuple[tuple[str, str, Direction], ...]) -> tuple[tuple[str, str, Direction], ...]:
    return tuple((netns, ifname, OUT if direction is IN else IN) for netns, ifname, direction in reversed(way))


def inverse(header: Tuple) -> Tuple:
    return Tuple(header.dst, header.dport, header.src, header.sport, header.proto)


def led_to(address: object, header: Tuple = ASKED) -> Tuple:
    """A header with an endpoint as its destination."""
    return replace(header, dst=address, dport=5353)  # type: ignore[arg-type]


def seen(
    at_us: int, way: tuple[tuple[str, str, Direction], ...], before: Datagram, after: Datagram | None = None
) -> Iterator[Event]:
    """A datagram on its way, 10 us a hop; from its fourth hop on it is what NAT made of it."""
    for place, (netns, ifname, direction) in enumerate(way):
        shown = before if place < 3 or after is None else after
        yield DatagramPacket(START_NS + (at_us + 10 * place) * 1000, netns, ifname, direction, shown)


def request(at_us: int, pod: str, address: object, header: Tuple = ASKED, ip_id: int = 7) -> Iterator[Event]:
    """A datagram of 7 bytes that comes to a pod."""
    yield from seen(at_us, to(pod), Datagram(header, 15, ip_id), Datagram(led_to(address, header), 15, ip_id))


def answer(at_us: int, pod: str, address: object, header: Tuple = ASKED, ip_id: int = 9) -> Iterator[Event]:
    """What comes back, of 20 bytes."""
    own = inverse(led_to(address, header))
    yield from seen(at_us, back(to(pod)), Datagram(own, 28, ip_id), Datagram(inverse(header), 28, ip_id))


def entry(
    at_us: int, change: EntryChange, address: object = DNS_2, header: Tuple = ASKED, *, translates: bool = True
) -> Iterator[Event]:
    reply = inverse(led_to(address, header)) if translates else inverse(header)
    yield ConntrackEvent(START_NS + at_us * 1000, "node", change, header, reply, ("CONFIRMED",))


def rule(
    at_us: int, chain: str, text: str, verdict: str, header: Tuple = ASKED, table: str = "nat", ip_id: int = 7
) -> Iterator[Event]:
    datagram = Datagram(header, 15, ip_id)
    yield TraceStep(START_NS + at_us * 1000, "node", at_us, "ip", table, chain, text, verdict, datagram=datagram)


def unreachable(at_us: int, about: Tuple, code: int = 3, source: object = NODE) -> Iterator[Event]:
    """The node's own ICMP error about a datagram of the client's."""
    header = Tuple(source, 0, CLIENT, 0, 1)  # type: ignore[arg-type]
    datagram = Datagram(header, 43, 0, 3, code, about)
    yield from seen(at_us, (("node", "veth-client", OUT), ("client", "eth0", IN)), datagram)


def network(at_us: int, *without: str) -> tuple[NetworkState, ...]:
    """All namespaces at a time, some of them without their address."""
    addresses = {"client": CLIENT, "dns-1": DNS_1, "dns-2": DNS_2, "node": NODE, "outside": ip_address("10.9.0.2")}
    return tuple(
        NetworkState(
            START_NS + at_us * 1000,
            netns,
            (InterfaceState("eth0", True, "UP", 1500, "", addresses=() if netns in without else ((address, 24),)),),
            *((), (), (), (), ()),
        )
        for netns, address in addresses.items()
    )


def with_rules(seen: Recording, first: str, now: str) -> Recording:
    """The node's rules as they were read at first and at the end; each is what its chains translate to."""
    listed = "table ip nat {{\n\tchain c {{\n\t\ttype nat hook prerouting priority 0;\n\t\t{}\n\t}}\n}}"
    network = [state for state in seen.network if state.netns != "node"]
    for time_ns, rules in ((seen.started_ns, first), (seen.ended_ns, now)):
        network.append(NetworkState(time_ns, "node", *((), (), (), (), (), ()), ruleset=listed.format(rules)))
    return replace(seen, network=tuple(network))


def recording(*groups: Iterator[Event]) -> Recording:
    events = tuple(event for group in groups for event in group)
    whole = Hops().recording(lab="dns", topology=TOPOLOGY, events=events, taps=TAPS, flows=())
    return replace(whole, ended_ns=max(event.time_ns for event in events), lost=())


def told(seen: Recording, wanted: str | None = None) -> str:
    text = explanation.render(tell(analyse(seen), wanted))
    assert max(map(len, text.splitlines())) <= 80
    return text


def answered(at_us: int = 0, header: Tuple = ASKED) -> Iterator[Event]:
    yield from entry(at_us + 15, EntryChange.NEW, header=header)
    yield from rule(at_us + 20, "KUBE-SEP-A", DNAT, "accept", header)
    yield from request(at_us, "dns-2", DNS_2, header)
    yield from answer(at_us + 200, "dns-2", DNS_2, header)


def later() -> Iterator[Event]:
    """The same from another port, more than a second later: the packets look alike."""
    yield from answered(2_000_000, replace(ASKED, sport=4002))


def refused() -> Iterator[Event]:
    """A Service without endpoints."""
    header = replace(ASKED, dst=EMPTY, sport=4001)
    yield from seen(1000, IN_NODE, Datagram(header, 15, 6))
    text = 'ip daddr 10.96.0.11 udp dport 53 counter reject comment "default/empty has no endpoints"'
    yield from rule(1030, "KUBE-SERVICES", text, "drop", header, "filter", ip_id=6)
    yield from unreachable(1040, header)


def test_a_datagram_that_is_translated_and_answered() -> None:
    assert (
        told(recording(answered()))
        == """\
ANSWERED: udp 10.1.1.2:4000 > 10.96.0.10:53 (endpoint 10.1.1.4:5353)
lab dns, no fix, kernel 6.18.44; 2 packets of this flow seen

     +0.000 ms  #1 leaves client: UDP, 7 bytes to 10.96.0.10:53
     +0.030 ms  -> NAT on node: its destination becomes 10.1.1.4:5353, by rule
                   `meta l4proto udp counter dnat to 10.1.1.4:5353 comment
                   "default/dns"` of chain KUBE-SEP-A (ip nat)
     +0.050 ms  -> #1 reaches dns-2
     +0.200 ms  -> dns-2 answers with #2: UDP, 20 bytes
     +0.230 ms  -> NAT on node: its source becomes 10.96.0.10:53
     +0.250 ms  -> #2 reaches client

Also:
  NAT on node: 10.1.1.2:4000 > 10.96.0.10:53 becomes 10.1.1.2:4000 >
    10.1.1.4:5353
  NAT on node: 10.1.1.4:5353 > 10.1.1.2:4000 becomes 10.96.0.10:53 >
    10.1.1.2:4000
"""
    )


def test_a_service_without_endpoints() -> None:
    assert (
        told(recording(answered(), refused()))
        == """\
REFUSED: udp 10.1.1.2:4001 > 10.96.0.11:53
lab dns, no fix, kernel 6.18.44; 2 packets of this flow seen

     +0.000 ms  #3 leaves client: UDP, 7 bytes to 10.96.0.11:53
     +0.020 ms  -> rule `ip daddr 10.96.0.11 udp dport 53 counter reject comment
                   "default/empty has no endpoints"` of chain KUBE-SERVICES (ip
                   filter) on node rejects it
     +0.040 ms  -> node answers with #4: ICMP port unreachable
     +0.050 ms  -> #4 reaches client: a connected socket there gets the error
                   (ECONNREFUSED), an unconnected one gets none
"""
    )


def test_no_socket_takes_it() -> None:
    """An ICMP error of the endpoint's own, translated on its way back."""
    header, about = Tuple(DNS_2, 0, CLIENT, 0, 1), led_to(DNS_2)
    error = seen(
        100,
        back(to("dns-2")),
        Datagram(header, 43, 0, 3, 3, about),
        Datagram(replace(header, src=VIP), 43, 0, 3, 3, ASKED),
    )
    again = request(500, "dns-2", DNS_2, ip_id=8)
    assert (
        told(recording(entry(15, EntryChange.NEW), request(0, "dns-2", DNS_2), error, again))
        == """\
REFUSED: udp 10.1.1.2:4000 > 10.96.0.10:53 (endpoint 10.1.1.4:5353)
lab dns, no fix, kernel 6.18.44; 3 packets of this flow seen

     +0.000 ms  #1 leaves client: UDP, 7 bytes to 10.96.0.10:53
     +0.030 ms  -> NAT on node: its destination becomes 10.1.1.4:5353
     +0.050 ms  -> it reaches dns-2, where no socket takes what comes to
                   10.1.1.4:5353
     +0.100 ms  -> dns-2 answers with #2: ICMP port unreachable
     +0.150 ms  -> #2 reaches client: a connected socket there gets the error
                   (ECONNREFUSED), an unconnected one gets none

Also:
  NAT on node: 10.1.1.2:4000 > 10.96.0.10:53 becomes 10.1.1.2:4000 >
    10.1.1.4:5353
"""
    )


def test_an_entry_that_leads_to_what_is_no_endpoint() -> None:
    assert (
        told(recording(entry(-5, EntryChange.FOUND, DNS_1), request(0, "dns-1", DNS_1), request(500, "dns-1", DNS_1)))
        == """\
STALE ENTRY: udp 10.1.1.2:4000 > 10.96.0.10:53 (endpoint 10.1.1.3:5353)
lab dns, no fix, kernel 6.18.44; 2 packets of this flow seen

                conntrack on node has an entry from before the observation,
                which leads to 10.1.1.3:5353
     +0.000 ms  -> #1 leaves client: UDP, 7 bytes to 10.96.0.10:53
     +0.010 ms  -> conntrack on node finds that entry for #1, so the rules of
                   NAT are not asked
     +0.030 ms  -> NAT on node: its destination becomes 10.1.1.3:5353
     +0.030 ms  -> no rule leads to 10.1.1.3:5353; the rules of default/dns lead
                   to 10.1.1.4:5353
     +0.050 ms  -> #1 reaches dns-1
     +0.050 ms  -> no answer of dns-1 to it was seen
     +0.500 ms  -> the entry is found for 1 more: #2

Also:
  each datagram keeps the entry for another while; on node `conntrack -D -p udp
    --orig-src 10.1.1.2 --orig-port-src 4000` ends it
  the rules are taken to be those of the topology
  NAT on node: 10.1.1.2:4000 > 10.96.0.10:53 becomes 10.1.1.2:4000 >
    10.1.1.3:5353
"""
    )


def test_an_entry_that_was_made_before_the_rules() -> None:
    way = (*IN_NODE, ("node", "eth0", OUT), ("outside", "eth0", IN))
    whole = recording(entry(-5, EntryChange.FOUND, translates=False), seen(0, way, Datagram(ASKED, 15, 7)))
    assert (
        told(whole)
        == """\
STALE ENTRY: udp 10.1.1.2:4000 > 10.96.0.10:53
lab dns, no fix, kernel 6.18.44; 1 packet of this flow seen

                conntrack on node has an entry from before the observation,
                which translates nothing
     +0.000 ms  -> #1 leaves client: UDP, 7 bytes to 10.96.0.10:53
     +0.010 ms  -> conntrack on node finds that entry for #1, so the rules of
                   NAT are not asked
     +0.010 ms  -> its destination stays 10.96.0.10:53; the rules of default/dns
                   lead to 10.1.1.4:5353
     +0.040 ms  -> #1 is not seen after coming into outside/eth0

Also:
  each datagram keeps the entry for another while; on node `conntrack -D -p udp
    --orig-src 10.1.1.2 --orig-port-src 4000` ends it
  the rules are taken to be those of the topology
"""
    )


TO_1, TO_2 = (f"ip daddr 10.96.0.10 udp dport 53 dnat to 10.1.1.{number}:5353" for number in (3, 4))


def test_rules_that_were_changed_by_hand_are_those_that_count() -> None:
    """The last datagram was surely sent after the change."""
    whole = recording(answered(), request(1000, "dns-2", DNS_2, ip_id=8), request(2000, "dns-2", DNS_2, ip_id=9))
    changed = told(with_rules(whole, TO_2, TO_1))
    assert "STALE ENTRY: udp 10.1.1.2:4000 > 10.96.0.10:53 (endpoint 10.1.1.4:5353)\n" in changed
    assert "-> #4 leaves client" in changed
    assert "no rule leads to 10.1.1.4:5353; the rules of default/dns lead to 10.1.1.3:5353" in " ".join(changed.split())
    assert "the rules are as they were read at the end" in changed
    assert "no rule leads to 10.1.1.4:5353, or to anywhere" in told(with_rules(whole, TO_2, "accept"))
    assert told(with_rules(whole, TO_2, TO_2)).startswith("UNANSWERED")


def test_an_entry_without_translation_is_not_stale_where_no_rule_translates() -> None:
    whole = recording(entry(-5, EntryChange.FOUND, translates=False), seen(0, IN_NODE, Datagram(ASKED, 15, 7)))
    assert told(whole).startswith("STALE ENTRY")
    assert told(with_rules(whole, "accept", "accept")).startswith("UNANSWERED")
    assert told(with_rules(whole, TO_1, TO_1)).startswith("STALE ENTRY")


def test_rules_that_came_after_the_entry() -> None:
    made = entry(15, EntryChange.NEW, translates=False)
    whole = recording(made, *(seen(at_us, IN_NODE, Datagram(ASKED, 15, at_us)) for at_us in (1, 1000, 2000)))
    assert "conntrack on node finds that entry for #3" in told(with_rules(whole, "accept", TO_1))
    assert told(whole).startswith("UNANSWERED")


def blackhole(answers: bool = True) -> Recording:
    """An endpoint that answers once, and then is gone."""
    first = answered() if answers else entry(15, EntryChange.NEW)
    way = to("dns-2")[:5]
    lost = seen(1000, way, Datagram(ASKED, 15, 8), Datagram(led_to(DNS_2), 15, 8))
    whole = recording(first, lost, unreachable(4000, ASKED, code=1))
    return replace(whole, network=(*network(-10), *network(4010, "dns-2")))


def test_an_entry_whose_endpoint_is_gone() -> None:
    assert (
        told(blackhole())
        == """\
STALE ENTRY: udp 10.1.1.2:4000 > 10.96.0.10:53 (endpoint 10.1.1.4:5353)
lab dns, no fix, kernel 6.18.44; 4 packets of this flow seen

     +0.015 ms  conntrack on node makes an entry, which leads to 10.1.1.4:5353
     +0.250 ms  -> 1 answer came to the client up to then
     +1.000 ms  -> #3 leaves client: UDP, 7 bytes to 10.96.0.10:53
     +1.010 ms  -> conntrack on node finds that entry for #3, so the rules of
                   NAT are not asked
     +1.030 ms  -> NAT on node: its destination becomes 10.1.1.4:5353
     +1.030 ms  -> no namespace had 10.1.1.4 any more at the end of the
                   observation
     +1.040 ms  -> #3 is not seen after leaving node/veth-dns-2
     +4.000 ms  -> node answers with #4: ICMP host unreachable
     +4.010 ms  -> #4 reaches client: a connected socket there gets the error,
                   an unconnected one gets none

Also:
  each datagram keeps the entry for another while; on node `conntrack -D -p udp
    --orig-src 10.1.1.2 --orig-port-src 4000` ends it
  NAT on node: 10.1.1.2:4000 > 10.96.0.10:53 becomes 10.1.1.2:4000 >
    10.1.1.4:5353
  NAT on node: 10.1.1.4:5353 > 10.1.1.2:4000 becomes 10.96.0.10:53 >
    10.1.1.2:4000
"""
    )


def test_an_entry_whose_endpoint_is_gone_and_replaced() -> None:
    text = " ".join(told(with_rules(blackhole(), TO_2, TO_1)).split())
    where = "no namespace had 10.1.1.4 any more at the end of the observation"
    assert f"{where}; the rules of default/dns lead to 10.1.1.3:5353 " in text
    assert "the rules are as they were read at the end" in text


def test_rules_that_lead_to_an_address_that_nobody_has_are_no_stale_entry() -> None:
    """Whether the address left before the entry was made, or after, can't be known."""
    assert (
        told(blackhole(answers=False))
        == """\
UNANSWERED: udp 10.1.1.2:4000 > 10.96.0.10:53 (endpoint 10.1.1.4:5353)
lab dns, no fix, kernel 6.18.44; 2 packets of this flow seen

     +0.000 ms  #1 leaves client: UDP, 7 bytes to 10.96.0.10:53
     +0.030 ms  -> NAT on node: its destination becomes 10.1.1.4:5353
     +0.040 ms  -> #1 is not seen after leaving node/veth-dns-2
     +0.040 ms  -> no namespace had 10.1.1.4 at the end
     +3.000 ms  -> node answers with #2: ICMP host unreachable
     +3.010 ms  -> #2 reaches client: a connected socket there gets the error,
                   an unconnected one gets none

Also:
  NAT on node: 10.1.1.2:4000 > 10.96.0.10:53 becomes 10.1.1.2:4000 >
    10.1.1.4:5353
"""
    )


def test_an_answer_that_is_dropped() -> None:
    drop = TraceStep(
        START_NS + 231_000,
        *("node", 9, "ip", "mine", "fw", "udp sport 5353 drop", "drop"),
        datagram=Datagram(inverse(ASKED), 28, 9),
    )
    events = [*answered()]
    whole = recording(iter([event for event in events if event.time_ns <= START_NS + 230_000]), iter([drop]))
    assert (
        told(whole)
        == """\
UNANSWERED: udp 10.1.1.2:4000 > 10.96.0.10:53 (endpoint 10.1.1.4:5353)
lab dns, no fix, kernel 6.18.44; 2 packets of this flow seen

     +0.000 ms  #1 leaves client: UDP, 7 bytes to 10.96.0.10:53
     +0.030 ms  -> NAT on node: its destination becomes 10.1.1.4:5353, by rule
                   `meta l4proto udp counter dnat to 10.1.1.4:5353 comment
                   "default/dns"` of chain KUBE-SEP-A (ip nat)
     +0.050 ms  -> #1 reaches dns-2
     +0.200 ms  -> dns-2 answers with #2: UDP, 20 bytes
     +0.230 ms  -> NAT on node: its source becomes 10.96.0.10:53
     +0.230 ms  -> dropped on node by rule `udp sport 5353 drop` of chain fw (ip
                   mine)

Also:
  NAT on node: 10.1.1.2:4000 > 10.96.0.10:53 becomes 10.1.1.2:4000 >
    10.1.1.4:5353
  NAT on node: 10.1.1.4:5353 > 10.1.1.2:4000 becomes 10.96.0.10:53 >
    10.1.1.2:4000
"""
    )


def test_what_was_lost_at_the_client_leaves_it_unexplained() -> None:
    whole = recording(entry(15, EntryChange.NEW), request(0, "dns-2", DNS_2))
    lost = replace(whole, lost=((ObserverId(ObserverKind.PACKETS, "client", "eth0"), 3),))
    assert [each.ending for each in conversations(analyse(whole).timeline)] == [UdpEnding.UNANSWERED]
    assert [each.ending for each in conversations(analyse(lost).timeline)] == [UdpEnding.UNEXPLAINED]
    assert "3 events lost by" in told(lost)


# --- which one -------------------------------------------------------------------------------------------------------


def test_what_failed_is_told_rather_than_what_was_answered_and_a_reset_before_both() -> None:
    whole = recording(answered(), later(), refused())
    assert told(whole).startswith("REFUSED: udp 10.1.1.2:4001 >")
    assert told(whole, "10.1.1.2:4002").startswith("ANSWERED: udp 10.1.1.2:4002 >")
    assert told(whole, "10.1.1.2:4002").endswith("  REFUSED: udp 10.1.1.2:4001 > 10.96.0.11:53\n")
    reset = stories.reset()
    both = replace(reset, events=(*reset.events, *refused()))
    assert told(both).startswith("RESET: 10.0.0.2:40000 >")
    assert told(both).count("REFUSED: udp 10.1.1.2:4001 > 10.96.0.11:53") == 1
    assert told(both, "10.1.1.2:4001").startswith("REFUSED: udp")
    completed = stories.completed()
    assert told(replace(completed, events=(*completed.events, *refused()))).startswith("REFUSED: udp")


def test_a_conversation_that_is_not_there() -> None:
    with pytest.raises(UsageError) as error:
        told(recording(answered(), refused()), "10.1.1.2:1")
    assert str(error.value) == ("no flow of 10.1.1.2:1 was seen\n  hint: those that were: 10.1.1.2:4000, 10.1.1.2:4001")


def test_an_answer_as_long_as_what_it_answers_is_a_packet_of_its_own() -> None:
    """Without an IP identification the addresses alone tell them apart."""
    whole = recording(entry(15, EntryChange.NEW), request(0, "dns-2", DNS_2, ip_id=0), echo())
    (found,) = conversations(analyse(whole).timeline)
    assert [(len(found.requests), len(found.answers)), found.ending] == [(1, 1), UdpEnding.ANSWERED]


def echo() -> Iterator[Event]:
    yield from seen(100, back(to("dns-2")), Datagram(inverse(led_to(DNS_2)), 15), Datagram(inverse(ASKED), 15))


def test_no_line_is_out_of_time_order() -> None:
    whole = recording(answered(), refused(), later())
    for seen in (whole, blackhole(), blackhole(answers=False)):
        findings = analyse(seen)
        for each in conversations(findings.timeline):
            chain = tell(findings, endpoint(*each.header[:2])).chain
            times = [step.time_ns for step in chain if step.time_ns is not None]
            assert times == sorted(times)


def test_the_command_on_a_recording(netlab: Netlab, tmp_path: Path) -> None:
    file = tmp_path / "recording.json"
    file.write_text(json.dumps(to_json(recording(refused()))))
    done = netlab("explain", file, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["ending"], found["packets"], found["flow"]) == (
        "refused",
        2,
        {
            "protocol": "udp",
            "client": {"netns": "client", "address": "10.1.1.2", "port": 4001},
            "service": {"address": "10.96.0.11", "port": 53},
            "endpoint": {"netns": None, "address": "10.96.0.11", "port": 53},
            "node": None,
        },
    )


# --- the kernel ------------------------------------------------------------------------------------------------------

ASK = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("", int(sys.argv[2])))
    sock.connect((sys.argv[1], 53))
    sock.settimeout(0.2)
    try:
        sock.send(b"query")
        sock.recv(100)
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.fixture
def lab(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> str:
    """The topology above, up."""
    file = tmp_path / "dns.yaml"
    file.write_text(TOPOLOGY)
    done = netlab("up", file, "--name", lab_name, privilege, "-q")
    assert done.returncode == 0, done.stderr
    return lab_name


def ask(netlab: Netlab, address: object, port: int) -> str:
    """Ask once from a port; what error the socket had."""
    done = netlab("exec", "client", "--", sys.executable, "-c", ASK, str(address), str(port))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def watched(netlab: Netlab, lab: str, *asked: tuple[object, int, str]) -> str:
    """What `explain` says of these, asked in turn, each with the error that it must get."""
    with subprocess.Popen(
        netlab.argv("explain", lab, "--for", "60"),
        env=netlab.environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as watching:
        assert watching.stderr is not None
        assert watching.stderr.readline().startswith(f"watching {lab}")
        for address, port, error in asked:
            assert ask(netlab, address, port) == error
        watching.send_signal(signal.SIGINT)
        text, errors = watching.communicate(timeout=30)
    assert (watching.returncode, errors) == (0, "")
    return " ".join(text.split())


@pytest.mark.kernel
def test_no_endpoint_and_no_socket_on_a_real_kernel(netlab: Netlab, lab: str) -> None:
    text = watched(netlab, lab, (EMPTY, 4001, "ConnectionRefusedError"), (VIP, 4000, "ConnectionRefusedError"))
    rejects = (
        r"REFUSED: udp 10\.1\.1\.2:4001 > 10\.96\.0\.11:53 .* #(\d+) leaves client: UDP, 5 bytes .* "
        r"-> rule `.* reject .*` of chain KUBE-SERVICES \(ip filter[^)]*\) on node rejects it .* "
        r"-> node answers with #(\d+): ICMP port unreachable .* -> #\2 reaches client: .* "
        r"Also: REFUSED: udp 10\.1\.1\.2:4000 > 10\.96\.0\.10:53 \(endpoint 10\.1\.1\.4:5353\)"
    )
    assert re.match(rejects, text), text
    text = watched(netlab, lab, (VIP, 4002, "ConnectionRefusedError"))
    no_socket = (
        r"REFUSED: udp 10\.1\.1\.2:4002 > 10\.96\.0\.10:53 \(endpoint 10\.1\.1\.4:5353\) .* "
        r"NAT on node: its destination becomes 10\.1\.1\.4:5353, by rule `.*` of chain KUBE-SEP-\w+ \(ip nat[^)]*\) .* "
        r"-> it reaches dns-2, where no socket takes what comes to 10\.1\.1\.4:5353 .* "
        r"-> dns-2 answers with #(\d+): ICMP port unreachable .* -> #\1 reaches client"
    )
    assert re.match(no_socket, text), text


@pytest.mark.kernel
def test_entries_from_before_the_rules_on_a_real_kernel(netlab: Netlab, lab: str) -> None:
    """The rules are away when the client first asks, or others lead to what is no endpoint."""

    def nft(*words: str, stdin: str = "") -> str:
        done = netlab("exec", "node", "--", "nft", *words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    rules = nft("list", "table", "ip", "nat")
    nft("delete table ip nat")
    assert ask(netlab, VIP, 4000) == "TimeoutError"
    by_hand = (
        "table ip nat { chain c { type nat hook prerouting priority -100; "
        "ip daddr 10.96.0.10 udp dport 53 dnat to 10.1.1.3:5353; }; }"
    )
    nft(by_hand)
    assert ask(netlab, VIP, 4001) == "ConnectionRefusedError"
    nft("delete table ip nat")
    nft("-f", "-", stdin=rules)
    text = watched(netlab, lab, (VIP, 4000, "TimeoutError"), (VIP, 4001, "ConnectionRefusedError"))
    before = (
        r"STALE ENTRY: udp 10\.1\.1\.2:4000 > 10\.96\.0\.10:53 lab .* "
        r"conntrack on node has an entry from before the observation, which translates nothing .* "
        r"-> #(\d+) leaves client: UDP, 5 bytes to 10\.96\.0\.10:53 .* "
        r"-> conntrack on node finds that entry for #\1, so the rules of NAT are not asked .* "
        r"its destination stays 10\.96\.0\.10:53; the rules of default/dns lead to 10\.1\.1\.4:5353 .* "
        r"#\1 is not seen after coming into outside/eth0 .* "
        r"STALE ENTRY: udp 10\.1\.1\.2:4001 > 10\.96\.0\.10:53 \(endpoint 10\.1\.1\.3:5353\)"
    )
    assert re.match(before, text), text
    assert netlab("exec", "node", "--", "conntrack", "-D", "-p", "udp").returncode == 0
    assert watched(netlab, lab, (VIP, 4000, "ConnectionRefusedError")).startswith("REFUSED: udp")
    nft("delete table ip nat")
    nft(by_hand)
    text = watched(netlab, lab, (VIP, 4000, "ConnectionRefusedError"))
    assert "no rule leads to 10.1.1.4:5353; the rules of default/dns lead to 10.1.1.3:5353" in text
    assert "the rules are as they were read at the end" in text
