"""Observers by a typed id: what each of them observes, and what was not observed, as values. Pure.

`observe/` opens observers, a Recording says of each what it lost. Sentences about them are made here, last; nothing
compares or parses one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from netlab.record.domains import Word


class ObserverKind(StrEnum):
    """What an observer observes, or what is asked once."""

    PACKETS = "packets"
    """The packets that cross one interface."""
    REASONS = "reasons"
    """What conntrack logs about packets that it finds INVALID or ignores."""
    ENTRIES = "entries"
    """Conntrack's entries: found, new, updated, destroyed."""
    TRACES = "traces"
    """The way of packets through the rules."""
    RULES = "rules"
    """The rules themselves, as they are listed before the others are opened."""
    SOCKETS = "sockets"
    """TCP_INFO of a namespace's sockets."""
    DROPS = "drops"
    """Packets that the kernel drops, with its reasons, in all namespaces of the run together: netns is empty."""
    RESETS = "resets"
    """RSTs that TCP sends or accepts, in all namespaces of the run together: netns is empty."""
    CLOSED_SOCKETS = "closed-sockets"
    """TCP sockets of any program, as the kernel frees them."""
    NETWORK = "network"
    """Interfaces, routes, neighbours: as they are, and how they change."""


@dataclass(frozen=True, slots=True)
class ObserverId:
    """One observer of a run. netns is empty for what is not of one namespace; ifname is that of PACKETS, else empty."""

    kind: ObserverKind
    netns: Word
    ifname: Word = ""


class Gap(StrEnum):
    """How much of what an observer was to observe is missing."""

    ALL = "all"
    """It could not be opened."""
    END = "end"
    """It was open, and could not be read to the end."""
    MOST = "most"
    """Only a part was asked for: see Recording.in_part."""


@dataclass(frozen=True, slots=True)
class Unobserved:
    """What was not observed, and why: reason is for a message alone, the kernel's or netlab's words.

    observer is None where a recording of format 1 says it in words of which nobody knows the observer.
    """

    observer: ObserverId | None
    reason: str
    gap: Gap = Gap.ALL


_NAMES = {
    ObserverKind.PACKETS: "the packets on {}",
    ObserverKind.REASONS: "conntrack's reasons on {}",
    ObserverKind.ENTRIES: "conntrack's events on {}",
    ObserverKind.TRACES: "the rules' traces on {}",
    ObserverKind.RULES: "the rules on {}",
    ObserverKind.SOCKETS: "the sockets in {}",
    ObserverKind.DROPS: "the kernel's reasons for drops",
    ObserverKind.RESETS: "the resets that the kernel sends and accepts",
    ObserverKind.CLOSED_SOCKETS: "the closed sockets of {}",
    ObserverKind.NETWORK: "the routes and neighbours of {}",
}
"""By kind, around where the observer is."""


def describe_observer(observer: ObserverId) -> str:
    """The observer in words: "the packets on client/eth0"."""
    where = f"{observer.netns}/{observer.ifname}" if observer.ifname else observer.netns
    return _NAMES[observer.kind].format(where)


def describe_unobserved(unobserved: Unobserved) -> str:
    """What was not observed, in words: "the rules' traces on node: this kernel has none"."""
    if unobserved.gap is Gap.MOST:
        return f"most packets: {unobserved.reason}"
    if unobserved.observer is None:
        return unobserved.reason
    ended = ", which could not be read to the end" if unobserved.gap is Gap.END else ""
    return f"{describe_observer(unobserved.observer)}{ended}: {unobserved.reason}"
