"""Who made a RST, and what it answers: the socket, a kernel without one, a rule, or netlab."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hops import CLIENT, SERVER, Hops, other_flow
from story import FLOW, START_NS

from netlab.analysis.answers import Answer, Maker
from netlab.analysis.findings import analyse
from netlab.record.events import ACK, FIN, PSH, RST, SYN, Packet, TraceStep, Tuple
from netlab.record.flow import Leg
from netlab.record.recording import ClosedSocket, CraftedSegment, Recording, Stimulus


def answers(recording: Recording) -> list[Answer]:
    """Where the RSTs of the connection are from."""
    packets = (each for found in analyse(recording).of(FLOW) for each in found.packets)
    return [found.answer for found in packets if found.answer is not None]


def the_answer(recording: Recording) -> Answer:
    """Where its only RST is from."""
    (found,) = answers(recording)
    return found


def short(found: Answer) -> tuple[Maker, str, int | None]:
    """Who made it, where, and the number of the packet that it answers."""
    return found.maker, found.sender, found.answers.number if found.answers is not None else None


def told(hops: Hops) -> tuple[Maker, str, int | None]:
    """The same of the only RST of these packets."""
    return short(the_answer(hops.recording()))


# --- a kernel without a socket ---------------------------------------------------------------------------------------


def test_a_syn_to_a_closed_port_is_answered_by_a_kernel_without_a_socket() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(100, RST | ACK, -SERVER, 1, window=0)
    assert told(hops) == (Maker.NO_SOCKET, "server", 1)


def test_so_is_a_reply_without_its_translation() -> None:
    """The client has no socket that talks to the endpoint's own address."""
    hops = Hops().filled()
    hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False)
    hops.to_server(760, RST, 5, window=0, nat=False)
    assert told(hops) == (Maker.NO_SOCKET, "client", 8)


def test_a_rst_of_a_third_party_that_answers_nothing_is_nobodys() -> None:
    hops = Hops().opened()
    hops.to_server(760, RST, 5, window=0, nat=False)
    assert told(hops) == (Maker.UNKNOWN, "client", None)


# --- the socket ------------------------------------------------------------------------------------------------------


def test_a_socket_that_is_closed_with_data_unread_aborts() -> None:
    hops = Hops().opened()
    hops.to_client(500, RST | ACK, 1, 5, window=0)
    assert told(hops) == (Maker.ABORT, "server", None)


def test_so_does_the_clients() -> None:
    hops = Hops().opened()
    hops.to_server(500, RST | ACK, 5, 1, window=0)
    assert told(hops) == (Maker.ABORT, "client", None)


def test_an_abort_acknowledges_so_a_rst_that_does_not_is_something_else() -> None:
    hops = Hops().opened()
    hops.to_client(500, RST, 777, window=0)
    assert told(hops) == (Maker.UNKNOWN, "server", None)


def test_what_comes_after_a_socket_is_gone_is_answered_with_its_own_ack() -> None:
    hops = Hops().opened()
    hops.to_client(500, FIN | ACK, 1)
    hops.to_server(600, PSH | ACK, 5, 2, 100)
    hops.to_client(700, RST, 2, window=0)
    assert told(hops) == (Maker.GONE, "server", 7)


def test_a_client_that_is_gone_answers_so_too() -> None:
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, 100)
    hops.to_server(600, RST, 5, window=0)
    # Of the two that acknowledge byte 5 it answers the one that came last.
    assert told(hops) == (Maker.GONE, "client", 6)


def test_a_client_in_its_handshake_refuses_what_acknowledges_another_syn() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(100, ACK, 700, -300)
    hops.to_server(200, RST, -300, window=0)
    assert told(hops) == (Maker.REFUSAL, "client", 2)


@pytest.mark.parametrize("syn", [0, 5000])
def test_once_its_syn_is_acknowledged_the_handshake_is_over(syn: int) -> None:
    """Whatever SYN came before: the newest one counts."""
    hops = Hops()
    hops.to_server(0, SYN, 0)
    if syn:
        hops.to_server(50, SYN, syn)
    hops.to_client(100, SYN | ACK, 0, syn + 1)
    hops.to_client(300, ACK, 1, -300)
    hops.to_server(400, RST, -300, window=0)
    assert short(answers(hops.recording())[-1])[0] is Maker.GONE


def test_a_refused_syn_ack_does_not_end_its_own_handshake() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(100, SYN | ACK, 0, 1)
    hops.to_server(200, RST, 1, window=0)
    assert told(hops) == (Maker.REFUSAL, "client", 2)


def test_a_syn_ack_that_comes_later_does_not_end_it_either() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(100, ACK, 700, -300)
    hops.to_server(200, RST, -300, window=0)
    hops.to_client(300, SYN | ACK, 0, 1)
    assert told(hops) == (Maker.REFUSAL, "client", 2)


def test_without_its_syn_a_client_is_in_no_handshake() -> None:
    hops = Hops()
    hops.to_client(100, ACK, 700, 5)
    hops.to_server(200, RST, 5, window=0)
    assert told(hops) == (Maker.GONE, "client", 1)


def test_a_server_refuses_nothing() -> None:
    """What a server answers is the client's, and not of a handshake of its own."""
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(100, SYN | ACK, 0, 1)
    hops.to_server(200, ACK, 1, 900)
    hops.to_client(300, RST, 900, window=0)
    assert told(hops) == (Maker.GONE, "server", 3)


# --- what a RST answers ----------------------------------------------------------------------------------------------


def rst_after(hops: Hops, flags: int, seq: int, ack: int = 0) -> int | None:
    """The packet that a RST of the server's answers."""
    hops.to_client(90_000, flags, seq, ack, window=0)
    asked = answers(hops.recording())[-1].answers
    return asked.number if asked is not None else None


def test_its_number_is_what_the_packet_acknowledged() -> None:
    hops = Hops().opened()
    hops.to_server(500, ACK, 5, 777)
    assert rst_after(hops, RST, 777) == 6


@pytest.mark.parametrize("seq", [776, 778])
def test_another_number_answers_nothing(seq: int) -> None:
    hops = Hops().opened()
    hops.to_server(500, ACK, 5, 777)
    assert rst_after(hops, RST, seq) is None


def test_with_ack_it_acknowledges_a_packet_that_had_none() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    assert rst_after(hops, RST | ACK, -SERVER, 1) == 1
    hops = Hops().opened()
    assert rst_after(hops, RST | ACK, 1, 5) is None


def test_it_answers_no_rst() -> None:
    hops = Hops().opened()
    hops.to_server(500, RST | ACK, 5, 777)
    assert rst_after(hops, RST, 777) is None


def test_it_answers_what_had_come_and_not_what_was_on_its_way() -> None:
    hops = Hops().opened()
    hops.to_server(500, ACK, 5, 777)
    hops.to_server(600, ACK, 5, 777, held=(4, 100_000))
    hops.to_server(700, ACK, 5, 777, hops=4)
    assert rst_after(hops, RST, 777) == 6


def test_of_two_that_came_it_answers_the_later_arrival() -> None:
    hops = Hops().opened()
    hops.to_server(500, ACK, 5, 777, held=(4, 50_000))
    hops.to_server(600, ACK, 5, 777)
    assert rst_after(hops, RST, 777) == 6


def test_it_answers_no_packet_of_its_own_direction() -> None:
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 777 - CLIENT + SERVER)
    assert rst_after(hops, RST, 777) is None


# --- a rule ----------------------------------------------------------------------------------------------------------


def rejected(rule: str, verdict: str = "drop") -> Recording:
    """The client's SYN meets a rule on the node, which sends a RST in the server's name."""
    hops = Hops()
    syn = hops.to_server(0, SYN, 0, hops=3)
    hops.trace(30, 7, "FORWARD", rule, verdict, syn)
    hops.to_client(50, RST | ACK, -SERVER, 1, window=0)
    own = (("client-node", "cni0"), ("client-node", "veth-client"), ("client", "eth0"))
    vip = FLOW.header(Leg.VIP_TO_CLIENT)
    events = []
    for event in hops.events:
        if isinstance(event, Packet) and event.segment.flags & RST:
            if (event.netns, event.ifname) not in own:
                continue
            src, sport, dst, dport = vip
            event = replace(event, segment=replace(event.segment, src=src, sport=sport, dst=dst, dport=dport))
        events.append(event)
    return hops.recording(events=tuple(events))


def test_a_rule_that_rejects_is_named() -> None:
    found = the_answer(rejected("tcp dport 80 reject with tcp reset"))
    assert short(found) == (Maker.RULE, "client-node", 1)
    assert isinstance(found.rule, TraceStep)
    assert (found.rule.chain, found.seen) == ("FORWARD", True)


@pytest.mark.parametrize(("rule", "verdict"), [("tcp dport 80 drop", "drop"), ("jump reject-all", "jump reject-all")])
def test_what_only_looks_like_rejecting_is_no_such_rule(rule: str, verdict: str) -> None:
    assert short(the_answer(rejected(rule, verdict))) == (Maker.NO_SOCKET, "client-node", 1)


def test_a_rule_elsewhere_rejected_something_else() -> None:
    recording = rejected("tcp dport 80 reject with tcp reset")
    events = tuple(
        replace(event, netns="server-node") if isinstance(event, TraceStep) else event for event in recording.events
    )
    assert the_answer(replace(recording, events=events)).maker is Maker.NO_SOCKET


# --- out of sight ----------------------------------------------------------------------------------------------------


def test_a_rst_that_was_not_seen_to_leave_has_an_unknown_maker() -> None:
    hops = Hops().opened()
    hops.to_client(500, RST | ACK, 1, 5, window=0)
    events = tuple(
        event
        for event in hops.events
        if not isinstance(event, Packet) or not event.segment.flags & RST or event.netns != "server"
    )
    found = the_answer(hops.recording(events=events))
    assert (short(found), found.seen) == ((Maker.UNKNOWN, "client-node", None), False)


# --- netlab ----------------------------------------------------------------------------------------------------------

SERVERS = FLOW.header(Leg.ENDPOINT_TO_CLIENT)


def closed(at_us: int, netns: str = "server", header: Tuple | None = None) -> tuple[Stimulus, ...]:
    """netlab closed a socket: the server's, if not said otherwise."""
    own = header or Tuple(*SERVERS, 6)
    return (Stimulus(START_NS, "", (ClosedSocket(START_NS + at_us * 1000, netns, own),)),)


def aborted() -> Hops:
    """The server's socket aborts at 500 us."""
    hops = Hops().opened()
    hops.to_client(500, RST | ACK, 1, 5, window=0)
    return hops


@pytest.mark.parametrize(
    ("stimuli", "ours"),
    [
        ((), False),
        (closed(499), True),
        (closed(500), True),
        (closed(501), False),
        (closed(499, "client"), False),
        (closed(499, header=Tuple(*other_flow().header(Leg.ENDPOINT_TO_CLIENT), 6)), False),
    ],
)
def test_what_netlab_closed_aborts_by_its_doing(stimuli: tuple[Stimulus, ...], ours: bool) -> None:
    found = the_answer(aborted().recording(stimuli=stimuli))
    assert (found.maker, found.by_netlab) == (Maker.ABORT, ours)


def test_the_clients_socket_may_be_netlabs_too() -> None:
    hops = Hops().opened()
    hops.to_server(500, RST | ACK, 5, 1, window=0)
    own = closed(100, "client", Tuple(*FLOW.header(Leg.CLIENT_TO_VIP), 6))
    assert the_answer(hops.recording(stimuli=own)).by_netlab
    assert not the_answer(hops.recording(stimuli=closed(100, "client"))).by_netlab


def own_nat(header: Leg = Leg.CLIENT_TO_VIP) -> Answer:
    """The client's own namespace translates: its RST leaves for the endpoint, and its socket talks to the VIP."""
    hops = Hops()
    hops.to_server(0, SYN, 0, nat=False)
    hops.to_client(100, SYN | ACK, 0, 1, nat=False)
    hops.to_server(200, RST | ACK, 1, 1, window=0, nat=False)
    flow = replace(FLOW, node="client")
    recording = hops.recording(flows=(flow,), stimuli=closed(150, "client", Tuple(*FLOW.header(header), 6)))
    (found,) = (each.answer for each in analyse(recording).of(flow)[0].packets if each.answer is not None)
    return found


def test_a_client_that_translates_itself_closes_the_socket_that_talks_to_the_vip() -> None:
    assert (own_nat().maker, own_nat().by_netlab) == (Maker.ABORT, True)
    assert not own_nat(Leg.ENDPOINT_TO_CLIENT).by_netlab


def test_what_netlab_closed_is_gone_by_its_doing() -> None:
    hops = Hops().opened()
    hops.to_server(600, PSH | ACK, 5, 1, 100)
    hops.to_client(700, RST, 1, window=0)
    found = the_answer(hops.recording(stimuli=closed(100)))
    assert (found.maker, found.by_netlab) == (Maker.GONE, True)


def written(at_us: int = 500, netns: str = "server", seq: int = 1) -> Answer:
    """Where the server's RST of 500 us is from, when a step wrote one so."""
    hops = Hops().opened()
    own = hops.to_client(500, RST, 1, window=0)
    crafted = CraftedSegment(START_NS + at_us * 1000, netns, replace(own, seq=SERVER + seq))
    return the_answer(hops.recording(stimuli=(Stimulus(START_NS, "craft", (crafted,)),)))


@pytest.mark.parametrize("at_us", [500, 499, -49_500])
def test_a_rst_that_a_step_wrote_is_the_steps(at_us: int) -> None:
    assert short(written(at_us)) == (Maker.STIMULUS, "server", None)
    assert written(at_us).seen


@pytest.mark.parametrize("at_us", [501, -49_501])
def test_one_that_was_not_handed_over_just_before_is_not(at_us: int) -> None:
    assert written(at_us).maker is not Maker.STIMULUS


@pytest.mark.parametrize(("netns", "seq"), [("client", 1), ("server", 2)])
def test_nor_is_one_from_elsewhere_or_with_another_number(netns: str, seq: int) -> None:
    assert written(500, netns, seq).maker is not Maker.STIMULUS


def test_only_a_rst_is_from_somebody() -> None:
    packets = analyse(aborted().recording()).of(FLOW)[0].packets
    assert [each.path.number for each in packets if each.answer is not None] == [6]
