"""What became of a connection's conntrack entries, in words that explanations, diagrams and reports share. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from netlab.events import ConntrackEvent, EntryChange, Event, Tuple
from netlab.flow import Flow, Leg
from netlab.model import Address

_AT_ONCE_NS = 1_000_000
"""A SYN that opens a connection anew makes its entry so soon after the end of the one before."""


class Turn(NamedTuple):
    """An event after which a node's conntrack knows a connection otherwise than before, and what it means.

    adopts_answer: the new entry is one for a packet of the server's, which NAT leaves alone.
    """

    event: ConntrackEvent
    text: str
    adopts_answer: bool = False


def turns(flow: Flow, events: Iterable[Event]) -> Iterator[Turn]:
    """Where the flow's entry is lost, and where one is made for a packet in mid-stream; in the order given.

    A SYN that opens the connection anew is no turn, nor is the end of the entry that it found.
    """
    legs = flow.legs()
    found = [
        (event, leg)
        for event in events
        if isinstance(event, ConntrackEvent)
        and event.change in (EntryChange.NEW, EntryChange.DESTROY)
        and (leg := legs.get(_ends(event.tuple_orig))) in (Leg.CLIENT_TO_VIP, Leg.ENDPOINT_TO_CLIENT)
    ]
    for index, (event, leg) in enumerate(found):
        node, own = f"conntrack on {event.netns}", leg is Leg.CLIENT_TO_VIP
        if event.change is EntryChange.DESTROY:
            after = next((other for other, _ in found[index + 1 :] if other.netns == event.netns), None)
            if own and not (after and _begins(after) and after.time_ns - event.time_ns < _AT_ONCE_NS):
                yield Turn(event, f"{node} deletes the connection's entry, and its translation with it")
        elif not own:
            text = f"{node} makes an entry for a packet of {flow.server}'s, as if it began a connection: without NAT"
            yield Turn(event, text, adopts_answer=True)
        elif not _begins(event):
            who = f"a packet of {flow.client}'s in mid-stream"
            yield Turn(event, f"{node} makes an entry for {who}, translated as a new connection")


def _begins(event: ConntrackEvent) -> bool:
    """Whether a SYN made the entry; without its state, the usual is taken for granted."""
    return event.change is EntryChange.NEW and event.tcp_state in ("SYN_SENT", None)


def _ends(header: Tuple) -> tuple[Address, int, Address, int]:
    return header.src, header.sport, header.dst, header.dport
