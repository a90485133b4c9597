"""Rows of words in columns."""

from __future__ import annotations

import pytest

from netlab.layout import aligned

ROWS = [
    ("NAMESPACE", "ADDRESSES", "PROGRAMS"),
    ("client-node", "10.0.0.1/24 cni0, 10.1.0.1/24 eth0, fd00::1/64 eth0", "-"),
    ("server", "10.0.1.2/24 eth0", "web, dns (ended: exit code 1)"),
]
WHOLE = """\
NAMESPACE    ADDRESSES                                            PROGRAMS
client-node  10.0.0.1/24 cni0, 10.1.0.1/24 eth0, fd00::1/64 eth0  -
server       10.0.1.2/24 eth0                                     web, dns (ended: exit code 1)
"""


@pytest.mark.parametrize("width", [None, 95, 200])
def test_where_there_is_room_each_row_is_a_line(width: int | None) -> None:
    assert aligned(ROWS, width) == WHOLE


def test_the_widest_list_goes_on_below_first() -> None:
    assert (
        aligned(ROWS, 80)
        == """\
NAMESPACE    ADDRESSES                            PROGRAMS
client-node  10.0.0.1/24 cni0, 10.1.0.1/24 eth0,  -
             fd00::1/64 eth0
server       10.0.1.2/24 eth0                     web, dns (ended: exit code 1)
"""
    )


def test_on_a_narrow_terminal_all_lists_do_and_nothing_is_cut() -> None:
    assert (
        aligned(ROWS, 40)
        == """\
NAMESPACE    ADDRESSES          PROGRAMS
client-node  10.0.0.1/24 cni0,  -
             10.1.0.1/24 eth0,
             fd00::1/64 eth0
server       10.0.1.2/24 eth0   web,
                                dns (ended: exit code 1)
"""
    )


def test_what_would_move_the_cursor_is_escaped() -> None:
    assert "\x1b" not in aligned([("a\x1b[2J", "b")])
