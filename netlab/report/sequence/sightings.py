"""What was seen of a packet, what tells one sighting from all others, and when a trial was. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from netlab.analysis.paths import PacketPath
from netlab.analysis.result import TrialResult
from netlab.record.events import DatagramPacket, InvalidReason, Packet, Witness


def seen(path: PacketPath) -> Iterator[Packet | InvalidReason]:
    """All that was seen of a packet: wherever it crossed, and what conntrack logged about it."""
    for hop in path.hops:
        yield from hop.parts
    yield from path.reasons


def moment(event: Witness) -> tuple[object, ...]:
    """What tells an event from all others of a recording, whether or not a packet's frame was kept."""
    if isinstance(event, Packet):
        return event.time_ns, event.netns, event.ifname, event.direction, event.segment
    if isinstance(event, DatagramPacket):
        return event.time_ns, event.netns, event.ifname, event.direction, event.datagram
    return event.time_ns, event.netns, type(event), getattr(event, "text", "")


def within_ns(trial: TrialResult) -> tuple[int, int]:
    """When a trial began and ended."""
    return trial.started_ns, trial.started_ns + round(trial.duration_s * 1e9)
