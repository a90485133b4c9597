"""Recordings of format 1, in which observers were known by their names in words, as JSON of today's format. Pure.

Those words are what netlab itself wrote then (da9e62f and before); this is the one place that still knows them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from netlab.record import codec
from netlab.record.observers import Gap, ObserverId, ObserverKind, Unobserved

_NAMES = {
    ObserverKind.PACKETS: r"the packets on (?P<netns>[^/]+)/(?P<ifname>.+)",
    ObserverKind.REASONS: r"conntrack's reasons on (?P<netns>.+)",
    ObserverKind.ENTRIES: r"conntrack's events on (?P<netns>.+)",
    ObserverKind.TRACES: r"the rules' traces on (?P<netns>.+)",
    ObserverKind.RULES: r"the rules on (?P<netns>.+)",
    ObserverKind.SOCKETS: r"the sockets in (?P<netns>.+)",
}
_MOST, _END = "most packets", ", which could not be read to the end"


def upgraded(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A recording's JSON as today's; ValueError where observers have names that format 1 didn't write.

    One that is of today's format already is returned as it is: only those of format 1 have `blind`.
    """
    told = dict(raw)
    if "blind" not in told:
        return told
    lost, blind = told.get("lost", []), told.pop("blind")
    if not (isinstance(lost, list) and isinstance(blind, list)):
        raise ValueError("Recording.lost or Recording.blind is no list")
    told["lost"] = [_lost(item) for item in lost]
    told["unobserved"] = [codec.to_json(_unobserved(sentence)) for sentence in blind]
    return told


def _lost(item: Any) -> list[Any]:
    match item:
        case [str(name), count] if observer := _observer(name):
            return [codec.to_json(observer), count]
    raise ValueError(f"Recording.lost: {item!r:.60} names no observer")


def _unobserved(sentence: Any) -> Unobserved:
    if not isinstance(sentence, str):
        raise ValueError(f"Recording.blind: {sentence!r:.40} is no str")
    name, _, reason = sentence.partition(": ")
    if name == _MOST:
        return Unobserved(ObserverId(ObserverKind.PACKETS, ""), reason, Gap.MOST)
    if observer := _observer(name.removesuffix(_END)):
        return Unobserved(observer, reason, Gap.END if name.endswith(_END) else Gap.ALL)
    return Unobserved(None, sentence)


def _observer(name: str) -> ObserverId | None:
    for kind, pattern in _NAMES.items():
        if found := re.fullmatch(pattern, name):
            return ObserverId(kind, **found.groupdict())
    return None
