"""Conntrack's TCP window tracking, computed: which packets of a connection it accepts, ignores or finds INVALID. Pure.

This is the arithmetic of `nf_conntrack_tcp_packet` and `tcp_in_window` (net/netfilter/nf_conntrack_proto_tcp.c), done
over with the packets that were seen; docs/window.md explains it. Names are the kernel's. What differs between kernels
is data (`Rules`); what is not followed has the outcome UNMODELLED and says so, and is never guessed: checksums,
simultaneous opens, connections with a helper that changes sequence numbers.

`reach` looks at the same edge from the ends instead, for an experiment that must prove that it went past it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from netlab.model import Address
from netlab.record.events import (
    ACK,
    FIN,
    RST,
    SYN,
    URG,
    ConntrackEvent,
    Direction,
    EntryChange,
    InvalidReason,
    Packet,
    Segment,
    Tuple,
    seq_diff,
)
from netlab.record.flow import Flow, FlowEvents, Leg

MAXACKWINCONST = 66000
"""How far an ACK may lag behind at least, in bytes (nf_conntrack_proto_tcp.c)."""

TCP_MAX_WSCALE = 14
"""The largest window scale (RFC 7323, section 2.3)."""

ANEW = "the same addresses again: the old entry is deleted, and a new one made"
"""The note of a SYN that reopens a connection."""

BAD_CHECKSUM = "checksum"
"""What the kernel's line has of a packet that it found INVALID before it looked for its entry."""

_MASK = 0xFFFFFFFF


# --- words -----------------------------------------------------------------------------------------------------------


class CtDirection(StrEnum):
    """A packet's direction by its conntrack entry: ORIGINAL is the one of the packet that made the entry."""

    ORIGINAL = "original"
    REPLY = "reply"


class CtOutcome(StrEnum):
    """What conntrack makes of a packet.

    An IGNOREd packet keeps its entry, is translated, and moves nothing; an INVALID one loses its entry, and NAT skips
    it. UNMODELLED is this model's own: it can't tell.
    """

    ACCEPT = "accept"
    IGNORE = "ignore"
    INVALID = "invalid"
    UNMODELLED = "unmodelled"


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


@dataclass(frozen=True, slots=True)
class Last:
    """The last packet that conntrack took note of: last_index, last_dir and so on. kind is an index into KINDS."""

    kind: int
    direction: CtDirection
    seq: int = 0
    ack: int = 0
    end: int = 0
    window: int = 0
    wscale: int | None = None
    sack_permitted: bool = False
    expects_challenge: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A connection as conntrack knows it: struct ip_ct_tcp, and the two status bits that decide about a RST.

    retransmissions counts the same ACK or data seen again without a change (`retrans`). unmodelled is why this model
    no longer follows the entry, empty while it does.
    """

    tcp_state: str
    original: Side
    reply: Side
    last: Last | None = None
    retransmissions: int = 0
    seen_reply: bool = False
    assured: bool = False
    unmodelled: str = ""

    def side(self, direction: CtDirection) -> Side:
        """The sender's side of a packet of that direction."""
        return self.original if direction is CtDirection.ORIGINAL else self.reply


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
    state_before: Entry | None = None
    state_after: Entry | None = None

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
        return max(self.state_before.side(_OTHER[self.direction]).td_maxwin - 1, 0)


# --- what differs between kernels ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a packet that falls out of the window. text is the kernel's; {} stands for its number.

    moves_end: the packet counts as sent all the same, so that its acknowledgement will be believed.
    """

    outcome: CtOutcome
    text: str
    moves_end: bool = False


_OVER = Fate(CtOutcome.INVALID, "SEQ is over the upper bound (over the window of the receiver)")

UNTIL_6_0: Mapping[Failure, Fate] = {
    Failure.OVERSHOT: _OVER,
    Failure.SEQ_OVER: _OVER,
    Failure.SEQ_UNDER: Fate(CtOutcome.INVALID, "SEQ is under the lower bound (already ACKed data retransmitted)"),
    Failure.ACK_OVER: Fate(CtOutcome.INVALID, "ACK is over the upper bound (ACKed data not seen yet)"),
    Failure.ACK_UNDER: Fate(CtOutcome.INVALID, "ACK is under the lower bound (possible overly delayed ACK)"),
}
"""Fates in the order in which kernels up to v6.0 look for them."""

SINCE_6_1: Mapping[Failure, Fate] = {
    Failure.OVERSHOT: Fate(CtOutcome.IGNORE, "{} bytes more than expected", moves_end=True),
    Failure.SEQ_OVER: Fate(CtOutcome.INVALID, "SEQ is over upper bound {} (over the window of the receiver)"),
    Failure.ACK_OVER: Fate(CtOutcome.INVALID, "ACK is over upper bound {} (ACKed data not seen yet)"),
    Failure.SEQ_UNDER: Fate(CtOutcome.IGNORE, "SEQ is under lower bound {} (already ACKed data retransmitted)"),
    Failure.ACK_UNDER: Fate(CtOutcome.IGNORE, "ignored ACK under lower bound {} (possible overly delayed)"),
}
"""The same since Linux kernel commit 6e250dcbff1d ("netfilter: conntrack: ignore overly delayed tcp packets") (in
v6.1)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How one kernel, with its sysctls, judges. Made by `rules`.

    logs_invalid_new: whether a packet that opens no connection is logged; None where that isn't known. rst_unchecked:
    a RST to a connection that is closing is taken as it comes. reinit_by_syn_only: in the handshake only a SYN with
    new numbers begins its side anew, not any packet; syn_loses_scale: it sets the window scales to 0, too. Linux
    kernel commit c7aab4f17021 ("netfilter: nf_conntrack_tcp: re-init for syn packets only") (in v5.18) brought both,
    and fb366fc7541a ("netfilter: conntrack: correct window scaling with retransmitted SYN") (in v6.8, and in stable
    kernels before it) ended the latter.
    """

    fates: Mapping[Failure, Fate] = field(default_factory=lambda: SINCE_6_1)
    ignored_text: str = "packet (index {kind}) in dir {direction} ignored, state {state}"
    invalid_text: str = "packet (index {kind}) in dir {direction} invalid, state {state}"
    logs_invalid_new: bool | None = True
    rst_unchecked: bool = True
    reinit_by_syn_only: bool = True
    syn_loses_scale: bool = False
    be_liberal: bool = False
    loose: bool = True
    ignore_invalid_rst: bool = False


DECIDING = ("forgives-late-segments", "keeps-window-scale")
"""The capabilities that decide in `rules` where it is known whether the kernel has them."""


def rules(
    release: str,
    capabilities: Iterable[tuple[str, bool]] = (),
    *,
    be_liberal: bool = False,
    loose: bool = True,
    ignore_invalid_rst: bool = False,
) -> Rules:
    """The rules of a kernel with these sysctls.

    capabilities are those of DECIDING that the kernel was found to have or to lack. What they leave open its release
    decides ("6.18.44-cloud", as of `uname -r`); one that has no number is taken for a new one. A distribution may have
    brought a change to an older release: then what the kernel logs differs from what is computed, and `disagreements`
    says so.
    """
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (99, 0)
    known = dict(capabilities)
    forgiving = known.get("forgives-late-segments", version >= (6, 1))
    keeps_scale = known.get("keeps-window-scale", not (5, 18) <= version < (6, 8))
    return Rules(
        fates=SINCE_6_1 if forgiving else UNTIL_6_0,
        ignored_text=Rules().ignored_text if version >= (5, 18) else "invalid packet ignored in state {state}",
        invalid_text=Rules().invalid_text if forgiving else "invalid state",
        # Read in v6.1, which does not, and in v6.8, which does.
        logs_invalid_new=False if version <= (6, 1) else True if version >= (6, 8) else None,
        # Read in v5.10, which checks them, and in v5.18, which doesn't.
        rst_unchecked=version >= (5, 18),
        reinit_by_syn_only=version >= (5, 18),
        syn_loses_scale=not keeps_scale,
        be_liberal=be_liberal,
        loose=loose,
        ignore_invalid_rst=ignore_invalid_rst,
    )


# --- the kernel's states ---------------------------------------------------------------------------------------------

KINDS = ("SYN", "SYN,ACK", "FIN", "ACK", "RST", "none")
"""A packet's kind by its flags, in the kernel's order (enum tcp_bit_set): log lines have the index."""

_SYN, _SYNACK, _FIN, _ACK, _RST, _NONE = range(6)

_STATES = (
    *("NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT"),
    *("CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"),
)
_SHORT = dict(zip(("no", "ss", "sr", "es", "fw", "cw", "la", "tw", "cl", "s2"), _STATES, strict=True))
_IGNORED, _INVALID = "ignored", "invalid"
_CLOSING = frozenset({"FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE"})
_REOPENABLE = frozenset({"TIME_WAIT", "CLOSE", "SYN_SENT2"})

# What state follows which, for each kind of packet: columns are _STATES; ig and iv are ignored and invalid.
_TRANSITIONS = {
    (CtDirection.ORIGINAL, _SYN): "ss ss ig ig ig ig ig ss ss s2",
    (CtDirection.ORIGINAL, _SYNACK): "iv iv sr iv iv iv iv iv iv sr",
    (CtDirection.ORIGINAL, _FIN): "iv iv fw fw la la la tw cl iv",
    (CtDirection.ORIGINAL, _ACK): "es iv es es cw cw tw tw cl iv",
    (CtDirection.ORIGINAL, _RST): "iv cl cl cl cl cl cl cl cl cl",
    (CtDirection.ORIGINAL, _NONE): "iv iv iv iv iv iv iv iv iv iv",
    (CtDirection.REPLY, _SYN): "iv s2 iv iv iv iv iv ss iv s2",
    (CtDirection.REPLY, _SYNACK): "iv sr ig ig ig ig ig ig ig sr",
    (CtDirection.REPLY, _FIN): "iv iv fw fw la la la tw cl iv",
    (CtDirection.REPLY, _ACK): "iv ig sr es cw cw tw tw cl ig",
    (CtDirection.REPLY, _RST): "iv cl cl cl cl cl cl cl cl cl",
    (CtDirection.REPLY, _NONE): "iv iv iv iv iv iv iv iv iv iv",
}
_NEXT: dict[tuple[CtDirection, int, str], str] = {
    (direction, kind, state): {**_SHORT, "ig": _IGNORED, "iv": _INVALID}[short]
    for (direction, kind), row in _TRANSITIONS.items()
    for state, short in zip(_STATES, row.split(), strict=True)
}

# PSH, ECE and CWR go with anything.
_VALID_FLAGS = frozenset({SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG})
_OTHER = {CtDirection.ORIGINAL: CtDirection.REPLY, CtDirection.REPLY: CtDirection.ORIGINAL}
_DIRECTION_NUMBER = {CtDirection.ORIGINAL: 0, CtDirection.REPLY: 1}


def _kind(flags: int) -> int:
    if flags & RST:
        return _RST
    if flags & SYN:
        return _SYNACK if flags & ACK else _SYN
    if flags & FIN:
        return _FIN
    return _ACK if flags & ACK else _NONE


# --- following a connection ------------------------------------------------------------------------------------------

_Ends = tuple[Address, int, Address, int]


def follow(
    flow: Flow,
    packets: Iterable[Packet],
    rules: Rules,
    entries: Iterable[ConntrackEvent] = (),
    *,
    whole: bool = True,
) -> list[Checked]:
    """What one node's conntrack makes of the packets of a flow, given in the order in which they came in.

    Each packet must be given once, with the addresses it had before translation. entries are what the node's ctnetlink
    told: it knows of translations that the flow's addresses don't show (masquerading), and of entries that ran out.
    Where the packets are not the `whole` connection, they are not modelled before a SYN, or the end of the old entry.
    """
    tracker = _Tracker(flow, rules, [event for event in entries if event.tuple_orig.proto == 6], whole)
    return [tracker.packet(packet) for packet in packets]


def unsound(flow: Flow, packet: Packet, log: str) -> Checked:
    """A packet that conntrack logged with a wrong checksum: it is INVALID, and moves nothing (nf_conntrack_in)."""
    own = packet.segment.src == flow.client_address
    direction = CtDirection.ORIGINAL if own else CtDirection.REPLY
    return Checked(packet, direction, CtOutcome.INVALID, log=log, note="its checksum is wrong")


class _Tracker:
    """The conntrack entries that one flow's packets make in one namespace, by the headers they match."""

    def __init__(self, flow: Flow, rules: Rules, events: Sequence[ConntrackEvent], whole: bool) -> None:
        self._rules = rules
        self._whole = whole
        self._replies = {_ends(event.tuple_orig): _ends(event.tuple_reply) for event in events}
        self._replies.setdefault(flow.header(Leg.CLIENT_TO_VIP), flow.header(Leg.ENDPOINT_TO_CLIENT))
        self._found: dict[_Ends, tuple[_Ends, CtDirection]] = {}
        self._entries: dict[_Ends, Entry] = {}
        gone = (event for event in events if event.change is EntryChange.DESTROY)
        self._gone = sorted(((event.time_ns, _ends(event.tuple_orig)) for event in gone), reverse=True)
        told = (event for event in events if event.window_scales and event.change is EntryChange.UPDATE)
        # In the handshake the scales become known one by one: there the packets say it sooner.
        told = (event for event in told if event.tcp_state == "ESTABLISHED")
        scales = ((event.time_ns, _ends(event.tuple_orig), event.window_scales or (0, 0)) for event in told)
        self._scales = sorted(scales, reverse=True)

    def packet(self, packet: Packet) -> Checked:
        while self._gone and self._gone[-1][0] <= packet.time_ns:
            self._forget(self._gone.pop()[1])
        while self._scales and self._scales[-1][0] <= packet.time_ns:
            self._rescale(*self._scales.pop()[1:])
        segment = packet.segment
        if segment.flags & (FIN | SYN | RST | ACK | URG) not in _VALID_FLAGS:
            return Checked(packet, CtDirection.ORIGINAL, CtOutcome.INVALID, log="invalid tcp flag combination")
        ends = (segment.src, segment.sport, segment.dst, segment.dport)
        if ends not in self._found:
            return self._new(packet, ends)
        original, direction = self._found[ends]
        before = self._entries[original]
        checked = _judge(packet, direction, before, self._rules)
        if checked is None or checked.state_after is None:
            self._forgotten(original)
        if checked is None:
            return self._new(packet, ends, ANEW)
        if checked.state_after is not None:
            self._entries[original] = checked.state_after
        return checked

    def _rescale(self, original: _Ends, scales: tuple[int, int]) -> None:
        """What ctnetlink tells of the window scales: someone may have changed them through it."""
        entry = self._entries.get(original)
        if entry is not None and (entry.original.td_scale, entry.reply.td_scale) != scales:
            first, second = replace(entry.original, td_scale=scales[0]), replace(entry.reply, td_scale=scales[1])
            self._entries[original] = replace(entry, original=first, reply=second)

    def _forgotten(self, original: _Ends) -> None:
        """A packet ended the entry; what ctnetlink tells of that, which comes later, is not about the next one."""
        self._forget(original)
        told = [event for event in self._gone if event[1] == original]
        if told:
            self._gone.remove(told[-1])

    def _new(self, packet: Packet, ends: _Ends, note: str = "") -> Checked:
        self._whole = self._whole or bool(packet.segment.flags & SYN)
        if not self._whole:
            note = "unmodelled: the connection is older than what was seen of it"
            return Checked(packet, CtDirection.ORIGINAL, CtOutcome.UNMODELLED, note=note)
        checked = _first(packet, self._rules)
        if checked.state_after is not None:
            reply = self._replies.get(ends, (ends[2], ends[3], ends[0], ends[1]))
            self._found[ends] = (ends, CtDirection.ORIGINAL)
            self._found[reply] = (ends, CtDirection.REPLY)
            self._entries[ends] = checked.state_after
        return replace(checked, note=note) if note else checked

    def _forget(self, original: _Ends) -> None:
        self._whole = True
        self._entries.pop(original, None)
        for ends in [ends for ends, (owner, _) in self._found.items() if owner == original]:
            del self._found[ends]


def _ends(header: Tuple) -> _Ends:
    return (header.src, header.sport, header.dst, header.dport)


def _options(segment: Segment, side: Side) -> Side:
    """What a SYN's options say about its sender (tcp_options)."""
    return replace(
        side,
        td_scale=min(segment.wscale or 0, TCP_MAX_WSCALE),
        window_scale=segment.wscale is not None,
        sack_permitted=segment.sack_permitted,
        close_init=False,
        td_maxack=None,
    )


def _first(packet: Packet, rules: Rules) -> Checked:
    """A packet without an entry (tcp_new, and what tcp_packet then does with it)."""
    segment = packet.segment
    kind = _kind(segment.flags)
    state = _NEXT[CtDirection.ORIGINAL, kind, "NONE"]
    if state == _INVALID or (state != "SYN_SENT" and not rules.loose):
        note = "a packet that opens no connection" if state == _INVALID else "mid-stream, and tcp_loose is 0"
        # Only the first of the two is logged.
        log = "invalid new" if state == _INVALID and rules.logs_invalid_new is not False else ""
        return Checked(packet, CtDirection.ORIGINAL, CtOutcome.INVALID, log=log, note=note)
    window = max(segment.window, 1)
    if state == "SYN_SENT":
        side = _options(segment, Side(td_end=segment.end, td_maxend=segment.end, td_maxwin=window))
        entry, note = Entry("NONE", side, Side()), "a new connection"
    else:
        side = Side(
            td_end=segment.end,
            td_maxend=(segment.end + window) & _MASK,
            td_maxwin=window,
            sack_permitted=True,
            be_liberal=True,
        )
        entry = Entry("NONE", side, Side(sack_permitted=True, be_liberal=True))
        note = "picked up in mid-stream: its window is not checked from here on"
    checked = _judge(packet, CtDirection.ORIGINAL, entry, rules)
    assert checked is not None
    return replace(checked, note=note, state_before=None, checks=(), failure=None)


def _judge(packet: Packet, direction: CtDirection, entry: Entry, rules: Rules) -> Checked | None:
    """A packet of a known entry (nf_conntrack_tcp_packet). None where its SYN opens the connection anew."""
    if entry.unmodelled:
        return _unmodelled(packet, direction, entry, entry.unmodelled)
    segment, last = packet.segment, entry.last
    kind = _kind(segment.flags)
    old = entry.tcp_state
    new = _NEXT[direction, kind, old]
    before = (last.kind, last.direction) if last is not None else None
    if new == "SYN_SENT" and old in _REOPENABLE:
        if entry.original.close_init or entry.reply.close_init or before == (_RST, direction):
            return None
        new = _IGNORED
    if new == _IGNORED:
        if last is None or kind != _SYNACK or before != (_SYN, _OTHER[direction]) or segment.ack != last.end:
            return _ignored(packet, direction, entry, kind, rules)
        # It answers a SYN that was ignored: both ends are in step, and conntrack falls in.
        entry = _resynchronized(entry, last)
        old, new = "SYN_SENT", "SYN_RECV"
    if new == _INVALID:
        log = rules.invalid_text.format(kind=kind, direction=_DIRECTION_NUMBER[direction], state=old)
        return Checked(packet, direction, CtOutcome.INVALID, log=log, state_before=entry, state_after=entry)
    if new == "SYN_SENT2":
        return _unmodelled(packet, direction, entry, "a simultaneous open")
    challenged = last is not None and last.expects_challenge and before == (_SYN, _OTHER[direction])
    if last is not None and challenged and (old, kind) == ("LAST_ACK", _ACK):
        met = replace(entry, last=replace(last, expects_challenge=False))
        return Checked(packet, direction, CtOutcome.IGNORE, (), None, "challenge-ack ignored", "", entry, met)
    if kind == _RST:
        stays, unchecked, invalid = _reset(segment, direction, entry, rules)
        if invalid:
            return Checked(packet, direction, CtOutcome.INVALID, (), None, "invalid rst", invalid, entry, entry)
        new = old if stays else new
        if unchecked:
            sides = (entry.side(direction), entry.side(_OTHER[direction]))
            after = _advanced(entry, direction, kind, old, new, sides, last, entry.retransmissions)
            return Checked(packet, direction, CtOutcome.ACCEPT, state_before=entry, state_after=after)
    return _window(packet, direction, entry, old, new, rules)


def _unmodelled(packet: Packet, direction: CtDirection, entry: Entry, why: str) -> Checked:
    return Checked(
        packet,
        direction,
        CtOutcome.UNMODELLED,
        note=f"unmodelled: {why}",
        state_before=entry,
        state_after=replace(entry, unmodelled=why),
    )


def _resynchronized(entry: Entry, last: Last) -> Entry:
    sender = Side(
        td_end=last.end,
        td_maxend=last.end,
        td_maxwin=max(last.window, 1),
        td_scale=min(last.wscale or 0, TCP_MAX_WSCALE),
        window_scale=last.wscale is not None,
        sack_permitted=last.sack_permitted,
    )
    fresh = Side(be_liberal=entry.side(_OTHER[last.direction]).be_liberal)
    sides = (sender, fresh) if last.direction is CtDirection.ORIGINAL else (fresh, sender)
    return replace(entry, original=sides[0], reply=sides[1])


def _ignored(packet: Packet, direction: CtDirection, entry: Entry, kind: int, rules: Rules) -> Checked:
    segment, last = packet.segment, entry.last
    is_syn = kind == _SYN and direction is CtDirection.ORIGINAL
    noted = Last(
        kind,
        direction,
        seq=segment.seq,
        # Only an ACK that answers a SYN is remembered by its ack: a RST may answer it in turn.
        ack=segment.ack if (kind, entry.tcp_state) == (_ACK, "SYN_SENT") else last.ack if last else 0,
        end=segment.end,
        window=segment.window,
        wscale=segment.wscale if is_syn else last.wscale if last else None,
        sack_permitted=segment.sack_permitted if is_syn else bool(last and last.sack_permitted),
        expects_challenge=(is_syn and entry.tcp_state == "LAST_ACK")
        or bool(not is_syn and last and last.expects_challenge),
    )
    log = rules.ignored_text.format(kind=kind, direction=_DIRECTION_NUMBER[direction], state=entry.tcp_state)
    seen_reply = entry.seen_reply or direction is CtDirection.REPLY
    after = replace(entry, last=noted, seen_reply=seen_reply)
    return Checked(packet, direction, CtOutcome.IGNORE, log=log, state_before=entry, state_after=after)


def _reset(segment: Segment, direction: CtDirection, entry: Entry, rules: Rules) -> tuple[bool, bool, str]:
    """A RST: whether the connection's state stays all the same, whether its window isn't checked, why it is INVALID."""
    if rules.rst_unchecked and entry.tcp_state in _CLOSING:
        return False, True, ""
    last, established = entry.last, entry.tcp_state == "ESTABLISHED" and entry.assured
    maxack = entry.side(_OTHER[direction]).td_maxack
    stays = False
    after_syn = last is not None and last.kind == _SYN
    if maxack is not None and not (rules.rst_unchecked and after_syn):
        if rules.rst_unchecked and segment.seq == 0 and not established:
            return False, False, ""
        before_bytes = seq_diff(maxack, segment.seq)
        if before_bytes > 0 and not rules.ignore_invalid_rst:
            return False, False, f"its seq is {before_bytes:,} bytes before what the other side has acknowledged"
        train = last is not None and (last.kind, last.direction, last.end) == (_ACK, direction, segment.seq)
        if not established or before_bytes == 0 or train:
            return False, False, ""
        stays = True
    if last is not None:
        half_open = (entry.seen_reply and after_syn) or (not entry.assured and last.kind == _ACK)
        answers_ignored = half_open and segment.ack == last.end
        challenge = (entry.tcp_state, last.kind, last.direction) == ("SYN_SENT", _ACK, CtDirection.REPLY)
        if answers_ignored or (rules.fates is SINCE_6_1 and challenge and segment.seq == last.ack):
            return stays, True, ""
    return stays, False, ""


def _window(packet: Packet, direction: CtDirection, entry: Entry, old: str, new: str, rules: Rules) -> Checked:
    """The window's checks, and what the packet changes where it passes them (tcp_in_window)."""
    segment = packet.segment
    kind = _kind(segment.flags)
    seq, end, ack, window = segment.seq, segment.end, segment.ack, segment.window
    sender, receiver = entry.side(direction), entry.side(_OTHER[direction])
    sack = ack
    if receiver.sack_permitted and segment.sack_edge is not None and seq_diff(segment.sack_edge, ack) > 0:
        sack = segment.sack_edge
    sender, receiver = _initialized(segment, direction, entry.tcp_state, sender, receiver, sack, rules)
    if not segment.flags & ACK or (kind == _RST and ack == 0):
        ack = sack = receiver.td_end
    if kind == _RST and seq == 0 and entry.tcp_state == "SYN_SENT":
        seq = end = sender.td_end
    checks = _checks(seq, end, sack, sender, receiver)
    failure = _failure(checks, end, sender, receiver, rules)
    if failure is not None:
        return _out_of_window(packet, direction, entry, (sender, receiver), (old, new), checks, failure, rules)

    if not segment.flags & SYN:
        window <<= sender.td_scale
    maxack = sender.td_maxack
    if segment.flags & ACK and (maxack is None or seq_diff(ack, maxack) > 0):
        maxack = ack
    moved = Side(
        end if seq_diff(end, sender.td_end) > 0 else sender.td_end,
        sender.td_maxend,
        max(sender.td_maxwin, window + seq_diff(sack, ack)),
        sender.td_scale,
        maxack,
        sender.window_scale,
        sender.sack_permitted,
        sender.be_liberal,
        sender.close_init,
    )
    past_bytes = seq_diff(end, sender.td_maxend)
    promised = (sack + window) & _MASK
    if seq_diff(promised, receiver.td_maxend) >= 0:
        # A closed window is one byte open to conntrack: a probe must get through.
        maxend = promised if window else (promised + 1) & _MASK
    else:
        maxend = receiver.td_maxend
    if maxend != receiver.td_maxend or (receiver.td_maxwin and past_bytes > 0):
        # What sticks out of the window was not refused: the window must have been larger than it was known to be.
        widened = receiver.td_maxwin + max(past_bytes, 0) if receiver.td_maxwin else 0
        receiver = replace(receiver, td_maxend=maxend, td_maxwin=widened)
    last, retransmissions = entry.last, entry.retransmissions
    if kind == _ACK:
        seen = (direction, seq, ack, end, segment.window)
        if last is not None and (last.direction, last.seq, last.ack, last.end, last.window) == seen:
            retransmissions += 1
        else:
            retransmissions = 0
            last = Last(
                kind, *seen, *((last.wscale, last.sack_permitted, last.expects_challenge) if last is not None else ())
            )
    after = _advanced(entry, direction, kind, old, new, (moved, receiver), last, retransmissions)
    return Checked(packet, direction, CtOutcome.ACCEPT, checks, state_before=entry, state_after=after)


def _initialized(
    segment: Segment, direction: CtDirection, tcp_state: str, sender: Side, receiver: Side, sack: int, rules: Rules
) -> tuple[Side, Side]:
    """Both sides, the sender's made ready where this is the first that is seen of it, or a SYN begins it anew."""
    again = seq_diff(segment.end, sender.td_end) > 0
    if rules.reinit_by_syn_only:
        again = again and bool(segment.flags & SYN) and tcp_state in ("SYN_SENT", "SYN_RECV")
    else:
        waiting = {CtDirection.ORIGINAL: "SYN_SENT", CtDirection.REPLY: "SYN_RECV"}
        again = again and tcp_state == waiting[direction]
    if sender.td_maxwin == 0 and not segment.flags & SYN:
        window = max(segment.window << sender.td_scale, 1)
        sender = replace(sender, td_end=segment.end, td_maxwin=window, td_maxend=(segment.end + window) & _MASK)
        if receiver.td_maxwin == 0:
            receiver = replace(receiver, td_end=sack, td_maxend=sack)
        elif sack == (receiver.td_end + 1) & _MASK:  # most likely the answer to a keepalive
            receiver = replace(receiver, td_end=sack)
    elif sender.td_maxwin == 0 or again:
        first = sender.td_maxwin == 0
        sender = replace(sender, td_end=segment.end, td_maxend=segment.end, td_maxwin=max(segment.window, 1))
        sender = _options(segment, sender)
        # Both must offer scaling, or neither scales (RFC 7323); before the SYN,ACK only a kernel with a bug asks.
        asks = direction is CtDirection.REPLY if rules.reinit_by_syn_only else first
        if (asks or rules.syn_loses_scale) and not (sender.window_scale and receiver.window_scale):
            sender, receiver = replace(sender, td_scale=0), replace(receiver, td_scale=0)
    return sender, receiver


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
    seq_upper, seq_lower, ack_upper, ack_lower = (check.holds for check in checks)
    if seq_upper and seq_lower and ack_upper and ack_lower:
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
    packet: Packet,
    direction: CtDirection,
    entry: Entry,
    sides: tuple[Side, Side],
    states: tuple[str, str],
    checks: tuple[Check, ...],
    failure: Failure,
    rules: Rules,
) -> Checked:
    """A packet that fails a check. sides are the sender's and the receiver's, states the old one and the next."""
    segment, last = packet.segment, entry.last
    kind = _kind(segment.flags)
    sender, receiver = sides
    fate = rules.fates[failure]
    number = {
        Failure.OVERSHOT: _overshot_bytes(checks[1].value, sender),
        Failure.SEQ_OVER: checks[0].bound + 1,
        Failure.SEQ_UNDER: checks[1].bound - 1,
        Failure.ACK_OVER: checks[2].bound + 1,
        Failure.ACK_UNDER: checks[3].bound - 1,
    }[failure]
    if fate.moves_end:
        sender = replace(sender, td_end=checks[1].value)
    if sender.be_liberal or rules.be_liberal:
        after = _advanced(entry, direction, kind, *states, (sender, receiver), last, entry.retransmissions)
        note = "out of the window, and let pass: conntrack is liberal here"
        return Checked(packet, direction, CtOutcome.ACCEPT, checks, failure, "", note, entry, after)
    seen_reply = entry.seen_reply
    if fate.outcome is CtOutcome.IGNORE:
        seen_reply = seen_reply or direction is CtDirection.REPLY
    elif rules.fates is SINCE_6_1 and entry.assured and kind in (_RST, _FIN) and last is not None:
        answered = last.direction is not direction and last.kind in (_RST, _FIN)
        last = last if answered else replace(last, kind=kind, direction=direction)
    original, reply = (sender, receiver) if direction is CtDirection.ORIGINAL else (receiver, sender)
    after = replace(entry, original=original, reply=reply, last=last, seen_reply=seen_reply)
    log = fate.text.format(number & _MASK)
    return Checked(packet, direction, fate.outcome, checks, failure, log, "", entry, after)


def _advanced(
    entry: Entry,
    direction: CtDirection,
    kind: int,
    old: str,
    new: str,
    sides: tuple[Side, Side],
    last: Last | None,
    retransmissions: int,
) -> Entry | None:
    """The entry after a packet that was taken; None where a RST has ended a connection that was never answered."""
    if kind == _RST and not entry.seen_reply:
        return None
    sender, receiver = sides
    if new == "FIN_WAIT" and old != new:
        sender = replace(sender, close_init=True)
    if last is None:
        last = Last(kind, direction)
    elif (last.kind, last.direction) != (kind, direction):
        last = replace(last, kind=kind, direction=direction)
    answered = entry.seen_reply and new == "ESTABLISHED" and old in ("SYN_RECV", "ESTABLISHED")
    original, reply = (sender, receiver) if direction is CtDirection.ORIGINAL else (receiver, sender)
    return Entry(
        new,
        original,
        reply,
        last,
        retransmissions,
        entry.seen_reply or direction is CtDirection.REPLY,
        entry.assured or answered,
    )


# --- held against the kernel -----------------------------------------------------------------------------------------


class Differs(StrEnum):
    """How model and kernel can disagree about one packet."""

    LOGGED_ONLY = "logged-only"
    PREDICTED_ONLY = "predicted-only"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A packet of which the model computes one log line (predicted) and the kernel wrote another (logged), or none."""

    kind: Differs
    packet: Packet
    predicted: str
    logged: str

    def __str__(self) -> str:
        if self.kind is Differs.LOGGED_ONLY:
            return f'the kernel logged "{self.logged}" where the model finds nothing amiss'
        if self.kind is Differs.PREDICTED_ONLY:
            return f'the model expects "{self.predicted}", and the kernel logged nothing'
        return f'the kernel logged "{self.logged}" where the model expects "{self.predicted}"'


def disagreements(pairs: Iterable[tuple[Checked, Sequence[InvalidReason]]], rules: Rules) -> tuple[Disagreement, ...]:
    """Where the kernel's log and the model differ, for packets with what was logged about each of them.

    Packets that are not modelled are left out, and so is what the model can't see: checksums, and the line about a
    timeout that conntrack lowers (Linux kernel commit 628d694344a0 ("netfilter: conntrack: reduce timeout when
    receiving out-of-window fin or rst") (in v6.1)).
    """
    found = []
    for checked, reasons in pairs:
        if checked.outcome is CtOutcome.UNMODELLED:
            continue
        texts = [reason.text for reason in reasons if not _unseen_by_model(reason.text)]
        if len(texts) < len(reasons) and not texts and BAD_CHECKSUM in reasons[0].text:
            continue
        logged = texts[0] if texts else ""
        if logged == checked.log:
            continue
        if checked.log == "invalid new" and not logged and rules.logs_invalid_new is None:
            continue
        kind = Differs.TEXT if logged and checked.log else Differs.LOGGED_ONLY if logged else Differs.PREDICTED_ONLY
        found.append(Disagreement(kind, checked.packet, checked.log, logged))
    return tuple(found)


def _unseen_by_model(text: str) -> bool:
    return BAD_CHECKSUM in text or "lower timeout to" in text


# --- from the ends ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the server reached past the client's window, in bytes.

    packet is the first segment that every kernel's conntrack finds INVALID, as it left the server, and beyond_bytes
    how far it ends past the edge. Without one packet is None, and beyond_bytes is the farthest any segment ended past
    the edge: negative or zero where the client had allowed everything. forgiven_bytes is how far that may be at most:
    one less than td_maxwin, because the kernel counts from td_maxend + 1. edge is the sequence number td_maxend.
    """

    packet: Packet | None
    beyond_bytes: int
    forgiven_bytes: int
    edge: int


def reach(events: FlowEvents) -> Reach | None:
    """How far the server reached; None where the handshake or the client's first ACK was not seen.

    A promise of the client counts from the moment it leaves the client, before conntrack or the server can know it:
    what is past the edge here is past the edge for them.
    """
    syn, syn_ack = events.syn(), events.syn_ack()
    if syn is None or syn_ack is None:
        return None
    scaled = syn.wscale is not None and syn_ack.segment.wscale is not None
    shift = syn.wscale or 0 if scaled else 0
    edge: int | None = None
    max_window = syn.window
    farthest: Reach | None = None
    for packet in _both_directions(events, syn_ack.ifname):
        segment = packet.segment
        if packet.netns == events.flow.client:
            window = segment.window << shift
            # A closed window is one byte open to conntrack: a probe must get through.
            promised = (segment.ack + max(window, 1)) & 0xFFFFFFFF
            edge = promised if edge is None or seq_diff(promised, edge) > 0 else edge
            max_window = max(max_window, window)
        elif edge is not None:
            beyond = seq_diff(segment.end, edge)
            forgiven = max_window - 1
            if seq_diff(segment.seq, edge) > 0 and beyond > forgiven:
                return Reach(packet, beyond, forgiven, edge)
            if farthest is None or beyond > farthest.beyond_bytes:
                farthest = Reach(None, beyond, forgiven, edge)
            if seq_diff(segment.seq, edge) <= 0 < beyond:
                max_window += beyond
    return farthest


def _both_directions(events: FlowEvents, server_ifname: str) -> list[Packet]:
    """The client's ACKs as they leave the client and the server's data as it leaves the server, in time order."""
    client = events.packets(events.flow.client, Direction.OUT, Leg.CLIENT_TO_VIP)
    server = events.packets(events.flow.server, Direction.OUT, Leg.ENDPOINT_TO_CLIENT)
    promises = [packet for packet in client if packet.segment.flags & (SYN | ACK) == ACK]
    data = [packet for packet in server if packet.ifname == server_ifname and packet.segment.payload_bytes]
    return sorted(promises + data, key=lambda packet: packet.time_ns)
