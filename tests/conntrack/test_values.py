"""What a Checked and an Entry say of themselves."""

from __future__ import annotations

import pytest
from conntrack_wire import Wire, overshoot

from netlab.conntrack.values import CtDirection, Entry, Side
from netlab.record.events import ACK, RST, SYN


@pytest.mark.parametrize(
    ("tcp_state", "assured", "established"),
    [("ESTABLISHED", True, True), ("ESTABLISHED", False, False), ("SYN_RECV", True, False), ("CLOSE", False, False)],
)
def test_established_is_an_assured_entry_in_that_state(tcp_state: str, assured: bool, established: bool) -> None:
    assert Entry(tcp_state, assured=assured).established is established


def test_an_entry_has_a_side_for_each_direction() -> None:
    entry = Entry(original=Side(1), reply=Side(2))
    assert [entry.side(direction).td_end for direction in CtDirection] == [1, 2]


@pytest.mark.parametrize("length", [1, 2302, 2303, 60_000])
def test_how_far_a_packet_ends_past_the_window(length: int) -> None:
    assert overshoot(length).last().beyond_bytes == length + 1
    assert Wire().opened().from_server(ACK, 1, 5, length).last().beyond_bytes == length - 2304


def test_where_the_window_is_not_looked_at_nothing_is_past_it() -> None:
    assert Wire().from_client(SYN, 0).last().beyond_bytes == 0
    assert Wire().from_client(RST, 0).last().beyond_bytes == 0


def test_what_may_be_forgiven_is_less_than_the_widest_window() -> None:
    assert overshoot(1).last().forgiven_bytes == 2303
    assert Wire().opened().from_client(ACK, 5, 1, window=0).last().forgiven_bytes == 65_159
    assert Wire().from_client(SYN, 0).last().forgiven_bytes == 0, "there was no entry"
    assert Wire().from_client(SYN, 0).from_client(SYN, 0).last().forgiven_bytes == 0, "nothing was seen of the server"
    assert Wire().from_client(SYN, 0, window=0).from_server(SYN | ACK, 0, 1).last().forgiven_bytes == 0
    assert Wire().from_client(SYN, 0, window=2).from_server(SYN | ACK, 0, 1).last().forgiven_bytes == 1


def test_numbers_on_the_wire_wrap() -> None:
    wire = Wire(client=2**32 - 3, server=2**32 - 5).opened().from_server(ACK, 1, 5, 3000)
    assert wire.last().beyond_bytes == 3000 - 2304
