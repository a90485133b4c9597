"""late: a segment arrived after a copy of its data that was sent after it: what a retransmission makes superfluous."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from netlab.analysis.late import late_segments
from netlab.analysis.result import Proof
from netlab.experiments.moment import NO_CONNECTION, Moment
from netlab.experiments.words import COUNT, NETNS
from netlab.record.observers import ObserverKind
from netlab.yamlspec.shapes import Fields, Key, Seconds

DOC = (
    "a segment of the server's came to a namespace after a copy of its data that was sent later (over IPv6 they can be "
    "told apart by their timestamps alone)"
)
ARGUMENTS = Fields(
    {
        "in": Key(NETNS, "where both came to", required=True),
        "by_s": Key(Seconds(), "how long after the copy at least (default any time)"),
        "count": Key(COUNT, "at least so many of them, in all of a load's connections together (default 1)"),
    }
)


def look(moment: Moment, arguments: Mapping[str, Any]) -> Proof:
    """The first such segments that left since the step began, as they left the server."""
    netns, count = arguments["in"], arguments.get("count", 1)
    by_ns = arguments.get("by_s", 0) * 1e9
    if not moment.connections():
        return NO_CONNECTION
    each = (late_segments(events, netns, moment.since_ns, by_ns) for events in moment.connections())
    found = list(islice(chain.from_iterable(each), max(count, 1)))
    # That none is late refutes nothing: which segment is held back, and for how long, is chance.
    what = f"a segment that comes to {netns} after a copy of its data"
    return replace(moment, whole=None).proof(what, found, ObserverKind.PACKETS, netns, count)
