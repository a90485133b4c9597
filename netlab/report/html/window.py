"""The window chart: the server's data as the node's conntrack met it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from netlab.analysis.datagrams import DatagramPath
from netlab.conntrack.kernels import rules
from netlab.conntrack.values import CtOutcome
from netlab.record.events import seq_diff
from netlab.record.recording import Recording
from netlab.report import chart
from netlab.report.markup import Markup, tag
from netlab.report.page import figure, folded
from netlab.report.sequence.diagram import Ladder


def render(ladder: Ladder, recording: Recording) -> Markup:
    """The section, or why there is no chart."""
    points = list(_points(ladder, recording))
    if not points:
        return folded(
            "window", "The window", tag("p", f"No chart: the connection was not seen whole on {ladder.flow.node}.")
        )
    about = chart.culprit(points)
    assert about is not None
    return folded(
        "window",
        "The window",
        tag("p", chart.sentence(about)),
        figure("Window chart", *chart.drawn(points)),
        is_open=True,
    )


def _points(ladder: Ladder, recording: Recording) -> Iterator[chart.Point]:
    """Each data segment of the server's; none where the window model could not follow it."""
    if ladder.server_isn is None:
        return
    forgives = rules(recording.kernel, recording.capabilities).forgiving
    for arrow in ladder.arrows():
        path = arrow.path
        if isinstance(path, DatagramPath):
            continue
        checked = next((check.checked for check in path.checks if check.netns == ladder.flow.node), None)
        if path.to_server or not path.segment.payload_bytes or checked is None or checked.state_before is None:
            continue
        if not checked.checks:
            continue
        ignored = checked.outcome is CtOutcome.IGNORE
        yield chart.Point(
            number=path.number,
            when_ms=(path.time_ns - ladder.began_ns) / 1e6,
            seq=seq_diff(path.segment.seq, ladder.server_isn),
            end=seq_diff(path.segment.end, ladder.server_isn),
            edge=seq_diff(checked.state_before.side(checked.direction).td_maxend, ladder.server_isn),
            forgiven_bytes=checked.forgiven_bytes if forgives else None,
            fate="INVALID" if arrow.marked("INVALID") else "ignored" if ignored else "accepted",
            evidence=arrow.evidence,
        )
