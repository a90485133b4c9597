"""What conntrack makes of one packet, and of its entry (nf_conntrack_tcp_packet). Pure."""

from __future__ import annotations

from dataclasses import replace

from netlab.conntrack.kernels import Rules
from netlab.conntrack.states import CLOSING, IGNORED, INVALID, REOPENABLE, kind_of, next_state, valid_flags
from netlab.conntrack.values import TCP_MAX_WSCALE, Checked, CtDirection, CtOutcome, Entry, Kind, Last, Side
from netlab.conntrack.window import BARE_DATA_OFFSET, before, in_window, syn_options, with_sides
from netlab.record.events import Packet, Segment

_MASK = 0xFFFFFFFF
_EARLY_EVICTION_S = 120
"""An entry that has less than this left is not shortened (nf_tcp_handle_invalid)."""


def malformed(packet: Packet) -> Checked | None:
    """A packet that is INVALID whatever its entry (tcp_error); None for any other. Checksums are not looked at."""
    segment = packet.segment
    too_short = segment.data_offset is not None and segment.data_offset < BARE_DATA_OFFSET
    if too_short or segment.payload_bytes < 0:
        return Checked(packet, CtDirection.ORIGINAL, CtOutcome.INVALID, log="truncated packet")
    if not valid_flags(segment.flags):
        return Checked(packet, CtDirection.ORIGINAL, CtOutcome.INVALID, log="invalid tcp flag combination")
    return None


def unsound(packet: Packet, direction: CtDirection, log: str) -> Checked:
    """A packet that conntrack logged with a wrong checksum: it is INVALID, and moves nothing (nf_conntrack_in)."""
    return Checked(packet, direction, CtOutcome.INVALID, log=log, note="its checksum is wrong")


def unmodelled(packet: Packet, direction: CtDirection, why: str, entry: Entry | None) -> Checked:
    """A packet of which this model can't tell what conntrack makes; nor of those that follow it."""
    note, after = f"unmodelled: {why}", replace(entry or Entry(), unmodelled=why)
    return Checked(packet, direction, CtOutcome.UNMODELLED, note=note, state_before=entry, state_after=after)


def first(packet: Packet, rules: Rules) -> Checked:
    """A packet without an entry (tcp_new, and what nf_conntrack_tcp_packet then does with it)."""
    segment = packet.segment
    state = next_state(CtDirection.ORIGINAL, kind_of(segment.flags), "NONE")
    if state == INVALID or (state != "SYN_SENT" and not rules.loose):
        note = "a packet that opens no connection" if state == INVALID else "mid-stream, and tcp_loose is 0"
        # Only the first of the two is logged.
        log = "invalid new" if state == INVALID and rules.logs_invalid_new else ""
        return Checked(packet, CtDirection.ORIGINAL, CtOutcome.INVALID, log=log, note=note)
    window = max(segment.window, 1)
    if state == "SYN_SENT":
        entry = Entry(original=syn_options(segment, Side(segment.end, segment.end, window)))
        note = "a new connection"
    else:
        maxend = (segment.end + window) & _MASK
        own = Side(segment.end, maxend, window, sack_permitted=True, be_liberal=True)
        entry = Entry(original=own, reply=Side(sack_permitted=True, be_liberal=True))
        note = "picked up in mid-stream: its window is not checked from here on"
    checked = following(packet, CtDirection.ORIGINAL, entry, rules)
    assert checked is not None, "only an entry that was there can be reopened"
    return replace(checked, note=note, state_before=None, checks=(), failure=None)


def following(packet: Packet, direction: CtDirection, entry: Entry, rules: Rules) -> Checked | None:
    """A packet of a known entry. None where it is a SYN that opens the connection anew: the entry ends."""
    segment, before_it = packet.segment, entry
    kind, old = kind_of(segment.flags), entry.tcp_state
    new = next_state(direction, kind, old)
    if new == "SYN_SENT" and old in REOPENABLE:
        aborted = (entry.last.kind, entry.last.direction) == (Kind.RST, direction)
        if entry.original.close_init or entry.reply.close_init or aborted:
            return None
        new = IGNORED
    if new == IGNORED:
        if not _answers_ignored_syn(segment, kind, direction, entry.last):
            return _ignored(packet, direction, entry, kind, rules)
        # Both ends are in step, and conntrack falls in.
        entry, old, new = _resynchronized(entry), "SYN_SENT", "SYN_RECV"
    if new == INVALID:
        log = rules.invalid_text.format(kind=int(kind), direction=direction.number, state=old)
        return Checked(packet, direction, CtOutcome.INVALID, log=log, state_before=entry, state_after=entry)
    if new == "TIME_WAIT" and _is_challenge_ack(kind, direction, entry):
        after = _answered(replace(entry, last=replace(entry.last, expects_challenge=False)), direction)
        log = "challenge-ack ignored"
        return Checked(packet, direction, CtOutcome.IGNORE, log=log, state_before=entry, state_after=after)
    if new == "SYN_SENT2":
        entry = replace(entry, last=replace(entry.last, simultaneous_open=True))
    elif new == "SYN_RECV" and (direction, kind) == (CtDirection.REPLY, Kind.ACK) and entry.last.simultaneous_open:
        new = "ESTABLISHED"
    elif kind is Kind.RST:
        stays, unchecked, why_invalid = _reset(segment, direction, entry, rules)
        if why_invalid:
            invalid = Checked(packet, direction, CtOutcome.INVALID, log="invalid rst", note=why_invalid)
            return replace(invalid, state_before=entry, state_after=entry)
        new = old if stays else new
        if unchecked:
            closed = _advanced(packet, direction, entry, old, new, rules)
            return Checked(packet, direction, CtOutcome.ACCEPT, state_before=entry, state_after=closed)
    return replace(_windowed(packet, direction, entry, old, new, rules), state_before=before_it)


# --- packets that may belong to another incarnation ------------------------------------------------------------------


def _answers_ignored_syn(segment: Segment, kind: Kind, direction: CtDirection, last: Last) -> bool:
    answers = (last.kind, last.direction) == (Kind.SYN, direction.other)
    return kind is Kind.SYNACK and answers and segment.ack == last.end


def _resynchronized(entry: Entry) -> Entry:
    """The entry with the numbers of the last SYN that was ignored, and nothing known of the other side."""
    last = entry.last
    sender = Side(
        td_end=last.end,
        td_maxend=last.end,
        td_maxwin=max(last.window, 1),
        td_scale=min(last.wscale or 0, TCP_MAX_WSCALE),
        window_scale=last.wscale is not None,
        sack_permitted=last.sack_permitted,
    )
    entry = replace(entry, last=replace(last, expects_challenge=False))
    return with_sides(entry, last.direction, sender, Side(be_liberal=entry.side(last.direction.other).be_liberal))


def _ignored(packet: Packet, direction: CtDirection, entry: Entry, kind: Kind, rules: Rules) -> Checked:
    segment, last = packet.segment, entry.last
    noted = replace(last, kind=kind, direction=direction, seq=segment.seq, end=segment.end, window=segment.window)
    if (kind, direction) == (Kind.SYN, CtDirection.ORIGINAL):
        offered = syn_options(segment, Side())
        noted = replace(
            noted,
            wscale=offered.td_scale if offered.window_scale else None,
            sack_permitted=offered.sack_permitted,
            expects_challenge=entry.tcp_state == "LAST_ACK",
            simultaneous_open=False,
        )
    elif (kind, entry.tcp_state) == (Kind.ACK, "SYN_SENT"):
        noted = replace(noted, ack=segment.ack)  # a RST may answer it in turn
    log = rules.ignored_text.format(kind=int(kind), direction=direction.number, state=entry.tcp_state)
    after = _answered(replace(entry, last=noted), direction)
    return Checked(packet, direction, CtOutcome.IGNORE, log=log, state_before=entry, state_after=after)


def _is_challenge_ack(kind: Kind, direction: CtDirection, entry: Entry) -> bool:
    """Whether an ACK may answer a SYN that was ignored (RFC 5961, section 4), and no FIN."""
    last = entry.last
    after_syn = (last.kind, last.direction) == (Kind.SYN, direction.other) and last.expects_challenge
    return kind is Kind.ACK and entry.tcp_state == "LAST_ACK" and after_syn


def _reset(segment: Segment, direction: CtDirection, entry: Entry, rules: Rules) -> tuple[bool, bool, str]:
    """A RST: whether the connection's state stays all the same, whether its window isn't checked, why it is INVALID."""
    if rules.rst_unchecked and entry.tcp_state in CLOSING:
        return False, True, ""
    last, maxack = entry.last, entry.side(direction.other).td_maxack
    stays = False
    if maxack is not None and not (rules.rst_unchecked and last.kind is Kind.SYN):
        if rules.rst_unchecked and segment.seq == 0 and not entry.established:
            return False, False, ""
        if before(segment.seq, maxack) and not rules.ignore_invalid_rst:
            before_bytes = (maxack - segment.seq) & _MASK
            return False, False, f"its seq is {before_bytes:,} bytes before what the other side has acknowledged"
        train = (last.kind, last.direction, last.end) == (Kind.ACK, direction, segment.seq)
        if not entry.established or segment.seq == maxack or train:
            return False, False, ""
        stays = True
    ignored_syn = entry.seen_reply and last.kind is Kind.SYN
    if rules.rst_answers_other_side:
        ignored_syn = ignored_syn and last.direction is not direction
    half_open = not entry.assured and last.kind is Kind.ACK
    challenge = (entry.tcp_state, last.kind, last.direction) == ("SYN_SENT", Kind.ACK, CtDirection.REPLY)
    answers_ignored = (ignored_syn or half_open) and segment.ack == last.end
    answers_challenge = rules.passes_challenged_rst and challenge and segment.seq == last.ack
    return stays, answers_ignored or answers_challenge, ""


# --- packets of this one ---------------------------------------------------------------------------------------------


def _windowed(packet: Packet, direction: CtDirection, entry: Entry, old: str, new: str, rules: Rules) -> Checked:
    """A packet that is held against the window."""
    found = in_window(packet.segment, direction, entry, rules)
    note = ""
    after: Entry | None
    match found.outcome:
        case CtOutcome.IGNORE:
            after = _answered(found.entry, direction)
        case CtOutcome.INVALID:
            after = _shortened(packet, direction, found.entry, rules)
        case _:
            after = _advanced(packet, direction, found.entry, old, new, rules)
            if found.failure is not None:
                note = "out of the window, and let pass: conntrack is liberal here"
    return Checked(
        *(packet, direction, found.outcome, found.checks, found.failure, found.log, note),
        state_before=entry,
        state_after=after,
    )


def _answered(entry: Entry, direction: CtDirection) -> Entry:
    """The entry after a packet that was not INVALID (IPS_SEEN_REPLY)."""
    if entry.seen_reply or direction is CtDirection.ORIGINAL:
        return entry
    return replace(entry, seen_reply=True)


def _shortened(packet: Packet, direction: CtDirection, entry: Entry, rules: Rules) -> Entry:
    """The entry after a packet out of the window (nf_tcp_handle_invalid): a FIN or RST of each side ends it sooner."""
    kind, last = kind_of(packet.segment.flags), entry.last
    if not (rules.forgiving and entry.assured and kind in (Kind.RST, Kind.FIN)):
        return entry
    if not (last.direction is not direction and last.kind in (Kind.RST, Kind.FIN)):
        return replace(entry, last=replace(last, kind=kind, direction=direction))
    left_s = rules.timeouts_s[entry.timeout] - (packet.time_ns - entry.refreshed_ns) / 1e9
    if left_s < _EARLY_EVICTION_S or left_s <= rules.timeouts_s["UNACK"]:
        return entry
    return replace(entry, timeout="UNACK", refreshed_ns=packet.time_ns)


def _advanced(packet: Packet, direction: CtDirection, entry: Entry, old: str, new: str, rules: Rules) -> Entry | None:
    """The entry after a packet that was taken; None where a RST has ended a connection that was never answered."""
    kind, last = kind_of(packet.segment.flags), entry.last
    if kind is Kind.RST and not entry.seen_reply:
        return None
    if new == "FIN_WAIT" and old != new:
        sender = replace(entry.side(direction), close_init=True)
        entry = with_sides(entry, direction, sender, entry.side(direction.other))
    if (last.kind, last.direction) != (kind, direction):
        last = replace(last, kind=kind, direction=direction)
    renews = entry.seen_reply or (kind, old) != (Kind.SYN, "SYN_SENT")
    answered = entry.seen_reply and new == "ESTABLISHED" and old in ("SYN_RECV", "ESTABLISHED")
    return Entry(
        new,
        entry.original,
        entry.reply,
        last,
        entry.retransmissions,
        entry.seen_reply or direction is CtDirection.REPLY,
        entry.assured or answered,
        _timeout(kind, entry, new, rules) if renews else entry.timeout,
        packet.time_ns if renews else entry.refreshed_ns,
    )


def _timeout(kind: Kind, entry: Entry, new: str, rules: Rules) -> str:
    """Which timeout a packet that was taken sets."""
    longer_than_retrans = rules.timeouts_s[new] > rules.timeouts_s["RETRANS"]
    longer_than_unack = rules.timeouts_s[new] > rules.timeouts_s["UNACK"]
    unacknowledged = entry.original.data_unacknowledged or entry.reply.data_unacknowledged
    if entry.retransmissions >= rules.max_retrans and longer_than_retrans:
        found = "RETRANS"
    elif kind is Kind.RST:
        found = "CLOSE"
    elif unacknowledged and longer_than_unack:
        found = "UNACK"
    elif entry.last.window == 0 and longer_than_retrans:
        found = "RETRANS"
    else:
        found = new
    if not entry.seen_reply and new == "ESTABLISHED" and rules.timeouts_s[found] > rules.timeouts_s["UNACK"]:
        return "UNACK"
    return found
