"""entry: conntrack made, changed or destroyed the connection's entry, as ctnetlink told it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from netlab.analysis.result import Evidence, Link, Proof
from netlab.analysis.transitions import transitions
from netlab.experiments.moment import Moment
from netlab.experiments.words import END, TRACKER
from netlab.record.events import CT_TCP_STATES, ConntrackEvent, EntryChange, Tuple
from netlab.record.flow import Flow, Leg, ends
from netlab.record.observers import ObserverKind
from netlab.record.wire import IPPROTO_TCP
from netlab.yamlspec.shapes import Choice, Fields, Key

DOC = "conntrack in a namespace made, changed or destroyed an entry of the connection's"
_CHANGES = tuple(change.value for change in EntryChange if change is not EntryChange.FOUND)
ARGUMENTS = Fields(
    {
        "in": Key(TRACKER, "the namespace whose conntrack it is", required=True),
        "change": Key(Choice("a change", _CHANGES), "what was done to it (default any)"),
        "tcp_state": Key(Choice("conntrack's TCP state", CT_TCP_STATES), "the state it then has"),
        "opened_by": Key(
            END,
            "whose packet it was made for: a server's is an entry in the wrong direction (default either)",
        ),
    }
)


def look(moment: Moment, arguments: Mapping[str, Any]) -> Proof:
    """The first such event since the step began."""
    if moment.flow_events is None:
        return Proof((), "a connection whose entry can be told")
    flow = moment.flow_events.flow
    before = False
    for event in moment.events:
        if not isinstance(event, ConntrackEvent) or event.netns != arguments["in"]:
            continue
        opener = _opened_by(event.tuple_orig, flow)
        if (
            opener is not None
            and arguments.get("change", event.change) == event.change
            and arguments.get("tcp_state", event.tcp_state) == event.tcp_state
            and arguments.get("opened_by", opener) == opener
        ):
            if event.time_ns >= moment.since_ns:
                notes = (each.text for each in transitions(flow, moment.events) if each.event is event)
                return Proof((Evidence(Link.OBSERVED, event, next(notes, "")),))
            before = True
    change = arguments.get("change", "change")
    state = f", in {arguments['tcp_state']}" if "tcp_state" in arguments else ""
    who = f", opened by the {arguments['opened_by']}" if "opened_by" in arguments else ""
    what = f"conntrack's {change} of the connection's entry in {arguments['in']}{state}{who}"
    # What came before its step was not looked for in time: that refutes nothing.
    return (replace(moment, whole=None) if before else moment).proof(what, [], ObserverKind.ENTRIES, arguments["in"])


def _opened_by(header: Tuple, flow: Flow) -> str | None:
    if header.proto != IPPROTO_TCP:
        return None
    legs = flow.legs().get(ends(header), ())
    if (header.src, header.sport) == (flow.client_address, flow.client_port) or Leg.CLIENT_TO_ENDPOINT in legs:
        return "client"
    return "server" if Leg.ENDPOINT_TO_CLIENT in legs else None
