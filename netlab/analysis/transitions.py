"""What became of a connection's conntrack entries, in words that explanations, diagrams and reports share. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from netlab.record.events import ConntrackEvent, EntryChange, Event
from netlab.record.flow import Flow, Leg, ends
from netlab.record.words import endpoint

_DELETED = "deletes the connection's entry"

_AT_ONCE_NS = 1_000_000
"""A SYN that opens a connection anew makes its entry so soon after the end of the one before."""


class EntryTransition(NamedTuple):
    """An event after which a node's conntrack knows a connection otherwise than before, and what it means.

    adopts_answer: the new entry is one for a packet of the server's, which NAT leaves alone.
    """

    event: ConntrackEvent
    text: str
    adopts_answer: bool = False


def transitions(
    flow: Flow,
    events: Iterable[Event],
    lazily_expired: Container[ConntrackEvent] = (),
    ran_out: Mapping[ConntrackEvent, int] = MappingProxyType({}),
) -> Iterator[EntryTransition]:
    """Where the flow's entry is lost, made for a packet in mid-stream, or told other window scales; in the order given.

    A SYN that opens the connection anew is none, nor is the end of the entry that it found. lazily_expired are the ends
    of entries that had run out when a packet looked for them, ran_out those that ended for want of packets, with their
    timeout in seconds.
    """
    legs = flow.legs()
    found = [
        (event, leg)
        for event in events
        if isinstance(event, ConntrackEvent)
        for leg in legs.get(ends(event.tuple_orig), ())
        if leg in (Leg.CLIENT_TO_VIP, Leg.ENDPOINT_TO_CLIENT)
    ]
    scales: dict[str, tuple[int, int]] = {}
    for index, (event, leg) in enumerate(found):
        node, own = f"conntrack on {event.netns}", leg is Leg.CLIENT_TO_VIP
        match event.change:
            case EntryChange.DESTROY if own:
                after = next((other for other, _ in found[index + 1 :] if other.netns == event.netns), None)
                if not (after and _begins(after) and after.time_ns - event.time_ns < _AT_ONCE_NS):
                    lost = _DELETED
                    if event in lazily_expired:
                        lost = "finds that the connection's entry has run out"
                    elif event in ran_out:
                        lost = f"lets the connection's entry run out, after {ran_out[event]:,} s without a packet"
                    yield EntryTransition(event, f"{node} {lost}, and its translation with it")
            case EntryChange.NEW if not own:
                text = (
                    f"{node} makes an entry for a packet of {flow.server}'s, as if it began a connection: without NAT"
                )
                yield EntryTransition(event, text, adopts_answer=True)
            case EntryChange.NEW if not _begins(event):
                who = f"a packet of {flow.client}'s in mid-stream"
                text = f"{node} makes an entry for {who}, translated as a new connection"
                leads_to = (event.tuple_reply.src, event.tuple_reply.sport)
                if leads_to not in ((flow.endpoint, flow.target_port), (flow.vip, flow.port)):
                    text += f": it leads to another endpoint, {endpoint(*leads_to)}"
                yield EntryTransition(event, text)
            case EntryChange.UPDATE if own and event.window_scales and event.tcp_state == "ESTABLISHED":
                before = scales.setdefault(event.netns, event.window_scales)
                scales[event.netns] = event.window_scales
                for end, old, new in zip((flow.client, flow.server), before, event.window_scales, strict=True):
                    if old != new:
                        yield EntryTransition(event, f"{node} {_rescaled(end, old, new)}")


def _rescaled(end: str, old: int, new: int) -> str:
    times = f"{1 << abs(old - new):,} times {'smaller' if new < old else 'larger'} than they are"
    return f"shifts {end}'s windows by {new} bits from now on, and not by {old}: it takes them for {times}"


def _begins(event: ConntrackEvent) -> bool:
    """Whether a SYN made the entry; without its state, the usual is taken for granted."""
    return event.change is EntryChange.NEW and event.tcp_state in ("SYN_SENT", None)
