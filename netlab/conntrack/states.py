"""Which state of a connection follows which, by the kind of packet that comes (tcp_conntracks). Pure."""

from __future__ import annotations

from netlab.conntrack.values import CtDirection, Kind
from netlab.record.events import ACK, CT_TCP_STATES, FIN, RST, SYN, URG

IGNORED, INVALID = "ignored", "invalid"
"""What the table has instead of a state for packets that change none."""

CLOSING = frozenset({"FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE"})
REOPENABLE = frozenset({"TIME_WAIT", "CLOSE", "SYN_SENT2"})

_SHORT = dict(zip(("no", "ss", "sr", "es", "fw", "cw", "la", "tw", "cl", "s2"), CT_TCP_STATES, strict=True))
_SHORT |= {"ig": IGNORED, "iv": INVALID}

# Columns are CT_TCP_STATES.
_TRANSITIONS = {
    (CtDirection.ORIGINAL, Kind.SYN): "ss ss ig ig ig ig ig ss ss s2",
    (CtDirection.ORIGINAL, Kind.SYNACK): "iv iv sr iv iv iv iv iv iv sr",
    (CtDirection.ORIGINAL, Kind.FIN): "iv iv fw fw la la la tw cl iv",
    (CtDirection.ORIGINAL, Kind.ACK): "es iv es es cw cw tw tw cl iv",
    (CtDirection.ORIGINAL, Kind.RST): "iv cl cl cl cl cl cl cl cl cl",
    (CtDirection.ORIGINAL, Kind.NONE): "iv iv iv iv iv iv iv iv iv iv",
    (CtDirection.REPLY, Kind.SYN): "iv s2 iv iv iv iv iv ss iv s2",
    (CtDirection.REPLY, Kind.SYNACK): "iv sr ig ig ig ig ig ig ig sr",
    (CtDirection.REPLY, Kind.FIN): "iv iv fw fw la la la tw cl iv",
    (CtDirection.REPLY, Kind.ACK): "iv ig sr es cw cw tw tw cl ig",
    (CtDirection.REPLY, Kind.RST): "iv cl cl cl cl cl cl cl cl cl",
    (CtDirection.REPLY, Kind.NONE): "iv iv iv iv iv iv iv iv iv iv",
}
_NEXT = {
    (direction, kind, state): _SHORT[short]
    for (direction, kind), row in _TRANSITIONS.items()
    for state, short in zip(CT_TCP_STATES, row.split(), strict=True)
}

# PSH, ECE and CWR go with anything.
_VALID_FLAGS = frozenset({SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG})


def next_state(direction: CtDirection, kind: Kind, tcp_state: str) -> str:
    """The state after a packet of that kind in that direction; IGNORED or INVALID where it changes none."""
    return _NEXT[direction, kind, tcp_state]


def kind_of(flags: int) -> Kind:
    """A packet's kind (get_conntrack_index)."""
    if flags & RST:
        return Kind.RST
    if flags & SYN:
        return Kind.SYNACK if flags & ACK else Kind.SYN
    if flags & FIN:
        return Kind.FIN
    return Kind.ACK if flags & ACK else Kind.NONE


def valid_flags(flags: int) -> bool:
    """Whether a packet may have these flags together (tcp_valid_flags)."""
    return flags & (FIN | SYN | RST | ACK | URG) in _VALID_FLAGS
