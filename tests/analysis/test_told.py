"""The kernel's own word on packets goes before what their numbers alone allow."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hops import CLIENT, SERVER, Hops
from story import FLOW, START_NS

from netlab.analysis.acceptance import Acceptance
from netlab.analysis.answers import Maker
from netlab.analysis.findings import PacketFinding, analyse
from netlab.analysis.timeline import build
from netlab.analysis.told import Told
from netlab.record.events import ACK, PSH, RST, CounterChange, Packet, PacketDrop, ResetKind, Segment, TcpReset, Tuple
from netlab.record.flow import Ends, Leg, inverse
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.recording import Recording

CLIENTS, SERVERS = FLOW.header(Leg.CLIENT_TO_VIP), FLOW.header(Leg.ENDPOINT_TO_CLIENT)


def sent(at_us: int, netns: str, header: Ends, answered: Segment | None = None, reason: str = "") -> TcpReset:
    """The kernel sends a RST from a socket with that header, or for want of one."""
    return TcpReset(START_NS + at_us * 1000, netns, ResetKind.SENT, reason, Tuple(*header, 6), "CLOSE", answered)


def accepted(at_us: int, netns: str, header: Ends, rcv_nxt: int | None) -> TcpReset:
    """The socket with that header accepts a RST."""
    own = Tuple(*header, 6)
    return TcpReset(START_NS + at_us * 1000, netns, ResetKind.ACCEPTED, "", own, "ESTABLISHED", rcv_nxt=rcv_nxt)


def told(hops: Hops, *events: TcpReset | PacketDrop, **changes: object) -> Told:
    return build(with_events(hops, *events, **changes)).told


def with_events(hops: Hops, *events: TcpReset | PacketDrop | CounterChange, **changes: object) -> Recording:
    return hops.recording(events=(*hops.events, *events), **changes)


def rst(recording: Recording) -> PacketFinding:
    """The recording's last RST."""
    return [found for found in analyse(recording).of(FLOW)[-1].packets if found.path.is_reset][-1]


def aborted() -> Hops:
    """The server's RST, #6, at 500 us; it comes to the client at 540."""
    hops = Hops().opened()
    hops.to_client(500, RST | ACK, 1, 5, window=0)
    return hops


def test_nothing_is_told_where_the_kernel_tells_nothing() -> None:
    assert told(aborted()) == Told()


# --- sent ------------------------------------------------------------------------------------------------------------

ABORTS = sent(510, "server", SERVERS, reason="TCP_ABORT_ON_CLOSE")


def test_a_rst_that_the_kernel_told_of_has_its_reason() -> None:
    assert told(aborted(), ABORTS) == Told(sent={6: ABORTS}, whole=True)
    answer = rst(with_events(aborted(), ABORTS)).answer
    assert answer is not None
    assert (answer.maker, answer.reason) == (Maker.ABORT, "TCP_ABORT_ON_CLOSE")


def test_a_close_that_answers_nothing_is_an_abort_even_without_ack() -> None:
    hops = Hops().opened()
    hops.to_client(500, RST, 777, window=0)
    answer = rst(with_events(hops, ABORTS)).answer
    assert answer is not None
    assert answer.maker is Maker.ABORT


def test_one_that_answers_a_packet_stays_what_it_is() -> None:
    hops = Hops().opened()
    answered = hops.to_server(500, PSH | ACK, 5, 1, 100)
    src, sport, dst, dport = inverse(SERVERS)
    answered = replace(answered, src=src, sport=sport, dst=dst, dport=dport)
    hops.to_client(600, RST, 1, window=0)
    answer = rst(with_events(hops, sent(590, "server", SERVERS, answered, "NO_SOCKET"))).answer
    assert answer is not None
    assert (answer.maker, answer.reason) == (Maker.GONE, "NO_SOCKET")


def test_a_rst_that_it_did_not_tell_of_is_not_its_tcps() -> None:
    """It told of another one, so it tells of them."""
    other = sent(90_000, "client", CLIENTS)
    answer = rst(with_events(aborted(), other)).answer
    assert answer is not None
    assert (answer.maker, answer.by_netlab) == (Maker.NOT_TCP, False)


def test_unless_some_of_its_words_were_lost() -> None:
    lost = ((ObserverId(ObserverKind.RESETS, "server"), 1),)
    answer = rst(with_events(aborted(), sent(90_000, "client", CLIENTS), lost=lost)).answer
    assert answer is not None
    assert answer.maker is Maker.ABORT


def test_what_was_lost_of_others_is_no_reason_to_doubt() -> None:
    lost = ((ObserverId(ObserverKind.PACKETS, "server", "eth0"), 1),)
    assert told(aborted(), ABORTS, lost=lost).whole
    lost = ((ObserverId(ObserverKind.RESETS, "server"), 0),)
    assert told(aborted(), ABORTS, lost=lost).whole


# --- accepted --------------------------------------------------------------------------------------------------------


def test_a_rst_that_a_socket_accepted_ended_it() -> None:
    """Its number is not the one that was computed: the kernel knows better."""
    hops = Hops().opened()
    hops.to_client(500, RST, 90_000, window=0)
    takes = accepted(545, "client", CLIENTS, SERVER + 90_000)
    assert told(hops, takes) == Told(accepted={6: takes}, whole=True)
    assert rst(with_events(hops, takes)).acceptance is Acceptance.ENDS
    (death,) = analyse(with_events(hops, takes)).of(FLOW)[0].deaths
    assert death.told


def doubtful() -> Hops:
    """The numbers don't tell whether the client took it."""
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, 100)
    hops.to_client(600, RST, 1, window=0)
    return hops


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (None, Acceptance.UNKNOWN),
        (accepted(645, "client", CLIENTS, SERVER + 1), Acceptance.ENDS),
        (accepted(545, "server", SERVERS, CLIENT + 900), Acceptance.IGNORED),
        (accepted(645, "client", CLIENTS, SERVER + 900), Acceptance.UNKNOWN),
        (accepted(645, "client-node", CLIENTS, SERVER + 900), Acceptance.IGNORED),
    ],
)
def test_where_numbers_leave_it_open_the_kernels_silence_decides(word: TcpReset | None, expected: Acceptance) -> None:
    """It accepted none with that header; had it accepted one of which nobody knows which, that may be this one."""
    words = (word,) if word is not None else ()
    assert rst(with_events(doubtful(), *words)).acceptance is expected


def test_an_accepted_rst_that_nobody_saw_is_a_stray_and_a_sent_one_is_none() -> None:
    takes = accepted(545, "client", CLIENTS, SERVER + 900)
    found = told(Hops().opened(), takes, sent(546, "client", CLIENTS))
    assert (found.strays, found.accepted, found.sent) == ((takes,), {}, {})


def test_no_socket_refuses_where_not_all_was_told() -> None:
    comes = inverse(CLIENTS)
    assert not Told().refused("client", comes)
    assert Told(whole=True).refused("client", comes)
    stray = accepted(0, "client", CLIENTS, None)
    assert not Told(strays=(stray,), whole=True).refused("client", comes)
    assert Told(strays=(stray,), whole=True).refused("server", comes)
    assert Told(strays=(stray,), whole=True).refused("client", inverse(SERVERS))
    assert Told(strays=(replace(stray, socket=None),), whole=True).refused("client", comes)


# --- dropped ---------------------------------------------------------------------------------------------------------


def drop(at_us: int, segment: Segment, netns: str = "server") -> PacketDrop:
    return PacketDrop(START_NS + at_us * 1000, netns, "TCP_INVALID_SEQUENCE", segment=segment)


def test_a_drop_belongs_to_its_packet() -> None:
    hops = Hops().opened()
    taken = hops.to_server(500, PSH | ACK, 5, 1, 100)
    dropped = drop(545, taken)
    assert told(hops, dropped) == Told(drops={6: dropped})
    found = analyse(with_events(hops, dropped)).of(FLOW)[0].packets
    assert [each.path.number for each in found if each.thrown_away is not None] == [6]


def test_a_drop_of_what_nobody_saw_is_nobodys() -> None:
    hops = Hops().opened()
    (first, *_) = (event.segment for event in hops.events if isinstance(event, Packet))
    assert told(hops, drop(545, replace(first, seq=1))).drops == {}


# --- counters, which every user may read -----------------------------------------------------------------------------


def counted(at_us: int, name: str, by: int = 1) -> CounterChange:
    return CounterChange(START_NS + at_us * 1000, "server", name, by)


def made_by(*counters: CounterChange) -> Maker | None:
    """Who made the server's RST, of which a socket's own kernel told nothing."""
    answer = rst(with_events(aborted(), *counters)).answer
    return answer.maker if answer is not None else None


def test_a_rst_that_its_namespace_did_not_count_is_none_of_its_tcp() -> None:
    whole = counted(5000, "Ip.OutRequests", 6)
    assert made_by() is made_by(whole, counted(5001, "Tcp.OutRsts")) is Maker.ABORT
    assert made_by(whole) is Maker.NOT_TCP
    assert made_by(counted(10, "Ip.OutRequests")) is Maker.ABORT, "that reading was before it"
    assert made_by(whole, counted(95_000, "Tcp.OutRsts")) is Maker.NOT_TCP, "that one is of the next reading"
