"""invalid: conntrack said why a segment of the connection is INVALID, or that it let one pass that it might have been.

A log line is no verdict: since Linux 6.1 conntrack logs what it forgives, too. That NAT skipped a segment is a `packet`
on the leg `endpoint-to-client` reaching the client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from netlab.analysis.result import Evidence, Link, Proof
from netlab.experiments.moment import NO_CONNECTION, Moment
from netlab.experiments.words import TRACKER
from netlab.record.flow import Leg
from netlab.record.observers import ObserverKind
from netlab.topology import words
from netlab.yamlspec.shapes import Fields, Key, Text

DOC = "conntrack in a namespace logged something about a segment of the connection"
ARGUMENTS = Fields(
    {
        "in": Key(TRACKER, "the namespace whose conntrack it is", required=True),
        "reason": Key(
            Text("a regular expression", words.regex, numbers=True), "looked for in the kernel's words (default any)"
        ),
    }
)


def look(moment: Moment, arguments: Mapping[str, Any]) -> Proof:
    """The first such line since the step began."""
    if not moment.connections():
        return NO_CONNECTION
    pattern = re.compile(arguments.get("reason", ""))
    found = [
        reason
        for events in moment.connections()
        for leg in Leg
        if leg is not Leg.CANARY
        for reason in events.reasons(arguments["in"], leg)
        if reason.time_ns >= moment.since_ns and pattern.search(reason.text)
    ]
    if not found:
        which = f" that matches {pattern.pattern!r}" if pattern.pattern else ""
        what = f"a line of conntrack's log in {arguments['in']}{which}"
        return moment.of_what_crossed(arguments["in"]).proof(what, [], ObserverKind.REASONS, arguments["in"])
    first = min(found, key=lambda reason: reason.time_ns)
    return Proof((Evidence(Link.OBSERVED, first),))
