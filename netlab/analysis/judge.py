"""From what was seen to what it proves: the events of a trial to its TrialResult. Pure.

A trial is `reset` only if every link of the chain was seen, in order, in the kernel:

    the client's request reaches the node and is translated; a reply leaves the server, conntrack says why NAT has no
    translation for it (its log has the reason why it is INVALID, or a rule found it INVALID, or it was taken for the
    beginning of another connection), it reaches the client with the endpoint's own address as source; the client
    answers with a RST whose sequence number is that reply's ack; the RST reaches the server; the server's socket has
    ECONNRESET.

It is `completed` only if nothing of that was seen, and the client got every byte, and the right ones; it is `stalled`
if the same holds but the deadline passed first. All three need the experiment's proof that its stimulus took place.
Everything else is `inconclusive` and says what is missing: an event that was not seen, an observer that lost some or
missed a canary.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from netlab.analysis.result import Evidence, Link, Outcome, Proof, TrialResult
from netlab.record.events import (
    ACK,
    FIN,
    REASON_ACCURACY_NS,
    RST,
    ConntrackEvent,
    CounterChange,
    DatagramPacket,
    Direction,
    Event,
    InvalidReason,
    Packet,
    Segment,
    SocketEvent,
    SocketEventKind,
    TraceStep,
)
from netlab.record.flow import CANARY_PORT, Flow, FlowEvents, Leg
from netlab.record.observers import ObserverId, ObserverKind, describe_observer

_ADOPTION_NS = 100_000_000
"""How much later than its packet an entry's event may be stamped where the kernel doesn't stamp it."""

THROWN_AWAY = "the client's kernel throws it away: its checksum is wrong"
"""What becomes of an untranslated packet with a wrong checksum (tcp_v4_rcv(), net/ipv4/tcp_ipv4.c)."""

_UNLOGGED = "a rule found it INVALID; conntrack logged no reason"


@dataclass(frozen=True, slots=True)
class Observed:
    """All there is to judge one trial by.

    lost has observers and how many events each could not deliver; failed_observers those that could not be read to the
    end, each with the reason. canaries are the sequence numbers of the packets sent before and after the trial for
    every observer to see; a load's single connections have none. intact: each byte the client got was the byte sent;
    ended: it then got the end of the stream. failed is what kept the trial from its stimulus, empty if nothing did.
    connects: the experiment makes a connection; transfers: it plays it to the end of its payload. tracked: conntrack on
    the node is to know it. since_ns is when the connection began: what has its addresses before is another's.
    """

    flow: Flow
    events: tuple[Event, ...]
    lost: tuple[tuple[ObserverId, int], ...]
    canaries: tuple[int, ...]
    payload_bytes: int
    bytes_received: int
    intact: bool
    ended: bool
    started_ns: int
    duration_s: float
    failed: str = ""
    failed_observers: tuple[tuple[ObserverId, str], ...] = ()
    connects: bool = True
    transfers: bool = True
    tracked: bool = True
    since_ns: int = 0


StimulusProof = Callable[[FlowEvents], Proof]
"""An experiment's own part of judging: did the kernel do what the stimulus is to make it do?"""


def judge_trial(observed: Observed, prove_stimulus: StimulusProof) -> TrialResult:
    """What one trial's events prove."""
    whole = FlowEvents(observed.flow, observed.events)
    return judge_flow(observed, whole, prove_stimulus(whole))


def judge_flow(observed: Observed, whole: FlowEvents, proof: Proof) -> TrialResult:
    """What the events of its connection prove of a trial; the stimulus took place if proof says so."""
    doubts = list(doubts_about(observed, whole))
    events = FlowEvents(observed.flow, _of_this_connection(observed)) if observed.since_ns else whole
    chain, missing_link = _chain(events)
    if not missing_link and proof.bears_reset:
        outcome, missing, evidence = Outcome.RESET, "", _merge(chain, proof.evidence)
    elif not missing_link:
        outcome, missing = Outcome.INCONCLUSIVE, f"{proof.missing}; the connection was reset all the same"
        evidence = _merge(chain, proof.evidence)
    elif sign := _sign_of_reset(events):
        outcome, missing, evidence = Outcome.INCONCLUSIVE, f"{missing_link} ({sign})", chain
    elif proof.missing:
        outcome, missing, evidence = Outcome.INCONCLUSIVE, proof.missing, _merge(_request(events), proof.evidence)
    else:
        outcome, missing = _transfer(observed, events)
        fate = _fate(events, proof.evidence) if observed.transfers else ()
        told = [piece.event for piece in fate]
        seen = tuple(piece for piece in proof.evidence if piece.event not in told)
        evidence = _merge(_request(events), seen) + fate
    if doubts:
        outcome = Outcome.INCONCLUSIVE
    return TrialResult(
        outcome=outcome,
        duration_s=observed.duration_s,
        started_ns=observed.started_ns,
        flow=observed.flow,
        evidence=tuple(_relative(whole, piece) for piece in evidence),
        bytes_received=observed.bytes_received,
        payload_bytes=observed.payload_bytes,
        lost=sum(count for _, count in observed.lost),
        missing=tuple(doubts or ([missing] if missing else [])),
        invalid=invalid_packets(observed),
        retransmits=counted(observed, "Tcp.RetransSegs"),
        refuted="" if doubts else proof.refuted,
    )


def _of_this_connection(observed: Observed) -> Iterator[Event]:
    """The events without those of a connection that had the same addresses before, or that has another name."""
    for event in observed.events:
        another = isinstance(event, SocketEvent) and event.connection
        if event.time_ns >= observed.since_ns and not another:
            yield event


def invalid_packets(observed: Observed) -> int:
    """How many packets conntrack counted as INVALID in all namespaces together, without the canaries."""
    return max(0, counted(observed, "conntrack.invalid") - _canaries_logged(observed))


def counted(observed: Observed, name: str) -> int:
    """How far a counter went in all namespaces together."""
    return sum(event.by for event in observed.events if isinstance(event, CounterChange) and event.name == name)


def _canaries_logged(observed: Observed) -> int:
    """How many of the INVALID packets were canaries: conntrack logs the reason for each."""
    return sum(isinstance(event, InvalidReason) and event.segment.sport == CANARY_PORT for event in observed.events)


def doubts_about(observed: Observed, events: FlowEvents) -> Iterator[str]:
    """Why nothing can be concluded from this trial, whatever was seen."""
    if observed.failed:
        yield observed.failed
    for observer, count in observed.lost:
        if count:
            yield f"{count} {'event' if count == 1 else 'events'} lost by {describe_observer(observer)}"
    for observer, reason in observed.failed_observers:
        yield f"all of {describe_observer(observer)}: observing ended early ({reason})"
    flow = events.flow
    for when, seq in zip(("before", "after"), observed.canaries, strict=False):
        seen: dict[str, Sequence[Packet | InvalidReason]] = {}
        if flow.node != flow.client:  # a node's own canary gets no farther than its conntrack
            leaving = events.packets(flow.client, Direction.OUT, Leg.CANARY)
            seen[f"the packets leaving {flow.client}"] = leaving
        if flow.node not in (None, flow.client):
            seen[f"the packets reaching {flow.node}"] = events.packets(flow.node, Direction.IN, Leg.CANARY)
        if observed.tracked and flow.node is not None:
            seen[describe_observer(ObserverId(ObserverKind.REASONS, flow.node))] = events.reasons(flow.node, Leg.CANARY)
        for where, canaries in seen.items():
            if all(canary.segment.seq != seq for canary in canaries):
                yield f"the canary {when} the trial, among {where}"
    if observed.connects and not observed.failed:
        if not _packets_with(events, flow.server, Direction.IN, Leg.CLIENT_TO_ENDPOINT):
            yield f"the client's connection, among the packets reaching {flow.server}"
        if events.syn_ack() is None:
            yield f"the SYN,ACK, among the packets leaving {flow.server}"
        if flow.node is None:
            return
        open_observers = {observer for observer, _ in observed.lost}
        entries, traces = (ObserverId(kind, flow.node) for kind in (ObserverKind.ENTRIES, ObserverKind.TRACES))
        if observed.tracked and entries in open_observers and not events.entry_made():
            yield f"the connection's new entry, among {describe_observer(entries)}"
        if traces in open_observers and not events.syn_traced():
            yield f"the client's SYN, among {describe_observer(traces)}"


def _packets_with(events: FlowEvents, netns: str, direction: Direction, leg: Leg, flags: int = 0) -> list[Packet]:
    return [packet for packet in events.packets(netns, direction, leg) if packet.segment.flags & flags == flags]


def _request(events: FlowEvents) -> tuple[Evidence, ...]:
    """The client's first data as it leaves the client, and as it leaves the node translated; what was seen of it."""
    flow = events.flow
    for packet in events.packets(flow.client, Direction.OUT, Leg.CLIENT_TO_VIP):
        if packet.segment.payload_bytes:
            seen = (Evidence(Link.REQUEST, packet),)
            forwarded = events.packets(flow.node, Direction.OUT, Leg.CLIENT_TO_ENDPOINT)
            translated = _first_same(forwarded, packet.segment, packet.time_ns)
            return (*seen, Evidence(Link.REQUEST_TRANSLATED, translated)) if translated else seen
    return ()


def _first_same(packets: Sequence[Packet], segment: Segment, not_before_ns: int) -> Packet | None:
    for packet in packets:
        if packet.time_ns >= not_before_ns and packet.segment.same_data(segment):
            return packet
    return None


def _chain(events: FlowEvents) -> tuple[tuple[Evidence, ...], str]:
    """The longest part of the chain that was seen, and its first missing link; empty if the chain is whole."""
    request = _request(events)
    if not request:
        return (), f"the client's request to the VIP, leaving {events.flow.client}"
    if len(request) < 2:
        return request, f"the request translated to the endpoint, leaving {events.flow.node}"
    flow = events.flow
    bare = _data(events.packets(flow.client, Direction.IN, Leg.ENDPOINT_TO_CLIENT))
    replies = [reply for reply in bare if not _has_bad_checksum(events, reply)]
    best: tuple[Evidence, ...] = ()
    missing = f"a reply with the endpoint's own address, reaching {flow.client}"
    for reply in replies:
        links, missing_here = _chain_of(events, reply)
        if not missing_here:
            return request + links, ""
        if len(links) > len(best) or not best:
            best, missing = links, missing_here
    return request + best, missing


def _data(packets: Sequence[Packet]) -> list[Packet]:
    return [packet for packet in packets if not packet.segment.flags & RST]


def _chain_of(events: FlowEvents, arrival: Packet) -> tuple[tuple[Evidence, ...], str]:
    """The links around one un-NATed reply that reached the client, up to the first that is missing."""
    flow, reply = events.flow, arrival.segment
    departures = [
        packet
        for packet in events.packets(flow.server, Direction.OUT, Leg.ENDPOINT_TO_CLIENT)
        if packet.segment.same_packet(reply) and packet.time_ns <= arrival.time_ns
    ]
    if not departures:
        return (), f"the un-NATed reply leaving {flow.server}, before it reached {flow.client}"
    departure = departures[-1]
    links = [Evidence(Link.REPLY, departure)]
    why = _why_untranslated(events, departure, arrival)
    if why is None:
        return tuple(
            links
        ), f"conntrack's reason on {flow.node} for the un-NATed reply, before it reached {flow.client}"
    links += [why, Evidence(Link.REPLY_UNTRANSLATED, arrival)]
    rst = next(
        (
            packet
            for packet in _packets_with(events, flow.client, Direction.OUT, Leg.CLIENT_TO_ENDPOINT, RST)
            if packet.segment.seq == reply.ack and packet.time_ns >= arrival.time_ns
        ),
        None,
    )
    if rst is None:
        return tuple(links), f"a RST leaving {flow.client} after the un-NATed reply, with that reply's ack as its seq"
    links.append(Evidence(Link.RST, rst))
    resets = _packets_with(events, flow.server, Direction.IN, Leg.CLIENT_TO_ENDPOINT, RST)
    at_server = _first_same(resets, rst.segment, rst.time_ns)
    if at_server is None:
        return tuple(links), f"the client's RST reaching {flow.server}"
    links.append(Evidence(Link.RST_AT_SERVER, at_server))
    server_reset = _reset(events, flow.server, at_server.time_ns)
    if server_reset is None:
        return tuple(links), f"ECONNRESET at the socket in {flow.server}, after the RST reached it"
    links.append(Evidence(Link.SERVER_RESET, server_reset))
    client_reset = _reset(events, flow.client, at_server.time_ns)
    if client_reset is not None:
        links.append(Evidence(Link.CLIENT_RESET, client_reset))
    return tuple(links), ""


def _why_untranslated(events: FlowEvents, departure: Packet, arrival: Packet) -> Evidence | None:
    """Why NAT had no translation for a reply: conntrack's log, a rule's verdict, or an entry made for the reply itself.

    Conntrack logs nothing where `nf_conntrack_tcp_loose=0` keeps it from adopting a connection (tcp_new() in
    net/netfilter/nf_conntrack_proto_tcp.c). Verdicts and entries may be stamped when they were read, which is later.
    """
    node, reply = events.flow.node, arrival.segment
    reason = _reason(events, node, reply, departure.time_ns, arrival.time_ns)
    if reason is not None:
        return Evidence(Link.INVALID, reason)
    for verdict in events.verdicts(node):
        same = verdict.segment is not None and verdict.segment.same_data(reply)
        if same and verdict.time_ns >= departure.time_ns:
            return Evidence(Link.INVALID, verdict, _UNLOGGED)
    for entry in events.adopted(node):
        if entry.time_ns <= departure.time_ns + _ADOPTION_NS:
            note = "it had no entry, and made one for this, as for a connection that the server begins: without NAT"
            return Evidence(Link.ADOPTED, entry, note)
    return None


def _reason(
    events: FlowEvents, netns: str | None, segment: Segment, not_before_ns: int, not_after_ns: int
) -> InvalidReason | None:
    earliest_ns = not_before_ns - REASON_ACCURACY_NS
    for reason in events.reasons(netns, Leg.ENDPOINT_TO_CLIENT):
        if earliest_ns < reason.time_ns <= not_after_ns and reason.segment.same_packet(segment):
            return reason
    return None


def _reset(events: FlowEvents, netns: str, not_before_ns: int = 0) -> SocketEvent | None:
    for event in events.sockets:
        if (
            event.netns == netns
            and event.kind is SocketEventKind.ERROR
            and event.errno == errno.ECONNRESET
            and event.time_ns >= not_before_ns
        ):
            return event
    return None


def _sign_of_reset(events: FlowEvents) -> str:
    """A trace of a reset, which forbids calling the trial completed even where the chain was not seen whole."""
    flow = events.flow
    if _reset(events, flow.server):
        return f"yet the socket in {flow.server} was reset"
    if _reset(events, flow.client):
        return f"yet the socket in {flow.client} was reset"
    if _packets_with(events, flow.client, Direction.OUT, Leg.CLIENT_TO_ENDPOINT, RST):
        return f"yet {flow.client} sent a RST to the endpoint"
    bare = _data(events.packets(flow.client, Direction.IN, Leg.ENDPOINT_TO_CLIENT))
    if any(not _has_bad_checksum(events, reply) for reply in bare):
        return f"yet an un-NATed reply reached {flow.client}"
    return ""


def _has_bad_checksum(events: FlowEvents, reply: Packet) -> bool:
    """Whether conntrack found the reply's checksum wrong: then no host answers it (tcp_v4_rcv, net/ipv4/tcp_ipv4.c)."""
    return any(
        "bad checksum" in reason.text and reason.segment.same_data(reply.segment)
        for reason in events.reasons(events.flow.node, Leg.ENDPOINT_TO_CLIENT)
    )


def _transfer(observed: Observed, events: FlowEvents) -> tuple[Outcome, str]:
    """Whether the client got all it was to get, once it is clear that the stimulus took place and nothing was reset."""
    flow, got = events.flow, f"{observed.bytes_received:,} of {observed.payload_bytes:,} bytes"
    for event in events.sockets:
        if event.kind is SocketEventKind.ERROR:
            name = errno.errorcode.get(event.errno, str(event.errno))
            return Outcome.INCONCLUSIVE, f"a cause for {name} at the socket in {event.netns}: {got} had arrived"
    if not observed.transfers:
        return Outcome.COMPLETED, ""
    if not observed.intact:
        return Outcome.INCONCLUSIVE, f"the right bytes: the client got {got}, not all as they were sent"
    if not observed.ended:
        return Outcome.STALLED, f"the end of the stream: {got} in {observed.duration_s:.1f} s"
    if observed.bytes_received != observed.payload_bytes:
        return Outcome.INCONCLUSIVE, f"the whole payload: the client got {got}, then the end of the stream"
    if not _packets_with(events, flow.server, Direction.OUT, Leg.ENDPOINT_TO_CLIENT, FIN):
        return Outcome.INCONCLUSIVE, f"the server's FIN, among the packets leaving {flow.server}"
    if not _packets_with(events, flow.client, Direction.IN, Leg.VIP_TO_CLIENT, FIN):
        return Outcome.INCONCLUSIVE, f"the server's FIN, among the packets reaching {flow.client}"
    return Outcome.COMPLETED, ""


def _fate(events: FlowEvents, evidence: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    """What became of a reply in the evidence: conntrack's reason, and its arrival at the client, if there was one."""
    flow, departure = events.flow, _departure(events, evidence)
    if departure is None:
        return ()
    sent = events.packets(flow.server, Direction.OUT, Leg.ENDPOINT_TO_CLIENT)
    # Where a copy can't be told from it, only what arrives before that was sent is this packet.
    again = [
        packet.time_ns
        for packet in sent
        if packet.time_ns > departure.time_ns
        and packet.ifname == departure.ifname
        and packet.segment.same_packet(departure.segment)
    ]
    until_ns = again[0] if again else events.last_ns
    nodes = [node for node in dict.fromkeys((flow.server_node, flow.node)) if node is not None]
    reasons = [_reason(events, node, departure.segment, departure.time_ns, until_ns) for node in nodes]
    fate = [] if any(piece.link is Link.REPLY for piece in evidence) else [Evidence(Link.REPLY, departure)]
    fate += [Evidence(Link.INVALID, reason) for reason in reasons if reason is not None]
    if not any(reasons):
        fate += [Evidence(Link.INVALID, piece.event, _UNLOGGED) for piece in evidence if _is_verdict(events, piece)]
    ways = ((Leg.VIP_TO_CLIENT, Link.REPLY_TRANSLATED), (Leg.ENDPOINT_TO_CLIENT, Link.REPLY_UNTRANSLATED))
    for leg, link in ways:
        arrivals = events.packets(flow.client, Direction.IN, leg)
        same = (packet for packet in arrivals if packet.segment.same_packet(departure.segment))
        arrival = next((packet for packet in same if packet.time_ns >= departure.time_ns), None)
        if arrival is not None and arrival.time_ns <= until_ns:
            wrong = link is Link.REPLY_UNTRANSLATED and _has_bad_checksum(events, arrival)
            fate.append(Evidence(link, arrival, THROWN_AWAY if wrong else ""))
    return tuple(fate)


def _is_verdict(events: FlowEvents, piece: Evidence) -> bool:
    """Whether it is a rule's finding that a packet is INVALID."""
    return isinstance(piece.event, TraceStep) and piece.event in events.verdicts(piece.event.netns)


def _departure(events: FlowEvents, evidence: tuple[Evidence, ...]) -> Packet | None:
    """The reply in the evidence as it left the server: the evidence itself, or what a reason in it speaks of."""
    for piece in evidence:
        if piece.link is Link.REPLY and isinstance(piece.event, Packet):
            return piece.event
    sent = events.packets(events.flow.server, Direction.OUT, Leg.ENDPOINT_TO_CLIENT)
    for piece in evidence:
        told = piece.event.segment if isinstance(piece.event, InvalidReason | TraceStep) else None
        if told is not None:
            before_ns = piece.event.time_ns + REASON_ACCURACY_NS
            # A trace has only the beginning of the TCP header.
            same_as = told.same_packet if isinstance(piece.event, InvalidReason) else told.same_data
            same = [packet for packet in sent if packet.time_ns < before_ns and same_as(packet.segment)]
            if same:
                return same[-1]
    return None


def _merge(chain: tuple[Evidence, ...], proof: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
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


def _relative(events: FlowEvents, piece: Evidence) -> Evidence:
    """The piece with its numbers counted from the SYNs before them; as it is without both SYNs."""
    client, server = events.initial_numbers(events.flow.client), events.initial_numbers(events.flow.server)
    if isinstance(piece.event, SocketEvent | ConntrackEvent | DatagramPacket) or piece.event.segment is None:
        return piece
    if not client or not server:
        return piece
    segment = piece.event.segment
    own, other = (client, server) if segment.src == events.flow.client_address else (server, client)
    relative_ack = _counted_from(other, segment.ack) if segment.flags & ACK else None
    return Evidence(piece.link, piece.event, piece.note, _counted_from(own, segment.seq), relative_ack)


def _counted_from(initial: Sequence[int], number: int) -> int:
    return min((number - first) & 0xFFFFFFFF for first in initial)
