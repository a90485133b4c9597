"""What the model says and remembers of a connection, as values. Names are the kernel's (struct ip_ct_tcp). Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from netlab.record.events import Packet, seq_diff

TCP_MAX_WSCALE = 14
"""The largest window scale (RFC 7323, section 2.3)."""

ANEW = "the same addresses again: the old entry is deleted, and a new one made"
"""The note of a SYN that reopens a connection."""


class CtDirection(StrEnum):
    """A packet's direction by its conntrack entry: ORIGINAL is the one of the packet that made the entry."""

    ORIGINAL = "original"
    REPLY = "reply"

    @property
    def other(self) -> CtDirection:
        """The direction of the answers."""
        return CtDirection.REPLY if self is CtDirection.ORIGINAL else CtDirection.ORIGINAL

    @property
    def number(self) -> int:
        """What the kernel's log calls it (enum ip_conntrack_dir)."""
        return 0 if self is CtDirection.ORIGINAL else 1


class CtOutcome(StrEnum):
    """What conntrack makes of a packet.

    An IGNOREd packet keeps its entry, is translated, and moves nothing; an INVALID one loses its entry, and NAT skips
    it. UNMODELLED is this model's own: it can't tell.
    """

    ACCEPT = "accept"
    IGNORE = "ignore"
    INVALID = "invalid"
    UNMODELLED = "unmodelled"


class Kind(IntEnum):
    """A packet's kind by its flags, with the number that the kernel's log has for it (enum tcp_bit_set)."""

    SYN = 0
    SYNACK = 1
    FIN = 2
    ACK = 3
    RST = 4
    NONE = 5


class CheckName(StrEnum):
    """The four checks of tcp_in_window, I to IV in the kernel's comment; their text says what must hold."""

    SEQ_UPPER = "seq <= sender's td_maxend"
    SEQ_LOWER = "end >= sender's td_end - receiver's td_maxwin"
    ACK_UPPER = "sack <= receiver's td_end"
    ACK_LOWER = "sack >= receiver's td_end - MAXACKWINDOW"


class Failure(StrEnum):
    """How a packet can fall out of the window. OVERSHOT is a SEQ_OVER small enough to be forgiven by some kernels."""

    OVERSHOT = "overshot"
    SEQ_OVER = "seq-over"
    ACK_OVER = "ack-over"
    SEQ_UNDER = "seq-under"
    ACK_UNDER = "ack-under"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of one packet. value is the packet's sequence number, bound the last one that holds.

    margin_bytes is how far inside the bound the packet is; the check fails where it is negative.
    """

    name: CheckName
    value: int
    bound: int
    margin_bytes: int

    @property
    def holds(self) -> bool:
        """Whether the packet passes this check."""
        return self.margin_bytes >= 0


@dataclass(frozen=True, slots=True)
class Side:
    """What conntrack remembers of one direction: struct ip_ct_tcp_state. Of sequence numbers, and td_maxwin in bytes.

    td_end is the end of the data sent so far, td_maxend the last number the other side allowed, td_maxwin the largest
    window this side offered (0: nothing seen of it yet), td_maxack the highest ack it sent, None before the first.
    data_unacknowledged: something was sent since all of it was acknowledged last.
    """

    td_end: int = 0
    td_maxend: int = 0
    td_maxwin: int = 0
    td_scale: int = 0
    td_maxack: int | None = None
    window_scale: bool = False
    sack_permitted: bool = False
    be_liberal: bool = False
    close_init: bool = False
    data_unacknowledged: bool = False


@dataclass(frozen=True, slots=True)
class Last:
    """The last packet that conntrack took note of: last_index, last_dir and so on.

    kind and direction are those of the last packet of all but most INVALID ones; the numbers are of the last ACK, or
    of the last packet that was ignored; wscale (None: not offered), sack_permitted and expects_challenge of the last
    SYN that was ignored.
    """

    kind: Kind = Kind.NONE
    direction: CtDirection = CtDirection.ORIGINAL
    seq: int = 0
    ack: int = 0
    end: int = 0
    window: int = 0
    wscale: int | None = None
    sack_permitted: bool = False
    expects_challenge: bool = False
    simultaneous_open: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A connection as conntrack knows it: struct ip_ct_tcp, and the two status bits that decide about a RST.

    retransmissions counts the same ACK or data seen again without a change (`retrans`). timeout names the one of the
    kernel's timeouts that was set last, at refreshed_ns: a state, RETRANS or UNACK. unmodelled is why this model no
    longer follows the entry, empty while it does.
    """

    tcp_state: str = "NONE"
    original: Side = Side()
    reply: Side = Side()
    last: Last = Last()
    retransmissions: int = 0
    seen_reply: bool = False
    assured: bool = False
    timeout: str = ""
    refreshed_ns: int = 0
    unmodelled: str = ""

    def side(self, direction: CtDirection) -> Side:
        """The sender's side of a packet of that direction."""
        return self.original if direction is CtDirection.ORIGINAL else self.reply

    @property
    def established(self) -> bool:
        """Whether both ends were seen to agree (nf_conntrack_tcp_established)."""
        return self.tcp_state == "ESTABLISHED" and self.assured


@dataclass(frozen=True, slots=True)
class Checked:
    """One packet, and what conntrack makes of it.

    checks are the four checks in the order of CheckName, empty where the kernel doesn't look at the window. failure is
    the one that decided. log is what the kernel writes, empty if nothing. note says in words what else matters: that a
    connection was made or picked up, or what is not modelled. The states are None where there is no entry.
    """

    packet: Packet
    direction: CtDirection
    outcome: CtOutcome
    checks: tuple[Check, ...] = ()
    failure: Failure | None = None
    log: str = ""
    note: str = ""
    state_before: Entry | None = field(default=None, kw_only=True)
    state_after: Entry | None = field(default=None, kw_only=True)

    @property
    def beyond_bytes(self) -> int:
        """How far the packet ends past what its receiver allowed (td_maxend); zero or less where it doesn't.

        0 where the window was not looked at.
        """
        if not self.checks:
            return 0
        return seq_diff(self.packet.segment.end, self.checks[0].bound)

    @property
    def forgiven_bytes(self) -> int:
        """How far past it a packet may end for kernels that forgive (v6.1): one less than the receiver's td_maxwin.

        One less, because the kernel counts from td_maxend + 1.
        """
        if self.state_before is None:
            return 0
        return max(self.state_before.side(self.direction.other).td_maxwin - 1, 0)
