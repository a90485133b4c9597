"""found-invalid: a rule of a namespace matched a segment of the connection as `ct state invalid`.

That is the kernel's verdict itself, also where conntrack logs no reason (`invalid`): with nf_conntrack_tcp_loose=0 it
says nothing of what it doesn't adopt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netlab.analysis.result import Evidence, Link, Proof
from netlab.experiments.moment import NO_CONNECTION, Moment
from netlab.experiments.words import END, TRACKER
from netlab.record.observers import ObserverKind
from netlab.yamlspec.shapes import Fields, Key

DOC = "a rule of the observers' own in a namespace found a segment of the connection INVALID (`ct state invalid`)"
ARGUMENTS = Fields(
    {
        "in": Key(TRACKER, "the namespace whose rules and conntrack these are", required=True),
        "from": Key(END, "whose segment (default either)"),
    }
)


def look(moment: Moment, arguments: Mapping[str, Any]) -> Proof:
    """The first such verdict since the step began."""
    events = moment.flow_events
    if events is None:
        return NO_CONNECTION
    client_port = events.flow.client_port
    for verdict in events.verdicts(arguments["in"]):
        segment = verdict.segment
        if segment is None or verdict.time_ns < moment.since_ns or client_port not in (segment.sport, segment.dport):
            continue
        sender = "client" if segment.sport == client_port else "server"
        if arguments.get("from", sender) == sender:
            return Proof((Evidence(Link.OBSERVED, verdict),))
    whose = f" of the {arguments['from']}'s" if "from" in arguments else ""
    what = f"a segment{whose} that a rule in {arguments['in']} finds INVALID"
    return moment.of_what_crossed(arguments["in"]).proof(what, [], ObserverKind.TRACES, arguments["in"])
