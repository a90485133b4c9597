"""Why a connection ended as it did: findings as a chain of causes in plain words, with packet numbers. Pure.

`explain` picks the flow, `connection_words.py` words its findings, `report/explanation.py` prints them. Whatever was
not seen is named: a chain with a gap says where the gap is.
"""

from __future__ import annotations

from collections.abc import Sequence

from netlab.analysis.connection_words import ConnectionWords
from netlab.analysis.explanation import Explanation, name, not_observed
from netlab.analysis.findings import RESETS, ConnectionFinding, Ending, Findings
from netlab.analysis.timeline import Timeline
from netlab.conntrack import kernels
from netlab.errors import LabError, UsageError
from netlab.record.events import SYN
from netlab.record.flow import Flow
from netlab.record.words import endpoint

_SHOWN = 5
"""So many of what is alike are named one by one."""


def choose(findings: Findings, wanted: str | None = None) -> tuple[Flow, tuple[Flow, ...]]:
    """The flow to explain, and the others that were reset, in the order in which they were.

    wanted is the client's "ADDRESS:PORT"; without it: the flow that was reset first, else the first that did not
    complete, else the first one. UsageError where there is no such flow, LabError where there is none at all.
    """
    flows = findings.timeline.flows
    if not flows:
        raise LabError("there is no connection to explain", "no TCP connection was seen while the lab was observed")
    endings = {flow: _told(findings, flow) for flow in flows}
    ended = [(found.killer.time_ns, flow) for flow, found in endings.items() if found.ending in RESETS and found.killer]
    reset = [flow for _, flow in sorted(ended, key=lambda pair: pair[0])]
    reset += [flow for flow, found in endings.items() if found.ending in RESETS and flow not in reset]
    if wanted is not None:
        named = [flow for flow in flows if endpoint(flow.client_address, flow.client_port) == wanted]
        if not named:
            raise UsageError(f"no flow of {wanted} was seen", f"those that were: {_list(flows)}")
        chosen = named[0]
    else:
        failed = [flow for flow, found in endings.items() if found.ending is not Ending.COMPLETED and found.packets]
        chosen = (reset or failed or list(flows))[0]
    return chosen, tuple(flow for flow in reset if flow != chosen)


def _told(findings: Findings, flow: Flow, within_ns: tuple[int, int] | None = None) -> ConnectionFinding:
    """The incarnation to tell of, of those that began in a stretch of time: the first that was reset, else the last."""
    found = findings.of(flow)
    if within_ns is not None:
        begun = [each for each in found if each.packets and each.packets[0].path.time_ns <= within_ns[1]]
        found = tuple(each for each in begun if each.packets[-1].path.time_ns >= within_ns[0]) or found
    return next((each for each in found if each.ending in RESETS), found[-1])


def _list(flows: Sequence[Flow], most: int = 8) -> str:
    names = [endpoint(flow.client_address, flow.client_port) for flow in flows[:most]]
    return ", ".join(names) + (f" and {len(flows) - most:,} more" if len(flows) > most else "")


def explain(findings: Findings, wanted: str | None = None, *, within_ns: tuple[int, int] | None = None) -> Explanation:
    """The story of one flow; `choose` says which, and what is raised.

    within_ns is the stretch of time, of a trial, in which its connection began.
    """
    timeline = findings.timeline
    flow, others = choose(findings, wanted)
    words = ConnectionWords(timeline, _told(findings, flow, within_ns))
    recording = timeline.recording
    return Explanation(
        recording.lab,
        recording.kernel,
        recording.fixes,
        flow,
        words.found.ending,
        len(timeline.of(flow)),
        words.paths[0].time_ns if words.paths else recording.started_ns,
        tuple(words.chain()),
        tuple(words.notes()),
        tuple(name(other) for other in others),
        tuple(_unseen(timeline, flow, words)),
        tuple(_disagreements(timeline, words)),
    )


def _disagreements(timeline: Timeline, words: ConnectionWords) -> list[str]:
    own = {path.number for path in words.paths}
    found = [f"#{number}: {differs}" for number, differs in timeline.disagreements if number in own]
    others = len(timeline.disagreements) - len(found)
    if others:
        found.append(f"and about {others:,} packets of other flows")
    guessed = kernels.rules(timeline.recording.kernel, timeline.recording.capabilities).guessed if found else ()
    if guessed:
        found.append(f"not probed on that kernel, and taken from its release: {', '.join(guessed)}")
    return found


def _unseen(timeline: Timeline, flow: Flow, words: ConnectionWords) -> list[str]:
    parts = [(flow.client, "the client"), (flow.node, "the node that translates"), (flow.server, "the server")]
    found = not_observed(timeline.recording, parts)
    found += [f"the crosscheck with conntrack's log on {netns}: {why}" for netns, why in timeline.unverified]
    if words.paths and not any(path.segment.flags & SYN for path in words.paths):
        found.append("the connection's beginning: sequence numbers are those on the wire")
    loose = [reason for reason in timeline.loose if flow.client_address in (reason.segment.src, reason.segment.dst)]
    if loose:
        found.append(f'the packets of {len(loose):,} of conntrack\'s log lines, as "{loose[0].text}"')
    ambiguous = dict.fromkeys(path.ambiguous for path in words.paths if path.ambiguous)
    found += list(ambiguous)[:_SHOWN]
    if len(ambiguous) > _SHOWN:
        found.append(f"{len(ambiguous) - _SHOWN:,} more groups of packets that look alike")
    return found
