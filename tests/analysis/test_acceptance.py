"""What a RST can do to the socket that it comes to: each rule of RFC 5961, with the numbers at its edges.

Numbers count from the SYNs. The client waits for the server's byte 1, and takes 2,304 from there; the server for the
client's byte 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hops import Hops
from story import FLOW

from netlab.analysis.acceptance import Acceptance, Receiver, complete, receivers
from netlab.analysis.findings import PacketFinding, analyse
from netlab.record.events import ACK, FIN, RST, SYN, Tuple
from netlab.record.flow import Ends, Flow, inverse
from netlab.record.recording import Recording

ENDS, CHALLENGED, IGNORED = Acceptance.ENDS, Acceptance.CHALLENGED, Acceptance.IGNORED
STRAY, UNKNOWN = Acceptance.STRAY, Acceptance.UNKNOWN


def opened() -> Hops:
    """A connection whose client waits for the server's first byte, with room for 2,304."""
    return Hops().opened()


def resets(recording: Recording) -> list[PacketFinding]:
    """The RSTs of the recording's connection."""
    return [found for found in analyse(recording).of(FLOW)[0].packets if found.path.is_reset]


def at_client(hops: Hops, seq: int) -> Acceptance | None:
    """What becomes of a RST of the server's with that number."""
    hops.to_client(90_000, RST, seq, window=0)
    return resets(hops.recording())[-1].acceptance


def at_server(hops: Hops, seq: int) -> Acceptance | None:
    """What becomes of a RST of the client's with that number."""
    hops.to_server(90_000, RST, seq, window=0)
    return resets(hops.recording())[-1].acceptance


# --- the window ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seq", "expected"),
    [(-1, IGNORED), (0, IGNORED), (1, ENDS), (2, CHALLENGED), (2305, CHALLENGED), (2306, IGNORED)],
)
def test_exactly_the_next_number_ends_it_and_the_rest_of_the_window_is_challenged(
    seq: int, expected: Acceptance
) -> None:
    assert at_client(opened(), seq) is expected


@pytest.mark.parametrize(
    ("seq", "expected"),
    [(4, IGNORED), (5, ENDS), (6, CHALLENGED), (65161, CHALLENGED), (65162, IGNORED)],
)
def test_a_smaller_window_takes_back_no_room_that_was_given(seq: int, expected: Acceptance) -> None:
    """The server's SYN,ACK allowed the client's bytes up to 65160; its ACK of byte 5 says 64 more."""
    assert at_server(opened(), seq) is expected


def test_a_window_grows_by_single_bytes() -> None:
    hops = opened()
    hops.to_server(500, ACK, 5, 1, window=2305)
    assert at_client(hops, 2306) is CHALLENGED


@pytest.mark.parametrize(("seq", "expected"), [(2305, ENDS), (2304, IGNORED), (2306, IGNORED)])
def test_a_full_window_leaves_no_room_for_a_challenge(seq: int, expected: Acceptance) -> None:
    assert at_client(Hops().filled(), seq) is expected


@pytest.mark.parametrize(("seq", "expected"), [(2401, ENDS), (2402, IGNORED), (2400, IGNORED)])
def test_what_came_past_the_edge_leaves_none_either(seq: int, expected: Acceptance) -> None:
    hops = opened()
    hops.to_client(500, ACK, 1, 5, 2400)
    assert at_client(hops, seq) is expected


@pytest.mark.parametrize(
    ("client_scale", "server_scale", "room"),
    [(2, 7, 4 * 2304), (2, None, 2304), (None, 7, 2304), (0, 0, 2304)],
)
def test_windows_are_scaled_where_both_ends_said_so(
    client_scale: int | None, server_scale: int | None, room: int
) -> None:
    def shaken() -> Hops:
        hops = Hops()
        hops.to_server(0, SYN, 0, window=60_000, wscale=client_scale)
        hops.to_client(100, SYN | ACK, 0, 1, window=65160, wscale=server_scale)
        hops.to_server(200, ACK, 1, 1)
        return hops

    assert at_client(shaken(), 1 + room) is CHALLENGED
    assert at_client(shaken(), 2 + room) is IGNORED


def test_the_window_of_a_syn_ack_is_not_scaled() -> None:
    def shaken() -> Hops:
        hops = Hops()
        hops.to_server(0, SYN, 0, wscale=0)
        hops.to_client(100, SYN | ACK, 0, 1, window=1000, wscale=7)
        return hops

    assert at_server(shaken(), 1001) is CHALLENGED
    assert at_server(shaken(), 1002) is IGNORED


def test_numbers_wrap() -> None:
    def shaken() -> Hops:
        hops = Hops()
        hops.to_server(0, SYN, 0)
        hops.to_client(100, SYN | ACK, -5001, 1)  # its number is the last before they wrap
        hops.to_server(200, ACK, 1, -5000)
        return hops

    assert at_client(shaken(), -5000) is ENDS
    assert at_client(shaken(), -5000 + 2304) is CHALLENGED
    assert at_client(shaken(), -5000 + 2305) is IGNORED
    assert at_client(shaken(), -5001) is IGNORED


# --- what else ends it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seq", "expected"), [(0, IGNORED), (1, ENDS), (2, ENDS), (3, CHALLENGED)])
def test_once_the_peer_has_closed_one_before_ends_it_too(seq: int, expected: Acceptance) -> None:
    hops = opened()
    hops.to_client(500, FIN | ACK, 1)
    hops.to_server(600, ACK, 5, 2)
    assert at_client(hops, seq) is expected


def test_the_receivers_own_fin_changes_nothing() -> None:
    hops = opened()
    hops.to_server(500, FIN | ACK, 5, 1)
    hops.to_client(600, ACK, 1, 6)
    assert at_client(hops, 0) is IGNORED


@pytest.mark.parametrize(
    ("seq", "expected"), [(1, ENDS), (101, CHALLENGED), (201, CHALLENGED), (202, CHALLENGED), (401, ENDS)]
)
def test_so_does_the_right_edge_of_what_came_past_a_hole(seq: int, expected: Acceptance) -> None:
    hops = opened()
    hops.to_client(500, ACK, 1, 5, 100, hops=2)
    hops.to_client(600, ACK, 101, 5, 100)
    hops.to_client(700, ACK, 301, 5, 100)
    assert at_client(hops, seq) is expected


def test_a_piece_within_another_leaves_the_edge_where_it_is() -> None:
    hops = opened()
    hops.to_client(500, ACK, 101, 5, 300)
    hops.to_client(600, ACK, 201, 5, 100)
    assert at_client(hops, 401) is ENDS


@pytest.mark.parametrize(("seq", "expected"), [(301, ENDS), (201, IGNORED), (101, IGNORED), (1, UNKNOWN)])
def test_a_hole_that_was_filled_is_none(seq: int, expected: Acceptance) -> None:
    hops = opened()
    hops.to_client(500, ACK, 101, 5, 200)
    hops.to_client(600, ACK, 1, 5, 100)
    assert at_client(hops, seq) is expected


def test_a_copy_of_a_part_takes_nothing_back() -> None:
    hops = opened()
    hops.to_client(500, ACK, 1, 5, 200)
    hops.to_client(600, ACK, 1, 5, 100)
    assert at_client(hops, 201) is ENDS


# --- what can't be known ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seq", "expected"), [(1, UNKNOWN), (2, IGNORED), (101, ENDS)])
def test_what_was_not_acknowledged_may_have_been_refused(seq: int, expected: Acceptance) -> None:
    hops = opened()
    hops.to_client(500, ACK, 1, 5, 100)
    assert at_client(hops, seq) is expected


def test_what_was_acknowledged_is_taken() -> None:
    hops = opened()
    hops.to_client(500, ACK, 1, 5, 1)
    hops.to_server(600, ACK, 5, 2)
    assert at_client(hops, 1) is IGNORED


@pytest.mark.parametrize(("seq", "expected"), [(101, ENDS), (100, UNKNOWN), (1, UNKNOWN), (5000, UNKNOWN)])
def test_without_the_beginning_the_receivers_last_ack_is_all_there_is(seq: int, expected: Acceptance) -> None:
    hops = Hops()
    hops.to_server(0, ACK, 5, 101)
    hops.to_server(100, ACK, 5, 1)  # an older one, overtaken
    assert at_client(hops, seq) is expected


def test_without_that_nothing_is_known() -> None:
    assert at_client(Hops(), 1) is UNKNOWN


# --- the handshake ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "ack", "expected"),
    [(RST | ACK, 1, ENDS), (RST | ACK, 0, IGNORED), (RST | ACK, 2, IGNORED), (RST, 1, IGNORED)],
)
def test_a_syn_is_refused_by_what_acknowledges_it(flags: int, ack: int, expected: Acceptance) -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(100, flags, -5000, ack, window=0)
    assert resets(hops.recording())[0].acceptance is expected


def test_the_zero_of_a_rst_without_ack_acknowledges_nothing() -> None:
    hops = Hops()
    hops.to_server(0, SYN, -1001)  # its end is number 0
    hops.to_client(100, RST, -5000, window=0)
    assert resets(hops.recording())[0].acceptance is IGNORED


# --- what comes to no socket -----------------------------------------------------------------------------------------


def test_a_closed_socket_is_beyond_harm() -> None:
    hops = opened()
    hops.to_server(500, RST | ACK, 5, 1)
    assert at_client(hops, 1) is STRAY


def test_a_rst_that_crosses_the_receivers_own_comes_first() -> None:
    hops = opened()
    hops.to_server(5000, RST | ACK, 5, 1)
    hops.to_client(500, RST, 1, window=0)
    assert [found.acceptance for found in resets(hops.recording())] == [ENDS, STRAY]


def test_a_rst_without_its_translation_is_for_no_socket_of_the_connection() -> None:
    hops = opened()
    hops.to_client(500, RST, 1, window=0, nat=False)
    assert resets(hops.recording())[0].acceptance is STRAY


def test_a_rst_that_came_nowhere_is_not_judged() -> None:
    hops = opened()
    hops.to_client(500, RST, 1, window=0, hops=3)
    assert resets(hops.recording())[0].acceptance is None


# --- what counts as having come --------------------------------------------------------------------------------------

Damage = Callable[[Hops], None]


def lost(hops: Hops) -> None:
    """A hundred bytes that come no farther than the node."""
    hops.to_client(500, ACK, 1, 5, 100, hops=3)


def late(hops: Hops) -> None:
    """A hundred bytes that are sent before the RST, and come after it."""
    hops.to_client(500, ACK, 1, 5, 100, held=(4, 100_000))


def untranslated(hops: Hops) -> None:
    """A hundred bytes with the endpoint's own address: no socket of the client's knows that."""
    hops.to_client(500, ACK, 1, 5, 100, nat=False)


def corrupt(hops: Hops) -> None:
    """A hundred bytes with a wrong checksum, as conntrack logged."""
    hops.reason(512, "bad checksum", hops.to_client(500, ACK, 1, 5, 100))


@pytest.mark.parametrize("damage", [lost, late, untranslated, corrupt])
def test_what_did_not_come_to_the_socket_moves_nothing(damage: Damage) -> None:
    hops = opened()
    damage(hops)
    assert at_client(hops, 1) is ENDS


def test_what_the_receiver_says_after_the_rst_opens_no_room() -> None:
    hops = opened()
    hops.to_server(95_000, ACK, 5, 1, window=9000)
    hops.to_client(90_000, RST, 5000, window=0)
    assert resets(hops.recording())[0].acceptance is IGNORED


# --- the ends --------------------------------------------------------------------------------------------------------

SENT, GOT = FLOW.headers()


def through(*way: Ends) -> Flow:
    """The flow by these headers of the client's packets."""
    return replace(FLOW, way=tuple(Tuple(*header, 6) for header in way))


def test_a_node_between_translates_for_both_ends() -> None:
    client, server = receivers(FLOW, ["client-node"])
    assert client == Receiver("client", inverse(SENT), SENT)
    assert server == Receiver("server", GOT, inverse(GOT))
    assert (client.nat_is_own, server.nat_is_own) == (False, False)


def test_an_end_that_translates_itself_has_the_headers_outside_on_its_packets() -> None:
    client, server = receivers(FLOW, ["client"])
    assert client == Receiver("client", inverse(GOT), GOT)
    assert server == Receiver("server", GOT, inverse(GOT))
    client, server = receivers(FLOW, ["server"])
    assert client == Receiver("client", inverse(SENT), SENT)
    assert server == Receiver("server", SENT, inverse(SENT))


def test_of_several_translators_the_first_is_the_clients_and_the_last_the_servers() -> None:
    between = (*SENT[:2], FLOW.endpoint, 9090)
    flow = through(SENT, between, GOT)
    assert receivers(flow, ["client", "server"]) == (
        Receiver("client", inverse(between), between),
        Receiver("server", between, inverse(between)),
    )
    assert receivers(flow, ["server", "client"]) == (
        Receiver("client", inverse(SENT), SENT),
        Receiver("server", GOT, inverse(GOT)),
    )


def test_without_nat_there_is_one_header() -> None:
    flow = through(GOT)
    assert receivers(flow, ["client", "server"]) == (
        Receiver("client", inverse(GOT), GOT),
        Receiver("server", GOT, inverse(GOT)),
    )


# --- when all had come -----------------------------------------------------------------------------------------------


def came(hops: Hops) -> list[tuple[int, PacketFinding]]:
    """The server's packets, and at which microsecond each came."""
    first_ns = hops.recording().started_ns
    packets = analyse(hops.recording()).of(FLOW)[0].packets
    return [((each.path.last.time_ns - first_ns) // 1000, each) for each in packets if not each.path.to_server]


def whole_at(hops: Hops, end: int) -> int | None:
    """When all of the server's up to that number had come, in microseconds."""
    return complete([(at_us, each.path) for at_us, each in came(hops)], (5000 + end) & 0xFFFFFFFF)


def test_all_had_come_with_the_last_missing_piece() -> None:
    hops = opened()
    hops.to_client(500, ACK, 101, 5, 100)
    hops.to_client(600, ACK, 1, 5, 100)
    hops.to_client(700, ACK, 201, 5, 100)
    assert [whole_at(hops, end) for end in (1, 101, 201, 301, 302)] == [140, 640, 640, 740, None]


def test_a_hole_is_never_complete() -> None:
    hops = opened()
    hops.to_client(500, ACK, 102, 5, 100)
    assert [whole_at(hops, end) for end in (1, 2, 202)] == [140, None, None]


def test_without_a_syn_the_first_that_came_is_where_it_begins() -> None:
    hops = Hops()
    hops.to_client(500, ACK, 101, 5, 100)
    hops.to_client(600, ACK, 1, 5, 100)
    assert [whole_at(hops, end) for end in (201, 301)] == [540, None]


def test_a_syn_begins_anew() -> None:
    hops = Hops()
    hops.to_server(0, SYN, 0)
    hops.to_client(50, ACK, -900, 1, 100)  # what is left of an earlier connection
    hops.to_client(100, SYN | ACK, 0, 1)
    hops.to_client(200, ACK, 1, 1, 100)
    assert [whole_at(hops, end) for end in (1, 101, 102)] == [140, 240, None]


def test_pieces_may_be_told_in_any_order() -> None:
    hops = opened()
    hops.to_client(500, ACK, 1, 5, 100)
    pieces = [(at_us, each.path) for at_us, each in came(hops)]
    assert complete(pieces[::-1], 5101) == 540


def test_nothing_is_complete_of_nothing() -> None:
    assert complete([], 5001) is None
