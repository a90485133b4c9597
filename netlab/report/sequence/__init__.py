"""One connection's packets across the namespaces as a sequence diagram: the model that text and HTML draw. Pure.

A packet is one arrow from the namespace that sent it to the last one that saw it, whatever number of interfaces it
crossed; `analysis/timeline.py` followed it. The arrow has a tip in each namespace that saw it, and passes others by.
What is said of it comes from what was seen: "NAT" where it was sent on with other addresses; "INVALID" where a rule
found it so, or conntrack gave a reason, and NAT left the packet alone or it went no further; "DROP" where a rule or the
kernel is known to have dropped it; "LOST" where it was last seen although its destination was watched and no event was
lost, or where no neighbour answered; "LOGGED" where conntrack gave a reason and let it pass;
"NEW", "ESTABLISHED", "RELATED", "UNTRACKED" where it matched a rule for that state alone, in a table of the topology's
own. Runs of like packets are folded into one row that counts them.

Beside the connection's own packets the diagram has what conntrack calls RELATED to it: the connections that it made
conntrack expect, and ICMP's errors about it; of a trial, also all UDP, SCTP and ICMP that was seen while it lasted.
"""

from __future__ import annotations

from dataclasses import replace

from netlab.analysis.findings import Findings
from netlab.analysis.result import TrialResult
from netlab.record.flow import Flow
from netlab.report.sequence import datagrams, segments
from netlab.report.sequence.between import remarks
from netlab.report.sequence.columns import lifelines
from netlab.report.sequence.diagram import Arrow, Ladder, Remark
from netlab.report.sequence.fold import folded
from netlab.report.sequence.frame import Frame
from netlab.report.sequence.notes import Told
from netlab.report.sequence.numbers import Numbers
from netlab.report.sequence.sightings import moment


def build(findings: Findings, flow: Flow, trial: TrialResult | None = None) -> Ladder:
    """The diagram of one of the recording's connections.

    With the trial it was, its evidence is marked and never folded, and times count from the trial's beginning;
    otherwise from the connection's first packet.
    """
    timeline = findings.timeline
    flow = timeline.known(flow)
    others = timeline.expected_by(flow)
    datagram_paths = list(datagrams.belonging(timeline, flow, trial))
    paths = [path for each in (flow, *others) for path in timeline.of(each)]
    columns = lifelines(flow, paths, datagram_paths)
    frame = Frame(
        columns={column.netns: index for index, column in enumerate(columns)},
        own_tables=timeline.own_tables,
        evidence={moment(piece.event): piece for piece in trial.evidence} if trial else {},
    )
    told = Told()
    rows: list[Arrow | Remark] = [
        *segments.arrows(findings, flow, frame, told),
        *(arrow for other in others for arrow in segments.related(findings, other, frame)),
        *(datagrams.arrow(path, frame, told) for path in datagram_paths),
        *remarks(timeline, flow, trial, frame.columns),
    ]
    rows.sort(key=lambda row: row.time_ns)
    began_ns = trial.started_ns if trial else rows[0].time_ns if rows else timeline.recording.started_ns
    empty = Ladder(flow, columns, (), began_ns, Numbers(timeline.of(flow)).server_isn)
    return replace(empty, rows=folded(rows, empty.ms))
