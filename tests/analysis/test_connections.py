"""Which connections a recording has, by conntrack's tuples in any namespace, and by the SYNs that nothing tracked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address

import pytest
from story import FLOW, START_NS

from netlab.analysis.connections import completed, connections_in, homes
from netlab.record.events import ACK, RST, SYN, ConntrackEvent, Direction, EntryChange, Event, Packet, Segment, Tuple
from netlab.record.flow import Ends, Flow, inverse
from netlab.topology import load

TOPOLOGY = load(
    """\
name: three
namespaces:
  client: {role: pod}
  client-node: {role: node, loopback: [192.0.2.1]}
  server-node: {role: node}
  server: {role: pod, loopback: [10.0.0.2, 192.0.2.9]}
bridges:
  - {name: cni0, netns: client-node, addresses: 10.0.0.1/24, ports: [{netns: client, addresses: 10.0.0.2/24}]}
  - {name: cni0, netns: server-node, addresses: 10.0.1.1/24, ports: [{netns: server, addresses: 10.0.1.2/24}]}
links:
  - {ends: ["client-node:eth0", "server-node:eth0"], subnet: 10.1.0.0/24}
""",
    "three.yaml",
)
CLIENT, VIP, SERVER = (FLOW.client_address, 40000), (FLOW.vip, 80), (FLOW.endpoint, 8080)
NODE = (ip_address("10.1.0.1"), 50000)
ANOTHER_VIP = (ip_address("192.168.0.3"), 81)
STRANGER = (ip_address("203.0.113.7"), 443)
SENT, GOT = (*CLIENT, *VIP), (*CLIENT, *SERVER)
MASQUERADED = (*NODE, *SERVER)


def entry(netns: str, original: Ends, translated: Ends, proto: int = 6) -> ConntrackEvent:
    """An entry by which packets with the one header get the other."""
    reply = Tuple(*inverse(translated), proto)
    return ConntrackEvent(START_NS, netns, EntryChange.NEW, Tuple(*original, proto), reply, ())


def syn(netns: str, direction: str, header: Ends, seq: int = 1000, flags: int = SYN) -> Packet:
    """A client's first packet at an interface."""
    return Packet(START_NS, netns, "eth0", Direction(direction), Segment(*header, seq, 0, flags, 64, 0))


def found(*events: Event) -> tuple[Flow, ...]:
    return connections_in(TOPOLOGY, events)


def ways(*events: Event) -> list[tuple[Ends, ...]]:
    """The headers of each connection's packets, from the client's socket to the server's."""
    return [flow.headers() for flow in found(*events)]


# --- conntrack's tuples ----------------------------------------------------------------------------------------------


def test_an_entry_that_translates_names_both_ends_and_the_node() -> None:
    assert found(entry("client-node", SENT, GOT)) == (replace(FLOW, server_node="server-node"),)


def test_an_entry_that_does_not_translate_is_a_connection_too() -> None:
    (flow,) = found(entry("server-node", GOT, GOT))
    assert (flow.headers(), flow.node, flow.way) == ((GOT,), "server-node", ())


def test_only_tcp_has_connections() -> None:
    assert found(entry("client-node", SENT, GOT, proto=17)) == ()


@pytest.mark.parametrize("change", [EntryChange.FOUND, EntryChange.UPDATE, EntryChange.DESTROY])
def test_an_entry_from_before_is_no_connection_until_a_packet_of_it_is_seen(change: EntryChange) -> None:
    old = replace(entry("client-node", SENT, GOT), change=change)
    of_another = syn("client", "out", (CLIENT[0], 40001, *VIP), flags=ACK)
    assert found(old, of_another) == ()
    for header in (SENT, GOT, inverse(SENT), inverse(GOT)):
        assert ways(old, syn("client-node", "in", header, flags=ACK)) == [(SENT, GOT)]
    assert ways(old, entry("client-node", SENT, GOT)) == [(SENT, GOT)]
    assert ways(old, syn("client", "out", SENT)) == [(SENT, GOT)]


def test_each_connection_is_told_once_in_the_order_in_which_it_was_seen() -> None:
    other = (CLIENT[0], 40001, *VIP)
    events = (entry("client-node", other, (*other[:2], *SERVER)), *(entry("client-node", SENT, GOT),) * 2)
    assert [flow.client_port for flow in found(*events)] == [40001, 40000]


def test_a_namespace_that_tracks_what_was_translated_before_sees_the_same_connection() -> None:
    assert ways(entry("client-node", SENT, GOT), entry("server-node", GOT, GOT)) == [(SENT, GOT)]


def test_the_chain_of_translations_goes_over_all_namespaces() -> None:
    between = (*CLIENT, *ANOTHER_VIP)
    for events in (
        (entry("client-node", SENT, between), entry("server-node", between, MASQUERADED)),
        (entry("server-node", between, MASQUERADED), entry("client-node", SENT, between)),
    ):
        (flow,) = found(*events)
        assert flow.headers() == (SENT, between, MASQUERADED)
        assert (flow.node, flow.vip, flow.endpoint, flow.peer) == ("client-node", VIP[0], SERVER[0], NODE)


def test_translations_in_a_circle_end_where_they_began() -> None:
    between = (*CLIENT, *ANOTHER_VIP)
    events = (entry("client-node", SENT, between), entry("server-node", between, SENT), syn("server", "in", between))
    assert found(*events) == ()


def test_an_entry_made_for_an_answer_is_no_connection_of_its_own() -> None:
    """Conntrack adopts a packet of the server's in mid-stream, as if it began a connection."""
    made = entry("client-node", SENT, GOT)
    for answer in (inverse(GOT), inverse(SENT)):
        assert ways(made, entry("client-node", answer, answer)) == [(SENT, GOT)]
        assert ways(syn("client", "out", SENT), made, entry("client-node", answer, answer)) == [(SENT, GOT)]


def test_of_two_translations_the_first_holds() -> None:
    """The connection outlives its entry; the next one may lead elsewhere."""
    other = (*CLIENT, ip_address("10.0.1.9"), 8080)
    assert ways(entry("client-node", SENT, GOT), entry("client-node", SENT, other)) == [(SENT, GOT)]


def test_what_a_namespace_sees_between_its_two_translations_is_no_connection() -> None:
    """Destination first, source last: within the node the client still has its own address."""
    masquerades = entry("client-node", SENT, MASQUERADED)
    assert ways(masquerades, syn("client-node", "out", GOT)) == [(SENT, MASQUERADED)]
    assert ways(syn("client-node", "out", GOT), masquerades) == [(SENT, MASQUERADED)]


def test_a_connection_to_the_endpoint_itself_stays_one_beside_it() -> None:
    events = (entry("client-node", SENT, MASQUERADED), entry("server-node", GOT, GOT))
    assert ways(*events) == [(SENT, MASQUERADED), (GOT,)]


def test_an_end_outside_the_lab_is_no_connection_of_it() -> None:
    there = (*CLIENT, *STRANGER)
    assert found(entry("client-node", there, there)) == ()
    back = (*STRANGER, *SERVER)
    assert found(entry("client-node", back, back)) == ()


# --- SYNs ------------------------------------------------------------------------------------------------------------


def test_a_connection_that_nothing_tracks_is_known_by_its_syn() -> None:
    (flow,) = found(syn("client", "out", GOT), syn("server", "in", GOT))
    assert (flow.client, flow.node, flow.server, flow.headers()) == ("client", None, "server", (GOT,))


def test_only_a_syn_begins_one() -> None:
    for flags in (SYN | ACK, ACK, RST, 0):
        assert found(syn("client", "out", GOT, flags=flags)) == ()
    assert len(found(syn("client", "out", GOT, flags=SYN | RST))) == 1


def test_a_syn_the_other_way_is_the_same_connection() -> None:
    """Both ends at once."""
    assert ways(syn("client", "out", GOT), syn("server", "out", inverse(GOT), seq=7)) == [(GOT,)]


def test_who_sends_and_who_gets_it_stands_for_an_address_that_the_lab_did_not_give() -> None:
    header = (*STRANGER, ip_address("198.51.100.7"), 80)
    (flow,) = found(syn("client", "out", header), syn("server-node", "in", header))
    assert (flow.client, flow.server) == ("client", "server-node")
    assert found(syn("client", "out", header)) == ()


def test_the_last_that_gets_it_is_the_server() -> None:
    header = (*CLIENT, *STRANGER)
    (flow,) = found(syn("client-node", "in", header), syn("server-node", "in", header), syn("server", "out", header))
    assert flow.server == "server-node"


def test_a_syn_that_looks_like_another_is_its_translation() -> None:
    """Conntrack's events were not read: the SYN has another header after the node that crossed it."""
    seen = (syn("client-node", "in", SENT), syn("client-node", "out", GOT))
    (flow,) = found(syn("client", "out", SENT), *seen, syn("server", "in", GOT))
    assert (flow.headers(), flow.node) == ((SENT, GOT), "client-node")


def test_where_it_was_translated_is_unknown_if_no_namespace_shows_both_headers() -> None:
    (flow,) = found(syn("client", "out", SENT), syn("server", "in", GOT))
    assert (flow.headers(), flow.node) == ((SENT, GOT), None)


def test_a_syn_with_another_number_is_another_connection() -> None:
    vip = (*CLIENT, *SERVER[:1], 9090)
    assert ways(syn("client", "out", vip), syn("client", "out", GOT, seq=1001)) == [(vip,), (GOT,)]


def test_what_is_tracked_is_not_judged_by_its_looks() -> None:
    vip = (*CLIENT, *SERVER[:1], 9090)
    looks = (syn("client", "out", vip), syn("client", "out", GOT))
    for tracked in (vip, GOT):
        assert ways(entry("client-node", tracked, tracked), *looks) in ([(vip,), (GOT,)], [(GOT,), (vip,)])
    assert ways(*looks) == [(vip, GOT)]


# --- what a recorder knows already -----------------------------------------------------------------------------------


def test_what_was_found_completes_what_is_known() -> None:
    (found_,) = found(entry("client-node", SENT, MASQUERADED))
    assert completed([FLOW], [found_]) == (found_,)


def test_the_known_come_first_and_stay_where_nothing_was_found() -> None:
    other = replace(FLOW, client_port=40001)
    assert completed([FLOW], [other]) == (FLOW, other)
    assert completed([FLOW, other], [other, FLOW]) == (FLOW, other)
    assert completed([], [other]) == (other,)


def test_a_known_node_outlives_what_was_found_without_one() -> None:
    assert completed([FLOW], [replace(FLOW, node=None)]) == (FLOW,)
    assert completed([replace(FLOW, node="another")], [FLOW]) == (FLOW,)


def homes_of(*addresses: str) -> list[str | None]:
    known = homes(TOPOLOGY)
    return [known.get(ip_address(address)) for address in addresses]


def test_an_address_is_at_home_on_an_interface_before_a_loopback() -> None:
    assert homes_of("10.0.0.2", "10.0.0.1", "192.0.2.1", "192.0.2.9", "203.0.113.7") == [
        "client",
        "client-node",
        "client-node",
        "server",
        None,
    ]


def test_the_order_of_the_events_decides_nothing_but_the_order() -> None:
    events: Iterable[Event] = (syn("client", "out", SENT), entry("client-node", SENT, GOT), syn("server", "in", GOT))
    assert ways(*events) == ways(*tuple(events)[::-1]) == [(SENT, GOT)]
