"""expected-connection: conntrack made the entry of a connection that it expected, announced in the one under study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netlab.analysis.result import Evidence, Link, Proof
from netlab.experiments.moment import Moment
from netlab.experiments.words import TRACKER
from netlab.record.events import ConntrackEvent, EntryChange
from netlab.record.observers import ObserverKind
from netlab.yamlspec.shapes import Fields, Key

DOC = "conntrack in a namespace made an entry that it expected because of the connection: its first packet is RELATED"
ARGUMENTS = Fields({"in": Key(TRACKER, "the namespace whose conntrack it is", required=True)})


def look(moment: Moment, arguments: Mapping[str, Any]) -> Proof:
    """The first such entry since the step began."""
    legs = moment.flow_events.flow.legs() if moment.flow_events else {}
    for event in moment.since():
        if isinstance(event, ConntrackEvent) and event.change is EntryChange.NEW and event.netns == arguments["in"]:
            master = event.tuple_master
            if master is not None and (master.src, master.sport, master.dst, master.dport) in legs:
                return Proof((Evidence(Link.OBSERVED, event),))
    what = f"conntrack's new entry in {arguments['in']} of a connection that it expected"
    return moment.proof(what, [], ObserverKind.ENTRIES, arguments["in"])
