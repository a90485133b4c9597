"""The packets of a run as a pcapng file, those that matter with a comment that says what they show. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from netlab.analysis.result import Evidence, Link, Outcome, Result, TrialResult
from netlab.model import Address
from netlab.record import pcapng
from netlab.record.events import REASON_ACCURACY_NS, Direction, InvalidReason, Packet
from netlab.record.recording import Recording


def render(result: Result, recording: Recording, *, drawn_only: bool = False) -> bytes:
    """The recording's packets; the comments are those that its trials' evidence gives rise to.

    With drawn_only, those of one trial alone: the one that the text report draws.
    """
    about = f"{result.experiment} in lab {result.lab}: {result.claim}"
    if drawn_only and result.trials:
        number, _ = result.shown()
        recording = _trial_alone(result, recording, number)
        about += f" (trial {number} of {len(result.trials)})"
    return pcapng.write(recording, comments(result, recording), comment=about)


def _trial_alone(result: Result, recording: Recording, number: int) -> Recording:
    """The part of a recording from the beginning of a trial, which counts from 1, to the next one's."""
    starts = [trial.started_ns for trial in result.trials] + [recording.ended_ns + 1]
    begin, end = starts[number - 1], starts[number]
    events = tuple(event for event in recording.events if begin <= event.time_ns < end)
    return replace(recording, started_ns=begin, ended_ns=end - 1, events=events)


def comments(result: Result, recording: Recording) -> dict[Packet, list[str]]:
    """What to say about which packets of the recording.

    A piece of evidence that is a packet is said of that packet, a reason of conntrack's of the packet's arrival at the
    namespace that gave it; evidence of a trial whose packets are not in the recording, of none.
    """
    packets = [event for event in recording.events if isinstance(event, Packet)]
    hops = {_crossing(packet): packet for packet in packets}
    said: dict[Packet, list[str]] = {}
    for trial in result.trials:
        for piece in trial.evidence:
            about = _about(piece, packets, hops)
            if about is not None:
                said.setdefault(about, []).extend(_words(piece, trial))
    return said


def _crossing(packet: Packet) -> tuple[object, ...]:
    """What tells a packet's hop of an interface from all others, whether or not its frame was kept."""
    return packet.time_ns, packet.netns, packet.ifname, packet.direction, packet.segment


def _about(piece: Evidence, packets: list[Packet], hops: dict[tuple[object, ...], Packet]) -> Packet | None:
    if isinstance(piece.event, Packet):
        return hops.get(_crossing(piece.event))
    if isinstance(piece.event, InvalidReason):
        reason = piece.event
        return max(
            (
                packet
                for packet in packets
                if packet.netns == reason.netns
                and packet.direction is Direction.IN
                and reason.ifname in ("", packet.ifname)
                and packet.time_ns < reason.time_ns + REASON_ACCURACY_NS
                and packet.segment.same_data(reason.segment)
            ),
            key=lambda packet: packet.time_ns,
            default=None,
        )
    return None


def _words(piece: Evidence, trial: TrialResult) -> Iterator[str]:
    flow = trial.flow
    match piece.link:
        case Link.REQUEST:
            yield f"the client's request to the VIP {_end(flow.vip, flow.port)}"
        case Link.REQUEST_TRANSLATED:
            yield f"NAT: destination {_end(flow.vip, flow.port)} became {_end(flow.endpoint, flow.target_port)}"
        case Link.INVALID:
            # Conntrack logs what it ignores too: only the rest of the chain proves that this one became INVALID.
            verdict = "INVALID" if trial.outcome is Outcome.RESET else f"conntrack on {piece.event.netns} logged"
            yield f"{verdict}: {piece.event.text}" if isinstance(piece.event, InvalidReason) else verdict
        case Link.REPLY_UNTRANSLATED:
            yield f"NAT skipped: source stays {flow.endpoint}"
        case Link.REPLY_TRANSLATED:
            yield f"NAT: source {_end(flow.endpoint, flow.target_port)} became {_end(flow.vip, flow.port)}"
        case Link.RST:
            yield f"{flow.client} has no socket for this: RST, its seq is the ack of the reply from {flow.endpoint}"
        case Link.RST_AT_SERVER:
            killed = any(other.link is Link.SERVER_RESET for other in trial.evidence)
            yield "the RST that kills the server's socket" if killed else "the RST reaches the server"
    if piece.note:
        yield piece.note


def _end(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
