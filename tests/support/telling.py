"""Odd conversations that each show something of conntrack that those before didn't: few, and at every edge."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from itertools import count

from conntrack_oracle import SETTINGS, Setting, verdict
from crafted import Tcp
from odd_conversations import Conversation
from packet_lines import HEADER, by_kernel, written
from real_conntrack import RealConntrack

from netlab.conntrack.kernels import Rules
from netlab.conntrack.tracker import Tracker
from netlab.conntrack.values import Checked
from netlab.record.events import Direction, Packet
from netlab.record.wire import decode_ip

_NEAR = range(-2, 3)
_FRUITLESS = 400
"""After so many conversations without anything new no more of a setting are tried."""


def telling(seed: int, model: Rules) -> Iterator[tuple[Setting, list[Tcp]]]:
    """Conversations, each up to its last packet that shows something new, setting by setting."""
    known: set[tuple[object, ...]] = set()
    for setting in SETTINGS:
        fruitless = 0
        for number in count():
            shown, packets = _played(Conversation(seed, number), setting.rules(model), known)
            fruitless = 0 if shown else fruitless + 1
            if shown:
                yield setting, packets[:shown]
            if fruitless == _FRUITLESS:
                break


def recorded(kernel: RealConntrack, base: Rules, seed: int) -> Iterator[str]:
    """What this kernel makes of them, as text in blocks, each after the setting."""
    release = platform.release().partition("-")[0]
    yield f"// Odd conversations, and what conntrack of Linux {release} makes of them: scripts/oracle --record\n"
    for setting, packets in telling(seed, base):
        yield f"\n// {setting}\n{by_kernel([written(tcp) for tcp in packets], kernel, setting, whole=True)}"


def _played(conversation: Conversation, rules: Rules, known: set[tuple[object, ...]]) -> tuple[int, list[Tcp]]:
    """How many packets it takes to show what isn't known, and the packets; what they show is known then."""
    tracker, shown, packets = Tracker(rules), 0, []
    while not conversation.over:
        tcp = conversation.next_segment(tracker.entry(HEADER))
        packets.append(tcp)
        segment = decode_ip(tcp.packet(HEADER))
        assert segment is not None
        checked = tracker.packet(Packet(0, "", "way", Direction.IN, segment))
        new = _shows(checked) - known
        if new:
            known |= new
            shown = len(packets)
    return shown, packets


def _shows(checked: Checked) -> set[tuple[object, ...]]:
    """What a packet shows: the way it took through the kernel's code, and the edges that it came near to."""
    before, after = checked.state_before, checked.state_after
    way = (verdict(checked), re.sub(r"\d+", "", checked.log), checked.failure)
    states = (before and before.tcp_state, after and after.tcp_state, after and after.timeout)
    found: set[tuple[object, ...]] = {way, ("state", *states, checked.direction)}
    for check in checked.checks:
        if check.margin_bytes in _NEAR:
            found.add((check.name, check.margin_bytes))
    if before and after:
        changed = [name for name in before.__slots__ if getattr(before, name) != getattr(after, name)]
        sides = [
            (side, name)
            for side in ("original", "reply")
            for name in before.original.__slots__
            if getattr(getattr(before, side), name) != getattr(getattr(after, side), name)
        ]
        found |= {("changes", checked.outcome, name) for name in changed}
        found |= {("moves", checked.outcome, checked.direction, *side) for side in sides}
    return found
