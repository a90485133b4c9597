"""Conntrack's log lines and the rules' traces given to the packets that they are about. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Set

from netlab.analysis.datagrams import has_passed
from netlab.analysis.merge import Draft, Tracks
from netlab.record.events import REASON_ACCURACY_NS, Direction, Event, InvalidReason, Segment, TraceStep

_MADE_NS = 1_000_000
"""So much earlier, at most, conntrack sees a packet that is made in its namespace than the interface it leaves by."""

_Header = tuple[str, tuple[int, bool], int, int, int, int, int]


def _header(netns: str, track: tuple[int, bool], segment: Segment) -> _Header:
    return (netns, track, segment.seq, segment.ack, segment.flags, segment.payload_bytes, segment.ip_id)


def _arrivals(drafts: Iterable[Draft], wanted: Set[_Header]) -> dict[_Header, list[tuple[int, Draft]]]:
    """Where the wanted packets first came into each namespace, in order of time."""
    found: dict[_Header, list[tuple[int, Draft]]] = defaultdict(list)
    for draft in drafts if wanted else ():
        track = (draft.index, draft.to_server)
        seen: set[str] = set()
        origin = next(iter(draft.places))
        if origin[2] is Direction.OUT:  # conntrack saw it before the interface did
            seen.add(origin[0])
            for part in draft.places[origin]:
                header = _header(origin[0], track, part.segment)
                if header in wanted:
                    found[header].append((part.time_ns - _MADE_NS, draft))
        for (netns, _, direction), parts in draft.places.items():
            if direction is Direction.IN and netns not in seen:
                seen.add(netns)
                for part in parts:
                    header = _header(netns, track, part.segment)
                    if header in wanted:
                        found[header].append((part.time_ns, draft))
    for arrivals in found.values():
        arrivals.sort(key=lambda arrival: arrival[0])
    return found


def attach_reasons(drafts: Iterable[Draft], events: Iterable[Event], tracks: Tracks) -> list[InvalidReason]:
    """Give each reason to the packet that came in last before it; those of these flows that find none are returned."""
    headers = [
        (event, _header(event.netns, track, event.segment))
        for event in events
        if isinstance(event, InvalidReason) and (track := tracks.of(event.segment)) is not None
    ]
    arrivals = _arrivals(drafts, {header for _, header in headers})
    loose = []
    for event, shown in headers:
        before = [
            draft
            for time_ns, draft in arrivals.get(shown, ())
            if time_ns < event.time_ns + REASON_ACCURACY_NS
            and not any(_same_line(reason, event) for reason in draft.reasons)
        ]
        if before:
            before[-1].reasons.append(event)
        else:
            loose.append(event)
    return loose


def _same_line(one: InvalidReason, other: InvalidReason) -> bool:
    """Whether both are the same words about the same piece of a packet: then the packets are two that look alike."""
    return (one.netns, one.text, one.segment.seq) == (other.netns, other.text, other.segment.seq)


def attach_traces(drafts: Iterable[Draft], events: Iterable[Event], tracks: Tracks) -> None:
    """Give each traced packet's steps to the first packet with that header that wasn't in that chain yet."""
    steps: list[tuple[TraceStep, _Header | None]] = []
    for event in events:
        if isinstance(event, TraceStep):
            header: _Header | None = None
            if event.segment is not None and (track := tracks.of(event.segment)) is not None:
                header = _header(event.netns, track, event.segment)
            steps.append((event, header))
    arrivals = _arrivals(drafts, {shown for _, shown in steps if shown is not None})
    way: dict[tuple[str, int], Draft | None] = {}
    last: dict[tuple[str, int], _Header] = {}
    for step, shown in steps:
        trace = (step.netns, step.trace_id)
        draft = way.get(trace)
        # The kernel may give a number again, to a packet that looks much like the one before, as window probes do.
        if shown is not None and (last.get(trace) != shown or (draft and has_passed(draft.trace, step))):
            last[trace] = shown
            came = (draft for time_ns, draft in arrivals.get(shown, ()) if time_ns <= step.time_ns)
            found = (draft for draft in came if not has_passed(draft.trace, step))
            draft = way[trace] = next(found, None)
        if draft:
            draft.trace.append(step)
