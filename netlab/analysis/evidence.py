"""The evidence that an outcome rests on: findings as pieces, each an event that was seen, in order. Pure."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace

from netlab.analysis.answers import Maker
from netlab.analysis.datagrams import DatagramPath
from netlab.analysis.findings import ConnectionFinding, Death, Ending, Findings, PacketFinding
from netlab.analysis.numbers import Numbers
from netlab.analysis.paths import Fate, PacketPath
from netlab.analysis.result import Evidence, Link
from netlab.analysis.translation import Nat
from netlab.record.events import (
    ACK,
    TRACE_INVALID_CHAIN,
    TRACE_TABLE,
    ConntrackEvent,
    DatagramPacket,
    Direction,
    EntryChange,
    InvalidReason,
    Packet,
    SocketEvent,
    TraceStep,
)
from netlab.record.flow import Flow, ends

THROWN_AWAY = "the client's kernel drops it: its checksum is wrong"
"""What becomes of an untranslated packet with a wrong checksum (tcp_v4_rcv(), net/ipv4/tcp_ipv4.c)."""

_UNLOGGED = "a rule found it INVALID; conntrack logged no reason"
_MADE_FOR_IT = "it had no entry, and made one for this, as for a connection that the server begins: without NAT"
_ENTRY_NS = 100_000_000
"""How much later than its packet an entry's event may be stamped where the kernel doesn't stamp it."""

_BY_A_RST = frozenset((Ending.RESET, Ending.RESET_BY_PEER, Ending.RESET_IN_HANDSHAKE, Ending.REFUSED))


def chain_of(found: ConnectionFinding, findings: Findings) -> tuple[tuple[Evidence, ...], str]:
    """What a connection's ending rests on, in order, and what is missing from that; nothing of one that went on."""
    if isinstance(found.refusal, DatagramPath):
        return (Evidence(Link.OBSERVED, found.refusal.hops[0]), Evidence(Link.OBSERVED, found.refusal.last)), ""
    death = found.killer
    if death is None or found.ending not in _BY_A_RST:
        return tuple(_so_far(found, findings)), _unexplained(found)
    flow, rst = found.flow, death.rst.path
    links = list(_requests(found))
    answer = death.rst.answer
    asked = answer.answers if answer is not None else None
    missing = ""
    if answer is None or answer.maker is Maker.UNKNOWN:
        missing = f"what RST #{rst.number} answers, which came to {death.netns}"
    if asked is not None:
        links += _asked(found, asked, findings)
        cause = found.of(asked.number)
        if found.ending is Ending.RESET and cause is not None and cause.left_alone is not None:
            where = cause.left_alone
            if where.nat is Nat.UNKNOWN:
                missing = f"why NAT on {where.netns} left alone the reply that was answered with a RST"
            if asked.hops[0].direction is not Direction.OUT:
                missing = f"the reply that was answered with a RST, leaving {flow.server}"
    links.append(Evidence(Link.RST, rst.hops[0].parts[0]))
    links.append(Evidence(Link.RST_AT_SERVER if rst.to_server else Link.RST_AT_CLIENT, rst.last.parts[0]))
    at_server = [each.error for each in found.deaths if each.error is not None and each.rst.path.to_server]
    later = [event for event in found.errors if event.errno == errno.ECONNRESET and event.time_ns >= death.time_ns]
    for event in later:
        server = event in at_server or (event.netns == flow.server and flow.server != flow.client)
        links.append(Evidence(Link.SERVER_RESET if server else Link.CLIENT_RESET, event))
    known = death.error is not None or death.told or _counted(death, findings)
    if not known and found.ending in (Ending.RESET, Ending.RESET_BY_PEER):
        missing = missing or f"ECONNRESET at the socket in {death.netns}, after the RST reached it"
    told = dict.fromkeys(links)
    return tuple(sorted(told, key=lambda piece: piece.event.time_ns)), missing


_RESETS_COUNTED = ("Tcp.EstabResets", "Tcp.AttemptFails")
"""The counters of connections that went from ESTABLISHED or CLOSE_WAIT, or from the handshake, straight to CLOSED."""


def _counted(death: Death, findings: Findings) -> bool:
    """Whether the kernel counted a reset connection where the RST came to, next after it did."""
    counts = findings.timeline.told.read_after(death.netns, death.time_ns) or {}
    return any(counts.get(name, 0) for name in _RESETS_COUNTED)


def _so_far(found: ConnectionFinding, findings: Findings) -> Iterator[Evidence]:
    """What was seen of the chain of a reset whose end was not: the request, a reply without translation, its RST."""
    yield from _requests(found)
    reply = next((each for each in found.packets if each.untranslated), None)
    if reply is None:
        return
    yield from _asked(found, reply.path, findings)
    for each in found.packets:
        asked = each.answer.answers if each.answer is not None else None
        if asked is not None and asked.number == reply.path.number:
            yield Evidence(Link.RST, each.path.hops[0].parts[0])
            return


def _unexplained(found: ConnectionFinding) -> str:
    """What is missing where a socket was reset, and no RST was seen that did it."""
    if found.ending is not Ending.RESET_BY_PEER:
        return ""
    error = next(event for event in found.errors if event.errno == errno.ECONNRESET)
    return f"the RST that reset the socket in {error.netns}"


def _requests(found: ConnectionFinding) -> Iterator[Evidence]:
    """The client's first data as it leaves the client, and as the server's side gets it; what was seen of it."""
    for each in found.packets:
        path = each.path
        if path.to_server and path.segment.payload_bytes:
            yield Evidence(Link.REQUEST, path.hops[0].parts[0])
            translated = next((hop for hop in path.hops if hop.ends != path.hops[0].ends), None)
            if translated is not None:
                yield Evidence(Link.REQUEST_TRANSLATED, translated.parts[0])
            return


def _asked(found: ConnectionFinding, asked: PacketPath, findings: Findings) -> Iterator[Evidence]:
    """The packet that was answered by a RST: as it left, why it was not translated, as it came to who answered."""
    each = found.of(asked.number)
    if each is None:
        return
    yield Evidence(Link.REPLY, asked.hops[0].parts[0])
    visit = each.left_alone
    if visit is None:
        return
    why = _why(each, visit.netns, findings)
    if why is not None:
        yield why
    yield Evidence(Link.REPLY_UNTRANSLATED, asked.last.parts[0])


def _why(found: PacketFinding, netns: str, findings: Findings) -> Evidence | None:
    """Why NAT had no translation for a packet: conntrack's log, a rule's verdict, or an entry made for the packet.

    Conntrack logs nothing where `nf_conntrack_tcp_loose=0` keeps it from adopting a connection (tcp_new() in
    net/netfilter/nf_conntrack_proto_tcp.c).
    """
    path, visit = found.path, found.left_alone
    assert visit is not None
    if visit.reason is not None and visit.nat is Nat.INVALID:
        return Evidence(Link.INVALID, visit.reason)
    if visit.nat is Nat.INVALID:
        verdict = _verdict(path, netns)
        return Evidence(Link.INVALID, verdict, _UNLOGGED) if verdict is not None else None
    header, when_ns = visit.hops[0].ends, visit.hops[0].time_ns
    entries = (event for event in findings.timeline.events if isinstance(event, ConntrackEvent))
    for entry in entries:
        made = entry.change is EntryChange.NEW and entry.netns == netns and ends(entry.tuple_orig) == header
        if made and abs(entry.time_ns - when_ns) <= _ENTRY_NS:
            return Evidence(Link.ADOPTED, entry, _MADE_FOR_IT)
    return None


def _verdict(path: PacketPath, netns: str) -> TraceStep | None:
    """The rule in a namespace that found a packet INVALID."""
    return next(
        (
            step
            for step in path.trace
            if (step.netns, step.table) == (netns, TRACE_TABLE) and step.chain.startswith(TRACE_INVALID_CHAIN)
        ),
        None,
    )


def unharmed(found: ConnectionFinding, proof: tuple[Evidence, ...], *, transfers: bool) -> tuple[Evidence, ...]:
    """The evidence of a connection that no RST ended: its request, the proof, and what became of the proof's reply."""
    fate = _fate(found, proof) if transfers else ()
    told = [piece.event for piece in fate]
    return merged(tuple(_requests(found)), tuple(piece for piece in proof if piece.event not in told)) + fate


def _fate(found: ConnectionFinding, proof: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    """What became of the reply that the proof speaks of: conntrack's reason, and its arrival, if there was one."""
    reply = _reply(found, proof)
    if reply is None:
        return ()
    path = reply.path
    fate = [] if any(piece.link is Link.REPLY for piece in proof) else [Evidence(Link.REPLY, path.hops[0].parts[0])]
    fate += [Evidence(Link.INVALID, reason) for reason in path.reasons]
    if not path.reasons:
        verdicts = [_verdict(path, visit.netns) for visit in reply.visits]
        fate += [Evidence(Link.INVALID, verdict, _UNLOGGED) for verdict in verdicts if verdict is not None][:1]
    # Of several that look alike nobody knows which one arrived.
    if path.fate is Fate.DELIVERED and not path.ambiguous:
        link = Link.REPLY_UNTRANSLATED if reply.left_alone is not None else Link.REPLY_TRANSLATED
        thrown = THROWN_AWAY if reply.left_alone is not None and path.corrupt else ""
        fate.append(Evidence(link, path.last.parts[0], thrown))
    return tuple(fate)


def _reply(found: ConnectionFinding, proof: tuple[Evidence, ...]) -> PacketFinding | None:
    """The server's packet that a piece of the proof is, or speaks of: a reply first, then what a reason names."""
    replies = [each for each in found.packets if not each.path.to_server]
    for piece in sorted(proof, key=lambda piece: piece.link is not Link.REPLY):
        event = piece.event
        for each in replies:
            path = each.path
            parts = (part for hop in path.hops for part in hop.parts)
            if isinstance(event, Packet) and piece.link is Link.REPLY and event in parts:
                return each
            if isinstance(event, InvalidReason) and event in path.reasons:
                return each
            if isinstance(event, TraceStep) and event in path.trace:
                return each
    return None


def merged(chain: tuple[Evidence, ...], proof: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    """The chain with the proof of the stimulus in its place in time; one reply, the chain's, with the proof's note."""
    chain_has_reply = any(piece.link is Link.REPLY for piece in chain)
    pieces = []
    for piece in chain:
        same = [proven for proven in proof if proven.event == piece.event and proven.link is not Link.OBSERVED]
        pieces.append(same[0] if same else piece)
    told = [piece.event for piece in chain]
    others = (piece for piece in proof if piece.event not in told)
    pieces += [piece for piece in others if not (chain_has_reply and piece.link is Link.REPLY)]
    return tuple(sorted(pieces, key=lambda piece: piece.event.time_ns))


def numbered(flow: Flow, findings: Findings, piece: Evidence) -> Evidence:
    """The piece with its numbers counted from the SYNs before them; as it is without both SYNs."""
    event = piece.event
    if isinstance(event, SocketEvent | ConntrackEvent | DatagramPacket) or event.segment is None:
        return piece
    numbers = Numbers(findings.timeline.of(flow))
    if not numbers.known(True) or not numbers.known(False):
        return piece
    segment = event.segment
    to_server = ends(segment) in flow.headers()
    ack = numbers.relative(segment.ack, not to_server) if segment.flags & ACK else None
    return replace(piece, relative_seq=numbers.relative(segment.seq, to_server), relative_ack=ack)
