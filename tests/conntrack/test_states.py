"""Kinds by flags, and which state follows which."""

from __future__ import annotations

from itertools import product

from netlab.conntrack.states import kind_of, next_state, valid_flags
from netlab.conntrack.values import CtDirection, Kind
from netlab.record.events import ACK, CT_TCP_STATES, FIN, RST, SYN, URG, flag_names

# As a table of the kernel's: rows are what came, columns what was. Nothing stands for a packet that is INVALID.
TABLE = """
                 NONE         SYN_SENT     SYN_RECV     ESTABLISHED  FIN_WAIT     CLOSE_WAIT   LAST_ACK     TIME_WAIT    CLOSE        SYN_SENT2
original SYN     SYN_SENT     SYN_SENT     ignored      ignored      ignored      ignored      ignored      SYN_SENT     SYN_SENT     SYN_SENT2
original SYNACK                            SYN_RECV                                                                                   SYN_RECV
original FIN                               FIN_WAIT     FIN_WAIT     LAST_ACK     LAST_ACK     LAST_ACK     TIME_WAIT    CLOSE
original ACK     ESTABLISHED               ESTABLISHED  ESTABLISHED  CLOSE_WAIT   CLOSE_WAIT   TIME_WAIT    TIME_WAIT    CLOSE
original RST                  CLOSE        CLOSE        CLOSE        CLOSE        CLOSE        CLOSE        CLOSE        CLOSE        CLOSE
original NONE
reply SYN                     SYN_SENT2                                                                     SYN_SENT                  SYN_SENT2
reply SYNACK                  SYN_RECV     ignored      ignored      ignored      ignored      ignored      ignored      ignored      SYN_RECV
reply FIN                                  FIN_WAIT     FIN_WAIT     LAST_ACK     LAST_ACK     LAST_ACK     TIME_WAIT    CLOSE
reply ACK                     ignored      SYN_RECV     ESTABLISHED  CLOSE_WAIT   CLOSE_WAIT   TIME_WAIT    TIME_WAIT    CLOSE        ignored
reply RST                     CLOSE        CLOSE        CLOSE        CLOSE        CLOSE        CLOSE        CLOSE        CLOSE        CLOSE
reply NONE
"""  # noqa: E501


def test_which_state_follows_which() -> None:
    rows = ["".join(f"{cell:13}" for cell in ("    ", *CT_TCP_STATES))]
    rows[0] = f"{'':17}" + "".join(f"{state:13}" for state in CT_TCP_STATES)
    for direction, kind in product(CtDirection, Kind):
        cells = (next_state(direction, kind, state) for state in CT_TCP_STATES)
        title = f"{direction} {kind.name}"
        rows.append(f"{title:17}" + "".join(f"{'' if cell == 'invalid' else cell:13}" for cell in cells))
    assert "\n".join(row.rstrip() for row in rows) == TABLE.strip("\n")


def test_the_kinds_of_all_flags() -> None:
    """RST comes before SYN, SYN before FIN, FIN before ACK; the others don't matter."""
    for flags in range(256):
        names = flag_names(flags)
        first = next((name for name in ("RST", "SYN", "FIN", "ACK") if name in names), "NONE")
        expected = "SYNACK" if first == "SYN" and "ACK" in names else first
        assert kind_of(flags).name == expected, names


def test_the_kernels_numbers_of_kinds_and_directions() -> None:
    assert [int(kind) for kind in Kind] == [0, 1, 2, 3, 4, 5]
    assert [direction.number for direction in CtDirection] == [0, 1]
    assert [direction.other for direction in CtDirection] == [CtDirection.REPLY, CtDirection.ORIGINAL]


def test_which_flags_may_come_together() -> None:
    valid = {flags for flags in range(256) if valid_flags(flags)}
    mattering = FIN | SYN | RST | ACK | URG
    assert {flags & mattering for flags in valid} == {
        *(SYN, SYN | URG, SYN | ACK, RST, RST | ACK),
        *(FIN | ACK, FIN | ACK | URG, ACK, ACK | URG),
    }
    assert valid == {flags for flags in range(256) if flags & mattering in {each & mattering for each in valid}}
