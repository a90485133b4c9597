"""What happened between the packets: conntrack's entries, the experiment's steps, the sockets. Pure."""

from __future__ import annotations

import errno
from collections.abc import Container, Iterator

from netlab.analysis.result import TrialResult
from netlab.analysis.timeline import Timeline
from netlab.analysis.transitions import transitions
from netlab.record.events import SocketEvent, SocketEventKind
from netlab.record.flow import Flow, ends
from netlab.record.recording import ClosedSocket
from netlab.report.sequence.diagram import Remark
from netlab.report.sequence.sightings import within_ns


def remarks(timeline: Timeline, flow: Flow, trial: TrialResult | None, netns: Container[str]) -> Iterator[Remark]:
    """What became of conntrack's entries in these namespaces; of a trial, also its steps, and its sockets' events."""
    began_ns, until_ns = within_ns(trial) if trial else (0, 0)
    for transition in transitions(flow, timeline.events, timeline.lazily_expired, timeline.ran_out):
        time_ns = timeline.moment(transition.event)
        if transition.event.netns in netns and (trial is None or time_ns <= until_ns):
            yield Remark(time_ns, transition.text)
    if trial is None:
        return
    legs = flow.legs()
    for stimulus in timeline.recording.stimuli:
        if stimulus.text and began_ns <= stimulus.time_ns <= until_ns:
            yield Remark(stimulus.time_ns, f"step: {stimulus.text}")
        elif not stimulus.text and any(
            isinstance(made, ClosedSocket) and ends(made.header) in legs for made in stimulus.made
        ):
            yield Remark(stimulus.time_ns, "the trial is over: netlab closes the sockets that are still open")
    for event in timeline.recording.events:
        if not isinstance(event, SocketEvent) or event.netns not in netns:
            continue
        if began_ns <= event.time_ns <= until_ns:
            whose = f"connection {event.connection!r}: " if event.connection else ""
            yield Remark(event.time_ns, f"{event.netns}: {whose}{_socket_words(event)}")


def _socket_words(event: SocketEvent) -> str:
    if event.kind is SocketEventKind.ERROR:
        return f"its socket has {errno.errorcode.get(event.errno, str(event.errno))}"
    return f"its socket assumes a send window of {event.window_bytes:,} bytes from now on (was {event.was_bytes:,})"
