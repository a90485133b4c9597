"""What held a connection up: each cause, from the counters, the kernel's reasons, the rules and the windows."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hops import CLIENT, SERVER, Hops
from story import FLOW, START_NS

from netlab.analysis.findings import analyse
from netlab.analysis.stalls import Stall, StallKind, describe_stall, stalls
from netlab.record.events import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    CounterChange,
    Datagram,
    DatagramPacket,
    Direction,
    NeighbourChange,
    Packet,
    PacketDrop,
    TraceStep,
    Tuple,
)
from netlab.record.network import Neighbour
from netlab.record.recording import Recording

NODE = "client-node"
ERROR = Datagram(
    Tuple(ip_address("10.0.0.1"), 0, FLOW.client_address, 0, 1),
    556,
    9,
    3,
    4,
    Tuple(FLOW.client_address, FLOW.client_port, FLOW.vip, FLOW.port, 6),
)
"""An ICMP error, fragmentation needed, about what the client sent."""


def held_up(recording: Recording) -> tuple[Stall, ...]:
    """What held up the recording's last connection."""
    findings = analyse(recording)
    return stalls(findings.timeline, findings.of(FLOW)[-1])


def counted(hops: Hops, at_us: int, name: str, by: int = 3, netns: str = NODE) -> Hops:
    """A counter, as it was read at the end."""
    hops.events.append(CounterChange(START_NS + at_us * 1000, netns, name, by))
    return hops


def stuck() -> Hops:
    """#6 and #7 come no farther than the node's bridge."""
    hops = Hops().opened()
    hops.to_server(500, PSH | ACK, 5, 1, 1000, hops=3)
    hops.to_server(700, PSH | ACK, 5, 1, 1000, hops=3)
    return hops


# --- counters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("TcpExt.IPReversePathFilter", StallKind.REVERSE_PATH),
        ("IpExt.InNoRoutes", StallKind.NO_ROUTE),
        ("Ip.OutNoRoutes", StallKind.NO_ROUTE),
        ("Ip6InNoRoutes", StallKind.NO_ROUTE),
        ("Ip6OutNoRoutes", StallKind.NO_ROUTE),
    ],
)
def test_a_counter_explains_what_was_last_seen_in_its_namespace(name: str, kind: StallKind) -> None:
    assert held_up(counted(stuck(), 900, name).recording()) == (Stall(kind, NODE, (6, 7), 3, name),)


def test_another_namespaces_counter_explains_nothing() -> None:
    assert held_up(counted(stuck(), 900, "IpExt.InNoRoutes", netns="server").recording()) == ()


def test_a_counter_that_counts_something_else_explains_nothing() -> None:
    assert held_up(counted(stuck(), 900, "Tcp.RetransSegs").recording()) == ()


def test_packets_that_arrived_need_no_cause() -> None:
    assert held_up(counted(Hops().opened(), 900, "IpExt.InNoRoutes").recording()) == ()


def test_what_a_counter_counted_in_several_trials_is_added_up() -> None:
    hops = counted(counted(stuck(), 900, "IpExt.InNoRoutes"), 901, "IpExt.InNoRoutes", 4)
    assert [stall.count for stall in held_up(hops.recording())] == [7]


@pytest.mark.parametrize(("at_us", "explains"), [(-1, False), (0, True)])
def test_what_was_counted_before_the_connection_is_anothers(at_us: int, explains: bool) -> None:
    assert bool(held_up(counted(stuck(), at_us, "IpExt.InNoRoutes").recording())) is explains


def test_each_way_through_a_namespace_has_its_own_packets() -> None:
    """#6 was last seen coming into the node, #7 leaving it."""
    hops = Hops().opened()
    hops.to_server(500, PSH | ACK, 5, 1, 1000, hops=3)
    hops.to_server(700, PSH | ACK, 1005, 1, 1000, hops=4)
    assert [stall.numbers for stall in held_up(counted(hops, 900, "IpExt.InNoRoutes").recording())] == [(6,), (7,)]


# --- frames that are too big -----------------------------------------------------------------------------------------

FAILS = "Ip.FragFails"


def too_big(*others: DatagramPacket | TraceStep, made: int = 0) -> Stall:
    """The cause of two frames of 1,514 and 1,400 bytes that were not fragmented."""
    hops = counted(stuck(), 900, FAILS)
    if made:
        counted(hops, 900, "IcmpMsg.OutType3", made)
    sizes = {500: 1514, 700: 1400}
    events = [
        replace(event, wire_bytes=sizes[(event.time_ns - START_NS) // 1000 - 20])
        if isinstance(event, Packet) and event.ifname == "cni0" and event.segment.payload_bytes == 1000
        else event
        for event in hops.events
    ]
    (found,) = held_up(hops.recording(events=(*events, *others)))
    return found


def error_at(netns: str, ifname: str, direction: str, at_us: int = 800) -> DatagramPacket:
    return DatagramPacket(START_NS + at_us * 1000, netns, ifname, Direction(direction), ERROR)


def test_the_smallest_frame_is_told_and_that_nobody_heard_of_it() -> None:
    found = too_big()
    assert found == Stall(StallKind.TOO_BIG, NODE, (6, 7), 3, FAILS, size_bytes=1400, unheard=True)
    assert describe_stall(found) == (
        "#6 and 1 more, frames of 1,400 bytes and more, need fragmentation on client-node and may not be fragmented "
        "(Ip.FragFails counted 3); no ICMP error about it reached the sender, which goes on with that size"
    )


def test_a_sender_that_was_told_has_heard() -> None:
    way = (error_at(NODE, "veth-client", "out"), error_at("client", "eth0", "in", 801))
    found = too_big(*way, made=2)
    assert (found.unheard, found.errors_made) == (False, 0)
    assert describe_stall(found).endswith("may not be fragmented (Ip.FragFails counted 3)")


def test_an_error_that_left_and_did_not_arrive_was_not_heard() -> None:
    found = too_big(error_at(NODE, "veth-client", "out"), made=2)
    assert (found.unheard, found.errors_made) == (True, 0)


def test_an_error_of_another_namespace_is_about_something_else() -> None:
    way = (error_at("server", "eth0", "out"), error_at("client", "eth0", "in", 801))
    found = too_big(*way, made=2)
    assert (found.unheard, found.errors_made) == (True, 2)


def test_errors_that_were_made_and_never_left_were_dropped_by_a_rule() -> None:
    found = too_big(made=2)
    assert (found.unheard, found.errors_made) == (True, 2)
    assert describe_stall(found).endswith(
        "; 2 ICMP errors about it were made there, and none was seen to leave: "
        "a rule there drops them, and the sender goes on with that size"
    )


def dropping(netns: str = NODE, verdict: str = "drop", datagram: Datagram | None = ERROR) -> TraceStep:
    """A rule that an ICMP error met."""
    return TraceStep(START_NS + 800_000, netns, 5, "ip", "filter", "OUTPUT", "icmp drop", verdict, datagram=datagram)


def test_the_rule_that_drops_the_error_is_named() -> None:
    found = too_big(dropping())
    assert found.rule == dropping()
    assert "; its ICMP error is dropped on client-node by rule `icmp drop` of chain OUTPUT" in describe_stall(found)


@pytest.mark.parametrize(
    "step",
    [
        dropping(netns="server"),
        dropping(verdict="accept"),
        dropping(datagram=None),
        dropping(datagram=replace(ERROR, about=None)),
    ],
)
def test_another_rule_is_not(step: TraceStep) -> None:
    assert too_big(step).rule is None


# --- the kernel's own reasons ----------------------------------------------------------------------------------------


def thrown(reason: str, *, again: bool = False, hops: int = 3) -> Recording:
    """The node's kernel drops #6, and says why; a copy of it may arrive."""
    packets = Hops().opened()
    taken = packets.to_server(500, PSH | ACK, 5, 1, 1000, hops=hops)
    packets.events.append(PacketDrop(START_NS + 530_000, NODE, reason, segment=taken))
    if again:
        packets.to_server(700, PSH | ACK, 5, 1, 1000)
    counted(packets, 900, "IpExt.InNoRoutes")
    return packets.recording()


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("IP_RPFILTER", StallKind.REVERSE_PATH),
        ("IP_INNOROUTES", StallKind.NO_ROUTE),
        ("IP_OUTNOROUTES", StallKind.NO_ROUTE),
        ("NEIGH_FAILED", StallKind.NO_NEIGHBOUR),
        ("SOCKET_RCVBUFF", StallKind.THROWN_AWAY),
    ],
)
def test_the_kernels_reason_goes_before_its_counters(reason: str, kind: StallKind) -> None:
    assert held_up(thrown(reason)) == (Stall(kind, NODE, (6,), 1, reason=reason),)


def test_a_frame_that_it_found_too_big_is_measured() -> None:
    (found,) = held_up(thrown("PKT_TOO_BIG"))
    assert (found.kind, found.count, found.reason, found.unheard) == (StallKind.TOO_BIG, 1, "PKT_TOO_BIG", True)


def test_what_arrived_by_a_copy_was_not_held_up() -> None:
    assert held_up(thrown("IP_RPFILTER", again=True)) == ()


def test_what_was_seen_to_arrive_was_not_dropped() -> None:
    assert held_up(thrown("SOCKET_RCVBUFF", hops=5)) == ()


# --- neighbours ------------------------------------------------------------------------------------------------------

SILENT, OTHER = ip_address("10.1.0.2"), ip_address("10.1.0.3")


def asked(*changes: NeighbourChange) -> tuple[Stall, ...]:
    """What held #6 and #7 up, last seen at 520 and 720 us, where neighbours changed so."""
    hops = counted(stuck(), 900, "IpExt.InNoRoutes")
    hops.events += changes
    return held_up(hops.recording())


def given_up(at_us: int, state: str = "FAILED", netns: str = NODE, silent: str = str(SILENT)) -> NeighbourChange:
    return NeighbourChange(START_NS + at_us * 1000, netns, Neighbour("eth0", ip_address(silent), "", state))


def test_a_neighbour_that_was_asked_in_vain_goes_before_the_counters() -> None:
    for at_us in (520, 10_000_720):
        (found,) = asked(given_up(at_us))
        assert found == Stall(StallKind.NO_NEIGHBOUR, NODE, (6, 7), neighbour=SILENT)
    assert describe_stall(found) == "#6 and 1 more wait on client-node for 10.1.0.2, which never answers"


@pytest.mark.parametrize(
    "change",
    [
        given_up(519),
        given_up(10_000_721),
        given_up(900, state="REACHABLE"),
        given_up(900, netns="server"),
    ],
)
def test_another_silence_is_not_theirs(change: NeighbourChange) -> None:
    assert [stall.kind for stall in asked(change)] == [StallKind.NO_ROUTE]


def test_of_two_silent_neighbours_none_is_named() -> None:
    assert [stall.kind for stall in asked(given_up(900), given_up(901, silent=str(OTHER)))] == [StallKind.NO_ROUTE]


# --- rules -----------------------------------------------------------------------------------------------------------


def dropped(again: bool, payload: int = 1000) -> Recording:
    """A rule on the node takes #6; a copy of it may arrive."""
    hops = Hops().opened()
    taken = hops.to_server(500, PSH | ACK, 5, 1, payload, hops=3)
    hops.trace(530, 7, "FORWARD", "tcp dport 80 drop", "drop", taken)
    if again:
        hops.to_server(700, PSH | ACK, 5, 1, payload)
    return hops.recording()


def test_a_rule_that_drops_what_never_arrives_holds_it_up() -> None:
    (found,) = held_up(dropped(again=False))
    assert (found.kind, found.netns, found.numbers, found.count) == (StallKind.DROPPED, NODE, (6,), 1)
    assert found.rule is not None
    assert (found.rule.chain, found.rule.segment) == ("FORWARD", None)
    assert describe_stall(found).startswith("#6 are dropped on client-node by rule `tcp dport 80 drop` of chain")


def test_one_whose_packets_came_by_their_copies_does_not() -> None:
    assert held_up(dropped(again=True)) == ()


def test_what_carried_nothing_is_not_missed() -> None:
    assert held_up(dropped(again=False, payload=0)) == ()


def test_other_data_is_no_copy() -> None:
    hops = Hops().opened()
    taken = hops.to_server(500, PSH | ACK, 5, 1, 1000, hops=3)
    hops.trace(530, 7, "FORWARD", "tcp dport 80 drop", "drop", taken)
    hops.to_server(700, PSH | ACK, 1005, 1, 1000)
    hops.to_client(800, ACK, CLIENT + 5 - SERVER, 5, 10)  # the same number, the other way
    assert [stall.kind for stall in held_up(hops.recording())] == [StallKind.DROPPED]


def test_packets_that_one_rule_took_are_told_together() -> None:
    hops = Hops().opened()
    for at_us, trace_id in ((500, 7), (700, 8)):
        taken = hops.to_server(at_us, PSH | ACK, 5, 1, 1000, hops=3)
        hops.trace(at_us + 30, trace_id, "FORWARD", "tcp dport 80 drop", "drop", taken)
    assert [(stall.numbers, stall.count) for stall in held_up(hops.recording())] == [((6, 7), 2)]


# --- ends ------------------------------------------------------------------------------------------------------------


def test_a_window_that_stays_closed_is_its_programs_doing() -> None:
    (found,) = held_up(Hops().filled().recording())
    assert found == Stall(StallKind.ZERO_WINDOW, "client", (7,))
    assert describe_stall(found) == "client has kept its window closed since #7: its program reads nothing"


def test_the_servers_may_be_closed_too() -> None:
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, window=0)
    assert held_up(hops.recording()) == (Stall(StallKind.ZERO_WINDOW, "server", (6,)),)


def test_a_window_that_opened_again_holds_nothing_up() -> None:
    hops = Hops().filled()
    hops.to_server(700, ACK, 5, 2305, window=9000)
    assert held_up(hops.recording()) == ()


@pytest.mark.parametrize("flags", [RST, RST | ACK, FIN | ACK, SYN])
def test_what_ends_or_begins_a_connection_says_nothing_of_a_window(flags: int) -> None:
    hops = Hops().opened()
    hops.to_server(500, flags, 5, 1, window=0)
    assert held_up(hops.recording()) == ()


def unanswered(*names: str, syns: int = 2) -> Recording:
    """The server's kernel takes no SYN, and counts that."""
    hops = Hops()
    for number in range(syns):
        hops.to_server(number * 1000, SYN, 0)
    for name in names:
        counted(hops, 9000, name, 4, "server")
    return hops.recording()


@pytest.mark.parametrize("name", ["TcpExt.ListenOverflows", "TcpExt.ListenDrops"])
def test_a_full_queue_leaves_syns_unanswered(name: str) -> None:
    (found,) = held_up(unanswered(name))
    assert found == Stall(StallKind.LISTEN_QUEUE, "server", (1, 2), 4, name)
    assert describe_stall(found) == (
        f"the listening socket in server has no room: its queue is full ({name} counted 4)"
    )


def test_overflows_are_told_before_all_that_was_dropped() -> None:
    (found,) = held_up(unanswered("TcpExt.ListenDrops", "TcpExt.ListenOverflows"))
    assert found.counter == "TcpExt.ListenOverflows"


def test_unanswered_syns_alone_fill_no_queue() -> None:
    assert held_up(unanswered()) == ()


def test_a_connection_that_opened_met_no_full_queue() -> None:
    assert held_up(counted(Hops().opened(), 900, "TcpExt.ListenDrops", 4, "server").recording()) == ()


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stall", "text"),
    [
        (
            Stall(StallKind.REVERSE_PATH, NODE, (6,), 1200, "C"),
            "#6 fail the reverse path filter on client-node: the route back uses another interface (C counted 1,200)",
        ),
        (Stall(StallKind.NO_ROUTE, NODE, (), 1, "C"), "packets find no route on client-node (C counted 1)"),
        (
            Stall(StallKind.NO_ROUTE, NODE, (6, *range(8, 1010)), 1, "C"),
            "#6 and 1,002 more find no route on client-node (C counted 1)",
        ),
        (
            Stall(StallKind.NO_NEIGHBOUR, NODE, (6,), 1, reason="NEIGH_FAILED"),
            "#6 wait on client-node for a neighbour that never answers",
        ),
        (
            Stall(StallKind.THROWN_AWAY, NODE, (6,), 1, reason="SOCKET_RCVBUFF"),
            "#6 are dropped by the kernel of client-node: SOCKET_RCVBUFF",
        ),
        (
            Stall(StallKind.NO_ROUTE, NODE, (6,), 1, reason="IP_INNOROUTES"),
            "#6 find no route on client-node (the kernel says IP_INNOROUTES)",
        ),
        (
            Stall(StallKind.TOO_BIG, NODE, (6,), 1, "C"),
            "#6 need fragmentation on client-node and may not be fragmented (C counted 1)",
        ),
    ],
)
def test_a_cause_in_words(stall: Stall, text: str) -> None:
    assert describe_stall(stall) == text
