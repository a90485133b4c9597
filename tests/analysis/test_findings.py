"""How a connection ended, who ended it, and whose an errno was."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import ip_address

import pytest
import stories
from hops import SERVER, Hops, other_flow
from story import FLOW, START_NS

from netlab.analysis.findings import LATE_NS, ConnectionFinding, Ending, analyse, socket_events
from netlab.analysis.timeline import build
from netlab.record.events import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    Datagram,
    DatagramPacket,
    Direction,
    EntryChange,
    Event,
    SocketEvent,
    SocketEventKind,
    Tuple,
)
from netlab.record.recording import Recording


def last(recording: Recording) -> ConnectionFinding:
    """What became of the recording's last connection."""
    return analyse(recording).of(FLOW)[-1]


def ending(hops: Hops, **changes: object) -> Ending:
    return last(hops.recording(**changes)).ending


def resets(recording: Recording) -> tuple[list[int], list[int], list[int]]:
    """The numbers of the RSTs that ended an end of it, of those that did nothing, and of the doubtful ones."""
    found = last(recording)
    deaths = [death.rst.path.number for death in found.deaths]
    return deaths, [each.path.number for each in found.harmless], [each.path.number for each in found.doubtful]


# --- endings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reset", Ending.RESET),
        ("without_node", Ending.RESET),
        ("dropped", Ending.COMPLETED),
        ("liberal", Ending.COMPLETED),
        ("completed", Ending.COMPLETED),
        ("corrupted", Ending.COMPLETED),
        ("stalled", Ending.UNFINISHED),
        ("aborted", Ending.RESET_BY_PEER),
        ("expired", Ending.RESET),
        ("remade", Ending.COMPLETED),
        ("strict", Ending.UNFINISHED),
        ("reconnected", Ending.COMPLETED),
        ("reconnecting", Ending.SYN_UNANSWERED),
    ],
)
def test_the_ending_of_a_story(name: str, expected: Ending) -> None:
    assert last(getattr(stories, name)()).ending is expected


def test_a_connection_that_goes_on_is_unfinished() -> None:
    assert ending(Hops().opened()) is Ending.UNFINISHED
    assert ending(Hops()) is Ending.UNFINISHED


def test_a_syn_without_an_answer() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    assert ending(hops) is Ending.SYN_UNANSWERED


@pytest.mark.parametrize(
    ("how", "opened"),
    [({}, True), ({"hops": 4}, False), ({"nat": False}, False)],
)
def test_an_answer_that_does_not_arrive_opens_nothing(how: dict[str, bool | int], opened: bool) -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(100, SYN | ACK, 0, 1, **how)
    assert ending(hops) is (Ending.UNFINISHED if opened else Ending.SYN_UNANSWERED)
    assert last(hops.recording()).opened_ns == (START_NS + 140_000 if opened else None)


def test_an_answer_to_another_syn_opens_nothing() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(100, SYN | ACK, 0, 777)
    assert ending(hops) is Ending.SYN_UNANSWERED
    hops.to_client(200, ACK, 1, 1)
    assert ending(hops) is Ending.SYN_UNANSWERED


def test_a_rst_in_answer_to_the_syn_refuses_it() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(100, RST | ACK, -SERVER, 1, window=0)
    found = last(hops.recording())
    assert (found.ending, found.refusal) == (Ending.REFUSED, found.packets[1])


def test_a_rst_before_the_handshake_is_done_resets_it_there() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(100, SYN | ACK, 0, 1, hops=3)
    hops.to_server(200, RST | ACK, 1, window=0)
    assert ending(hops) is Ending.RESET_IN_HANDSHAKE


def test_a_rst_after_the_handshake_resets_the_connection() -> None:
    hops = Hops().opened()
    hops.to_server(500, RST | ACK, 5, 1, window=0)
    found = last(hops.recording())
    assert (found.ending, found.killer and found.killer.netns) == (Ending.RESET_BY_PEER, "server")


def test_a_connection_whose_beginning_was_not_seen_was_open() -> None:
    hops = Hops()
    hops.to_client(0, ACK, 1, 5)
    hops.to_server(100, RST, 5, window=0)
    hops.to_client(200, ACK, 1, 5)
    assert ending(hops) is not Ending.RESET_IN_HANDSHAKE


# --- closing ---------------------------------------------------------------------------------------------------------


def test_both_sides_closed_is_the_end() -> None:
    found = last(Hops().opened().closed(1000, 1).recording())
    assert found.ending is Ending.COMPLETED
    assert (found.server_closed_ns, found.client_closed_ns) == (START_NS + 1_040_000, START_NS + 1_140_000)
    assert found.completed_ns == START_NS + 1_140_000


def test_a_server_that_closes_has_told_all_if_the_client_was_heard() -> None:
    hops = Hops().opened()
    hops.to_client(500, FIN | ACK, 1)
    assert ending(hops) is Ending.COMPLETED
    assert last(hops.recording()).completed_ns == START_NS + 540_000
    hops.to_server(600, PSH | ACK, 5, 2, 100, hops=3)
    assert ending(hops) is Ending.HALF_CLOSED
    assert last(hops.recording()).completed_ns is None
    hops.to_server(900, PSH | ACK, 5, 2, 100)
    assert ending(hops) is Ending.COMPLETED


def test_a_client_that_said_nothing_was_heard() -> None:
    hops = Hops()
    hops.to_client(500, FIN | ACK, 1)
    assert ending(hops) is Ending.COMPLETED
    hops.to_server(600, ACK, 5, 2, hops=3)
    assert ending(hops) is Ending.COMPLETED


def test_a_clients_fin_that_is_lost_leaves_it_half_closed() -> None:
    hops = Hops().opened()
    hops.to_client(500, FIN | ACK, 1)
    hops.to_server(600, FIN | ACK, 5, 2, hops=3)
    assert ending(hops) is Ending.HALF_CLOSED


def test_so_does_a_client_that_closes_alone() -> None:
    hops = Hops().opened()
    hops.to_server(500, FIN | ACK, 5, 1)
    assert ending(hops) is Ending.HALF_CLOSED


def test_a_fin_before_a_hole_closes_nothing_until_that_is_filled() -> None:
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, 100, hops=3)
    hops.to_client(600, FIN | ACK, 101)
    assert ending(hops) is Ending.UNFINISHED
    hops.to_client(900, ACK, 1, 5, 100)
    assert ending(hops) is Ending.COMPLETED
    assert last(hops.recording()).server_closed_ns == START_NS + 940_000


@pytest.mark.parametrize(("ack", "expected"), [(101, Ending.UNFINISHED), (102, Ending.COMPLETED)])
def test_what_is_acknowledged_has_come_whether_it_was_seen_or_not(ack: int, expected: Ending) -> None:
    hops = Hops().opened()
    hops.to_client(600, FIN | ACK, 101)
    hops.to_server(700, ACK, 5, ack)
    assert ending(hops) is expected


# --- RSTs that did nothing -------------------------------------------------------------------------------------------


def test_a_rst_outside_the_window_does_no_harm() -> None:
    hops = Hops().opened()
    hops.to_client(500, RST, 90_000, window=0)
    assert resets(hops.recording()) == ([], [6], [])
    assert ending(hops) is Ending.UNFINISHED


def test_an_end_dies_once() -> None:
    hops = Hops().opened()
    hops.to_client(500, RST | ACK, 1, 5, window=0)
    hops.to_client(600, RST | ACK, 1, 5, window=0)
    assert resets(hops.recording()) == ([6], [7], [])


def test_each_end_has_its_own_death() -> None:
    assert resets(stories.reset()) == ([9, 11], [], [])


def test_a_rst_that_never_arrived_is_none_of_them() -> None:
    hops = Hops().opened()
    hops.to_client(500, RST | ACK, 1, 5, window=0, hops=3)
    assert resets(hops.recording()) == ([], [], [])


def test_after_the_end_there_is_nothing_to_lose() -> None:
    hops = Hops().opened().closed(1000, 1)
    hops.to_client(5000, RST, 2, window=0)
    assert resets(hops.recording()) == ([], [9], [])
    assert ending(hops) is Ending.COMPLETED


def test_unless_its_socket_says_so() -> None:
    hops = Hops().opened().closed(1000, 1)
    hops.to_client(5000, RST, 2, window=0)
    hops.socket(5100, "client", errno.ECONNRESET)
    assert resets(hops.recording()) == ([9], [], [])
    assert ending(hops) is Ending.RESET_BY_PEER


# --- doubts ----------------------------------------------------------------------------------------------------------


def doubtful(*errors: tuple[int, str, int]) -> Recording:
    """The client may have refused the server's data: then the RST has the number that it waits for, and ends it."""
    hops = Hops().opened()
    hops.to_client(500, ACK, 1, 5, 100)
    hops.to_client(600, RST, 1, window=0)
    for at_us, netns, code in errors:
        hops.socket(at_us, netns, code)
    return hops.recording()


def test_a_rst_of_which_the_numbers_do_not_tell_is_doubtful() -> None:
    assert resets(doubtful()) == ([], [], [7])


@pytest.mark.parametrize("code", [errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE])
def test_an_error_that_follows_it_tells(code: int) -> None:
    recording = doubtful((640, "client", code))
    assert resets(recording) == ([7], [], [])
    (death,) = last(recording).deaths
    assert death.error is not None
    assert (death.netns, death.error.errno, death.time_ns) == ("client", code, START_NS + 640_000)


@pytest.mark.parametrize(
    "error",
    [(639, "client", errno.ECONNRESET), (640, "server", errno.ECONNRESET), (640, "client", errno.ETIMEDOUT)],
)
def test_another_error_does_not(error: tuple[int, str, int]) -> None:
    assert resets(doubtful(error)) == ([], [], [7])


def test_one_error_tells_of_one_rst() -> None:
    hops = Hops()
    hops.to_server(0, ACK, 5, 101)
    for at_us in (600, 700):
        hops.to_client(at_us, RST, 7, window=0)
    hops.socket(800, "client", errno.ECONNRESET)
    assert resets(hops.recording()) == ([2], [], [3])


# --- errors alone ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ECONNRESET, Ending.RESET_BY_PEER),
        (errno.ECONNREFUSED, Ending.REFUSED),
        (errno.ETIMEDOUT, Ending.UNFINISHED),
    ],
)
def test_without_a_rst_in_sight_the_socket_says_how_it_ended(code: int, expected: Ending) -> None:
    hops = Hops().opened()
    hops.socket(600, "client", code)
    assert ending(hops) is expected


def test_an_error_of_an_earlier_connection_is_not_this_ones() -> None:
    hops = Hops().opened()
    hops.socket(600, "client", errno.ECONNRESET, "old")
    assert ending(hops) is Ending.UNFINISHED


# --- ICMP ------------------------------------------------------------------------------------------------------------

SYN_HEADER = Tuple(FLOW.client_address, FLOW.client_port, FLOW.vip, FLOW.port, 6)
UNREACHABLE = Datagram(Tuple(ip_address("10.0.0.1"), 0, FLOW.client_address, 0, 1), 68, 9, 3, 1, SYN_HEADER)


def crossing(netns: str, direction: str, at_us: int, about: Tuple | None = SYN_HEADER) -> Event:
    ifname = "eth0" if netns == "client" else "veth-client"
    datagram = replace(UNREACHABLE, about=about)
    return DatagramPacket(START_NS + at_us * 1000, netns, ifname, Direction(direction), datagram)


def asked(*errors: Event, opened: bool = False) -> Ending:
    hops = Hops().opened() if opened else Hops()
    if not opened:
        hops.to_server(0, SYN, 0, hops=3)
    return ending(hops, events=(*hops.events, *errors))


def test_an_icmp_error_about_the_syn_refuses_it() -> None:
    assert asked(crossing("client-node", "out", 500), crossing("client", "in", 501)) is Ending.REFUSED


@pytest.mark.parametrize(
    "errors",
    [
        (crossing("client-node", "out", 500),),
        (crossing("client", "in", 500, replace(SYN_HEADER, proto=17)),),
        (crossing("client", "in", 500, replace(SYN_HEADER, sport=40001)),),
        (crossing("client", "in", 500, None),),
        (crossing("client", "out", 500),),
    ],
)
def test_one_about_something_else_or_for_somebody_else_does_not(errors: tuple[Event, ...]) -> None:
    assert asked(*errors) is Ending.SYN_UNANSWERED


def test_an_open_connection_is_not_refused_any_more() -> None:
    assert asked(crossing("client", "in", 500), opened=True) is Ending.UNFINISHED


# --- whose an errno is -----------------------------------------------------------------------------------------------


def errors_of(*events: SocketEvent, alone: bool = True, before_us: int = 0) -> int:
    """How many of the events are the flow's; another one of the same ends lives beside it if it isn't alone."""
    hops = Hops().opened(at_us=before_us)
    flows = [FLOW]
    if not alone:
        hops.opened(other_flow(), 5 + before_us)
        flows.append(other_flow())
    timeline = build(hops.recording(events=(*hops.events, *events), flows=tuple(flows)))
    return len(socket_events(timeline, FLOW, SocketEventKind.ERROR))


def error(netns: str, local: int = 0, peer: int = 0, at_ns: int = 500_000) -> SocketEvent:
    kind = SocketEventKind.ERROR
    return SocketEvent(START_NS + at_ns, netns, kind, errno=104, local_port=local, peer_port=peer)


@pytest.mark.parametrize(
    ("event", "own"),
    [
        (error("client", 40000, 80), True),
        (error("client", 40001, 80), False),
        (error("server", 8080, 40000), True),
        (error("server", 0, 40000), True),
        (error("server", 8080, 40001), False),
        (error("server", 9090, 40000), False),
        (error("server", 40000), False),
        (error("client-node", 40000, 80), False),
        (error("client-node"), False),
    ],
)
def test_a_sockets_ports_say_whose_it_is(event: SocketEvent, own: bool) -> None:
    assert errors_of(event, alone=False) == own
    assert errors_of(event) == own


@pytest.mark.parametrize("netns", ["client", "server"])
def test_without_ports_it_is_the_only_connections_that_lived(netns: str) -> None:
    assert errors_of(error(netns)) == 1
    assert errors_of(error(netns), alone=False) == 0


END_NS = 440_000
"""When the last packet of `opened` came."""


@pytest.mark.parametrize(("at_ns", "own"), [(99_999, False), (100_000, True), (END_NS + 100_000 + LATE_NS, True)])
def test_a_connection_lives_from_its_first_packet_to_a_little_after_its_last(at_ns: int, own: bool) -> None:
    assert errors_of(error("client", at_ns=at_ns), before_us=100) == own
    assert errors_of(error("client", at_ns=END_NS + 100_001 + LATE_NS), before_us=100) == 0


# --- packets ---------------------------------------------------------------------------------------------------------


def test_a_packet_that_nat_skips_arrives_untranslated() -> None:
    found = last(stories.reset())
    assert [each.path.number for each in found.packets if each.untranslated] == [8]
    bad = found.of(8)
    assert bad is not None
    assert (bad.left_alone and bad.left_alone.netns, bad.invalid_in()) == ("client-node", ["client-node"])
    assert found.of(99) is None


def test_one_that_is_dropped_has_its_rule_and_arrives_nowhere() -> None:
    bad = last(stories.dropped()).of(9)
    assert bad is None or bad.drop is None
    taken = [each for each in last(stories.dropped()).packets if each.drop is not None]
    assert [(each.path.number, each.untranslated, each.drop and each.drop.verdict) for each in taken] == [
        (8, False, "drop")
    ]


def test_an_entry_that_was_made_again_ends_no_connection() -> None:
    hops = Hops().opened()
    hops.entry(450, EntryChange.DESTROY)
    hops.to_server(500, PSH | ACK, 5, 1, 100)
    assert ending(hops) is Ending.UNFINISHED
