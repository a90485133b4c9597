"""The packets of a run as a pcapng file, those that matter with a comment that says what they show. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeAlias

from netlab.analysis.datagrams import DatagramPath
from netlab.analysis.findings import Findings
from netlab.analysis.paths import PacketPath
from netlab.analysis.result import Result, TrialResult
from netlab.record import pcapng
from netlab.record.events import DatagramPacket, Direction, Packet
from netlab.record.flow import CANARY_PORT, about_canary
from netlab.record.once import Sightings, identity
from netlab.record.recording import Recording
from netlab.report.sequence import build
from netlab.report.words import LINKS

CANARY = "a canary: netlab sent it to see that its observers see, and nobody answers it"


Note: TypeAlias = tuple[int, list[str]]
"""A packet's number in the report, and what is said of it."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file, and which of its frames, counted from 1, are the packet that the report gives a number."""

    name: str
    data: bytes
    frames: Mapping[int, tuple[int, ...]]


def render(
    name: str,
    result: Result,
    findings: Findings,
    *,
    drawn_only: bool = False,
    every_interface: bool = False,
    notes: Iterable[Note] | None = None,
) -> Written:
    """The file of that name: the recording's packets, each once before NAT and once after it, as it was first seen.

    Or at every interface. With drawn_only, those of one trial alone: the one that the text report draws. notes are
    what `said_of_all` makes of all others, for who has them already.
    """
    recording = findings.timeline.recording
    about = f"{result.experiment} in lab {result.lab}: {result.claim}"
    if drawn_only and result.trials:
        number, drawn = result.shown()
        recording, notes = _trial_alone(result, recording, number), said(findings, drawn)
        began = datetime.fromtimestamp(drawn.started_ns // 1_000_000_000, UTC)
        about += (
            f" (trial {number} of {len(result.trials)}; the report's times count from its beginning at "
            f"{began:%H:%M:%S}.{drawn.started_ns % 1_000_000_000:09} UTC)"
        )
    file = _File(recording, every_interface=every_interface)
    frames = file.frames((*findings.timeline.paths, *findings.timeline.datagram_paths))
    comments = file.canaries()
    for number, words in said_of_all(result, findings) if notes is None else notes:
        if number in frames:
            comments.setdefault(frames[number][0] - 1, []).extend(f"#{number}: {each}" for each in words)
    return Written(name, pcapng.write(recording, file.packets, comments, comment=about), frames)


def said_of_all(result: Result, findings: Findings) -> list[Note]:
    """`said` of each trial that was recorded."""
    flows = findings.timeline.recording.flows
    return [note for trial in result.trials if trial.flow in flows for note in said(findings, trial)]


def said(findings: Findings, trial: TrialResult) -> Iterator[Note]:
    """What the report says of packets, by their numbers: what part of the evidence each is, and what befell it."""
    for arrow in build(findings, trial.flow, trial).arrows():
        words = [*(LINKS[link] for link in arrow.links), *arrow.notes]
        if words:
            yield arrow.number, words


def _trial_alone(result: Result, recording: Recording, number: int) -> Recording:
    """The part of a recording from the beginning of a trial, which counts from 1, to the next one's."""
    starts = [trial.started_ns for trial in result.trials] + [recording.ended_ns + 1]
    begin, end = starts[number - 1], starts[number]
    events = tuple(event for event in recording.events if begin <= event.time_ns < end)
    return replace(recording, started_ns=begin, ended_ns=end - 1, events=events)


class _File:
    """Which packets are in the file, in the order of their times, and which one stands for each that is not."""

    def __init__(self, recording: Recording, *, every_interface: bool) -> None:
        self.packets: list[Packet | DatagramPacket] = []
        self._place: dict[tuple[int, str, str, Direction], int] = {}
        seen, written = Sightings(), dict[tuple[bytes, int], int]()
        for packet in pcapng.kept(recording):
            like = identity(packet.frame, packet.wire_bytes)
            count, is_new = seen.add(like, (packet.netns, packet.ifname, packet.direction))
            if is_new or every_interface:
                written[like, count] = len(self.packets)
                self.packets.append(packet)
            self._place[_sighting(packet)] = written[like, count]

    def frames(self, paths: Sequence[PacketPath | DatagramPath]) -> dict[int, tuple[int, ...]]:
        """The frames of each packet that has some here, by its number."""
        found: dict[int, tuple[int, ...]] = {}
        for path in paths:
            sightings = map(_sighting, _sighted(path))
            places = {self._place[sighting] + 1 for sighting in sightings if sighting in self._place}
            if places:
                found[path.number] = tuple(sorted(places))
        return found

    def canaries(self) -> dict[int, list[str]]:
        """A comment for each canary, and each error that a host answers one with."""
        return {place: [CANARY] for place, packet in enumerate(self.packets) if _is_canary(packet)}


def _sighted(path: PacketPath | DatagramPath) -> Iterator[Packet | DatagramPacket]:
    if isinstance(path, DatagramPath):
        yield from path.hops
    else:
        for hop in path.hops:
            yield from hop.parts


def _sighting(packet: Packet | DatagramPacket) -> tuple[int, str, str, Direction]:
    return packet.time_ns, packet.netns, packet.ifname, packet.direction


def _is_canary(packet: Packet | DatagramPacket) -> bool:
    if isinstance(packet, DatagramPacket):
        return about_canary(packet.datagram)
    return packet.segment.sport == CANARY_PORT
