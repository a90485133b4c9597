"""Which story of a recording to tell: a TCP connection's, or a conversation's of UDP. Pure."""

from __future__ import annotations

from dataclasses import replace

from netlab.analysis.explain import explain
from netlab.analysis.explain_udp import explain_udp, headline
from netlab.analysis.explanation import Explanation
from netlab.analysis.findings import Ending, Findings
from netlab.analysis.udp import FAILURES, Conversation, conversations
from netlab.errors import UsageError
from netlab.record.words import endpoint

_SHOWN = 5


def tell(findings: Findings, wanted: str | None = None) -> Explanation:
    """The story of the flow wanted, by its client's "ADDRESS:PORT".

    Without it: that of a TCP connection, as `explain` chooses it, if one was seen; but a conversation of UDP that
    failed comes before a connection that completed. UsageError and LabError as of `explain`.
    """
    timeline = findings.timeline
    seen = conversations(timeline)
    failed = sorted((each for each in seen if each.ending in FAILURES), key=lambda each: FAILURES.index(each.ending))
    if wanted is not None:
        named = [each for each in (*failed, *seen) if _client(each) == wanted]
        connected = [endpoint(flow.client_address, flow.client_port) for flow in timeline.flows]
        if wanted in connected or not seen:
            return explain(findings, wanted)
        if not named:
            names = list(dict.fromkeys((*connected, *map(_client, seen))))
            more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
            raise UsageError(f"no flow of {wanted} was seen", f"those that were: {', '.join(names[:_SHOWN])}{more}")
        return explain_udp(timeline, named[0], _others(failed, named[0]))
    if not timeline.flows and seen:
        chosen = (*failed, *seen)[0]
        return explain_udp(timeline, chosen, _others(failed, chosen))
    told = explain(findings)
    if failed and told.ending is Ending.COMPLETED:
        return explain_udp(timeline, failed[0], _others(failed, failed[0]))
    return replace(told, notes=(*told.notes, *_others(failed))) if failed else told


def _client(conversation: Conversation) -> str:
    return endpoint(*conversation.header[:2])


def _others(failed: list[Conversation], told: Conversation | None = None) -> tuple[str, ...]:
    """The failed conversations beside the one told, in a line each."""
    lines = [headline(each) for each in failed if each is not told]
    more = (f"and {len(lines) - _SHOWN:,} more conversations of UDP that failed",) if len(lines) > _SHOWN else ()
    return (*lines[:_SHOWN], *more)
