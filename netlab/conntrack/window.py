"""The window's arithmetic: the four checks, and what a packet moves where it passes them (tcp_in_window). Pure.

Done over with the packets that were seen, as net/netfilter/nf_conntrack_proto_tcp.c does it; docs/window.md explains
it. Sequence numbers are compared as the kernel compares them: two that are 2**31 apart are each before the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from netlab.conntrack.kernels import Rules
from netlab.conntrack.states import kind_of
from netlab.conntrack.values import (
    TCP_MAX_WSCALE,
    Check,
    CheckName,
    CtDirection,
    CtOutcome,
    Entry,
    Failure,
    Kind,
    Last,
    Side,
)
from netlab.record.events import ACK, SYN, Segment, seq_diff

MAXACKWINCONST = 66000
"""How far an ACK may lag behind at least, in bytes (nf_conntrack_proto_tcp.c)."""

BARE_DATA_OFFSET = 5
"""The data offset of a header without options, in 32-bit words (RFC 9293, section 3.1)."""

_MASK = 0xFFFFFFFF


def before(a: int, b: int) -> bool:
    """Whether sequence number `a` is before `b` (include/net/tcp.h)."""
    return seq_diff(a, b) < 0


def after(a: int, b: int) -> bool:
    """Whether sequence number `a` is after `b` (include/net/tcp.h)."""
    return seq_diff(b, a) < 0


@dataclass(frozen=True, slots=True)
class Windowed:
    """What became of a packet at the window: the entry with what the packet moved there, and what decided.

    failure is the check that decided, also where conntrack is liberal and the outcome ACCEPT. log is what the kernel
    writes. checks are empty where the kernel looks at none.
    """

    outcome: CtOutcome
    entry: Entry
    checks: tuple[Check, ...] = ()
    failure: Failure | None = None
    log: str = ""


def in_window(segment: Segment, direction: CtDirection, entry: Entry, rules: Rules) -> Windowed:
    """Hold a segment against the window; where it passes, the entry has what it moves."""
    kind = kind_of(segment.flags)
    seq, end, ack, window = segment.seq, segment.end, segment.ack, segment.window
    sender, receiver = entry.side(direction), entry.side(direction.other)
    sack = _sack(segment) if receiver.sack_permitted else ack

    first = sender.td_maxwin == 0
    if _initializes(segment, direction, entry.tcp_state, sender, rules):
        sender, receiver = _initialized(segment, direction, first, sender, receiver, rules)
        if kind is Kind.SYN and (first or (rules.reinit_by_syn_only and direction is CtDirection.REPLY)):
            # Both ends opened at the same time.
            return Windowed(CtOutcome.ACCEPT, with_sides(entry, direction, sender, receiver))
    elif first:
        sender, receiver = _met(segment, sender, receiver, sack)

    # Broken TCP stacks set ACK in a RST and leave the number 0.
    if not segment.flags & ACK or (kind is Kind.RST and ack == 0):
        ack = sack = receiver.td_end
    if kind is Kind.RST and seq == 0 and entry.tcp_state == "SYN_SENT":
        seq = end = sender.td_end

    checks = _checks(seq, end, sack, sender, receiver)
    failure = _failure(checks, end, sender, receiver, rules)
    if failure is not None:
        return _out_of_window(direction, entry, sender, receiver, checks, failure, rules)

    if not segment.flags & SYN:
        window <<= sender.td_scale
    sender, receiver = _moved(sender, receiver, (end, ack, sack, window), with_ack=bool(segment.flags & ACK))
    last, retransmissions = entry.last, entry.retransmissions
    if kind is Kind.ACK:
        last, retransmissions = _repeated(last, retransmissions, direction, (seq, ack, end, segment.window))
    entry = with_sides(entry, direction, sender, receiver, last, retransmissions)
    return Windowed(CtOutcome.ACCEPT, entry, checks)


def syn_options(segment: Segment, side: Side) -> Side:
    """A side with what its SYN's options say (tcp_options); a SYN that has none leaves it as it was."""
    if segment.data_offset == BARE_DATA_OFFSET:
        return side
    return Side(
        side.td_end,
        side.td_maxend,
        side.td_maxwin,
        td_scale=min(segment.wscale or 0, TCP_MAX_WSCALE),
        window_scale=segment.wscale is not None,
        sack_permitted=segment.sack_permitted,
        be_liberal=side.be_liberal,
    )


def with_sides(
    entry: Entry,
    direction: CtDirection,
    sender: Side,
    receiver: Side,
    last: Last | None = None,
    retransmissions: int = 0,
) -> Entry:
    """The entry with new sides, the sender's and the receiver's of a packet in that direction, and with its numbers."""
    # Not by `replace`, which takes several times as long: this is done for each packet.
    return Entry(
        entry.tcp_state,
        *((sender, receiver) if direction is CtDirection.ORIGINAL else (receiver, sender)),
        *((entry.last, entry.retransmissions) if last is None else (last, retransmissions)),
        entry.seen_reply,
        entry.assured,
        entry.timeout,
        entry.refreshed_ns,
    )


# --- what a side begins with -----------------------------------------------------------------------------------------


def _initializes(segment: Segment, direction: CtDirection, tcp_state: str, sender: Side, rules: Rules) -> bool:
    """Whether a packet begins its side, or begins it anew with larger numbers."""
    is_syn = bool(segment.flags & SYN)
    if sender.td_maxwin == 0:
        return is_syn
    if rules.reinit_by_syn_only:
        waiting = is_syn and tcp_state in ("SYN_SENT", "SYN_RECV")
    else:
        waiting = tcp_state == ("SYN_SENT" if direction is CtDirection.ORIGINAL else "SYN_RECV")
    return waiting and after(segment.end, sender.td_end)


def _initialized(
    segment: Segment, direction: CtDirection, first: bool, sender: Side, receiver: Side, rules: Rules
) -> tuple[Side, Side]:
    """Both sides after the sender's has begun (tcp_init_sender)."""
    sender = replace(sender, td_end=segment.end, td_maxend=segment.end, td_maxwin=max(segment.window, 1))
    sender = syn_options(segment, sender)
    # Both must offer scaling, or neither scales (RFC 7323); before the SYN,ACK only a kernel with a bug asks.
    asks = direction is CtDirection.REPLY if rules.reinit_by_syn_only else first
    if (asks or rules.syn_loses_scale) and not (sender.window_scale and receiver.window_scale):
        sender, receiver = replace(sender, td_scale=0), replace(receiver, td_scale=0)
    return sender, receiver


def _met(segment: Segment, sender: Side, receiver: Side, sack: int) -> tuple[Side, Side]:
    """Both sides at the first packet of a sender whose SYN was not seen."""
    window = max(segment.window << sender.td_scale, 1)
    sender = replace(sender, td_end=segment.end, td_maxwin=window, td_maxend=(segment.end + window) & _MASK)
    if receiver.td_maxwin == 0:
        receiver = replace(receiver, td_end=sack, td_maxend=sack)
    elif sack == (receiver.td_end + 1) & _MASK:  # most likely the answer to a keepalive
        receiver = replace(receiver, td_end=sack)
    return sender, receiver


# --- the checks ------------------------------------------------------------------------------------------------------


def _sack(segment: Segment) -> int:
    """The highest right edge of the segment's selective acknowledgements, its ack without any (tcp_sack)."""
    edge = segment.sack_edge
    # Recordings that lack the data offset have the highest edge of all, also where the ack is past it.
    if edge is None or (segment.data_offset is None and not after(edge, segment.ack)):
        return segment.ack
    return edge


def _checks(seq: int, end: int, sack: int, sender: Side, receiver: Side) -> tuple[Check, ...]:
    seq_lower = (sender.td_end - receiver.td_maxwin) & _MASK
    ack_lower = (receiver.td_end - max(sender.td_maxwin, MAXACKWINCONST)) & _MASK
    # Nothing is too old for a receiver of which nothing was seen yet.
    margin = seq_diff(end, seq_lower) if receiver.td_maxwin else 0
    return (
        Check(CheckName.SEQ_UPPER, seq, sender.td_maxend, seq_diff(sender.td_maxend, seq)),
        Check(CheckName.SEQ_LOWER, end, seq_lower, margin),
        Check(CheckName.ACK_UPPER, sack, receiver.td_end, seq_diff(receiver.td_end, sack)),
        Check(CheckName.ACK_LOWER, sack, ack_lower, seq_diff(sack, ack_lower)),
    )


def _overshot_bytes(end: int, sender: Side) -> int:
    return (end - sender.td_maxend + 1) & _MASK


def _failure(checks: tuple[Check, ...], end: int, sender: Side, receiver: Side, rules: Rules) -> Failure | None:
    """The failure that decides: the first one that this kernel looks for."""
    seq_upper, seq_lower, ack_upper, ack_lower = holds = [check.margin_bytes >= 0 for check in checks]
    if all(holds):
        return None
    rest_holds = seq_lower and ack_upper and ack_lower and receiver.td_maxwin > 0
    applies = {
        Failure.OVERSHOT: not seq_upper and rest_holds and _overshot_bytes(end, sender) <= receiver.td_maxwin,
        Failure.SEQ_OVER: not seq_upper,
        Failure.SEQ_UNDER: not seq_lower,
        Failure.ACK_OVER: not ack_upper,
        Failure.ACK_UNDER: not ack_lower,
    }
    return next(failure for failure in rules.fates if applies[failure])


def _out_of_window(
    direction: CtDirection,
    entry: Entry,
    sender: Side,
    receiver: Side,
    checks: tuple[Check, ...],
    failure: Failure,
    rules: Rules,
) -> Windowed:
    fate = rules.fates[failure]
    seq_upper, seq_lower, ack_upper, ack_lower = checks
    number = {
        Failure.OVERSHOT: _overshot_bytes(seq_lower.value, sender),
        Failure.SEQ_OVER: seq_upper.bound + 1,
        Failure.SEQ_UNDER: seq_lower.bound - 1,
        Failure.ACK_OVER: ack_upper.bound + 1,
        Failure.ACK_UNDER: ack_lower.bound - 1,
    }[failure]
    if fate.moves_end:
        sender = replace(sender, td_end=seq_lower.value, data_unacknowledged=True)
    entry = with_sides(entry, direction, sender, receiver)
    if sender.be_liberal or rules.be_liberal:
        return Windowed(CtOutcome.ACCEPT, entry, checks, failure)
    return Windowed(fate.outcome, entry, checks, failure, fate.text.format(number & _MASK))


# --- what a packet moves ---------------------------------------------------------------------------------------------


def _moved(sender: Side, receiver: Side, numbers: tuple[int, int, int, int], *, with_ack: bool) -> tuple[Side, Side]:
    """Both sides after a packet in the window. numbers are its end, ack and sack, and its window, scaled."""
    end, ack, sack, window = numbers
    maxack = sender.td_maxack
    if with_ack and (maxack is None or after(ack, maxack)):
        maxack = ack
    further = after(end, sender.td_end)
    past_bytes = (end - sender.td_maxend) & _MASK if after(end, sender.td_maxend) else 0
    sender = Side(
        end if further else sender.td_end,
        sender.td_maxend,
        max(sender.td_maxwin, (window + sack - ack) & _MASK),
        sender.td_scale,
        maxack,
        sender.window_scale,
        sender.sack_permitted,
        sender.be_liberal,
        sender.close_init,
        sender.data_unacknowledged or further,
    )
    maxwin, maxend = receiver.td_maxwin, receiver.td_maxend
    if maxwin:
        # What sticks out of the window was not refused: the window must have been larger than it was known to be.
        maxwin = (maxwin + past_bytes) & _MASK
    promised = (sack + window) & _MASK
    if after(promised, maxend - 1):
        # A closed window is one byte open to conntrack: a probe must get through.
        maxend = promised if window else (promised + 1) & _MASK
    unacknowledged = receiver.data_unacknowledged and ack != receiver.td_end
    if (maxwin, maxend, unacknowledged) != (receiver.td_maxwin, receiver.td_maxend, receiver.data_unacknowledged):
        receiver = Side(
            receiver.td_end,
            maxend,
            maxwin,
            receiver.td_scale,
            receiver.td_maxack,
            receiver.window_scale,
            receiver.sack_permitted,
            receiver.be_liberal,
            receiver.close_init,
            unacknowledged,
        )
    return sender, receiver


def _repeated(
    last: Last, retransmissions: int, direction: CtDirection, numbers: tuple[int, int, int, int]
) -> tuple[Last, int]:
    """What is noted of an ACK, its seq, ack, end and window, and how often it has come again without a change."""
    if (last.direction, last.seq, last.ack, last.end, last.window) == (direction, *numbers):
        return last, retransmissions + 1
    noted = Last(
        *(last.kind, direction, *numbers),
        *(last.wscale, last.sack_permitted, last.expects_challenge, last.simultaneous_open),
    )
    return noted, 0
