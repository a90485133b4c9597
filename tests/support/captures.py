"""Small recordings with their frames, and what tshark reads in a file made of one."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import skips
import story

from netlab.analysis.result import Result
from netlab.record.events import ACK, PSH, Event, Packet, Segment
from netlab.record.flow import Leg
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.recording import Recording, Tap

TAPS = (Tap("client", "eth0", "pod"), Tap("server", "eth0", "pod"))


def recording(*events: Event, taps: Sequence[Tap] = TAPS, lost: Mapping[ObserverId, int] | None = None) -> Recording:
    """A recording of one second, lost of each observer; where that is left out, none of the two ends' packets."""
    counts = (
        {ObserverId(ObserverKind.PACKETS, "client", "eth0"): 0, ObserverId(ObserverKind.PACKETS, "server", "eth0"): 0}
        if lost is None
        else lost
    )
    return Recording(
        lab="tiny",
        kernel="6.18.44",
        started_ns=story.START_NS,
        ended_ns=story.START_NS + 1_000_000,
        topology="name: tiny\n",
        settings=(),
        fixes=(),
        taps=tuple(taps),
        flows=(story.FLOW,),
        events=events,
        lost=tuple(counts.items()),
    )


def frame_of(segment: Segment, whole: bool) -> tuple[int, bytes]:
    """The segment as a frame, its payload zeros; whole or cut off after the headers."""
    header = struct.pack(
        "!HHIIBBHHH", segment.sport, segment.dport, segment.seq, segment.ack, 0x50, segment.flags, segment.window, 0, 0
    )
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40 + segment.payload_bytes, 0, 0, 64, 6, 0)
    frame = b"\2" * 12 + b"\x08\0" + ip + segment.src.packed + segment.dst.packed + header
    wire_bytes = len(frame) + segment.payload_bytes
    return wire_bytes, frame + b"\0" * segment.payload_bytes * whole


def told(events: Mapping[str, Event]) -> tuple[Result, Recording]:
    """A story judged, and its recording, which also has the reply's arrival at the client's node."""
    bad = story.segment(Leg.ENDPOINT_TO_CLIENT, PSH | ACK, *story.REPLY)
    seen = {**events, "reply at node": story.packet(62, "client-node", "in", bad)}
    judged = story.judge(story.observed(seen, bytes_received=2304, ended=False))
    result = Result("window-overrun", story.CLAIM, "tiny", (), "6.18.44", (judged,))
    kept = []
    for event in seen.values():
        if isinstance(event, Packet):
            wire_bytes, frame = frame_of(event.segment, whole=event.segment.payload_bytes < 1000)
            kept.append(replace(event, wire_bytes=wire_bytes, frame=frame))
    taps = (*TAPS, Tap("client-node", "eth0", "node"))
    return result, replace(recording(*kept, taps=taps), ended_ns=story.START_NS + 200_000)


def tshark(file: Path, *fields: str, options: Sequence[str] = ()) -> list[str]:
    """The fields of each packet, separated by a bar."""
    skips.skip_unless_program("tshark")
    argv = ["tshark", "-n", "-r", str(file), *options, "-T", "fields", "-E", "separator=|"]
    done = subprocess.run([*argv, *(f"-e{field}" for field in fields)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
