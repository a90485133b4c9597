"""What NAT made of a packet in each namespace that it came through, and why not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hops import FLAGSHIP, Hops, other_flow
from story import FLOW, START_NS

from netlab.analysis.findings import ConnectionFinding, PacketFinding, analyse
from netlab.analysis.timeline import build
from netlab.analysis.translation import LEFT_ALONE, EntryLife, Nat, Translations, entry_lives, invalid_at
from netlab.record.events import (
    ACK,
    PSH,
    SYN,
    ConntrackEvent,
    EntryChange,
    Event,
    Packet,
    Tuple,
)
from netlab.record.flow import Ends, Flow, inverse
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.recording import Recording

NODE = "client-node"
UNMODELLED = ((ObserverId(ObserverKind.PACKETS, NODE, "eth0"), 1),)
"""What is lost so that the model has no say on the node."""
SENT, GOT = FLOW.headers()


def last(recording: Recording) -> PacketFinding:
    """The recording's last packet."""
    return connection(recording).packets[-1]


def connection(recording: Recording) -> ConnectionFinding:
    return analyse(recording).of(FLOW)[-1]


def nats(found: PacketFinding) -> list[tuple[str, Nat]]:
    """The namespaces that a packet came through, and what NAT made of it in each."""
    return [(visit.netns, visit.nat) for visit in found.visits]


def on_node(hops: Hops, **changes: object) -> Nat:
    """What NAT on the client's node made of the last packet."""
    (nat,) = (visit.nat for visit in last(hops.recording(**changes)).visits if visit.netns == NODE)
    return nat


# --- as it should be -------------------------------------------------------------------------------------------------


def test_both_ways_are_translated_where_the_entry_is() -> None:
    request, reply = connection(Hops().opened().recording()).packets[3:]
    ways = [("client", Nat.NOTHING_DUE), (NODE, Nat.TRANSLATED), ("server", Nat.NOTHING_DUE)]
    assert nats(request) == ways
    assert nats(reply) == ways[::-1]
    assert (request.left_alone, reply.left_alone) == (None, None)


def test_where_nobody_translates_nothing_is_due() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0, nat=False)
    flow = replace(FLOW, vip=FLOW.endpoint, port=FLOW.target_port)
    found = analyse(hops.recording(flows=(flow,))).of(flow)[0].packets[0]
    assert {nat for _, nat in nats(found)} == {Nat.NOTHING_DUE}


def test_a_visit_has_the_interface_that_a_packet_came_in_by_and_that_it_left_by() -> None:
    client, node, server = connection(Hops().opened().recording()).packets[3].visits
    names = [(hop.ifname if hop else None) for visit in (client, node, server) for hop in (visit.came, visit.left)]
    assert names == [None, "eth0", "veth-client", "eth0", "eth0", None]


def test_only_what_was_due_and_not_done_is_left_alone() -> None:
    assert {nat.value for nat in set(Nat) - LEFT_ALONE} == {"nothing-due", "translated"}


# --- left alone ------------------------------------------------------------------------------------------------------


def reply(hops_seen: int = 5) -> Hops:
    """A reply of 100 bytes that the node's NAT leaves alone."""
    hops = Hops().opened()
    hops.to_client(500, PSH | ACK, 1, 5, 100, nat=False, hops=hops_seen)
    return hops


def test_what_conntrack_finds_invalid_has_no_entry_to_translate_it() -> None:
    hops = Hops().filled()
    bad = hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False)
    hops.reason(712, "SEQ is over upper bound 7307 (over the window of the receiver)", bad)
    found = last(hops.recording())
    assert nats(found) == [("server", Nat.NOTHING_DUE), (NODE, Nat.INVALID), ("client", Nat.NOTHING_DUE)]
    assert found.left_alone == found.visits[1]
    assert found.visits[1].reason is not None
    assert [visit.reason is None for visit in found.visits] == [True, False, True]


def test_the_request_may_be_left_alone_too() -> None:
    hops = Hops().opened()
    hops.reason(512, "bad checksum", hops.to_server(500, ACK, 5, 1, 100, nat=False))
    # `nat=False` has the endpoint's own header all the way: here it is to have the VIP's.
    events = [_headed(event, SENT) if _is_data(event, 500) else event for event in hops.events]
    assert on_node(hops, events=tuple(events)) is Nat.INVALID


def _is_data(event: Event, at_us: int) -> bool:
    return isinstance(event, Packet) and event.time_ns >= START_NS + at_us * 1000


def _headed(event: Event, header: Ends) -> Event:
    assert isinstance(event, Packet)
    src, sport, dst, dport = header
    return replace(event, segment=replace(event.segment, src=src, sport=sport, dst=dst, dport=dport))


def test_an_entry_that_ended_translates_nothing_any_more() -> None:
    hops = reply()
    hops.entry(20, EntryChange.NEW)
    hops.entry(450, EntryChange.DESTROY)
    assert on_node(hops, lost=UNMODELLED) is Nat.NO_ENTRY


def test_an_entry_that_is_there_does_not_say_why() -> None:
    hops = reply()
    hops.entry(20, EntryChange.NEW)
    hops.entry(900, EntryChange.DESTROY)
    assert on_node(hops) is Nat.UNKNOWN


def test_nor_does_it_where_conntrack_told_nothing() -> None:
    assert on_node(reply()) is Nat.UNKNOWN


def test_an_entry_of_another_connection_says_that_this_one_has_none() -> None:
    hops = reply()
    hops.entry(20, EntryChange.NEW, other_flow())
    assert on_node(hops) is Nat.NO_ENTRY


@pytest.mark.parametrize("at_us", [499, 513])
def test_an_entry_made_for_an_answer_translates_nothing(at_us: int) -> None:
    """Told a little before or after the packet that it was made for."""
    hops = reply()
    hops.entry(20, EntryChange.NEW)
    hops.entry(450, EntryChange.DESTROY)
    hops.adopted(at_us)
    assert on_node(hops, lost=UNMODELLED) is Nat.ANOTHER_ENTRY


def test_one_that_was_made_and_gone_by_then_is_not_the_reason() -> None:
    hops = reply()
    hops.entry(20, EntryChange.NEW)
    hops.entry(450, EntryChange.DESTROY)
    hops.adopted(460)
    hops.events.append(_ended(hops.events[-1], 470))
    assert on_node(hops, lost=UNMODELLED) is Nat.NO_ENTRY


def _ended(made: Event, at_us: int) -> Event:
    assert isinstance(made, ConntrackEvent)
    return replace(made, time_ns=START_NS + at_us * 1000, change=EntryChange.DESTROY)


def test_so_does_the_model_say_where_the_kernel_told_of_no_entry() -> None:
    hops = reply()
    hops.entry(450, EntryChange.DESTROY)
    assert on_node(hops) is Nat.ANOTHER_ENTRY
    assert on_node(hops, lost=UNMODELLED) is Nat.NO_ENTRY


def test_what_stays_on_a_bridge_never_comes_to_nat() -> None:
    """The server is a neighbour of the client's: the reply comes back by the bridge alone."""
    beside = FLAGSHIP.replace(
        "      - {netns: client, addresses: 10.0.0.2/24}\n",
        "      - {netns: client, addresses: 10.0.0.2/24}\n      - {netns: beside, addresses: 10.0.0.3/24}\n",
    ).replace("  client-node: {role: node}\n", "  client-node: {role: node}\n  beside: {role: pod}\n")
    hops = reply()
    events = []
    for event in hops.events:
        if isinstance(event, Packet) and event.segment.payload_bytes == 100 and event.netns == NODE:
            if event.ifname == "cni0":
                continue
            if event.ifname == "eth0":
                event = replace(event, ifname="veth-beside")
        events.append(event)
    assert on_node(hops, events=tuple(events), topology=beside) is Nat.BRIDGED


def test_a_rule_may_keep_conntrack_from_it() -> None:
    assert on_node(reply(), fixes=("notrack",)) is Nat.UNTRACKED


def test_what_was_lost_before_it_left_may_have_been_translated() -> None:
    assert on_node(reply(hops_seen=2)) is Nat.NOTHING_DUE


def test_a_reply_that_reached_the_client_as_it_was_passed_a_translator_out_of_sight() -> None:
    hops = reply()
    events = tuple(event for event in hops.events if event.netns != NODE)
    found = last(hops.recording(events=events))
    assert nats(found) == [("server", Nat.NOTHING_DUE), ("client", Nat.NOTHING_DUE), (NODE, Nat.UNKNOWN)]
    assert found.left_alone is not None
    assert found.left_alone.hops[0].netns == "client"


@pytest.mark.parametrize("how", [{"nat": True}, {"nat": False, "hops": 1}])
def test_one_that_was_translated_or_did_not_reach_it_has_none(how: dict[str, bool | int]) -> None:
    hops = Hops().opened()
    hops.to_client(500, PSH | ACK, 1, 5, 100, **how)
    events = tuple(event for event in hops.events if event.netns != NODE)
    assert NODE not in [netns for netns, _ in nats(last(hops.recording(events=events)))]


def test_nor_has_a_request() -> None:
    hops = Hops().opened()
    hops.to_server(500, PSH | ACK, 5, 1, 100, nat=False)
    events = tuple(event for event in hops.events if event.netns != NODE)
    assert NODE not in [netns for netns, _ in nats(last(hops.recording(events=events)))]


# --- INVALID ---------------------------------------------------------------------------------------------------------


def test_a_logged_packet_that_was_translated_was_not_invalid() -> None:
    """Conntrack logs what it ignores, too."""
    hops = Hops().opened()
    hops.reason(512, "packet (index 0) in dir 0 ignored, state ESTABLISHED", hops.to_server(500, SYN, 0))
    path = build(hops.recording()).paths[-1]
    assert path.reasons
    assert not invalid_at(path, NODE)


def test_a_rules_verdict_decides() -> None:
    hops = reply()
    (whole,) = {event.segment for event in hops.events[-5:-4] if isinstance(event, Packet)}
    hops.invalid(513, 7, whole)
    path = build(hops.recording()).paths[-1]
    assert [invalid_at(path, netns) for netns in (NODE, "server", "client")] == [True, False, False]


def test_the_log_decides_where_the_model_says_nothing() -> None:
    hops = Hops()
    hops.entry(1, EntryChange.FOUND)
    bad = hops.to_client(500, ACK, 1, 5, 100, nat=False)
    path = build(hops.recording()).paths[-1]
    assert not invalid_at(path, NODE)
    hops.reason(512, "SEQ is over upper bound 7307", bad)
    path = build(hops.recording()).paths[-1]
    assert [invalid_at(path, netns) for netns in (NODE, "server")] == [True, False]


def test_where_the_model_lets_it_pass_the_log_alone_does_not_decide() -> None:
    hops = reply()
    (whole,) = {event.segment for event in hops.events[-5:-4] if isinstance(event, Packet)}
    hops.reason(512, "something else", whole)
    assert not invalid_at(build(hops.recording()).paths[-1], NODE)


# --- entries ---------------------------------------------------------------------------------------------------------


def lives(hops: Hops) -> list[tuple[int, int | None]]:
    """From when until when the node's entries were there, in microseconds."""
    found = entry_lives(build(hops.recording())).get(NODE, ())
    return [
        ((life.from_ns - START_NS) // 1000, None if life.until_ns is None else (life.until_ns - START_NS) // 1000)
        for life in found
    ]


def test_an_entry_lives_from_its_making_to_its_end() -> None:
    hops = Hops()
    hops.entry(20, EntryChange.NEW)
    assert lives(hops) == [(20, None)]
    hops.entry(30, EntryChange.UPDATE)
    assert lives(hops) == [(20, None)]
    hops.entry(40, EntryChange.DESTROY)
    assert lives(hops) == [(20, 40)]
    hops.entry(50, EntryChange.NEW)
    assert lives(hops) == [(20, 40), (50, None)]


@pytest.mark.parametrize("change", [EntryChange.UPDATE, EntryChange.FOUND])
def test_one_that_was_not_seen_to_be_made_was_there_before(change: EntryChange) -> None:
    hops = Hops()
    hops.entry(20, change)
    hops.entry(40, EntryChange.DESTROY)
    assert lives(hops) == [(0, 40)]


def test_a_new_one_in_its_place_is_another() -> None:
    """The end of the first was not told."""
    hops = Hops()
    hops.entry(20, EntryChange.NEW)
    hops.entry(30, EntryChange.NEW)
    hops.entry(40, EntryChange.DESTROY)
    assert lives(hops) == [(20, None), (30, 40)]


def test_each_header_has_its_own() -> None:
    hops = Hops()
    hops.entry(20, EntryChange.NEW)
    hops.entry(30, EntryChange.NEW, other_flow())
    hops.entry(40, EntryChange.DESTROY)
    assert lives(hops) == [(20, 40), (30, None)]


def test_only_tcp_counts() -> None:
    hops = Hops()
    hops.entry(20, EntryChange.NEW, tuple_orig=Tuple(*SENT, 17))
    assert lives(hops) == []


def test_it_is_there_from_the_first_moment_to_before_the_last() -> None:
    life = EntryLife(NODE, SENT, inverse(GOT), 20, 40)
    assert [life.there(moment) for moment in (19, 20, 39, 40)] == [False, True, True, False]
    assert replace(life, until_ns=None).there(10**18)


def test_it_translates_where_its_directions_are_not_each_others_inverse() -> None:
    assert EntryLife(NODE, SENT, inverse(GOT), 0).translates
    assert not EntryLife(NODE, GOT, inverse(GOT), 0).translates


# --- who translates --------------------------------------------------------------------------------------------------


def translators(flow: Flow, *entries: tuple[str, Ends, Ends]) -> tuple[str, ...]:
    events = tuple(
        ConntrackEvent(START_NS, netns, EntryChange.NEW, Tuple(*before, 6), Tuple(*inverse(after), 6), ())
        for netns, before, after in entries
    )
    timeline = build(replace(Hops().recording(flows=(flow,)), events=events, in_part=True))
    return Translations(timeline, flow, entry_lives(timeline)).translators


def test_the_namespace_whose_entry_has_both_headers_translates() -> None:
    assert translators(FLOW, ("server-node", SENT, GOT)) == ("server-node",)


def test_without_its_entry_it_is_the_flows_node() -> None:
    assert translators(FLOW) == (NODE,)
    assert translators(FLOW, ("server-node", GOT, GOT)) == (NODE,)
    assert translators(replace(FLOW, node=None)) == ()


def test_several_are_in_the_order_of_the_way() -> None:
    between = (*SENT[:2], FLOW.endpoint, 9090)
    flow = replace(FLOW, way=tuple(Tuple(*header, 6) for header in (SENT, between, GOT)))
    assert translators(flow, ("server-node", between, GOT), (NODE, SENT, between)) == (NODE, "server-node")


# --- an end that translates itself -----------------------------------------------------------------------------------


def own_client() -> Flow:
    """The flow as of a client whose own namespace translates it."""
    return replace(FLOW, node="client")


def from_own_client(*, nat: bool = True) -> Recording:
    """Its packets leave translated; the reply that comes in is not seen to become the VIP's."""
    hops = Hops()
    hops.to_server(0, SYN, 0, nat=False)
    hops.to_client(100, SYN | ACK, 0, 1, window=65160, nat=False)
    hops.to_server(200, ACK, 1, 1, nat=False)
    hops.to_client(300, ACK, 1, 1, 100, nat=False)
    if not nat:
        hops.entry(250, EntryChange.DESTROY, netns="client")
    else:
        hops.entry(10, EntryChange.NEW, netns="client")
    lost = ((ObserverId(ObserverKind.PACKETS, "client", "eth0"), 1),)  # the model has no say
    return hops.recording(flows=(own_client(),), lost=lost)


def test_a_client_that_translates_itself_is_believed_while_its_entry_lives() -> None:
    packets = analyse(from_own_client()).of(own_client())[0].packets
    assert [nats(each)[-1] for each in packets if not each.path.to_server] == [("client", Nat.TRANSLATED)] * 2


def test_and_not_any_more_once_that_is_gone() -> None:
    packets = analyse(from_own_client(nat=False)).of(own_client())[0].packets
    assert nats(packets[-1])[-1] == ("client", Nat.NO_ENTRY)
    assert nats(packets[1])[-1] == ("client", Nat.TRANSLATED)
