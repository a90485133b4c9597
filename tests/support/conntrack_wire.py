"""Packets of one connection as they come to a node, written by hand, and what conntrack makes of them.

The client's window is small, unless a test says otherwise. Numbers are relative to the initial ones, CLIENT and SERVER.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from story import FLOW, packet, segment

from netlab.conntrack.kernels import Rules, rules
from netlab.conntrack.tracker import follow
from netlab.conntrack.values import Checked, CtOutcome
from netlab.record.events import ACK, PSH, SYN, ConntrackEvent, Packet
from netlab.record.flow import Leg

CLIENT, SERVER = 1000, 5000
NEW, OLD = rules("6.18.44"), rules("5.10.0-30-amd64")
LIBERAL = replace(NEW, be_liberal=True)
STRICT = replace(NEW, loose=False)
ANY_RST = replace(NEW, ignore_invalid_rst=True)
MASK = 0xFFFFFFFF


def followed(
    packets: Iterable[Packet], kernel: Rules, entries: Iterable[ConntrackEvent] = (), *, whole: bool = True
) -> list[Checked]:
    return follow(packets, kernel, translations=FLOW.translations(), entries=entries, whole=whole)


class Wire:
    """Packets as they come to the node, one microsecond after the other; seq and ack are relative."""

    def __init__(self, client: int = CLIENT, server: int = SERVER) -> None:
        self.client, self.server = client, server
        self.packets: list[Packet] = []

    def from_client(self, flags: int, seq: int, ack: int = 0, length: int = 0, window: int = 2304, **more: Any) -> Wire:
        self._add(Leg.CLIENT_TO_VIP, flags, self.client + seq, self.server + ack, length, window, **more)
        return self

    def from_server(self, flags: int, seq: int, ack: int = 5, length: int = 0, window: int = 64, **more: Any) -> Wire:
        self._add(Leg.ENDPOINT_TO_CLIENT, flags, self.server + seq, self.client + ack, length, window, **more)
        return self

    def _add(self, leg: Leg, flags: int, seq: int, ack: int, length: int, window: int, **more: Any) -> None:
        plain = segment(leg, flags, seq & MASK, ack & MASK if flags & ACK else 0, length, window)
        changed = replace(plain, **more)
        self.packets.append(packet(len(self.packets), "client-node", "in", changed))

    def opened(self, **options: Any) -> Wire:
        """A handshake and a request of 4 bytes, acknowledged."""
        self.from_client(SYN, 0, **options)
        self.from_server(SYN | ACK, 0, 1, window=65160, **options)
        self.from_client(ACK, 1, 1)
        self.from_client(PSH | ACK, 1, 1, 4)
        return self.from_server(ACK, 1)

    def checked(self, kernel: Rules = NEW) -> list[Checked]:
        return followed(self.packets, kernel)

    def last(self, kernel: Rules = NEW) -> Checked:
        return self.checked(kernel)[-1]

    def judged(self, kernel: Rules = NEW) -> tuple[CtOutcome, str]:
        return self.last(kernel).outcome, self.last(kernel).log


def outcomes(checked: list[Checked]) -> str:
    """One letter a packet: a, i, I or u."""
    letters = {CtOutcome.ACCEPT: "a", CtOutcome.IGNORE: "i", CtOutcome.INVALID: "I", CtOutcome.UNMODELLED: "u"}
    return "".join(letters[each.outcome] for each in checked)


def overshoot(length: int) -> Wire:
    """A full window of 2,304 bytes, of which the last 1,000 are sent twice, and a segment past it."""
    wire = Wire().opened().from_server(ACK, 1, 5, 2304).from_client(ACK, 5, 2305, window=0)
    return wire.from_server(ACK, 2307, 5, length)
